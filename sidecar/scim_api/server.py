"""Receive the requests of SCIM clients: let them in, do what they ask, and answer in their own terms."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import structlog
from aiohttp import web

from sidecar.core.audit import Event
from sidecar.core.limits import client_of
from sidecar.core.scim.fault import Fault, bad_syntax, bad_value, not_there
from sidecar.faults import Refused, Unavailable
from sidecar.model import Visit
from sidecar.reason import Reason
from sidecar.scim_api.bulk import bulk, refuse_operation
from sidecar.scim_api.call import Call, Reply, error, etag
from sidecar.scim_api.client import Client, Token, not_admitted
from sidecar.scim_api.discovery import LARGEST_BODY, resource_types, schemas, service_provider_config
from sidecar.scim_api.groups import Groups
from sidecar.scim_api.listing import Totals, list_response, listed, query_of
from sidecar.scim_api.users import Users
from sidecar.sessions.store import Store
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics

_log = structlog.get_logger("scim")
_PATIENCE = 30.0
_WINDOW = 60.0
_WRONG_TOKENS = 30
_READING = frozenset(["ServiceProviderConfig", "Schemas", "ResourceTypes"])
_ID = re.compile(r"[0-9a-f]{32}")
_LONGEST_PATH = 200
_MEDIA_TYPES = frozenset(["application/scim+json", "application/json"])


@dataclass(slots=True, kw_only=True)
class ScimServer:
    """Everything at ``{prefix}/scim/NAME/v2``; nothing of it ever reaches the application."""

    prefix: str
    clients: Mapping[str, Client]
    users: Users
    groups: Groups
    store: Store
    audit: AuditLog
    metrics: Metrics
    totals: Totals = field(default_factory=Totals)

    def owns(self, path: str) -> bool:
        """True when the canonical *path* is one of ours."""
        return path.startswith(f"{self.prefix}/scim/")

    async def handle(self, request: web.BaseRequest, visit: Visit, now: float) -> web.Response:
        """Answer one request; nothing that is refused or down gets past this."""
        name, _, rest = visit.path[len(self.prefix) + len("/scim/") :].partition("/")
        client = self.clients.get(name)
        try:
            reply = await self._received(request, visit, client, rest, now)
        except (Refused, Unavailable) as fault:
            reply = _failed(fault)
            about = {"path": visit.path, "address": visit.client, "reference": visit.reference}
            self._note_refusal(name if client is not None else "", fault, {"method": visit.method, **about})
        self.metrics.scim.labels(name if client is not None else "", f"{reply.status // 100}xx").inc()
        return _response(visit, reply)

    async def _received(
        self, request: web.BaseRequest, visit: Visit, client: Client | None, rest: str, now: float
    ) -> Reply:
        client, token = await self._admitted(visit, client, now)
        version, *path = rest.split("/")
        if version != "v2":
            raise not_there()
        path = [part for part in path if part]
        if not token.may_write and visit.method != "GET" and path[-1:] != [".search"]:
            raise not_admitted(403, "this token may only read")
        if path and path[0] in _READING and visit.method != "GET":
            raise Refused(Reason.METHOD_REFUSED, 405, visit.method)
        call = Call(
            client=client,
            address=visit.client,
            reference=visit.reference,
            method=visit.method,
            path=path,
            now=round(now, 3),
            query=_query(request),
            body=await _body(request, tolerant=client.tolerant) if visit.method in ("POST", "PUT", "PATCH") else None,
            if_match=request.headers.get("If-Match", ""),
            if_none_match=request.headers.get("If-None-Match", ""),
        )
        reply = await self._route(call)
        self._note(call, reply)
        return reply

    # Who may come in

    async def _admitted(self, visit: Visit, client: Client | None, now: float) -> tuple[Client, Token]:
        token = None if client is None else client.shown_by(visit)
        if client is None or token is None:
            if await self.store.count(f"scim-wrong:{client_of(visit.client)}", _WINDOW) > _WRONG_TOKENS:
                raise Refused(Reason.RATE_LIMITED, 429, "too many wrong tokens")
            raise not_admitted(401, "no client of that name, or not its token")
        if not client.is_at_home(visit):
            raise not_admitted(403, f"not from {visit.client}")
        if now > token.expires:
            raise not_admitted(401, "the token has ended")
        if await self.store.count(f"scim-rate:{client.name}", _WINDOW) > client.rate:
            raise Refused(Reason.RATE_LIMITED, 429, f"more than {client.rate} requests in a minute")
        return client, token

    async def _charge(self, client: Client, operations: int) -> None:
        """Count what a bulk message holds beyond the one request that it was let in as.

        One that begins within the rate is carried out to its end, so that none is too large for ever; what it had too
        much the following requests lack.
        """
        more = max(operations - 1, 0)
        if more and await self.store.count(f"scim-rate:{client.name}", _WINDOW, more) - more > client.rate:
            raise Refused(Reason.RATE_LIMITED, 429, f"more than {client.rate} requests in a minute")

    # What they ask for

    async def _route(self, call: Call) -> Reply:
        match call.path:
            case ["Me", *_]:
                return Reply(501, error(501, "a program is nobody, so there is no /Me"))
            case ["Bulk"] if call.method == "POST":
                return await bulk(call, self._performed, self._charge)
            case [".search"] if call.method == "POST":
                return await self._search_all(call, _asked(call.body))
            case [] if call.method == "GET":
                return await self._search_all(call, call.query)
            case [("Users" | "Groups") as name, *rest]:
                return await self._resource(call, self.users if name == "Users" else self.groups, rest)
            case [name, *rest] if name in _READING and len(rest) <= 1 and call.method == "GET":
                return _discovered(call, name, rest[0] if rest else "")
            case _:
                raise not_there()

    async def _resource(self, call: Call, collection: Users | Groups, rest: Sequence[str]) -> Reply:
        match call.method, rest:
            case "GET", []:
                query = query_of(collection.kind, call.query)
                page = await listed(collection, call.client, query, self.totals, call.now)
                return _given(page, collection.kind.name)
            case "POST", [".search"]:
                query = query_of(collection.kind, _asked(call.body))
                page = await listed(collection, call.client, query, self.totals, call.now)
                return _given(page, collection.kind.name)
            case "POST", []:
                return await collection.post(call)
            case "GET" | "PUT" | "PATCH" | "DELETE", [one] if not _ID.fullmatch(one):
                raise not_there()
            case "GET", [one]:
                return await collection.get(call, one)
            case "PUT", [one]:
                return await collection.put(call, one)
            case "PATCH", [one]:
                return await collection.patch(call, one)
            case "DELETE", [one]:
                return await collection.delete(call, one)
            case "", _:
                raise refuse_operation()
            case _:
                raise Refused(Reason.METHOD_REFUSED, 405, call.method)

    async def _search_all(self, call: Call, asked: Mapping[str, Any]) -> Reply:
        """People, then groups, as one list."""
        if asked.get("cursor") is not None:
            raise bad_value("over all types at once, pages go by index")
        total, found, start = 0, [], 0
        room: int | None = None
        for collection in (self.users, self.groups):
            query = query_of(collection.kind, asked)
            start = query.start
            room = query.count if room is None else room
            skipped = max(query.start - total, 0)
            page = await listed(
                collection,
                call.client,
                query_of(collection.kind, {**asked, "startindex": skipped + 1, "count": room}),
                self.totals,
                call.now,
            )
            total += page["totalResults"]
            found += page["Resources"]
            room -= len(page["Resources"])
        return _given(list_response(total, found, start), "")

    async def _performed(self, call: Call, read: Callable[[], Call]) -> Reply:
        """One operation of the bulk message *call*, as *read* gives it, whatever becomes of it."""
        try:
            call = read()
            reply = await self._route(call)
        except Refused as refused:
            about = {"address": call.address, "reference": call.reference}
            path = "/".join(call.path)[:_LONGEST_PATH]
            self._note_refusal(call.client.name, refused, {"method": call.method, "path": path, **about})
            return _failed(refused)
        self._note(call, reply)
        return reply

    # What is noted

    def _note(self, call: Call, reply: Reply) -> None:
        if reply.note is not None and reply.note.get("change") != "unchanged":
            fields = {"client": call.client.name, "address": call.address, "reference": call.reference}
            self.audit.record(reply.event, {**fields, **reply.note})

    def _note_refusal(self, client: str, fault: Refused | Unavailable, about: Mapping[str, str]) -> None:
        if isinstance(fault, Unavailable):
            _log.warning("unavailable", reason=fault.reason.value, detail=fault.detail, reference=about["reference"])
            self.metrics.faults.labels(fault.reason.value).inc()
        why = {"status": fault.status, "reason": fault.reason.value, "detail": fault.detail[:200]}
        self.audit.record(Event.SCIM_REFUSED, {"client": client, **why, **about})


def _given(page: Mapping[str, Any], kind: str) -> Reply:
    """The answer with *page*, noted where it hands out some of many: lookups of one would be most of the audit log."""
    given, found = len(page["Resources"]), page["totalResults"]
    if not given or found <= 1:
        return Reply(200, page)
    # No word of the filter: its values are about people.
    note = {"resource": kind or "any", "given": given, "found": found}
    return Reply(200, page, note=note, event=Event.SCIM_READ)


def _discovered(call: Call, name: str, rest: str) -> Reply:
    if "filter" in call.query:
        # RFC 7644, section 4: a filter here is forbidden.
        raise Fault("", "these cannot be filtered", 403)
    base = call.client.base
    match name:
        case "Schemas":
            return Reply(200, schemas(base, rest))
        case "ResourceTypes":
            return Reply(200, resource_types(base, rest))
        case _ if not rest:
            return Reply(200, service_provider_config(base))
        case _:
            raise not_there()


def _query(request: web.BaseRequest) -> dict[str, Any]:
    text = request.raw_path.partition("?")[2]
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=50, errors="strict")
    except ValueError:
        raise bad_value("the query cannot be read") from None
    return {name.lower(): value for name, value in pairs}


def _asked(body: Any) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        raise bad_syntax("a search is a JSON object")
    return {key.lower(): value for key, value in body.items()}


async def _body(request: web.BaseRequest, *, tolerant: bool) -> Any:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Fault("", "compressed bodies are not taken", 415)
    if request.content_type not in _MEDIA_TYPES and not tolerant:
        raise Fault("", "Content-Type must be application/scim+json", 415)
    if (request.content_length or 0) > LARGEST_BODY:
        raise Refused(Reason.BODY_TOO_LARGE, 413, "body")
    raw = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            async for piece in request.content.iter_any():
                raw += piece
                if len(raw) > LARGEST_BODY:
                    raise Refused(Reason.BODY_TOO_LARGE, 413, "body")
    except TimeoutError:
        raise bad_syntax("the body did not arrive in time") from None
    try:
        # Of itself json would take halves of characters, which cannot be answered, and other encodings than UTF-8.
        value = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_number)
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise bad_syntax("the body is not JSON") from None
    return value


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _failed(fault: Refused | Unavailable) -> Reply:
    if isinstance(fault, Fault):
        return Reply(fault.status, error(fault.status, fault.detail, fault.scim_type))
    if isinstance(fault, Unavailable):
        return Reply(503, error(503, fault.reason.value), retry_after=5)
    scim_type = "uniqueness" if fault.reason is Reason.CONFLICT else ""
    return Reply(
        fault.status,
        error(fault.status, f"{fault.reason.value}: {fault.detail}" if fault.detail else fault.reason.value, scim_type),
        retry_after=int(_WINDOW) if fault.reason is Reason.RATE_LIMITED else 0,
    )


def _response(visit: Visit, reply: Reply) -> web.Response:
    headers = {"Cache-Control": "no-store", "Server": "sidecar", "X-Content-Type-Options": "nosniff"}
    headers["X-Request-Reference"] = visit.reference
    if reply.version is not None:
        headers["ETag"] = etag(reply.version)
    if reply.location:
        headers["Location" if reply.status == 201 else "Content-Location"] = reply.location
    if reply.retry_after:
        headers["Retry-After"] = str(reply.retry_after)
    if reply.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="scim"'
    if reply.body is None:
        return web.Response(status=reply.status, headers=headers)
    text = json.dumps(reply.body, ensure_ascii=False, separators=(",", ":"))
    return web.Response(text=text, status=reply.status, headers=headers, content_type="application/scim+json")
