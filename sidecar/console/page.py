"""Make the console's pages out of their templates, with the headers that keep scripts and frames out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web

from sidecar.console.operators import Operator
from sidecar.console.seal import FIELD
from sidecar.model import Visit
from sidecar.pages.templates import strict_environment

_FOLDER = Path(__file__).parent / "templates"
STYLE = "console.css"
# No scripts at all, nothing from elsewhere, in nobody's frame; forms go nowhere else.
_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Server": "sidecar",
    "X-Content-Type-Options": "nosniff",
    # Not none: browsers without Fetch Metadata tell by Origin where a form comes from, and would say null.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an operator asks for: the rest of the path, the query, and the form of a POST."""

    visit: Visit
    operator: Operator
    rest: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    now: float


@dataclass(frozen=True, slots=True)
class Page:
    """A page to be made: its template and what it shows."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)


class Pages:
    """The compiled templates; nothing is read from disk after construction."""

    def __init__(self, *, app_name: str, prefix: str, menu: tuple[tuple[str, str], ...]) -> None:
        """*menu* are (path, title) of the pages that there are here."""
        style = (_FOLDER / STYLE).read_text("utf-8")
        self._style = style
        self._environment = strict_environment(jinja2.FileSystemLoader(_FOLDER))
        self._environment.filters |= {"moment": moment, "span": span, "seconds": seconds}
        version = hashlib.sha256(style.encode()).hexdigest()[:12]
        shown = {"app_name": app_name, "prefix": prefix, "menu": menu, "stylesheet": f"/{STYLE}?v={version}"}
        self._environment.globals.update(shown)
        for name in self._environment.list_templates(extensions=["html"]):
            self._environment.get_template(name)

    def answer(self, page: Page, asked: Asked, seal: str) -> web.Response:
        """The page as HTML, for *asked*; *seal* is the hidden field of its forms."""
        own = {
            "operator": asked.operator,
            "path": f"/{asked.visit.path.split('/')[1]}",
            "here": asked.visit.path,
            "seal_name": FIELD,
            "seal": seal,
            "now": asked.now,
            "done": asked.query.get("done", ""),
        }
        text = self._environment.get_template(f"{page.template}.html").render({**own, **page.values})
        return web.Response(text=text, content_type="text/html", headers=_HEADERS)

    def go(self, path: str) -> web.Response:
        """Redirect to a page of ours, by GET."""
        return web.Response(status=303, headers={**_HEADERS, "Location": path})

    def stylesheet(self) -> web.Response:
        """The one stylesheet."""
        headers = {**_HEADERS, "Cache-Control": "public, max-age=3600"}
        return web.Response(text=self._style, content_type="text/css", headers=headers)


def moment(seconds: float) -> str:
    """Epoch *seconds* as people read them, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds else "never"


def span(seconds: float) -> str:
    """A length of time in its largest unit."""
    for length, unit in _UNITS:
        if abs(seconds) >= length:
            return f"{int(abs(seconds) // length)} {unit}"
    return "0 s"


def seconds(value: float) -> str:
    """How long something took: "340 ms", "2.5 s"."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f}".removesuffix(".0") + " s"
