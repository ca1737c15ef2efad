"""Sign in as a browser would, at whatever gate, and take the cookie."""

from __future__ import annotations

import re
from html import unescape

import aiohttp
from yarl import URL

_PAGE = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
_MOST_STEPS = 25


async def sign_in(url: str, login: str = "ada") -> str:
    """Follow everything that *url* leads to until it answers itself; what the Cookie header then says."""
    jar = aiohttp.CookieJar(unsafe=True)
    wanted = URL(url)
    async with aiohttp.ClientSession(cookie_jar=jar, headers=_PAGE) as http:
        method, here, fields = "GET", wanted, None
        for _ in range(_MOST_STEPS):
            async with http.request(method, here, data=fields, allow_redirects=False) as answer:
                text = await answer.text()
                step = _next(answer, text, login)
            if step is None:
                if answer.status != 200 or here.with_query(None) != wanted:
                    message = f"{here} answered {answer.status}: {text[:300]}"
                    raise RuntimeError(message)
                # Cookies are told apart by host, not by port: only those that this gate would be sent.
                kept = jar.filter_cookies(wanted)
                return "; ".join(f"{name}={cookie.value}" for name, cookie in kept.items())
            method, to, fields = step
            here = here.join(URL(to, encoded=True))
    message = f"{url}: more than {_MOST_STEPS} steps"
    raise RuntimeError(message)


def _next(answer: aiohttp.ClientResponse, text: str, login: str) -> tuple[str, str, dict[str, str] | None] | None:
    if answer.status in (301, 302, 303, 307, 308):
        return "GET", answer.headers["Location"], None
    if onward := re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', text):
        return "GET", unescape(onward[1]), None
    if form := re.search(r'<form[^>]*action="([^"]+)"', text):
        hidden = re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', text)
        return (
            "POST",
            unescape(form[1]),
            {**{unescape(name): unescape(value) for name, value in hidden}, "login": login},
        )
    return None
