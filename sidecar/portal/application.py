"""End the application's own session with ours, and leave none of its cookies to the next person."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import structlog
from aiohttp.http import HttpProcessingError

from sidecar.core.cookies import CookieStyle, cookie_mark, expire_cookie, is_cookie_name
from sidecar.core.headers import HeaderPlan, Line
from sidecar.core.patterns import compile_pattern, compile_segment
from sidecar.faults import Refused, Unavailable
from sidecar.model import Visit
from sidecar.upstream import Head

if TYPE_CHECKING:
    from sidecar.config.service import App

_log = structlog.get_logger("application")
_MOST_COOKIES = 50
_MOST_LINES = 50
_LONGEST_LINE = 4096
Ask = Callable[[Head], Awaitable[Sequence[Line]]]
LinesAbout = Callable[[str, str], tuple[Line, Sequence[Line]]]


class ApplicationSession:
    """What is known of the application's sessions: by the configuration, and by the cookies that a browser sends."""

    def __init__(
        self, section: App, incoming: HeaderPlan, style: CookieStyle, ask: Ask, lines_about: LinesAbout
    ) -> None:
        """*ask* sends a request to the application, *lines_about* says who asks, *style* whether cookies are secure."""
        logout = section.logout
        self._incoming = incoming
        self._style = CookieStyle(secure=style.secure)
        self._ask = ask
        self._lines_about = lines_about
        self._named = tuple(name for name in section.sign_out_cookies if "*" not in name)
        self._patterns = tuple(compile_segment(name) for name in section.sign_out_cookies)
        self._methods = frozenset(logout.methods) if logout is not None else frozenset()
        self._paths = tuple(_sign_out(path, section) for path in (logout.path if logout is not None else ()))
        self._call = logout.call if logout is not None else None
        self.takes_over = logout is not None and logout.then == "take_over"

    def is_sign_out(self, visit: Visit, target: str | None) -> bool:
        """True when the request for *target*, as it was sent, is the application's sign-out; None: when it may be."""
        if not self._paths or visit.method not in self._methods:
            return False
        fitting = [needed for path, needed in self._paths if path.fullmatch(visit.path)]
        if not fitting or target is None:
            return bool(fitting)
        try:
            said = parse_qsl(target.partition("?")[2], keep_blank_values=True, max_num_fields=_MOST_COOKIES)
        except ValueError:
            said = []
        return any(needed <= set(said) for needed in fitting)

    def parting_cookies(self, visit: Visit, *, everything: bool = False) -> list[str]:
        """Set-Cookie texts that expire the application's cookies: those that are listed, or *everything* it has set."""
        theirs = [name for name, _ in self._theirs(visit)]
        listed = [name for name in theirs if everything or any(one.fullmatch(name) for one in self._patterns)]
        names = list(dict.fromkeys([*self._named, *listed]))[:_MOST_COOKIES]
        return [expire_cookie(self._style, name) for name in names]

    def marks(self, visit: Visit) -> tuple[str, ...]:
        """What tells the application's cookies of this browser apart from those that it sets later."""
        return tuple(dict.fromkeys(cookie_mark(name, value) for name, value in self._theirs(visit)))[:_MOST_COOKIES]

    def _theirs(self, visit: Visit) -> list[tuple[str, str]]:
        return [pair for pair in visit.cookies if is_cookie_name(pair[0]) and not self._incoming.is_own(pair[0])]

    async def end(self, visit: Visit) -> list[str]:
        """Call the application's sign-out with the person's cookies; Set-Cookie texts of its answer.

        One that is down keeps nobody from signing out: its cookies are expired all the same.
        """
        if self._call is None:
            return []
        host, forwarding = self._lines_about(visit.client, visit.host)
        cookies = "; ".join(f"{name}={value}" for name, value in self._theirs(visit))
        lines = (host, *([("Cookie", cookies)] if cookies else []), ("Accept", "*/*"), *forwarding)
        try:
            async with asyncio.timeout(self._call.timeout.total_seconds()):
                answer = await self._ask(Head(self._call.method, self._call.path, lines))
        except (Unavailable, Refused, TimeoutError, HttpProcessingError) as fault:
            _log.warning("the application's sign-out failed", error=str(fault) or type(fault).__name__)
            return []
        return [value for name, value in answer if name.lower() == "set-cookie" and self._may_pass(value)][:_MOST_LINES]

    def _may_pass(self, text: str) -> bool:
        is_plain = text.isascii() and text.isprintable() and len(text) <= _LONGEST_LINE
        return is_plain and not self._incoming.sets_own(text)


def _sign_out(text: str, section: App) -> tuple[re.Pattern[str], frozenset[tuple[str, str]]]:
    path, _, query = text.partition("?")
    return compile_pattern(path, ignore_case=section.ignore_case), frozenset(parse_qsl(query, keep_blank_values=True))
