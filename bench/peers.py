"""Start what is compared: the sidecar, its peers where they are installed, and what stands around them."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import sidecar
from bench import configs
from bench.configs import Place
from bench.cpu import Processes
from bench.load import program
from bench.sign_in import sign_in
from tests.services.process import Server, free_port, new_directory
from tests.services.redis import RedisServer

ROOT = Path(__file__).parent.parent
LARGE = 512 << 20
_MEMORY = Path("/dev/shm")
_WWW = "www-data"
# With the sidecar's own dependencies, and no others.
_PYTHON = ROOT / ".cache/bench/environment/bin/python"
OAUTH2_PROXY = ROOT / ".cache/bench/bin/oauth2-proxy"


def python() -> str:
    """What runs the sidecar that is measured."""
    return str(_PYTHON) if _PYTHON.exists() else sys.executable


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass(slots=True)
class Peer:
    """One server that runs: where, what it costs, and the cookie of somebody who signed in there."""

    name: str
    place: Place
    server: Server
    cookie: str = ""

    @property
    def processes(self) -> Processes:
        """What it costs."""
        return Processes(self.server.pid)

    def sign_in(self, login: str = "ada") -> str:
        """Sign somebody in there."""
        return asyncio.run(sign_in(f"{self.place.url}/", login))


@dataclass(slots=True)
class Kind:
    """A sort of server: its name, what it needs (None: it is there), how its version is asked, and how it starts."""

    name: str
    missing: Callable[[], str | None]
    version: Callable[[], str]
    start: Callable[[Place], Server]
    signs_in: bool = True


def _user() -> str:
    # A master that is root gives its workers to somebody else.
    return _WWW if os.geteuid() == 0 else ""


def _nginx(text: str, place: Place | int, folder: Path) -> Server:
    port = place if isinstance(place, int) else place.port
    file = folder / "nginx.conf"
    file.write_text(text)
    if user := _user():
        shutil.chown(folder, user, user)
    command = [str(program("nginx")), "-c", str(file), "-p", str(folder), "-e", str(folder / "error.log")]
    return Server("nginx", command, answers=lambda: listens(port))


def _start_bare(place: Place) -> Server:
    user = f"user {_user()};" if _user() else ""
    return _nginx(configs.nginx_bare(place, user), place, place.folder)


def _start_apache(place: Place, *, in_redis: bool) -> Server:
    file = place.folder / "apache.conf"
    file.write_text(configs.apache(place, _user(), in_redis=in_redis))
    command = [str(program("apache2")), "-DFOREGROUND", "-f", str(file)]
    return Server("apache2", command, answers=lambda: listens(place.port))


def _start_oauth2_proxy(place: Place) -> Server:
    command = [str(OAUTH2_PROXY), *configs.oauth2_proxy(place)]
    return Server("oauth2-proxy", command, answers=lambda: listens(place.port))


def start_sidecar(place: Place, events: str = "", server: str = "", more: str = "") -> Server:
    """Start the sidecar; *events* are the audit lines that it writes, *server* and *more* its settings."""
    file = place.folder / "config.yaml"
    file.write_text(configs.sidecar(place, events, server) + more)
    command = [python(), "-m", "sidecar", "run", str(file)]
    environment = {**configs.sidecar_environment(place), "PYTHONPATH": str(ROOT)}
    return Server("sidecar", command, answers=lambda: listens(place.port), environment=environment)


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().partition("\n")[0]


def _debian(package: str) -> str:
    return f"{package} {_said('dpkg-query', '-W', '-f', '${Version}', package)}"


def _no_program(name: str, package: str) -> str | None:
    return None if program(name) else f"the Debian package {package} is not installed"


def _no_apache() -> str | None:
    module = Path("/usr/lib/apache2/modules/mod_auth_openidc.so")
    if not module.exists():
        return "the Debian package libapache2-mod-auth-openidc is not installed"
    return _no_program("apache2", "apache2")


def _no_oauth2_proxy() -> str | None:
    return None if OAUTH2_PROXY.exists() else "it was not built: Go 1.24 or later is needed, and its module proxy"


SIDECAR = "sidecar"
KEPT = "sidecar, each worker kept to one core"
BARE = "nginx, bare proxy_pass"
KINDS = (
    Kind(BARE, lambda: _no_program("nginx", "nginx"), lambda: _said("nginx", "-v"), _start_bare, signs_in=False),
    Kind(
        SIDECAR,
        lambda: None,
        lambda: ", ".join(
            (
                f"Python {sys.version.partition(' ')[0]}, aiohttp {_version('aiohttp')}, uvloop {_version('uvloop')}",
                "request path compiled" if sidecar.is_compiled() else "nothing compiled",
            )
        ),
        start_sidecar,
    ),
    Kind("oauth2-proxy, Redis", _no_oauth2_proxy, lambda: _said(str(OAUTH2_PROXY), "--version"), _start_oauth2_proxy),
    Kind(
        "mod_auth_openidc, shared memory",
        _no_apache,
        lambda: _debian("libapache2-mod-auth-openidc"),
        lambda place: _start_apache(place, in_redis=False),
    ),
    Kind(
        "mod_auth_openidc, Redis",
        _no_apache,
        lambda: _debian("libapache2-mod-auth-openidc"),
        lambda place: _start_apache(place, in_redis=True),
    ),
)


def _version(package: str) -> str:
    from importlib.metadata import version  # noqa: PLC0415 - for one line

    return version(package)


@dataclass
class Surroundings:
    """Redis, the identity provider and the applications; peers that are started here are stopped here."""

    redis: RedisServer
    provider_port: int
    application: int
    taker: int
    servers: list[Server] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    _spare: list[int] = field(default_factory=list)

    @classmethod
    def start(cls) -> Surroundings:
        """Start everything but the peers."""
        redis = RedisServer(free_port()).start()
        ports = [free_port() for _ in range(40)]
        here = cls(redis, ports.pop(), ports.pop(), ports.pop())
        here._spare = ports
        here._start_provider()
        here._start_applications()
        return here

    def _start_provider(self) -> None:
        paths = ("/-/callback/corp", "/oauth2/callback", "/callback")
        words = [sys.executable, "-m", "sidecar.demo.idp", "--port", str(self.provider_port)]
        words += ["--client-id", configs.CLIENT, "--client-secret", configs.SECRET]
        for port in self._spare:
            for path in paths:
                words += ["--redirect-uri", f"http://127.0.0.1:{port}{path}"]
        self._begin(
            Server(
                "provider",
                words,
                answers=lambda: listens(self.provider_port),
                environment={"PYTHONPATH": str(ROOT)},
            )
        )

    def _start_applications(self) -> None:
        folder = self.folder()
        large = self.folder(in_memory=True) / "large"
        with large.open("wb") as file:
            for _ in range(LARGE >> 20):
                file.write(bytes(1 << 20))
        large.chmod(0o644)
        user = f"user {_user()};" if _user() else ""
        text = configs.nginx_application(self.application, folder, large, user)
        self._begin(_nginx(text, self.application, folder))
        self._begin(
            Server(
                "taker",
                [sys.executable, "-m", "bench.application", str(self.taker)],
                answers=lambda: listens(self.taker),
                environment={"PYTHONPATH": str(ROOT)},
            )
        )

    def _begin(self, server: Server) -> Server:
        server.start()
        self.servers.append(server)
        return server

    @property
    def redis_processes(self) -> Processes:
        """What the session store costs."""
        return Processes(self.redis.pid)

    def folder(self, *, in_memory: bool = False) -> Path:
        """Make a folder that is deleted at the end."""
        folder = new_directory("bench")
        if in_memory and _MEMORY.is_dir():
            folder.rmdir()
            folder = _MEMORY / folder.name
            folder.mkdir()
        folder.chmod(0o755)
        self.folders.append(folder)
        return folder

    def place(self, *, to_taker: bool = False, workers: int = 2) -> Place:
        """Somewhere for one more server to run."""
        return Place(
            port=self._spare.pop(),
            folder=self.folder(),
            application=self.taker if to_taker else self.application,
            issuer=f"http://127.0.0.1:{self.provider_port}/id",
            redis=self.redis.url,
            workers=workers,
        )

    def peers(self, wanted: tuple[str, ...] = (), *, to_taker: bool = False, workers: int = 2) -> list[Peer]:
        """Start every kind that is there (or those *wanted*), and sign in at each."""
        found = []
        for kind in KINDS:
            if wanted and kind.name not in wanted:
                continue
            why = kind.missing()
            if why is not None:
                self.absent[kind.name] = why
                continue
            self.versions[kind.name] = kind.version()
            peer = self._peer(kind, self.place(to_taker=to_taker, workers=workers))
            peer.cookie = peer.sign_in() if kind.signs_in else ""
            found.append(peer)
        return found

    def _peer(self, kind: Kind, place: Place) -> Peer:
        return Peer(kind.name, place, self._begin(kind.start(place)))

    def sidecar(self, *, to_taker: bool = False, workers: int = 1) -> Peer:
        """Start one more sidecar."""
        return self._peer(KINDS[1], self.place(to_taker=to_taker, workers=workers))

    def replica(self, of: Peer) -> Peer:
        """Start a sidecar that browsers find where that one is."""
        return self._peer(KINDS[1], replace(self.place(workers=1), public=of.place.url))

    def without_decisions(self) -> Peer:
        """Start a sidecar that writes no audit lines about decisions."""
        kind = replace(KINDS[1], start=partial(start_sidecar, events='"!decision"'))
        return self._peer(kind, self.place())

    def kept_to_cores(self) -> Peer:
        """Start a sidecar of which each worker keeps to one core; signed in."""
        kind = replace(KINDS[1], name=KEPT, start=partial(start_sidecar, server="cpu_affinity: true"))
        peer = self._peer(kind, self.place())
        peer.cookie = peer.sign_in()
        return peer

    def for_front_proxies(self) -> Peer:
        """Start a sidecar that front proxies on this machine may ask."""
        more = "forward_auth: {dialect: nginx, from: [127.0.0.1]}\n"
        return self._peer(replace(KINDS[1], start=partial(start_sidecar, more=more)), self.place())

    def end(self, peers: list[Peer]) -> None:
        """Stop *peers*."""
        for peer in peers:
            self.servers.remove(peer.server)
            peer.server.discard()

    def stop(self) -> None:
        """Stop and delete everything."""
        for server in reversed(self.servers):
            server.discard()
        self.redis.discard()
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
