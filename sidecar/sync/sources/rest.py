"""Read people from an API, page by page, and from a SCIM server."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from sidecar.config.sync_source import RestSource, ScimSource
from sidecar.core.scim.claims import claims_of
from sidecar.core.sync.entry import Row
from sidecar.core.template import MissingValueError, TemplateError
from sidecar.faults import Unavailable
from sidecar.hooks.answer import Answer, AnswerUnusable
from sidecar.hooks.request import Request
from sidecar.hooks.rest import RestApi
from sidecar.sync.sources.source import End, Reading, down

_OK = 200
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)
_MOST_PAGES = 10_000


class _Api:
    """Calls that only read; every end but a list of JSON is no answer."""

    def __init__(self, name: str, section: RestSource | ScimSource) -> None:
        self._name = name
        self._api = RestApi(name, section)

    async def get(self, target: str) -> Answer:
        """Raises Unavailable(SOURCE_DOWN)."""
        try:
            answer = await self._api.send(Request("GET", target))
        except Unavailable as fault:
            raise down(fault.detail) from None
        except AnswerUnusable as error:
            raise down(f"{self._name}: {error}") from None
        if answer.status != _OK or not answer.is_json:
            raise down(f"{self._name}: the answer has the status {answer.status}, or is no JSON")
        return answer

    async def probe(self) -> str:
        """Raises Unavailable(SOURCE_DOWN)."""
        try:
            return await self._api.probe()
        except Unavailable as fault:
            raise down(fault.detail) from None

    async def close(self) -> None:
        await self._api.close()


class _Listed:
    """What every list behind an API has in common: it is read whole, and says why when it was not."""

    def __init__(self, name: str, section: RestSource | ScimSource) -> None:
        self._name = name
        self._api = _Api(name, section)
        self._why = ""

    async def begin(self, since: str) -> Reading:  # noqa: ARG002 - there is no way to ask for changes
        """See Source."""
        return "full"

    def end(self) -> End:
        """See Source."""
        return End(is_complete=not self._why, why=self._why and f"{self._name}: {self._why}")

    async def probe(self) -> str:
        """See Source."""
        return await self._api.probe()

    async def close(self) -> None:
        """See Source."""
        await self._api.close()


class RestPeople(_Listed):
    """An API that lists people. Pages that repeat themselves, or too few people in all, are not complete."""

    def __init__(self, name: str, section: RestSource) -> None:
        """Read what *section* says; *name* is for messages."""
        super().__init__(name, section)
        self._section = section
        self._count = 0
        self._pages = 0

    async def batches(self) -> AsyncIterator[Sequence[Row]]:
        """See Source."""
        targets: set[str] = set()
        target: str | None = self._first()
        for _ in range(self._section.most_pages):
            if target is None:
                return
            if target in targets:
                self._why = "a page leads back to one that was read already"
                return
            targets.add(target)
            answer = await self._api.get(target)
            people = self._people(answer)
            self._count += len(people)
            yield people
            target = self._next(answer, people)
            self._check_total(answer, is_last=target is None)
        self._why = f"there are more than {self._section.most_pages} pages"

    def _people(self, answer: Answer) -> list[dict[str, Any]]:
        try:
            people = self._section.people.value(answer.context())
        except TemplateError as error:
            raise down(f"{self._name}: people: {error}") from None
        if not isinstance(people, list) or not all(isinstance(one, dict) for one in people):
            raise down(f"{self._name}: people is no list of objects")
        return people

    def _check_total(self, answer: Answer, *, is_last: bool) -> None:
        if self._section.total is None or not is_last:
            return
        try:
            total = self._section.total.value(answer.context())
        except TemplateError:
            total = None
        if total != self._count:
            self._why = f"{self._count} were read, and there are {total}"

    def _first(self) -> str:
        paging = self._section.paging
        start = {"page": str(paging.first), "offset": "0"}.get(paging.by)
        return self._target({} if start is None else {paging.parameter: start})

    def _target(self, more: Mapping[str, str]) -> str:
        paging = self._section.paging
        size = {paging.size_parameter: str(paging.size)} if paging.size_parameter else {}
        query = {**self._section.query, **size, **more}
        return self._section.path + (f"?{urlencode(query, quote_via=quote)}" if query else "")

    def _next(self, answer: Answer, people: Sequence[Row]) -> str | None:
        paging = self._section.paging
        if paging.by == "link":
            return self._linked(str(answer.headers.get("link", "")))
        if paging.by == "cursor":
            cursor = self._cursor(answer)
            return self._target({paging.parameter: cursor}) if cursor else None
        # A short page may be the server's own limit: only an empty one is the end.
        if not people:
            return None
        self._pages += 1
        number = paging.first + self._pages if paging.by == "page" else self._count
        return self._target({paging.parameter: str(number)})

    def _cursor(self, answer: Answer) -> str:
        template = self._section.paging.cursor
        try:
            return "" if template is None else template.text(answer.context())
        except MissingValueError:
            return ""
        except TemplateError as error:
            raise down(f"{self._name}: cursor: {error}") from None

    def _linked(self, header: str) -> str | None:
        """Target of the next page (RFC 8288), below the same base address and nowhere else."""
        found = _NEXT.search(header)
        if found is None:
            return None
        base = self._section.base_url.rstrip("/")
        address = urljoin(base + self._section.path, found[1])
        one, other = urlsplit(address), urlsplit(base)
        if (one.scheme, one.netloc) != (other.scheme, other.netloc) or not one.path.startswith(f"{other.path}/"):
            raise down(f"{self._name}: the next page is at another place")
        return str(address.removeprefix(base))


class ScimPeople(_Listed):
    """A SCIM 2.0 server; ``totalResults`` says whether everybody came."""

    def __init__(self, name: str, section: ScimSource) -> None:
        """Read what *section* says; *name* is for messages."""
        super().__init__(name, section)
        self._section = section
        self._groups: dict[str, list[str]] | None = None

    async def batches(self) -> AsyncIterator[Sequence[Row]]:
        """See Source."""
        if self._section.with_groups:
            groups: dict[str, list[str]] = {}
            async for page in self._pages("/Groups", ""):
                for group in page:
                    for member in group.get("members") or ():
                        groups.setdefault(str(member.get("value")), []).append(str(group.get("displayName")))
            self._groups = groups
        async for page in self._pages("/Users", self._section.filter):
            yield [self._row(user) for user in page]

    def _row(self, user: Mapping[str, Any]) -> dict[str, Any]:
        plain = {key: value for key, value in user.items() if key not in ("schemas", "meta", "groups")}
        row = claims_of(plain)
        row.setdefault("active", True)
        if self._groups is not None:
            row["groups"] = sorted(self._groups.get(str(user.get("id")), []))
        return row

    async def _pages(self, path: str, which: str) -> AsyncIterator[list[dict[str, Any]]]:
        count, start = 0, 1
        for _ in range(_MOST_PAGES):
            query = {"startIndex": str(start), "count": str(self._section.page), **({"filter": which} if which else {})}
            body = (await self._api.get(f"{path}?{urlencode(query, quote_via=quote)}")).body
            people = body.get("Resources") or [] if isinstance(body, dict) else None
            total = body.get("totalResults") if isinstance(body, dict) else None
            if not isinstance(people, list) or not isinstance(total, int):
                raise down(f"{self._name}: {path} is no list of SCIM")
            count += len(people)
            if people:
                yield people
            if not people or count >= total:
                if count != total:
                    self._why = f"{path}: {count} were read, and there are {total}"
                return
            start += len(people)
        self._why = f"{path}: there are more than {_MOST_PAGES} pages"
