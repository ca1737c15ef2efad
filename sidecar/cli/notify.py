"""Tell systemd how the service does: sd_notify(3), without a library."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_LONGEST_STATUS = 200


class Notifier:
    """Sends datagrams to the socket that systemd names; where there is none, it does nothing."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take what systemd says out of *environment*: processes that we start have nothing to tell it."""
        address = environment.pop("NOTIFY_SOCKET", "")
        usec, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        # A socket without a file: systemd writes @, the kernel wants a zero.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        is_watched = bool(self._address) and usec.isdecimal() and pid in {"", str(os.getpid())}
        # Seconds between two signs of life; None where nobody waits for them. Thrice, so that one may come late.
        self.watchdog = int(usec) / 3e6 if is_watched and int(usec) > 0 else None
        # Seconds after which systemd takes us for dead.
        self.patience = None if self.watchdog is None else 3 * self.watchdog

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        # The service must not fail, nor wait, because nobody listens.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one,
        ):
            one.setblocking(False)  # noqa: FBT003 - the standard library's signature
            one.sendto("\n".join(lines).encode(), self._address)

    def ready(self, status: str) -> None:
        """We serve, for the first time or again after ``reloading``."""
        self._say("READY=1", _status(status))

    def reloading(self) -> None:
        """The configuration is being read again; ``ready`` ends it."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """We end."""
        self._say("STOPPING=1", "STATUS=draining")

    def status(self, text: str) -> None:
        """Say how we are doing, for whoever looks."""
        self._say(_status(text))

    def alive(self) -> None:
        """Give a sign of life."""
        self._say("WATCHDOG=1")


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:_LONGEST_STATUS]}"
