"""TLS towards servers that are connected to again and again: files that were renewed serve the next connection."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from sidecar.config.trust import Trust, words_of

_log = structlog.get_logger("renewing")
_Stamp = tuple[object, ...]


class Renewing:
    """The TLS of a ``Trust``, read again when its files have changed and serve."""

    def __init__(self, setting: str, trust: Trust) -> None:
        """Read the files; *setting* is for messages. Raises ValueError that names it, and the files."""
        self._setting = setting
        self.trust = trust
        self._seen = self._stamps()
        try:
            self._context = trust.context()
        except OSError as error:
            # A file is named by the system, but not by OpenSSL; neither quotes what is in it.
            files = ", ".join(map(str, trust.files))
            message = f"{setting}: {files} cannot be used: {words_of(error)}"
            raise ValueError(message) from None

    def current(self) -> ssl.SSLContext:
        """What the next connection shall use: the former one, as long as new files cannot be used."""
        stamps = self._stamps()
        if stamps != self._seen:
            # Before reading: what changes while it is read is seen the next time.
            self._seen = stamps
            try:
                self._context = self.trust.context()
            except OSError as error:
                files = list(map(str, self.trust.files))
                _log.warning(
                    "cannot be used, the former stays", setting=self._setting, files=files, why=words_of(error)
                )
            else:
                _log.info("renewed certificates are in use", setting=self._setting)
        return self._context

    def give(self, _dialect: object, _record: object, _words: object, options: dict[str, Any]) -> None:
        """Put it among the *options* of a connection that is about to be made: SQLAlchemy's ``do_connect``."""
        options["ssl"] = self.current()

    def _stamps(self) -> Sequence[_Stamp]:
        return [_stamp(path) for path in self.trust.files]


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
