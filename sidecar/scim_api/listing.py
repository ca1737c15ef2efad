"""Answer questions for many resources: filter, order, pages by index or by cursor (RFC 7644, 3.4.2; RFC 9865)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Column

from sidecar.core.scim.fault import Fault, bad_value
from sidecar.core.scim.filters import Compare, Filter, Negated, Within, fits, parse_filter
from sidecar.core.scim.paths import Place, can_be_kept, place_of
from sidecar.core.scim.projection import Projection, projection_of
from sidecar.core.scim.schema import Kind
from sidecar.core.wanted import folded
from sidecar.directory.scim import Window
from sidecar.directory.scim_query import Condition, condition_of, field_name
from sidecar.scim_api.client import Client

LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
PAGE = 100
LARGEST_PAGE = 1000
# What no index answers is looked at one by one, up to here; of a filter with many terms fewer.
MOST_LOOKED_AT = 20_000
_MOST_COMPARED = 400_000
_AT_ONCE = 500
# So many comparisons keep the others waiting for some milliseconds.
_BETWEEN_PAUSES = 2000
_LONGEST_KEY = 200
# Counting takes longer than a page of many people, so nobody counts again for each page.
_TOTAL_FOR = 5.0
_MOST_TOTALS = 100
_FARTHEST = 10**9


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

    async def portion(self, rows: Sequence[Any], projection: Projection) -> int:
        """How many of *rows*, from the first on, may be shown at once: one at least where there are any."""


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
    text, by, order = asked.get("filter"), asked.get("sortby"), asked.get("sortorder") or "ascending"
    if not isinstance(order, str) or order.lower() not in ("ascending", "descending"):
        raise bad_value("sortOrder is ascending or descending")
    if not isinstance(text, str | None) or not isinstance(by, str | None):
        raise bad_value("filter and sortBy are texts")
    order = order.lower()
    cursor = asked.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise Fault("invalidCursor", "the cursor is none of ours")
    return Query(
        term=parse_filter(text, kind) if text else None,
        start=max(_number(asked, "startindex", 1), 1) - 1,
        count=min(max(_number(asked, "count", PAGE), 0), LARGEST_PAGE),
        by=place_of(kind, by) if by else None,
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
        return max(min(int(value), _FARTHEST), -1)
    except (ValueError, TypeError, OverflowError):
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
        start = _offset(query) if query.cursor is not None else query.start
        ids = await _sifted(collection, client, query, condition)
        rows = await _portion(collection, query, await _of_ids(collection, client, ids[start : start + query.count]))
        resources = await collection.shown(client, rows, query.projection) if rows else []
        return _page(query, len(ids), resources, _next(query, start, len(rows), len(ids)))
    window = _window(query, by)
    found = list(await collection.rows(client, condition, window)) if query.count else []
    total, is_full = window.start + len(found), len(found) == query.count
    if window.after is not None or is_full or (window.start and not found):
        total = max(await _counted(collection, client, query, condition, (totals, now)), total if found else 0)
    rows = await _portion(collection, query, found)
    resources = await collection.shown(client, rows, query.projection) if rows else []
    if query.cursor is None or query.by is not None:
        return _page(query, total, resources, _next(query, window.start, len(rows), total))
    last = [rows[-1].created, rows[-1].id] if rows and (is_full or len(rows) < len(found)) else None
    return _page(query, total, resources, _cursor(query, last) if last else "")


async def _portion(collection: Collection, query: Query, rows: Sequence[Any]) -> Sequence[Any]:
    """Those of *rows* that stand in one answer; the others come with the next page."""
    return rows[: await collection.portion(rows, query.projection)] if len(rows) > 1 else rows


async def _of_ids(collection: Collection, client: Client, ids: Sequence[str]) -> list[Any]:
    """What has these ids, in their order."""
    if not ids:
        return []
    chosen = Condition(collection.orders["id"].in_(ids), is_exact=True, finds_ids=True)
    rows = {row.id: row for row in await collection.rows(client, chosen, Window(len(ids)))}
    return [rows[one] for one in ids if one in rows]


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
    match after:
        case [int() | float() as moment, str() as last] if math.isfinite(moment) and can_be_kept(last):
            return Window(query.count, after=(float(moment), last))
        case _:
            raise Fault("invalidCursor", "the cursor is none of ours")


def _offset(query: Query) -> int:
    offset = _read(query)
    if offset is not None and not (type(offset) is int and 0 <= offset <= _FARTHEST):
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
    except (ValueError, TypeError, RecursionError):
        raise Fault("invalidCursor", "the cursor is none of ours") from None
    if digest != query.digest:
        raise Fault("invalidCursor", "the cursor belongs to another question")
    return place


async def _sifted(collection: Collection, client: Client, query: Query, condition: Condition) -> list[str]:
    """Ids of what fits, in its order, when each one has to be looked at. Only a few are held at a time."""
    terms = max(_terms(query.term), 1)
    most = min(MOST_LOOKED_AT, _MOST_COMPARED // terms)
    if await collection.count(client, condition) > most:
        raise Fault("tooMany", "too many resources would have to be looked at; ask for userName, externalId or id")
    needed = Projection((*_places(query.term), *([query.by] if query.by is not None else [])))
    found: list[tuple[tuple[bool, str], str]] = []
    looked, window = 0, Window(_AT_ONCE)
    while rows := await collection.rows(client, condition, window):
        window = Window(_AT_ONCE, after=(rows[-1].created, rows[-1].id))
        while rows:
            number = await collection.portion(rows, needed)
            for row, resource in zip(rows, await collection.shown(client, rows[:number], needed), strict=False):
                if query.term is None or fits(query.term, resource):
                    found.append((_sort_key(query.by, resource), row.id))
                looked += terms
                if looked > _BETWEEN_PAUSES:
                    looked = 0
                    await asyncio.sleep(0)
            rows = rows[number:]
    if query.by is not None:
        found.sort(key=lambda pair: pair[0], reverse=query.descending)
    return [row_id for _, row_id in found]


def _sort_key(by: Place | None, resource: Mapping[str, Any]) -> tuple[bool, str]:
    # RFC 7644, section 3.4.2.3: whoever has no value comes last.
    value = next(iter(by.values(resource)), None) if by is not None else None
    return value is None, folded(str(value)[:_LONGEST_KEY])


def _terms(term: Filter | None) -> int:
    match term:
        case None:
            return 0
        case Compare():
            return 1
        case Negated(inner) | Within(_, inner):
            return 1 + _terms(inner)
        case _:
            return sum(map(_terms, term.terms))


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
