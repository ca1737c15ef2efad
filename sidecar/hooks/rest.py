"""Talk to one REST API as a service account: bounded, without cookies, and never led to another place."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp
from yarl import URL

from sidecar.config.provision import RestConnection
from sidecar.config.values import Secret
from sidecar.core.unaccepted import certificate_fault
from sidecar.faults import Unavailable
from sidecar.hooks.answer import Answer, AnswerUnusable, read_answer
from sidecar.hooks.request import Request, base_problem
from sidecar.hooks.token import ServiceToken
from sidecar.reason import Reason

_MOST_CONNECTIONS = 16
_UNAUTHORIZED = 401
_BUSY = frozenset([429, 503])
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Amazon's metadata service over IPv6 is no link-local address (fd00:ec2::254), but the same danger.
_METADATA = frozenset([ipaddress.ip_address("fd00:ec2::254")])


class SentAndLost(Exception):  # noqa: N818 - what happened
    """A request that changes something was sent, and no usable answer came: nobody knows whether it was done."""


class ForbiddenAddressError(OSError):
    """The name of the API leads to a link-local address."""


def is_link_local(address: str) -> bool:
    """True for link-local addresses and those of cloud metadata, also when wrapped in IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_link_local or ip in _METADATA


def _guarded_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    # The last place before connecting: literals and every answer of the DNS come through here.
    family, kind, protocol, _, place = address
    if is_link_local(str(place[0])):
        message = "a link-local address; allow_link_local permits it"
        raise ForbiddenAddressError(message)
    return socket.socket(family, kind, protocol)


def _tls(section: RestConnection) -> ssl.SSLContext | bool:
    """Make the TLS context; raises ValueError when a file cannot be used."""
    is_ordinary = section.ca is None and section.certificate is None and section.verify
    if is_ordinary or not section.base_url.startswith("https:"):
        return True
    try:
        context = ssl.create_default_context(cafile=str(section.ca) if section.ca else None)
        if section.certificate is not None:
            context.load_cert_chain(section.certificate, section.key)
    except OSError as error:
        message = f"the certificate files cannot be used: {error.strerror or type(error).__name__}"
        raise ValueError(message) from None
    if not section.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(slots=True)
class _Attempt:
    """Whether a request left; the only fact that decides if it may be repeated."""

    is_sent: bool = False


async def _note_sent(_session: aiohttp.ClientSession, trace: SimpleNamespace, _params: Any) -> None:
    trace.trace_request_ctx.is_sent = True


def _retry_after(answer: Answer) -> float | None:
    """Seconds to wait (RFC 9110, section 10.2.3); a date is not waited for."""
    text = str(answer.headers.get("retry-after", ""))
    return float(text) if text.isascii() and text.isdigit() else None


def _reason(error: BaseException) -> str:
    """Describe an error without anything that was sent or answered."""
    if isinstance(error, AnswerUnusable):
        return str(error)
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, ForbiddenAddressError):
        return str(inner)
    return certificate_fault(error) or type(inner).__name__


def _plain(value: Secret | str) -> str:
    return value.reveal() if isinstance(value, Secret) else value


class RestApi:
    """One REST connection of the configuration."""

    def __init__(self, name: str, section: RestConnection) -> None:
        """Connects to nothing yet. Raises ValueError when the section cannot work."""
        problem = base_problem(section.base_url)
        if problem:
            raise ValueError(problem)
        self._name = name
        self._section = section
        self._base = section.base_url.rstrip("/")
        self._tls = _tls(section)
        self._session: aiohttp.ClientSession | None = None
        self._token = ServiceToken(section.login) if section.login else None

    @property
    def timeout(self) -> float:
        """Seconds that one step may take, unless it says otherwise."""
        return self._section.timeout.total_seconds()

    async def send(self, request: Request, seconds: float | None = None) -> Answer:
        """Send *request* and read the answer, all within *seconds* (the connection's time-out when None).

        Raises ``Unavailable(PROVISIONING_DOWN)`` when nothing was done for sure, and SentAndLost when a request other
        than GET may have been done. Raises AnswerUnusable for a GET whose answer is too large or malformed.
        """
        attempt = _Attempt()
        try:
            async with asyncio.timeout(self.timeout if seconds is None else seconds) as deadline:
                return await self._send_signed_in(request, attempt, deadline)
        except TimeoutError:
            if attempt.is_sent and request.method != "GET":
                message = "no answer in time"
                raise SentAndLost(message) from None
            raise self._down("no answer in time") from None

    async def _send_signed_in(self, request: Request, attempt: _Attempt, deadline: asyncio.Timeout) -> Answer:
        if self._token is None:
            return await self._send_patiently(request, attempt, deadline)
        token = await self._token.current(self._sign_in)
        answer = await self._send_patiently(self._token.signed(request, token), attempt, deadline)
        if answer.status != _UNAUTHORIZED:
            return answer
        # A refusal did nothing, so even a POST may be sent again, with a fresh token, once.
        token = await self._token.renewed(token, self._sign_in)
        return await self._send_patiently(self._token.signed(request, token), attempt, deadline)

    async def _sign_in(self, request: Request) -> Answer:
        try:
            return await self._send_once(request, _Attempt())
        except (SentAndLost, AnswerUnusable) as error:
            raise self._down("signing in got no usable answer") from error

    async def _send_patiently(self, request: Request, attempt: _Attempt, deadline: asyncio.Timeout) -> Answer:
        """Send, and once more where that is safe: nothing was sent, or it only reads."""
        try:
            answer = await self._send_once(request, attempt)
        except Unavailable:
            return await self._send_once(request, attempt)
        pause = _retry_after(answer)
        left = (deadline.when() or 0.0) - asyncio.get_running_loop().time()
        if request.method != "GET" or answer.status not in _BUSY or pause is None or pause >= left:
            return answer
        await asyncio.sleep(pause)
        return await self._send_once(request, attempt)

    async def _send_once(self, request: Request, attempt: _Attempt) -> Answer:
        attempt.is_sent = False
        try:
            async with self._exchange(request, attempt) as response:
                answer = await read_answer(response, self._section.max_answer)
        except (aiohttp.ClientError, OSError, AnswerUnusable) as error:
            if attempt.is_sent and request.method != "GET":
                raise SentAndLost(_reason(error)) from None
            if isinstance(error, AnswerUnusable):
                raise
            raise self._down(_reason(error)) from None
        attempt.is_sent = False
        return answer

    @contextlib.asynccontextmanager
    async def _exchange(self, request: Request, attempt: _Attempt) -> AsyncIterator[aiohttp.ClientResponse]:
        url = URL(self._base + request.target, encoded=True)
        async with self._open().request(
            request.method,
            url,
            headers={**self._own_headers(), **request.headers},
            data=request.body,
            allow_redirects=False,
            trace_request_ctx=attempt,
        ) as response:
            yield response

    def _own_headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "auth-sidecar"}
        headers.update({name: _plain(value) for name, value in self._section.headers.items()})
        if self._section.bearer is not None:
            headers["Authorization"] = f"Bearer {self._section.bearer.reveal()}"
        if self._section.basic is not None:
            basic = self._section.basic
            headers["Authorization"] = aiohttp.encode_basic_auth(basic.username, basic.password.reveal())
        return headers

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_note_sent)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._tls,
                    limit=_MOST_CONNECTIONS,
                    # A kept connection that the server is just closing would make every POST on it doubtful.
                    force_close=True,
                    socket_factory=None if self._section.allow_link_local else _guarded_socket,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trace_configs=[trace],
                trust_env=False,
                auto_decompress=False,
                skip_auto_headers=["Content-Type"],
            )
        return self._session

    def _down(self, why: str) -> Unavailable:
        return Unavailable(Reason.PROVISIONING_DOWN, f"{self._name}: {why}")

    async def probe(self) -> str:
        """Reach the base address, and sign in where a login is configured. Raises Unavailable."""
        try:
            async with asyncio.timeout(self.timeout):
                answer = await self._reach()
                if self._token is None:
                    return f"answers (status {answer})"
                await self._token.current(self._sign_in)
                return f"answers (status {answer}), signed in"
        except TimeoutError:
            raise self._down("no answer in time") from None

    async def _reach(self) -> int:
        try:
            async with self._exchange(Request("HEAD", "/"), _Attempt()) as response:
                return response.status
        except (aiohttp.ClientError, OSError) as error:
            raise self._down(_reason(error)) from None

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None
