"""The unit in examples/ under a systemd that was booted: it is ready, reloads, is watched, shut in, drained."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.test_systemd import UNIT

ROOT = Path(__file__).parent.parent
SYSTEMD = Path("/lib/systemd/systemd")
PATIENCE = 40.0
# Where this Python's own library is, if it has one.
LIBRARY = "LD_LIBRARY_PATH=/opt/python/lib"
CONFIG = """
server: {listen: 127.0.0.1:8080, public_url: "https://wiki.example.com", metrics: 127.0.0.1:9090, drain: 20s}
app: {upstream: "http://127.0.0.1:3000"}
logins: {corp: {type: oidc, issuer: "https://id.example.com", client_id: wiki, client_secret: {env: OIDC_SECRET}}}
identity: {username: "{{ claims.preferred_username }}"}
access:
  - {path: /public/**, allow: anyone}
  - {path: /**, allow: signed_in}
sessions: {secrets: [{file: /run/credentials/sidecar.service/session}]}
directory: sqlite:///var/lib/sidecar/directory.db
audit: {file: /var/log/sidecar/audit.jsonl}
reload: {control: /run/sidecar/control}
"""
# Answers /public/slow after some seconds.
APPLICATION = """
import http.server, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/public/slow":
            self.log_request()
            time.sleep(4)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")
http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Answer).serve_forever()
"""
DROP_IN = f"""
[Service]
Environment={LIBRARY}
LoadCredential=session:/etc/sidecar/session
WatchdogSec=6s
ExecStartPre=/opt/sidecar/bin/python /opt/probe.py
"""
WIKI = f"""
[Service]
Environment={LIBRARY}
ExecStart=/opt/python/bin/python3 /opt/wiki.py
"""
ASK = """
import http.client, sys
try:
    one = http.client.HTTPConnection("127.0.0.1", 8080, timeout=30)
    one.request("GET", sys.argv[1], headers={"Host": "wiki.example.com"})
    print(one.getresponse().status)
except OSError:
    print(0)
"""
# What the service can and cannot do, asked by a process that stands where it stands.
PROBE = """
import json, mmap, os, pathlib, socket
def can(what):
    try:
        what()
    except OSError:
        return False
    return True
print(json.dumps({
    "etc": can(lambda: pathlib.Path("/etc/x").write_text("")),
    "usr": can(lambda: pathlib.Path("/usr/x").write_text("")),
    "state": can(lambda: pathlib.Path("/var/lib/sidecar/x").write_text("")),
    "logs": can(lambda: pathlib.Path("/var/log/sidecar/x").write_text("")),
    "secrets": can(lambda: pathlib.Path("/etc/sidecar/secrets.env").read_text()),
    "packet": can(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "code": can(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)),
    "others": any(name.isdigit() and int(name) == 1 for name in os.listdir("/proc")),
    "home": can(lambda: os.listdir("/root")),
}))
"""


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not SYSTEMD.exists() or shutil.which("systemd-nspawn") is None,
    reason="systemd-nspawn is not installed, or not for this user",
)


class Machine:
    """A container in which systemd runs, with this machine's /usr and an /etc of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.log = folder / "boot"
        self._lay_out()
        # Nothing of the machine that the tests run on hears of it: no registration, no network, no unit.
        binds = [f"--bind-ro={there}:{here}" for there, here in self._binds.items()]
        command = ["systemd-nspawn", "-q", "--register=no", "--private-network", "--resolv-conf=off"]
        # Where systemd runs here, too, it gives a scope; elsewhere there is nobody to ask.
        command += [] if Path("/run/systemd/system").exists() else ["--keep-unit"]
        command += ["--timezone=off", "--link-journal=no", f"--machine=sidecar-{os.getpid()}", "-D", str(self.root)]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, *binds, "-b", "systemd.unit=multi-user.target"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _lay_out(self) -> None:
        root = self.root
        for name in ("usr", "var", "run", "tmp", "proc", "sys", "dev", "root", "opt/sidecar/bin", "opt/python"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path(f"/{name}").is_symlink():
                (root / name).symlink_to(f"usr/{name}")
        etc = root / "etc"
        (etc / "systemd/system/multi-user.target.wants").mkdir(parents=True)
        (etc / "sidecar").mkdir()
        shutil.copy("/etc/os-release", etc / "os-release")
        shutil.copy("/etc/ld.so.cache", etc / "ld.so.cache")
        (etc / "machine-id").touch()
        (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (etc / "group").write_text("root:x:0:\n")
        (etc / "nsswitch.conf").write_text("passwd: files systemd\ngroup: files systemd\nhosts: files\n")
        (etc / "hosts").write_text("127.0.0.1 localhost\n")
        (etc / "sidecar/config.yaml").write_text(CONFIG)
        (etc / "sidecar/secrets.env").write_text("OIDC_SECRET=a client secret\n")
        (etc / "sidecar/secrets.env").chmod(0o600)
        (etc / "sidecar/session").write_text("a session secret that is long enough for anybody")
        (etc / "sidecar/session").chmod(0o600)
        (etc / "systemd/system/sidecar.service").write_text(UNIT.read_text())
        # What an operator changes goes into a drop-in.
        drop_in = etc / "systemd/system/sidecar.service.d"
        drop_in.mkdir()
        drop_in.joinpath("ours.conf").write_text(DROP_IN)
        (etc / "systemd/system/wiki.service").write_text(WIKI)
        (root / "opt/wiki.py").write_text(APPLICATION)
        (root / "opt/ask.py").write_text(ASK)
        (root / "opt/probe.py").write_text(PROBE)
        self._install(root / "opt/sidecar")

    def _install(self, venv: Path) -> None:
        """A virtual environment at /opt/sidecar, out of the one that the tests run in."""
        python = Path(os.path.realpath(sys.executable))
        packages = next(one for one in map(Path, sys.path) if one.name == "site-packages")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self._binds = {str(python.parent.parent): "/opt/python", str(packages): "/opt/packages"}
        self._binds |= {str(ROOT / "sidecar"): "/opt/source/sidecar", "/usr": "/usr"}
        # What the compiled modules share, where they are.
        self._binds |= {str(path): f"/opt/source/{path.name}" for path in ROOT.glob("sidecar__mypyc.*.so")}
        site = venv / "lib" / version / "site-packages"
        site.mkdir(parents=True)
        (site / "ours.pth").write_text("/opt/source\n/opt/packages\n")
        (venv / "pyvenv.cfg").write_text("home = /opt/python/bin\ninclude-system-site-packages = false\n")
        (venv / "bin/python").symlink_to(f"/opt/python/bin/{python.name}")
        script = venv / "bin/sidecar"
        script.write_text("#!/opt/sidecar/bin/python\nfrom sidecar.__main__ import main\nmain()\n")
        script.chmod(0o755)

    def is_up(self) -> bool:
        """True once everything that is to be started was."""
        with suppress(StopIteration, OSError):
            return self.run("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}
        return False

    @property
    def leader(self) -> int:
        """Process id of its systemd."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next(int(one) for one in children if Path(f"/proc/{one}/comm").read_text() == "systemd\n")

    def _entering(self) -> list[str]:
        where = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        return [*where, "env", LIBRARY]

    def run(self, *words: str, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a command in there."""
        return subprocess.run(
            [*self._entering(), *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=patience,
            stdin=subprocess.DEVNULL,
        )

    def good(self, *words: str) -> str:
        """Run a command that has to succeed."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def journal(self) -> str:
        """What the service said."""
        return self.run("journalctl", "-u", "sidecar", "-o", "cat", "--no-pager").stdout

    def shows(self, name: str) -> str:
        """A property of the service."""
        return self.good("systemctl", "show", "-P", name, "sidecar").strip()

    def asking(self, path: str) -> subprocess.Popen[str]:
        """A request that is under way; it prints the status in the end."""
        words = ("/opt/python/bin/python3", "/opt/ask.py", path)
        return subprocess.Popen([*self._entering(), *words], stdout=subprocess.PIPE, text=True)

    def status(self, path: str) -> int:
        """Status of a request, 0 where nobody answers."""
        return int(self.asking(path).communicate(timeout=PATIENCE)[0])

    def configure(self, more: str = "") -> None:
        """Write the configuration with *more* at its end."""
        (self.root / "etc/sidecar/config.yaml").write_text(CONFIG + more)

    def stop(self) -> None:
        """Switch it off."""
        with suppress(ProcessLookupError, StopIteration, OSError):
            # SIGRTMIN+4: systemd powers off.
            os.kill(self.leader, signal.SIGRTMIN + 4)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)


def until(what: Any, within: float = PATIENCE) -> None:
    """Wait until *what* is true."""
    end = time.monotonic() + within
    while not what():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that was switched on."""
    one = Machine(tmp_path_factory.mktemp("machine"))
    try:
        end = time.monotonic() + PATIENCE
        while not one.is_up():
            if one.process.poll() is not None or time.monotonic() > end:
                pytest.skip(f"systemd cannot be booted here: {one.log.read_text()[-300:]}")
            time.sleep(0.2)
        yield one
    finally:
        one.stop()


@pytest.fixture
def served(machine: Machine) -> Machine:
    """The service runs: started anew where a test stopped it, with the first configuration."""
    machine.configure()
    machine.good("systemctl", "start", "wiki", "sidecar")
    # Type=notify: it serves as soon as systemctl is back. The application need not be as quick.
    assert machine.status("/private") == 401
    until(lambda: machine.status("/public/x") == 200)
    return machine


def test_a_reload_is_waited_for_and_fails_where_the_configuration_is_refused(served: Machine) -> None:
    assert served.shows("StatusText") == "serving https://wiki.example.com"
    served.configure("pages: {support: somebody}\n")
    served.good("systemctl", "reload", "sidecar")
    assert "pages.support: (nothing) → somebody" in served.journal()
    # Root at a terminal may ask, too, although the service knows no other users.
    assert "nothing has changed" in served.good("/opt/sidecar/bin/sidecar", "reload", "/etc/sidecar/config.yaml")
    before = served.shows("MainPID")
    served.configure("nonsense: 1\n")
    assert served.run("systemctl", "reload", "sidecar").returncode == 1
    assert "config.yaml:13:1: error: nonsense" in served.journal()
    grave = served.good("journalctl", "-u", "sidecar", "-p", "warning", "-o", "cat", "--no-pager")
    assert "config.yaml:13:1: error: nonsense" in grave
    assert '"listening"' not in grave
    assert "refused" in served.shows("StatusText")
    assert (served.shows("ActiveState"), served.shows("MainPID")) == ("active", before)
    assert served.status("/public/x") == 200


def test_its_lines_are_json_and_it_writes_and_sees_only_what_it_must(served: Machine) -> None:
    text = served.good("journalctl", "-b", "-u", "sidecar", "-o", "cat", "--no-pager")
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert "listening" in {line.get("event") for line in lines}
    probed = next(line for line in lines if "etc" in line)
    assert {name for name, can in probed.items() if can} == {"state", "logs"}
    audit = served.root / "var/log/private/sidecar/audit.jsonl"
    until(lambda: '"path":"/public/x"' in audit.read_text())
    # Nobody but root and the service.
    assert (audit.stat().st_mode & 0o077, audit.parent.parent.stat().st_mode & 0o077) == (0, 0)
    # A process that is killed for hanging must not leave its memory on the disk.
    assert served.shows("LimitCORE") == "0"
    # The probe is no blind one: outside of the sandbox it sees and writes all that.
    outside = json.loads(served.good("/opt/python/bin/python3", "/opt/probe.py"))
    assert all(outside[name] for name in ("etc", "secrets", "packet", "code", "others", "home"))


def test_whoever_hangs_is_killed_and_started_again(served: Machine) -> None:
    before, restarts = served.shows("MainPID"), int(served.shows("NRestarts"))
    served.good("kill", "-STOP", before)
    until(lambda: int(served.shows("NRestarts")) == restarts + 1)
    until(lambda: served.shows("ActiveState") == "active")
    assert served.shows("MainPID") != before
    assert served.status("/public/x") == 200
    assert "watchdog" in served.journal().lower()


def test_a_stop_lets_the_request_end_that_is_under_way(served: Machine) -> None:
    asking = served.asking("/public/slow")
    until(lambda: "GET /public/slow" in served.good("journalctl", "-u", "wiki", "-o", "cat", "--no-pager"))
    began = time.monotonic()
    served.good("systemctl", "stop", "sidecar")
    assert time.monotonic() - began < 20
    assert asking.communicate(timeout=PATIENCE)[0].strip() == "200"
    assert (served.shows("Result"), served.shows("ExecMainStatus")) == ("success", "0")
    assert served.status("/public/x") == 0
    audit = (served.root / "var/log/private/sidecar/audit.jsonl").read_text()
    assert '"event":"service-stopped"' in audit
