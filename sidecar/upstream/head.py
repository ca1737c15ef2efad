"""The request's head as bytes: the one place where a request to the application gets its framing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.http import HttpVersion11

from sidecar.faults import Refused
from sidecar.reason import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

Line = tuple[str, str]

# Everything that may not stand in a head but as the CR LF at the end of a line (RFC 9110, section 5.5).
CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if code != 0x09)
# Two framings in one head are request smuggling (RFC 9112, section 11.2); these lines are written here or nowhere.
_OURS = (b"\ncontent-length:", b"\ntransfer-encoding:", b"\nconnection:", b"\nupgrade:", b"\nkeep-alive:")
# NTLM and Negotiate sign in a connection, not a request, so it is nobody else's afterwards.
_BINDING = (b"\nauthorization: ntlm", b"\nauthorization: negotiate")


@dataclass(frozen=True, slots=True)
class Head:
    """The request head as it goes to the application, already cleaned.

    ``target`` is the raw origin-form target, byte for byte. ``headers`` are in order, with Host; bytes beyond UTF-8
    are surrogateescape text. Never Content-Length, Transfer-Encoding, Connection or Upgrade.
    """

    method: str
    target: str
    headers: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Framing:
    """How the request's body is delimited; ``length`` in bytes is None when there is none or it is chunked."""

    length: int | None = None
    is_chunked: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A head, or lines of one, ready to be sent; ``binds`` when its credentials sign in the whole connection."""

    data: bytes
    binds: bool


_MOST_DIGITS = 18
_NO_BODY = Framing()
_CHUNKED = Framing(is_chunked=True)


def framing_of(request: web.BaseRequest, limit: int | None) -> Framing:
    """How the client framed its body. Raises Refused(HEADERS_INVALID | BODY_TOO_LARGE).

    *limit* is the largest body in bytes. The server's parser has refused the worst already; what is looked at again
    here is what would be dangerous if it ever did not.
    """
    headers = request.headers
    is_encoded = hdrs.TRANSFER_ENCODING in headers
    if hdrs.CONTENT_LENGTH not in headers:
        return _chunked(request) if is_encoded else _NO_BODY
    lengths = headers.getall(hdrs.CONTENT_LENGTH)
    # A number that does not fit into 64 bits would wrap round in some application.
    is_number = lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) <= _MOST_DIGITS
    if is_encoded or len(lengths) != 1 or not is_number:
        raise Refused(Reason.HEADERS_INVALID, 400, "Content-Length")
    length = int(lengths[0])
    if limit is not None and length > limit:
        raise Refused(Reason.BODY_TOO_LARGE, 413, f"{length} bytes are more than {limit}")
    return Framing(length=length)


def _chunked(request: web.BaseRequest) -> Framing:
    # RFC 9112, section 6.1: in HTTP/1.0 the framing is faulty. Any other coding would be lost with its name.
    codings = [value.lower() for value in request.headers.getall(hdrs.TRANSFER_ENCODING)]
    if codings != ["chunked"] or request.version < HttpVersion11:
        raise Refused(Reason.HEADERS_INVALID, 400, "Transfer-Encoding")
    return _CHUNKED


def compose(head: Head, framing: Framing, *, upgrade: bool = False) -> Outgoing:
    """Write the head. Raises Refused(HEADERS_INVALID) when it could be read as anything but what it is."""
    ours = ""
    if framing.is_chunked:
        ours = "Transfer-Encoding: chunked\r\n"
    elif framing.length is not None:
        ours = f"Content-Length: {framing.length}\r\n"
    if upgrade:
        ours += "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    _check_start(head)
    block = written(head.headers)
    start = f"{head.method} {head.target} HTTP/1.1\r\n".encode()
    return Outgoing(b"%b%b%b\r\n" % (start, block.data, ours.encode()), block.binds)


def written(lines: Sequence[Line]) -> Outgoing:
    """Write header lines so that they may stand in any head. Raises Refused(HEADERS_INVALID) when they may not."""
    try:
        data = "".join([f"{name}: {value}\r\n" for name, value in lines]).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Refused(Reason.HEADERS_INVALID, 400, "not encodable") from None
    if _controls_in(data) != 2 * len(lines):
        raise Refused(Reason.HEADERS_INVALID, 400, "control characters")
    folded = b"\n" + data.lower()
    if any(name in folded for name in _OURS):
        raise Refused(Reason.HEADERS_INVALID, 400, "framing belongs to the connection")
    return Outgoing(data, binds=any(credential in folded for credential in _BINDING))


def with_host(head: Head, authority: str) -> Head:
    """*head* with *authority* in its Host line (RFC 9110, section 7.2)."""
    lines = [("Host", authority) if line[0].lower() == "host" else line for line in head.headers]
    return Head(head.method, head.target, tuple(lines))


def without_expect(request: web.BaseRequest, head: Head) -> Head:
    """Leave out an expectation: it is met here, so that the application need not understand it (RFC 9110, 10.1.1)."""
    if hdrs.EXPECT not in request.headers:
        return head
    kept = tuple(line for line in head.headers if line[0].lower() != "expect")
    return Head(head.method, head.target, kept)


def _controls_in(data: bytes) -> int:
    return len(data) - len(data.translate(None, CONTROLS))


def _check_start(head: Head) -> None:
    start = f"{head.method} {head.target}"
    if not start.isascii() or _controls_in(start.encode()):
        raise Refused(Reason.HEADERS_INVALID, 400, "control characters")
    if " " in head.method or " " in head.target or not head.method:
        raise Refused(Reason.TARGET_INVALID, 400, "spaces in the request line")
    if not (head.target.startswith("/") or (head.target == "*" and head.method == hdrs.METH_OPTIONS)):
        raise Refused(Reason.TARGET_INVALID, 400, "not in origin form")
