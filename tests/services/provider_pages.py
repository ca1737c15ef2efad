"""Walk through a provider's pages as a browser would: follow redirects, fill the form, stop before leaving."""

from __future__ import annotations

from html.parser import HTMLParser
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from yarl import URL

from tests.services.process import ServiceFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

MAX_HOPS = 12


class EndedAtProviderError(AssertionError):
    """The provider took the form and showed a page of its own instead of going back to the client."""


async def walk(http: aiohttp.ClientSession, issuer: str, start: str | URL, form: Mapping[str, str]) -> URL:
    """Return the first redirect that leaves `issuer`, after filling the first form that is met, once.

    Raises ServiceFailedError with the page when the provider refuses, EndedAtProviderError when it stays.
    """
    url, fields, posted = URL(str(start), encoded=True), None, False
    for _ in range(MAX_HOPS):
        status, location, page = await _step(http, url, fields)
        if location is not None:
            url, fields = url.join(URL(location, encoded=True)), None
            if not str(url).startswith(issuer + "/"):
                return url
            continue
        found = Form.of(page)
        if status == HTTPStatus.OK and found is None and posted:
            raise EndedAtProviderError(page)
        if status != HTTPStatus.OK or found is None or posted:
            message = f"the provider refused ({status}): {page}"
            raise ServiceFailedError(message)
        url, fields, posted = url.join(URL(found.action, encoded=True)), {**found.hidden, **form}, True
    message = f"the provider redirected more than {MAX_HOPS} times, last to {url.path}"
    raise ServiceFailedError(message)


async def _step(http: aiohttp.ClientSession, url: URL, fields: Mapping[str, str] | None) -> tuple[int, str | None, str]:
    method = "GET" if fields is None else "POST"
    async with http.request(method, url, data=fields, allow_redirects=False) as response:
        return response.status, response.headers.get("Location"), await response.text()


class Form(HTMLParser):
    """The first form of a page: where it goes, and its hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.hidden: dict[str, str] = {}
        self._found = False

    @classmethod
    def of(cls, page: str) -> Self | None:
        """Return the form of a page, None when it has none."""
        form = cls()
        form.feed(page)
        return form if form._found else None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the action and the hidden fields."""
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and not self._found:
            self._found, self.action = True, values.get("action", "")
        if tag == "input" and values.get("type") == "hidden":
            self.hidden[values["name"]] = values.get("value", "")
