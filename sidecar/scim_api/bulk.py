"""Do many operations that came in one message, one after the other (RFC 7644, section 3.7)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sidecar.core.scim.fault import Fault, bad_syntax, bad_value
from sidecar.reason import Reason
from sidecar.scim_api.call import Call, Reply, etag
from sidecar.scim_api.client import Client
from sidecar.scim_api.discovery import MOST_BULK_OPERATIONS

_RESPONSE = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
_METHODS = frozenset(["POST", "PUT", "PATCH", "DELETE"])
# A value, or one that a filter in a path compares with.
_REFERENCE = re.compile(r'(?:^|(?<="))bulkId:([^"]*)')
_DEEPEST = 20

# Does one operation of a message, which is read first, and makes an answer of whatever comes of it.
Perform = Callable[[Call, Callable[[], Call]], Awaitable[Reply]]
# Counts so many operations of a client. Raises Refused(RATE_LIMITED).
Charge = Callable[[Client, int], Awaitable[None]]


async def bulk(call: Call, perform: Perform, charge: Charge) -> Reply:
    """Do everything that *call* asks for, until ``failOnErrors`` are reached. Raises Fault, and what *charge* does."""
    body = {key.lower(): value for key, value in call.body.items()} if isinstance(call.body, Mapping) else {}
    operations = body.get("operations")
    if not isinstance(operations, list) or not all(isinstance(one, Mapping) for one in operations):
        raise bad_syntax("Operations must be a list of JSON objects")
    if len(operations) > MOST_BULK_OPERATIONS:
        raise Fault("", f"more than {MOST_BULK_OPERATIONS} operations", 413, Reason.BODY_TOO_LARGE)
    await charge(call.client, len(operations))
    most = body.get("failonerrors")
    made: dict[str, str] = {}
    answers: list[dict[str, Any]] = []
    failed = 0
    for operation in operations:
        answer, is_good = await _one(call, operation, perform, made)
        answers.append(answer)
        failed += not is_good
        if isinstance(most, int) and not isinstance(most, bool) and 0 < most <= failed:
            break
    return Reply(200, {"schemas": [_RESPONSE], "Operations": answers})


async def _one(
    call: Call, operation: Mapping[str, Any], perform: Perform, made: dict[str, str]
) -> tuple[dict[str, Any], bool]:
    method = str(operation.get("method", "")).upper()
    bulk_id = operation.get("bulkId")
    answer: dict[str, Any] = {"method": method}
    if isinstance(bulk_id, str):
        answer["bulkId"] = bulk_id
    reply = await perform(call, partial(_inner, call, method, operation, made))
    if reply.location:
        answer["location"] = reply.location
    if reply.version is not None:
        answer["version"] = etag(reply.version)
    answer["status"] = str(reply.status)
    is_good = reply.status < 400
    if not is_good:
        answer["response"] = reply.body
    elif isinstance(bulk_id, str) and method == "POST" and reply.location:
        made[bulk_id] = reply.location.rsplit("/", 1)[-1]
    return answer, is_good


def _inner(call: Call, method: str, operation: Mapping[str, Any], made: Mapping[str, str]) -> Call:
    path = operation.get("path")
    parts = path.strip("/").split("/") if isinstance(path, str) else []
    is_allowed = method in _METHODS and 1 <= len(parts) <= 2 and parts[0] in ("Users", "Groups")
    # A look costs what a whole message does, and nobody would see what it found.
    is_allowed = is_allowed and parts[1:] != [".search"]
    version = operation.get("version")
    return replace(
        call,
        method=method if is_allowed else "",
        path=[_resolved(one, made) for one in parts] if is_allowed else ["Users"],
        query={"attributes": "id"},
        body=_resolved(operation.get("data"), made),
        if_match=version if isinstance(version, str) else "",
        if_none_match="",
    )


def _resolved(value: Any, made: Mapping[str, str], depth: int = 0) -> Any:
    """*value* with the ids of what was made before in place of references to it; not deeper than any resource is.

    Raises Fault for what was not: an id that is nobody's is passed over in groups, and would look as if it were done.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: _id_of(found[1], made), value)
    if depth > _DEEPEST:
        return value
    if isinstance(value, list):
        return [_resolved(one, made, depth + 1) for one in value]
    if isinstance(value, Mapping):
        return {key: _resolved(one, made, depth + 1) for key, one in value.items()}
    return value


def _id_of(bulk_id: str, made: Mapping[str, str]) -> str:
    if bulk_id not in made:
        raise Fault("", f"nothing was made before as bulkId:{bulk_id[:64]}", 409, Reason.CONFLICT)
    return made[bulk_id]


def refuse_operation() -> Fault:
    """An operation that no bulk message may hold."""
    return bad_value("method must be POST, PUT, PATCH or DELETE, and path that of Users or Groups")
