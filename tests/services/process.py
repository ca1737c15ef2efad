"""Run a real server that can be stopped, started again on its port and paused, and never outlives the tests."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 15.0
# Where Debian and Ubuntu keep servers that are not on an ordinary user's PATH.
SERVER_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin", "/sbin")

# The kernel signals a child when the *thread* that started it ends, so one thread starts them all, and stays.
_launcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")


class ServiceMissingError(AssertionError):
    """A program that the tests need is not installed."""


class ServiceFailedError(AssertionError):
    """A server ended, or did not answer in time; the message carries the end of its log."""


def find_program(name: str, *directories: str) -> str:
    """Return the path of a program, looking in `directories` before PATH; raises ServiceMissingError."""
    search = os.pathsep.join([*directories, os.environ.get("PATH", ""), *SERVER_DIRECTORIES])
    found = shutil.which(name, path=search)
    if found is None:
        message = f"{name} is not installed; `make test` installs it, or run tools/system-packages"
        raise ServiceMissingError(message)
    return found


# Ports that were given away not long ago, each with the name that keeps the other test processes off it.
_reserved: deque[socket.socket] = deque(maxlen=128)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on, and that no other test process is given for a while.

    It lies below those that the kernel gives to outgoing connections and to port 0: one of these would be somebody
    else's before its server is up, or while that is stopped.
    """
    lowest, highest = 12_000, _first_ephemeral_port() - 1
    while True:
        port = random.randint(lowest, max(highest, lowest + 20_000))
        mark = socket.socket(socket.AF_UNIX)
        try:
            # A name in the kernel's abstract space: one holder on this machine, and it goes with its process.
            mark.bind(f"\0sidecar-tests-port-{port}")
            with socket.socket() as probe:
                probe.bind((HOST, port))
        except OSError:
            mark.close()
            continue
        if len(_reserved) == _reserved.maxlen:
            _reserved.popleft().close()
        _reserved.append(mark)
        return port


def _first_ephemeral_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32_768


def unprivileged(account: str) -> str | None:
    """Return `account` when the tests run as root, None when they do not: the server then runs as they do."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(account)
    except KeyError as error:
        message = f"the system account {account} is missing, and this server refuses to run as root"
        raise ServiceMissingError(message) from error
    return account


def new_directory(prefix: str, owner: str | None = None) -> Path:
    """Return a new empty directory with a short path (Unix sockets in it must stay under 108 bytes)."""
    directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir="/tmp"))
    if owner is not None:
        shutil.chown(directory, owner, pwd.getpwnam(owner).pw_gid)
    return directory


def handed_over(file: Path, place: Path, owner: str | None) -> None:
    """Copy a private file to where a server that runs as *owner* may read it, and nobody else."""
    shutil.copyfile(file, place)
    place.chmod(0o600)
    if owner is not None:
        shutil.chown(place, owner, pwd.getpwnam(owner).pw_gid)


def _set_privileges(account: str | None, *options: str) -> list[str]:
    """Return what goes before a command so that it runs as `account` (None: unchanged) with setpriv's `options`."""
    words = [*options]
    if account is not None:
        words += ["--reuid", account, "--regid", str(pwd.getpwnam(account).pw_gid), "--clear-groups"]
    return [find_program("setpriv"), *words, "--"] if words else []


def run_once(command: Sequence[str], account: str | None = None) -> str:
    """Run a set-up command to its end and return what it printed; raises ServiceFailedError with its errors."""
    done = subprocess.run(
        [*_set_privileges(account), *command],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        message = f"{command[0]} failed ({done.returncode}): {(done.stderr or done.stdout)[-2000:]}"
        raise ServiceFailedError(message)
    return done.stdout


class Server:
    """One server process. `answers` says whether it truly serves; `stop_signal` is the quickest safe way to end it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        answers: Callable[[], bool],
        account: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        environment: dict[str, str] | None = None,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._name = name
        self._command = [*_set_privileges(account, "--pdeathsig", "KILL"), *command]
        self._answers = answers
        self._stop_signal = stop_signal
        self._environment = environment
        self._start_seconds = start_seconds
        self._log_path = new_directory("sidecar-log") / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process is alive (a paused one is)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Number of the process; 0 when it was not started."""
        return self._process.pid if self._process is not None else 0

    @property
    def log(self) -> str:
        """What the server has written to its standard output and error."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def start(self) -> Self:
        """Start the process and wait until it answers; raises ServiceFailedError."""
        with self._log_path.open("ab") as log:
            self._process = _launcher.submit(
                subprocess.Popen,
                self._command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(self._environment or {})},
            ).result()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + self._start_seconds
        while self.is_running and not self._answers():
            if time.monotonic() > end:
                raise self._failed(f"did not answer in {self._start_seconds:.0f} s")
            time.sleep(0.02)
        # Asked last: another server that took the port after the probe may be what answered.
        if not self.is_running:
            raise self._failed("ended while starting")

    def _failed(self, what: str) -> ServiceFailedError:
        return ServiceFailedError(f"{self._name} {what}:\n{self.log[-3000:]}")

    def stop(self) -> None:
        """End the process and wait for it; harmless when it is not running. The data stay for the next `start()`."""
        process = self._process
        if process is None:
            return
        self.resume()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, self._stop_signal)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._process = None

    def discard(self) -> None:
        """Stop for good and forget the log."""
        self.stop()
        shutil.rmtree(self._log_path.parent, ignore_errors=True)

    def pause(self) -> None:
        """Freeze the process with its children: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)
        # A stop reaches the threads one after another; until the last, an answer can still slip out.
        deadline = time.monotonic() + 5
        while not self._is_frozen() and time.monotonic() < deadline:
            time.sleep(0.001)

    def _is_frozen(self) -> bool:
        if self._process is None:
            return True
        states = []
        for pid in (self._process.pid, *_descendants(self._process.pid)):
            for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
                with suppress(OSError):
                    states.append(stat.read_text().rpartition(")")[2].split()[0])
        return all(state in "TtZX" for state in states)

    def resume(self) -> None:
        """Let a paused process go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        for pid in (self._process.pid, *_descendants(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _descendants(pid: int) -> list[int]:
    # PostgreSQL puts each backend in a process group of its own, so the group of the parent does not reach them.
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [below for child in children for below in (child, *_descendants(child))]


class Service(Protocol):
    """Something built around a `Server` that can be started and thrown away."""

    def start(self) -> object:
        """Start and wait until it answers."""
        ...

    def discard(self) -> None:
        """Stop for good and delete everything."""
        ...


S = TypeVar("S", bound=Service)


def start_on_free_port(make: Callable[[int], S], attempts: int = 3) -> S:
    """Start `make(port)` on a free port, again on another one when the server could not take it."""
    for attempt in range(1, attempts + 1):
        service = make(free_port())
        try:
            service.start()
        except BaseException as error:
            service.discard()
            if attempt == attempts or not isinstance(error, ServiceFailedError):
                raise
        else:
            return service
    message = "attempts must be at least 1"
    raise ValueError(message)
