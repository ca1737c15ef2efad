"""Answer questions for many resources: filter, order, pages by index or by cursor (RFC 7644, 3.4.2; RFC 9865)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Column

from sidecar.core.scim.fault import Fault, bad_value
from sidecar.core.scim.filters import Compare, Filter, Negated, Within, fits, parse_filter
from sidecar.core.scim.paths import Place, place_of
from sidecar.core.scim.projection import Projection, projection_of
from sidecar.core.scim.schema import Kind
from sidecar.core.wanted import folded
from sidecar.directory.scim import Window
from sidecar.directory.scim_query import Condition, condition_of, field_name
from sidecar.scim_api.client import Client

LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
PAGE = 100
LARGEST_PAGE = 1000
# What no index answers is looked at one by one, up to here.
MOST_LOOKED_AT = 20_000
_AT_ONCE = 500
# Counting takes longer than a page of many people, so nobody counts again for each page.
_TOTAL_FOR = 5.0
_MOST_TOTALS = 100


class Collection(Protocol):
    """All resources of one kind. A row has ``created`` and ``id``."""

    @property
    def kind(self) -> Kind:
        """Their kind."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """What can be asked of the database."""

    @property
    def orders(self) -> Mapping[str, Column[Any]]:
        """By what the database can put them in order."""

    async def rows(self, client: Client, condition: Condition, window: Window) -> Sequence[Any]:
        """Some of them."""

    async def count(self, client: Client, condition: Condition) -> int:
        """How many there are."""

    async def shown(self, client: Client, rows: Sequence[Any], projection: Projection) -> list[dict[str, Any]]:
        """As the client sees them."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for. ``start`` counts from 0; ``cursor`` is None where pages go by index."""

    term: Filter | None
    start: int
    count: int
    by: Place | None
    descending: bool
    cursor: str | None
    projection: Projection
    digest: str


def query_of(kind: Kind, asked: Mapping[str, Any]) -> Query:
    """Read a query, from an address or from the body of a ``.search``. Raises Fault."""
    text, by = asked.get("filter"), asked.get("sortby")
    order = str(asked.get("sortorder") or "ascending").lower()
    if order not in ("ascending", "descending"):
        raise bad_value("sortOrder is ascending or descending")
    cursor = asked.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise Fault("invalidCursor", "the cursor is none of ours")
    return Query(
        term=parse_filter(str(text), kind) if text else None,
        start=max(_number(asked, "startindex", 1), 1) - 1,
        count=min(max(_number(asked, "count", PAGE), 0), LARGEST_PAGE),
        by=place_of(kind, str(by)) if by else None,
        descending=order == "descending",
        cursor=cursor,
        projection=projection_of(kind, asked.get("attributes"), asked.get("excludedattributes")),
        digest=hashlib.sha256(json.dumps([kind.name, text, by, order]).encode()).hexdigest()[:16],
    )


def _number(asked: Mapping[str, Any], name: str, default: int) -> int:
    value = asked.get(name)
    if value is None or value == "":
        return default
    try:
        return max(min(int(str(value)), 10**9), -1)
    except ValueError:
        raise bad_value(f"{name} is no number") from None


def list_response(total: int, resources: Sequence[Any], start: int = 0, *, count: int | None = None) -> dict[str, Any]:
    """Body of a list; nothing found is a list, too."""
    return {
        "schemas": [LIST],
        "totalResults": total,
        "startIndex": start + 1,
        "itemsPerPage": len(resources) if count is None else count,
        "Resources": list(resources),
    }


class Totals:
    """How many resources a question found on its first page, while somebody goes through the others."""

    def __init__(self) -> None:
        """Know none."""
        self._found: dict[tuple[str, str], tuple[float, int]] = {}

    def keep(self, client: Client, query: Query, total: int, now: float) -> None:
        """Remember *total* from *now* (epoch seconds) on."""
        if len(self._found) >= _MOST_TOTALS:
            self._found.clear()
        self._found[client.source, query.digest] = (now, total)

    def of(self, client: Client, query: Query, now: float) -> int | None:
        """What was counted a moment ago; None when it has to be counted now."""
        counted, total = self._found.get((client.source, query.digest), (-_TOTAL_FOR, 0))
        return total if abs(now - counted) < _TOTAL_FOR else None


async def listed(collection: Collection, client: Client, query: Query, totals: Totals, now: float) -> dict[str, Any]:
    """Answer *query* at *now*. Raises Fault(tooMany) when too much would have to be looked at one by one."""
    condition = condition_of(query.term, collection.fields)
    by = collection.orders.get(field_name(query.by)) if query.by is not None else None
    if not condition.is_exact or (query.by is not None and by is None):
        found = await _sifted(collection, client, query, condition)
        start = _offset(query) if query.cursor is not None else query.start
        rows, total = found[start : start + query.count], len(found)
        resources = await collection.shown(client, rows, query.projection) if rows else []
        return _page(query, total, resources, _next(query, start, len(rows), total))
    window = _window(query, by)
    rows = list(await collection.rows(client, condition, window)) if query.count else []
    total = window.start + len(rows)
    if window.after is not None or len(rows) == query.count or (window.start and not rows):
        total = max(await _counted(collection, client, query, condition, (totals, now)), total if rows else 0)
    resources = await collection.shown(client, rows, query.projection) if rows else []
    if query.cursor is None or query.by is not None:
        return _page(query, total, resources, _next(query, window.start, len(rows), total))
    last = [rows[-1].created, rows[-1].id] if len(rows) == query.count and rows else None
    return _page(query, total, resources, _cursor(query, last) if last else "")


async def _counted(
    collection: Collection, client: Client, query: Query, condition: Condition, memory: tuple[Totals, float]
) -> int:
    """How many there are, when the end was not seen. A cursor by index ends by this number, so that it is never old."""
    totals, now = memory
    is_further = query.start > 0 if query.cursor is None else bool(query.cursor) and query.by is None
    total = totals.of(client, query, now) if is_further else None
    if total is None:
        total = await collection.count(client, condition)
        totals.keep(client, query, total, now)
    return total


def _page(query: Query, total: int, resources: list[dict[str, Any]], following: str) -> dict[str, Any]:
    page = list_response(total, resources, query.start)
    if query.cursor is not None:
        # RFC 9865, section 2: the last page has no nextCursor, and no page an index.
        del page["startIndex"]
        if following:
            page["nextCursor"] = following
    return page


def _window(query: Query, by: Column[Any] | None) -> Window:
    if query.cursor is None or query.by is not None:
        start = query.start if query.cursor is None else _offset(query)
        return Window(query.count, start, None, by, query.descending and query.by is not None)
    after = _read(query)
    if after is None:
        return Window(query.count)
    if not isinstance(after, list) or len(after) != 2:
        raise Fault("invalidCursor", "the cursor is none of ours")
    return Window(query.count, after=(float(after[0]), str(after[1])))


def _offset(query: Query) -> int:
    offset = _read(query)
    if offset is not None and not isinstance(offset, int):
        raise Fault("invalidCursor", "the cursor is none of ours")
    return offset or 0


def _next(query: Query, start: int, length: int, total: int) -> str:
    end = start + length
    return _cursor(query, end) if query.cursor is not None and length and end < total else ""


def _cursor(query: Query, place: Any) -> str:
    text = json.dumps([query.digest, place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(query: Query) -> Any:
    """Where the cursor stands; None at the beginning."""
    if not query.cursor:
        return None
    try:
        text = base64.urlsafe_b64decode(query.cursor + "=" * (-len(query.cursor) % 4))
        digest, place = json.loads(text)
    except (ValueError, TypeError):
        raise Fault("invalidCursor", "the cursor is none of ours") from None
    if digest != query.digest:
        raise Fault("invalidCursor", "the cursor belongs to another question")
    return place


async def _sifted(collection: Collection, client: Client, query: Query, condition: Condition) -> list[Any]:
    """What fits, when each one has to be looked at, in its order."""
    rows = await collection.rows(client, condition, Window(MOST_LOOKED_AT + 1))
    if len(rows) > MOST_LOOKED_AT:
        raise Fault("tooMany", "too many resources would have to be looked at; ask for userName, externalId or id")
    places = (*_places(query.term), *([query.by] if query.by is not None else []))
    needed = Projection(places)
    found: list[tuple[Any, dict[str, Any]]] = []
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        shown = await collection.shown(client, some, needed)
        found += [pair for pair in zip(some, shown, strict=True) if query.term is None or fits(query.term, pair[1])]
        await asyncio.sleep(0)
    if query.by is not None:
        by = query.by
        found.sort(key=lambda pair: _sort_key(by, pair[1]), reverse=query.descending)
    return [row for row, _ in found]


def _sort_key(by: Place, resource: Mapping[str, Any]) -> tuple[bool, str]:
    # RFC 7644, section 3.4.2.3: whoever has no value comes last.
    value = next(iter(by.values(resource)), None)
    return value is None, folded(str(value))


def _places(term: Filter | None) -> Iterator[Place]:
    match term:
        case None:
            return
        case Compare():
            yield Place(term.place.urn, term.place.attribute)
        case Negated(inner):
            yield from _places(inner)
        case Within():
            yield Place(term.place.urn, term.place.attribute)
        case _:
            for one in term.terms:
                yield from _places(one)
