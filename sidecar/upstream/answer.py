"""What the application answered, judged: the lines that may pass, and how the body is delimited."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.http import HttpVersion10, HttpVersion11

from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.upstream.head import CONTROLS, Line

if TYPE_CHECKING:
    from aiohttp.http import RawResponseMessage

MAX_HEAD = 64 * 1024
MAX_LINES = 256
_FIRST_FINAL_STATUS = 200
_NO_CONTENT = 204
_NOT_MODIFIED = 304
_MEMO = 1024
_LONGEST_IN_MEMO = 64
BODILESS = (_NO_CONTENT, _NOT_MODIFIED)
_EVENTS = b"text/event-stream"
_COMMON_CONNECTION = (b"keep-alive", b"close")
# What only a final answer says.
_NOT_YET = ("set-cookie", "www-authenticate")


class Fate(Enum):
    """What becomes of a line of an answer."""

    KEEP = auto()
    DROP = auto()
    LENGTH = auto()
    CODING = auto()
    CONNECTION = auto()
    CHALLENGE = auto()
    TYPE = auto()
    COOKIE = auto()


# RFC 9110, section 7.6.1: these speak to us, not to the client.
_FATES = {
    "connection": Fate.CONNECTION,
    "content-length": Fate.LENGTH,
    "transfer-encoding": Fate.CODING,
    "www-authenticate": Fate.CHALLENGE,
    "content-type": Fate.TYPE,
    "set-cookie": Fate.COOKIE,
    **dict.fromkeys(
        (
            "keep-alive",
            "proxy-authenticate",
            "proxy-authentication-info",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "trailer",
            "upgrade",
        ),
        Fate.DROP,
    ),
}
_memo: dict[bytes, tuple[Fate, str]] = {}


@dataclass(slots=True)
class Answer:
    """A final answer whose framing is sound.

    ``lines`` are the end-to-end header lines in their order and spelling, bytes kept by surrogateescape, without
    Content-Length. ``length`` is the Content-Length in bytes, None when there was none. ``may_be_shared`` is False when
    the connection must not serve anybody else.
    """

    status: int
    reason: str
    lines: list[Line]
    length: int | None
    has_body: bool
    is_event_stream: bool = False
    may_be_shared: bool = True


def judge(message: RawResponseMessage, method: str) -> Answer:
    """Read the head of a final answer to a *method* request; raises Unavailable(UPSTREAM_ANSWER, 502)."""
    if message.code < _FIRST_FINAL_STATUS or message.version not in (HttpVersion11, HttpVersion10):
        raise bad_answer("neither HTTP/1.1 nor HTTP/1.0, or not a final status")
    answer = _sift(message)
    _settle_body(answer, method)
    return answer


def interim_bytes(message: RawResponseMessage) -> bytes:
    """Write an interim answer for the client; raises Unavailable(UPSTREAM_ANSWER, 502).

    Cookies and challenges stay behind: clients may ignore them there (RFC 6265, section 3), and nobody here notes them.
    """
    answer = _sift(message)
    lines = [line for line in answer.lines if line[0].lower() not in _NOT_YET]
    return head_bytes(answer, lines, "")


def judge_switch(message: RawResponseMessage) -> Answer:
    """Read the head of a 101 that was asked for; raises Unavailable(UPSTREAM_ANSWER, 502)."""
    upgrades = [value.lower() for value in message.headers.getall(hdrs.UPGRADE, ())]
    if message.version != HttpVersion11 or upgrades != ["websocket"]:
        raise bad_answer("a switch to something else than WebSocket")
    return _sift(message)


def _sift(message: RawResponseMessage) -> Answer:
    answer = Answer(message.code, message.reason, [], None, has_body=True)
    codings: list[bytes] = []
    named: list[bytes] = []
    size = 0
    for raw_name, value in message.raw_headers:
        size += len(raw_name) + len(value) + 4
        fate, name = _memo.get(raw_name) or _remember(raw_name)
        if fate is Fate.KEEP or fate is Fate.COOKIE:
            answer.lines.append((name, value.decode("utf-8", "surrogateescape")))
        elif fate is Fate.LENGTH:
            answer.length = _length(value, answer.length)
        elif fate is Fate.CODING:
            codings.append(value)
        elif fate is Fate.CONNECTION:
            if value.lower() not in _COMMON_CONNECTION:
                named.append(value)
        elif fate is not Fate.DROP:
            _note(answer, fate, value)
            answer.lines.append((name, value.decode("utf-8", "surrogateescape")))
    if size > MAX_HEAD:
        raise bad_answer(f"a head of more than {MAX_HEAD} bytes")
    _check_codings(codings, answer, message)
    if named:
        _drop_named(answer, named)
    return answer


def fate_of(name: bytes) -> Fate:
    """What becomes of a line of that *name*."""
    return (_memo.get(name) or _remember(name))[0]


def _remember(raw: bytes) -> tuple[Fate, str]:
    name = raw.decode("utf-8", "surrogateescape")
    known = _FATES.get(name.lower(), Fate.KEEP), name
    if len(raw) > _LONGEST_IN_MEMO:
        return known
    if len(_memo) >= _MEMO:
        _memo.clear()
    _memo[raw] = known
    return known


def _length(value: bytes, before: int | None) -> int:
    # RFC 9112, section 6.3: more than one, or not a number, cannot be recovered from.
    if before is not None or not value.isdigit() or len(value) > 18:
        raise bad_answer("Content-Length")
    return int(value)


def _note(answer: Answer, fate: Fate, value: bytes) -> None:
    if fate is Fate.TYPE:
        answer.is_event_stream = value.lower().startswith(_EVENTS)
    elif value.lower().lstrip().startswith((b"ntlm", b"negotiate")):
        # These sign in the connection, not the request: the next person on it would be the last one.
        answer.may_be_shared = False


def _check_codings(codings: list[bytes], answer: Answer, message: RawResponseMessage) -> None:
    if not codings:
        return
    if answer.length is not None or message.version != HttpVersion11:
        raise bad_answer("Transfer-Encoding next to Content-Length, or in HTTP/1.0")
    if [coding.lower() for coding in codings] != [b"chunked"]:
        raise bad_answer("a Transfer-Encoding other than chunked")


def _drop_named(answer: Answer, values: list[bytes]) -> None:
    tokens = {token.strip().lower() for value in values for token in value.decode("latin-1").split(",")}
    if tokens - {"close", "keep-alive", "upgrade", ""}:
        answer.lines = [line for line in answer.lines if line[0].lower() not in tokens]


def _settle_body(answer: Answer, method: str) -> None:
    if answer.status == _NO_CONTENT:
        # RFC 9110, section 8.6: 204 carries no Content-Length.
        answer.length = None
        answer.has_body = False
    elif answer.status == _NOT_MODIFIED or method == hdrs.METH_HEAD:
        answer.has_body = False


def head_bytes(answer: Answer, lines: list[Line], ours: str) -> bytes:
    """Write the head for the client: status line, *lines*, then *ours* (whole lines of framing).

    Raises Unavailable(UPSTREAM_ANSWER, 502) for control characters: they would be a second header.
    """
    text = "".join([f"{name}: {value}\r\n" for name, value in lines])
    data = f"HTTP/1.1 {answer.status} {answer.reason}\r\n{text}{ours}\r\n".encode("utf-8", "surrogateescape")
    if len(data) - len(data.translate(None, CONTROLS)) != 2 * (len(lines) + ours.count("\n") + 2):
        raise bad_answer("control characters in the head")
    return data


def bad_answer(detail: str) -> Unavailable:
    """Name what is wrong with the application's answer."""
    return Unavailable(Reason.UPSTREAM_ANSWER, detail, status=502)
