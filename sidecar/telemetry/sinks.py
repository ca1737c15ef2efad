"""Where audit lines go: a file that is rotated, standard output, a syslog server."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from sidecar.core.audit_export import GRAVE
from sidecar.core.chain import place_of

_STDOUT = 1
_PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
# What a datagram over IPv4 carries at most.
_LONGEST_DATAGRAM = 65_507
_PORTION = 4096
_NOTICE, _WARNING = 5, 4
_EVENT = re.compile(rb'{"time":"([^"]*)","event":"([^"]*)"')
# What somebody should look at: as `is_bad` of core.audit_export has it, of a line that is not parsed.
_EFFECTS = (b'"effect":"deny"', b'"effect":"unavailable"')
_ENDINGS = (b"-failed", b"-refused")
# Seconds and parts of a full file after which one looks whether it was moved, or is full: each look lets go of Python's
# lock twice, for which the event loop pays.
_LOOK_AFTER, _LOOKS_PER_FILE = 0.5, 16
# A line is at most this long, in bytes, where the last one of a file is looked for.
_LONGEST = 256 * 1024


class Sink(Protocol):
    """Somewhere that audit lines go to."""

    def write(self, lines: bytes) -> int:
        """Append whole lines, and say how many bytes were taken; may block, is called in a thread. Raises OSError."""

    def place(self) -> str:
        """The line that stands last there (see core.chain.Place); "" when nobody can know. Raises OSError for now."""

    def close(self) -> None:
        """Let go of the place."""


@runtime_checkable
class Deferring(Protocol):
    """A sink that takes lines for somewhere else, to which they may not get for a while."""

    @property
    def complaint(self) -> str:
        """Why they do not get there; "" while they do."""


class FileSink:
    """Appends to a file, following it when a log rotation moves it away, and rotating it itself where told to."""

    def __init__(self, path: Path, rotate_at: int | None = None, keep: int = 1) -> None:
        """Open *path* for appending, readable by its owner and group only. Raises OSError that names the setting.

        From *rotate_at* bytes on it becomes ``path.1``, that ``path.2``, and so on; *keep* of them stay.
        """
        self._path = path
        self._rotate_at = rotate_at
        self._keep = keep
        self._look_each = (rotate_at or sys.maxsize) / _LOOKS_PER_FILE
        self._looked, self._unlooked = 0.0, 0
        try:
            self._descriptor = self._open()
            self._end_what_was_cut()
        except OSError as error:
            message = f"audit.file: {path}: {error.strerror}"
            raise OSError(message) from None

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _end_what_was_cut(self) -> None:
        """A line that a crash or a full disk cut short shall not spoil the next one."""
        last = self._read_last(1)
        if last and last != b"\n":
            os.write(self._descriptor, b"\n")

    def _read_last(self, most: int) -> bytes:
        try:
            size = os.fstat(self._descriptor).st_size
            return os.pread(self._descriptor, most, max(0, size - most))
        except OSError:
            # A pipe or a device has no end that could be read.
            return b""

    def place(self) -> str:
        """The line that stands last, as anchors name it (see core.chain.Place); "" when there is none in a chain."""
        found = place_of(self._read_last(_LONGEST).rstrip(b"\n").rpartition(b"\n")[2])
        return "" if found is None else str(found)

    def write(self, lines: bytes) -> int:
        """Append *lines*: whole lines in one write keep those of several workers apart."""
        now = time.monotonic()
        if now >= self._looked + _LOOK_AFTER or self._unlooked >= self._look_each:
            self._look()
            self._looked, self._unlooked = now, 0
        taken = os.write(self._descriptor, lines)
        self._unlooked += taken
        return taken

    def _look(self) -> None:
        if self._is_moved():
            self._reopen()
        elif self._rotate_at is not None and os.fstat(self._descriptor).st_size >= self._rotate_at:
            self._rotate()

    def _reopen(self) -> None:
        # Opened first: a descriptor that is closed and cannot be replaced would soon be somebody else's.
        fresh = self._open()
        os.close(self._descriptor)
        self._descriptor = fresh

    def _rotate(self) -> None:
        """Move the file away, once however many workers see that it is time."""
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._is_moved():
                for number in range(self._keep - 1, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        self._numbered(number).replace(self._numbered(number + 1))
                self._path.replace(self._numbered(1))
            self._reopen()
        finally:
            os.close(lock)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _is_moved(self) -> bool:
        ours = os.fstat(self._descriptor)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class StdoutSink:
    """Writes to standard output, for container log collectors."""

    def place(self) -> str:
        """Nothing can be read back there."""
        return ""

    def write(self, lines: bytes) -> int:
        """Write *lines*."""
        return os.write(_STDOUT, lines)

    def close(self) -> None:
        """Nothing to close: standard output is not ours."""


class SyslogSink:
    """Sends each line as a message of RFC 5424: by UDP (RFC 5426), TCP (RFC 6587, counted) or TLS (RFC 5425).

    Who listens at a socket of this machine (journald, rsyslog) expects what syslog(3) of the C library writes.

    What a server received and did not keep is not known to the sender: over UDP never, over TCP when it ends.
    """

    def __init__(self, url: str, facility: int, tls: ssl.SSLContext | None, timeout: float) -> None:
        """Send to *url*, such as ``tls://logs.example.com:6514``; *timeout* in seconds bounds each step."""
        parts = urlsplit(url)
        self._kind = parts.scheme
        self._address = (parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0))
        self._path = parts.path
        self._priority = facility * 8
        self._tls = tls
        self._timeout = timeout
        self._host = _named(socket.gethostname())
        self._socket: socket.socket | None = None

    def place(self) -> str:
        """Nothing can be read back there."""
        return ""

    def reach(self) -> str:
        """Connect, send nothing, and say what can be known. Raises OSError."""
        if self._socket is None:
            self._socket = self._connected()
        if self._kind == "udp":
            return f"{self._address[0]}: over UDP nobody can know whether somebody listens"
        return f"{self._path or self._address[0]} takes connections"

    def write(self, lines: bytes) -> int:
        """Send as many *lines* as can be sent. Raises OSError when none can."""
        taken = 0
        try:
            if self._socket is not None and self._has_ended(self._socket):
                self.close()
            if self._socket is None:
                self._socket = self._connected()
            for line in lines.splitlines(keepends=True):
                message = self._message(line.rstrip(b"\n"))
                if self._kind in {"tcp", "tls"}:
                    self._socket.sendall(b"%d %s" % (len(message), message))
                else:
                    self._socket.send(message[:_LONGEST_DATAGRAM])
                taken += len(line)
        except OSError as error:
            self.close()
            if not taken:
                # Some of them, those of TLS for instance, say nothing else.
                error.strerror = error.strerror or str(error)
                raise
        return taken

    def _has_ended(self, door: socket.socket) -> bool:
        """True when the server has closed the connection: the kernel would still take what nobody will read."""
        if self._kind not in {"tcp", "tls"}:
            return False
        door.settimeout(0)
        try:
            # It has nothing to say, but TLS may have: tickets, new keys.
            return door.recv(_PORTION) == b""
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True
        finally:
            door.settimeout(self._timeout)

    def _connected(self) -> socket.socket:
        if self._kind == "unix":
            door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            door.settimeout(self._timeout)
            door.connect(self._path)
            return door
        if self._kind == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
            door = socket.socket(family, kind, protocol)
            door.settimeout(self._timeout)
            door.connect(address)
            return door
        door = socket.create_connection(self._address, self._timeout)
        if self._tls is None:
            return door
        try:
            return self._tls.wrap_socket(door, server_hostname=self._address[0])
        except OSError:
            door.close()
            raise

    def _message(self, line: bytes) -> bytes:
        found = _EVENT.match(line)
        stamp, event = (found[1], found[2]) if found else (b"-", b"-")
        is_bad = event.endswith(_ENDINGS) or event.decode() in GRAVE or any(effect in line for effect in _EFFECTS)
        severity = _WARNING if is_bad else _NOTICE
        if self._kind == "unix":
            when = time.strftime("%b %e %H:%M:%S")
            return f"<{self._priority + severity}>{when} sidecar[{os.getpid()}]: ".encode() + line
        head = f"<{self._priority + severity}>1 ", f" {self._host} sidecar {os.getpid()} "
        return head[0].encode() + stamp + head[1].encode() + event[:32] + b" - " + line

    def close(self) -> None:
        """Let go of the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _named(host: str) -> str:
    return "".join(sign for sign in host if "!" <= sign <= "~")[:255] or "-"
