"""Fetch metadata from where the configuration says, unless it is as it was."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from sidecar.config.bounded import read_at_most
from sidecar.config.saml import SamlLogin
from sidecar.logins.http import ProviderHttp
from sidecar.logins.saml.metadata_document import LARGEST, bad

_TYPES = "application/samlmetadata+xml, application/xml;q=0.9, text/xml;q=0.9, */*;q=0.1"


class Place(Protocol):
    """Where metadata is."""

    name: str
    is_near: bool

    async def fetch(self) -> bytes | None:
        """Its octets, None when they are those of the last time; raises Unavailable."""

    def forget(self) -> None:
        """Give it again, even if it did not change."""

    async def close(self) -> None:
        """Let go of connections."""


def place_of(name: str, section: SamlLogin) -> Place:
    """Place of the metadata of the login *name*. Raises ValueError when its CA file cannot be used."""
    if "://" in section.metadata:
        return WebPlace(section.metadata, ProviderHttp(name, section.timeout.total_seconds(), section.ca, LARGEST))
    return FilePlace(Path(section.metadata))


class WebPlace:
    """Metadata at an address."""

    is_near = False

    def __init__(self, url: str, http: ProviderHttp) -> None:
        """Read *url* by *http*."""
        self.name = url
        self._http = http
        self._validators = ("", "")

    async def fetch(self) -> bytes | None:
        """See Place."""
        answer = await self._http.get_again(self.name, _TYPES, *self._validators)
        if answer.status == HTTPStatus.NOT_MODIFIED and any(self._validators):
            return None
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise answer.failure()
        if answer.status != HTTPStatus.OK:
            raise bad(f"{answer.place}: status {answer.status}")
        self._validators = (answer.etag, answer.modified)
        return answer.body

    def forget(self) -> None:
        """See Place."""
        self._validators = ("", "")

    async def close(self) -> None:
        """See Place."""
        await self._http.close()


class FilePlace:
    """Metadata in a file, which may be replaced at any time."""

    is_near = True

    def __init__(self, path: Path) -> None:
        """Read *path*."""
        self.name = str(path)
        self._path = path
        self._seen: tuple[int, ...] | None = None

    async def fetch(self) -> bytes | None:
        """See Place."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes | None:
        try:
            status = self._path.stat()
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            if mark == self._seen:
                return None
            content = read_at_most(self._path, LARGEST + 1)
        except OSError as error:
            raise bad(f"{self.name}: {error.strerror or error}") from None
        self._seen = mark
        return content

    def forget(self) -> None:
        """See Place."""
        self._seen = None

    async def close(self) -> None:
        """See Place."""
