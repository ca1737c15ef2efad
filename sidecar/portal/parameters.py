"""Read queries and forms strictly: bounded in bytes and time, every parameter at most once."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from aiohttp import web

from sidecar.faults import Refused
from sidecar.reason import Reason

_MOST_PARAMETERS = 50
_LONGEST_FORM = 512 * 1024
_PATIENCE = 15.0


def parameters_of(query: str) -> dict[str, str]:
    """Parameters of a query or form, each at most once; Refused(LOGIN_ANSWER_INVALID) otherwise.

    RFC 6749, section 3.1: parameters must not be included more than once.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict")
    except ValueError:
        raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "too many or unreadable parameters") from None
    if any("\0" in text for pair in pairs for text in pair):
        # PostgreSQL cannot even be asked for such a text.
        raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "a parameter with NUL in it")
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "a parameter is there twice")
    return parameters


def query_of(request: web.BaseRequest) -> str:
    """Query as it was sent: aiohttp's own ``query_string`` is decoded already, and would be decoded twice."""
    return request.raw_path.partition("?")[2]


async def read_form(request: web.BaseRequest) -> str:
    """Body of a form (application/x-www-form-urlencoded) as text.

    Raises Refused: BODY_TOO_LARGE (413) over half a mebibyte or without a length, LOGIN_ANSWER_INVALID (400) for
    what is no such form or does not arrive in time.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "not a form")
    length = request.content_length
    if length is None or length > _LONGEST_FORM:
        raise Refused(Reason.BODY_TOO_LARGE, 413, "form")
    try:
        async with asyncio.timeout(_PATIENCE):
            return (await request.content.readexactly(length)).decode("ascii")
    except (TimeoutError, asyncio.IncompleteReadError, UnicodeDecodeError):
        raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "the form did not arrive whole") from None
