"""Render the demo's pages from templates that escape everything, and forbid them every script."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

_HERE = Path(__file__).parent
_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"


@cache
def _environment(folder: str) -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates" / folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class Pages:
    """One application's pages; `always` are the values that every template gets."""

    def __init__(self, folder: Literal["idp", "legacy"], always: Mapping[str, object]) -> None:
        """Show the templates of `folder`."""
        self._environment = _environment(folder)
        self._always = always

    def show(
        self,
        template: str,
        values: Mapping[str, object],
        *,
        status: int = 200,
        forms_reach: Iterable[str] | None = ("'self'",),
    ) -> web.Response:
        """Return a page; `forms_reach` are CSP sources for form targets, None for no restriction.

        Chromium applies form-action to the redirects that follow a form too.
        """
        text = self._environment.get_template(template).render({**self._always, **values})
        policy = _POLICY if forms_reach is None else f"{_POLICY}; form-action {' '.join(forms_reach)}"
        headers = {"Content-Security-Policy": policy}
        return web.Response(text=text, status=status, content_type="text/html", headers=headers)


async def guard_response(_request: web.Request, response: web.StreamResponse) -> None:
    """Add to every answer, by `on_response_prepare`, what keeps it out of caches and frames."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Content-Security-Policy", _POLICY)
    # no-referrer would turn the Origin of our own forms into "null".
    response.headers.setdefault("Referrer-Policy", "same-origin")


@cache
def _static(name: str) -> str:
    return (_HERE / "static" / name).read_text(encoding="utf-8")


def static_routes(folder: Literal["idp", "legacy"], prefix: str) -> list[web.RouteDef]:
    """Return the routes of one application's stylesheet and icon."""

    async def style(_request: web.Request) -> web.Response:
        return web.Response(text=_static(f"{folder}.css"), content_type="text/css")

    async def icon(_request: web.Request) -> web.Response:
        return web.Response(text=_static(f"{folder}.svg"), content_type="image/svg+xml")

    return [web.get(f"{prefix}/style.css", style), web.get(f"{prefix}/icon.svg", icon)]
