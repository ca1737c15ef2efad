"""Talk to one provider over HTTP, with every answer bounded in time and bytes."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from sidecar.core.unaccepted import certificate_fault
from sidecar.faults import Unavailable, Unreached
from sidecar.logins.addresses import is_safe_address
from sidecar.logins.strict_json import parse_object
from sidecar.reason import Reason
from sidecar.telemetry.spans import note, step

ANSWER_LIMIT = 1 << 20
_CONNECTIONS = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of the provider; ``media_type`` is lower case without parameters.

    ``etag`` and ``modified`` are its validators (RFC 9110, section 8.8), "" where it has none.
    """

    status: int
    media_type: str
    body: bytes
    place: str
    etag: str = ""
    modified: str = ""

    def json_object(self, *, is_answer: bool = False) -> dict[str, Any]:
        """Read the body; raises Unavailable, as ``failure`` does, when it is not a JSON object."""
        try:
            return parse_object(self.body)
        except ValueError as error:
            said = f"{self.place}: {_plain(error)}"
            raise Unavailable(Reason.PROVIDER_DOWN, said, is_answer=is_answer) from None

    def document(self) -> dict[str, Any]:
        """Read the body of a good answer; raises Unavailable when the status is another than 200."""
        if self.status != HTTPStatus.OK:
            raise self.failure()
        return self.json_object()

    def failure(self, *, is_answer: bool = False) -> Unavailable:
        """What to raise for its status: only with 5xx (RFC 9110, section 15.6) the server says that it is its fault.

        Any other *is_answer* where it is about one question only, see Unavailable.
        """
        said = f"{self.place}: status {self.status}"
        if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Unreached(Reason.PROVIDER_DOWN, said)
        return Unavailable(Reason.PROVIDER_DOWN, said, is_answer=is_answer)


class ProviderHttp:
    """The connections to one provider. Belongs to the event loop that first uses it.

    It keeps no cookies, follows no redirect (one from the token endpoint would carry the client's secret away),
    ignores proxies named in the environment, and takes no compressed answers (a small one can unpack to any size).
    """

    def __init__(self, name: str, timeout: float, ca: Path | None = None, limit: int = ANSWER_LIMIT) -> None:
        """Serve the login *name*; *timeout* in seconds for a whole exchange, *limit* in bytes for an answer.

        *ca* is a PEM file to trust in place of the system's. Raises ValueError when it cannot be read.
        """
        self._name = name
        self._limit = limit
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._tls = _tls(ca)
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str, token: str = "") -> Answer:
        """Fetch *url*, with *token* as bearer token if given (RFC 6750, section 2.1); raises Unavailable."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self._exchange("GET", url, headers, None)

    async def get_again(self, url: str, accept: str, etag: str = "", modified: str = "") -> Answer:
        """Fetch *url* as *accept*, unless it is as it was (304; RFC 9110, section 13.1); raises Unavailable."""
        validators = {"If-None-Match": etag, "If-Modified-Since": "" if etag else modified}
        sent = {name: value for name, value in validators.items() if value}
        return await self._exchange("GET", url, {"Accept": accept, **sent}, None)

    async def post(self, url: str, form: str, headers: Mapping[str, str]) -> Answer:
        """Send the encoded *form* to *url*; raises Unavailable."""
        sent = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        return await self._exchange("POST", url, sent, form.encode("ascii"))

    async def send(self, method: str, url: str, value: Mapping[str, Any] | None, token: str) -> Answer:
        """Send *value* as JSON (None: nothing) with *token* as bearer token; raises Unavailable."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if value is None:
            return await self._exchange(method, url, headers, None)
        return await self._exchange(
            method, url, {**headers, "Content-Type": "application/json"}, json.dumps(value).encode()
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        if not is_safe_address(url):
            raise self._unavailable("an address that is not https", url)
        with step("provider", "client", provider=self._name, method=method):
            return await self._sent(method, url, headers, body)

    async def _sent(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        try:
            target = URL(url, encoded=True)
            async with self._open().request(
                method, target, headers=headers, data=body, allow_redirects=False
            ) as response:
                content = await self._bounded(response, url)
                note(status=response.status)
                return Answer(
                    response.status,
                    response.content_type.lower(),
                    content,
                    self._place(url),
                    _validator(response, "ETag"),
                    _validator(response, "Last-Modified"),
                )
        except TimeoutError:
            raise self._unreached("no answer in time", url) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as error:
            raise self._unreached(certificate_fault(error) or type(error).__name__, url) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise self._unavailable(type(error).__name__, url) from error

    async def _bounded(self, response: aiohttp.ClientResponse, url: str) -> bytes:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._unavailable("a compressed answer", url)
        content = bytearray()
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > self._limit:
                raise self._unavailable(f"an answer of more than {self._limit} bytes", url, is_answer=True)
        return bytes(content)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _place(self, url: str) -> str:
        return f"{self._name}, {url.partition('?')[0][:200]!a}"

    def _unreached(self, what: str, url: str) -> Unreached:
        return Unreached(Reason.PROVIDER_DOWN, f"{self._place(url)}: {what}")

    def _unavailable(self, what: str, url: str, *, is_answer: bool = False) -> Unavailable:
        return Unavailable(Reason.PROVIDER_DOWN, f"{self._place(url)}: {what}", is_answer=is_answer)


def _tls(ca: Path | None) -> ssl.SSLContext | bool:
    if ca is None:
        # aiohttp's own, which all share: to read the system's authorities takes longer than all else about a login.
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        message = f"ca: {ca} cannot be used: {error.strerror or error}"
        raise ValueError(message) from None


def _validator(response: aiohttp.ClientResponse, name: str) -> str:
    # It is sent back as it came: nothing that a header line could not hold.
    value = response.headers.get(name, "")
    return value if len(value) <= 256 and value.isascii() and value.isprintable() else ""


def _plain(error: ValueError) -> str:
    # JSONDecodeError's own text is a position; a UnicodeDecodeError's would quote the answer.
    return "not UTF-8" if isinstance(error, UnicodeError) else str(error)[:100]
