"""Ask an engine over HTTP, with every answer bounded in time and bytes, and nothing but 200 taken for one."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from sidecar.config.engines import OpaEngine, OpenFgaEngine
from sidecar.core.unaccepted import certificate_fault
from sidecar.faults import Unavailable
from sidecar.logins.strict_json import parse_object
from sidecar.reason import Reason

_MOST_CONNECTIONS = 32
_CODE = re.compile(r"[a-z0-9_]{1,64}")
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "auth-sidecar"}


class EngineHttp:
    """The connections to one engine: no cookies, no redirects, no proxies out of the environment."""

    def __init__(self, name: str, section: OpenFgaEngine | OpaEngine) -> None:
        """Connect to nothing yet. Raises ValueError when the authorities cannot be read."""
        self._name = name
        self._section = section
        self._base = section.url.rstrip("/")
        self._tls = _tls(section)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send *body* as JSON to *path*, and read the object that comes back. Raises Unavailable.

        For questions only: where a connection breaks it asks once more.
        """
        return await self._asked("POST", path, json.dumps(body).encode())

    async def get(self, path: str) -> dict[str, Any]:
        """Fetch the object at *path*. Raises Unavailable."""
        return await self._asked("GET", path, None)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def down(self, why: str) -> Unavailable:
        """No ruling, because of *why*."""
        return Unavailable(Reason.ENGINE_DOWN, f"{self._name}: {why}")

    async def _asked(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        try:
            try:
                status, content = await self._exchange(method, path, body)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # It closed a connection that was kept, or was restarted; a question may be put twice.
                status, content = await self._exchange(method, path, body)
        except TimeoutError:
            raise self.down("no answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            raise self.down(certificate_fault(error) or type(inner).__name__) from None
        try:
            answer = parse_object(content)
        except ValueError:
            answer = {}
        if status != 200:
            raise self.down(f"status {status}{_code_in(answer)}")
        if not answer and content.strip() != b"{}":
            raise self.down("an answer that is no JSON object")
        return answer

    async def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self._section.token is not None:
            headers["Authorization"] = f"Bearer {self._section.token.reveal()}"
        url = URL(self._base + path, encoded=True)
        async with self._open().request(method, url, headers=headers, data=body, allow_redirects=False) as response:
            return response.status, await self._bounded(response)

    async def _bounded(self, response: aiohttp.ClientResponse) -> bytes:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            # A small one can unpack to any size.
            raise self.down("a compressed answer")
        content, limit = bytearray(), self._section.max_answer
        async for piece in response.content.iter_any():
            content += piece
            if len(content) > limit:
                raise self.down(f"an answer of more than {limit} bytes")
        return bytes(content)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_MOST_CONNECTIONS, ssl=self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                # For the whole of it, also for waiting until one of the connections is free.
                timeout=aiohttp.ClientTimeout(total=self._section.timeout.total_seconds()),
                headers=_HEADERS,
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def _code_in(answer: Mapping[str, Any]) -> str:
    """The error code that the engine gives, where it is one: its message may quote the question."""
    code = answer.get("code")
    return f", {code}" if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _tls(section: OpenFgaEngine | OpaEngine) -> ssl.SSLContext | bool:
    if section.ca is None or not section.url.startswith("https:"):
        return True
    try:
        return ssl.create_default_context(cafile=section.ca)
    except OSError as error:
        message = f"ca: {section.ca} cannot be used: {error.strerror or error}"
        raise ValueError(message) from None
