"""Read from a request the little that decisions depend on."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from aiohttp import hdrs, web

from sidecar.core.addresses import Network, client_address, host_of
from sidecar.core.callers import wants_page
from sidecar.core.cookies import parse_cookies
from sidecar.core.paths import Target, read_target
from sidecar.core.policy import REFUSED_METHODS
from sidecar.model import Reason, Refused, Visit


class Arrival:
    """Knows which peers are proxies of ours and under which names the application is known."""

    def __init__(self, *, trusted: Sequence[Network], hosts: frozenset[str], is_secure: bool) -> None:
        """Believe X-Forwarded-For from *trusted* peers only; *hosts* are lower-case names without port."""
        self._trusted = tuple(trusted)
        self._hosts = hosts
        self._is_secure = is_secure

    def visit(self, request: web.BaseRequest) -> Visit:
        """Everything but the path; never fails, so that a refusal can be answered too."""
        headers = request.headers
        peer = request.remote or ""
        client = client_address(peer, headers.getall("X-Forwarded-For", ()), self._trusted) if self._trusted else peer
        return Visit(
            method=request.method,
            path="",
            host=host_of(headers.get(hdrs.HOST, "")),
            client=client,
            secure=self._is_secure,
            cookies=parse_cookies(headers.getall(hdrs.COOKIE, ())),
            authorization=headers.get(hdrs.AUTHORIZATION, ""),
            wants_page=wants_page(request.method, headers),
            reference=secrets.token_hex(6),
        )

    def locate(self, visit: Visit, request: web.BaseRequest) -> tuple[Visit, Target]:
        """Add the canonical path. Raises Refused: TARGET_INVALID, PATH_AMBIGUOUS, METHOD_REFUSED."""
        if visit.method in REFUSED_METHODS:
            raise Refused(Reason.METHOD_REFUSED, 405, visit.method)
        target = read_target(request.raw_path)
        host = host_of(target.authority) if target.authority else visit.host
        return replace(visit, path=target.path, literal=target.literal, host=host), target

    def refuse_strange_hosts(self, visit: Visit, request: web.BaseRequest) -> None:
        """Raise Refused(HOST_UNKNOWN, 421) for a Host that is not ours, missing, or there twice (RFC 9112, 3.2)."""
        if len(request.headers.getall(hdrs.HOST, ())) != 1:
            raise Refused(Reason.HEADERS_INVALID, 400, "Host must be there exactly once")
        if visit.host not in self._hosts:
            raise Refused(Reason.HOST_UNKNOWN, 421, "unknown Host")
