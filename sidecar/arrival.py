"""Read from a request the little that decisions depend on."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion10, HttpVersion11

from sidecar.config.callers import Certificates
from sidecar.core.addresses import Network, client_address, host_of, is_trusted
from sidecar.core.callers import wants_page
from sidecar.core.client_certificates import certificate_in, is_named
from sidecar.core.cookies import parse_cookies
from sidecar.core.paths import Target, is_shortened, read_target, refuse_windows_names
from sidecar.core.policy import REFUSED_METHODS
from sidecar.core.references import CHANCE, beginning_of
from sidecar.faults import Refused
from sidecar.model import Visit
from sidecar.reason import Reason

# Where a connection comes from: address of its other side, and whether it is TLS.
Whence = tuple[str, bool]
_NOWHERE = Target("", "", "", "")
# What a visit may be another one for, or no ordinary one.
_READ = frozenset(
    [
        b"accept",
        b"authorization",
        b"expect",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"upgrade",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-requested-with",
    ]
)
# Fetched at once: a call of the system for each request costs more than all else about its name.
_CHANCES = 512


class Seen(NamedTuple):
    """A whole request that came alone: its header lines byte for byte, where from, and its body."""

    head: bytes
    origin: Whence
    body: bytes


def whence(peername: object, *, is_tls: bool) -> Whence:
    """Where a connection comes from, as its requests say it: the address is "" for a Unix socket."""
    address = peername[0] if isinstance(peername, tuple) and peername else peername
    return str(address or ""), is_tls


class Arrival:
    """Knows which peers are proxies of ours and under which names the application is known."""

    def __init__(
        self,
        *,
        trusted: Sequence[Network],
        hosts: frozenset[str],
        is_secure: bool,
        largest_head: int,
        is_windows: bool = False,
        certificates: Certificates | None = None,
    ) -> None:
        """Believe X-Forwarded-For from *trusted* peers only; *hosts* are lower-case names without port.

        *largest_head* bounds all header lines together, in bytes; *is_windows* when the application is careless about
        names; *certificates* says who may pass on the certificates of clients.
        """
        self._trusted = tuple(trusted)
        self._hosts = hosts
        self._is_secure = is_secure
        self._largest_head = largest_head
        self._is_windows = is_windows
        self._certificates = certificates
        self._second = -1
        self._beginning = ""
        self._chances: list[str] = []

    def visit(self, request: web.BaseRequest, now: float, target: Target = _NOWHERE) -> Visit:
        """Everything at *now* (epoch seconds), the path only from a *target*; never fails: a refusal needs it, too."""
        headers = request.headers
        peer = request.remote or ""
        client = client_address(peer, headers.getall("X-Forwarded-For", ()), self._trusted) if self._trusted else peer
        return Visit(
            method=request.method,
            path=target.path,
            literal=target.literal,
            host=host_of(target.authority or headers.get(hdrs.HOST, "")),
            client=client,
            scheme=self._scheme(request, peer),
            cookies=parse_cookies(headers.getall(hdrs.COOKIE, ())),
            authorization=headers.get(hdrs.AUTHORIZATION, ""),
            wants_page=wants_page(request.method, headers),
            is_browser="Sec-Fetch-Mode" in headers or "X-Requested-With" in headers,
            reference=self._reference(now),
            certificate=self._certificate(peer, request) if self._certificates is not None else b"",
        )

    def reads(self, name: bytes) -> bool:
        """Whether a visit may depend on what stands in a line of this lower-case *name*, but for Cookie and Host."""
        section = self._certificates
        return name in _READ or (section is not None and name == section.header.lower().encode())

    def _certificate(self, peer: str, request: web.BaseRequest) -> bytes:
        """The client's certificate, as the proxies alone may say that are named for it."""
        section = self._certificates
        if section is None or section.header not in request.headers or not is_named(peer, section.proxies):
            return b""
        return certificate_in(request.headers.getall(section.header), section.format)

    def again(self, before: Visit, path: str, now: float) -> Visit | None:
        """Visit at *now* of somebody who came with the same lines before, to a *path* that is simple.

        None when the application could read that path in another way.
        """
        if self._is_windows and is_shortened(path):
            return None
        return Visit(
            before.method,
            path,
            before.host,
            before.client,
            scheme=before.scheme,
            cookies=before.cookies,
            authorization=before.authorization,
            literal=path,
            wants_page=before.wants_page,
            reference=self._reference(now),
            certificate=before.certificate,
            is_browser=before.is_browser,
        )

    def _scheme(self, request: web.BaseRequest, peer: str) -> str:
        """Scheme in the address bar; believed are our own listener, then trusted proxies, then the browser itself."""
        if request.secure:
            return "https"
        told = request.headers.get("X-Forwarded-Proto", "").strip().lower()
        if told in ("http", "https") and is_trusted(peer, self._trusted):
            return told
        # Fetch Metadata, section 2: browsers send it to https only (and to this very machine).
        return "https" if self._is_secure and "Sec-Fetch-Mode" in request.headers else ""

    def _reference(self, now: float) -> str:
        if not self._chances:
            fresh = secrets.token_hex(CHANCE // 2 * _CHANCES)
            self._chances = [fresh[at : at + CHANCE] for at in range(0, len(fresh), CHANCE)]
        second = int(now)
        if second != self._second:
            self._second, self._beginning = second, beginning_of(second)
        return self._beginning + self._chances.pop()

    def locate(self, visit: Visit, request: web.BaseRequest) -> tuple[Visit, Target]:
        """Add the canonical path. Raises what ``target`` raises."""
        target = self.target(request)
        host = host_of(target.authority) if target.authority else visit.host
        return visit.but(path=target.path, literal=target.literal, host=host), target

    def target(self, request: web.BaseRequest) -> Target:
        """Where it goes. Raises Refused: TARGET_INVALID, PATH_AMBIGUOUS, METHOD_REFUSED, HEADERS_INVALID."""
        if request.version not in (HttpVersion11, HttpVersion10):
            # The parser lets others through, HTTP/0.9 without headers among them.
            raise Refused(Reason.TARGET_INVALID, 400, "neither HTTP/1.1 nor HTTP/1.0")
        if sum([len(name) + len(value) + 4 for name, value in request.raw_headers]) > self._largest_head:
            raise Refused(Reason.HEADERS_INVALID, 431, "request head too large")
        return self.read(request.method, request.raw_path)

    def read(self, method: str, raw: str) -> Target:
        """Where a request goes. Raises Refused: TARGET_INVALID, PATH_AMBIGUOUS, METHOD_REFUSED."""
        if method in REFUSED_METHODS:
            raise Refused(Reason.METHOD_REFUSED, 405, method)
        target = read_target(raw)
        if self._is_windows:
            refuse_windows_names(target)
        return target

    def refuse_strange_hosts(self, visit: Visit, request: web.BaseRequest) -> None:
        """Raise Refused(HOST_UNKNOWN, 421) for a Host that is not ours, missing, or there twice (RFC 9112, 3.2)."""
        if len(request.headers.getall(hdrs.HOST, ())) != 1:
            raise Refused(Reason.HEADERS_INVALID, 400, "Host must be there exactly once")
        self.refuse_strange(visit.host)

    def refuse_strange(self, host: str) -> None:
        """Raise Refused(HOST_UNKNOWN, 421) for a *host* that is not ours."""
        if host not in self._hosts:
            raise Refused(Reason.HOST_UNKNOWN, 421, "unknown Host")
