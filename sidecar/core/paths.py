"""Turn a request target into the one path that is judged, and refuse those that two servers could read differently."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

from sidecar.faults import Refused
from sidecar.reason import Reason

# RFC 3986, section 3.3, and the four characters more that browsers leave as they are (WHATWG URL, path percent-encode
# set). No fragment, no backslash, no space, nothing above ASCII.
_PLAIN = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/\[\]|^-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"[!-~]*")
_HIDDEN = re.compile(r"%(?:2[fF]|5[cC]|[01][0-9A-Fa-f]|7[fF])")
_TWICE = re.compile(r"%25[0-9A-Fa-f]{2}")
_SEGMENT = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
_SIMPLE = re.compile(rf"/(?:{_SEGMENT}(?:/{_SEGMENT})*/?)?")
# Those of a request that is at its end with its head, or with the body that it tells the length of.
SIMPLE_METHODS = frozenset(["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
# Such a path with nothing to decode or to doubt, and a query; and a request for it up to the end of its first line.
_SIMPLE_TARGET = rb"(/(?:SEG(?:/SEG)*/?)?)(?:\?[!\"$-~]*)?".replace(b"SEG", _SEGMENT.encode())
_SIMPLE_WHOLE = re.compile(_SIMPLE_TARGET)
_SIMPLE_START = re.compile(
    rb"(%b) (%b) HTTP/1\.([01])\r\n" % ("|".join(sorted(SIMPLE_METHODS)).encode(), _SIMPLE_TARGET)
)
_LONGEST = 16 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """A request target in pieces.

    ``raw`` is forwarded byte for byte. ``path`` is decoded once and without ``;parameters``; ``literal`` keeps them:
    servers disagree, so whoever decides must come to the same end with both. ``authority`` is "" for origin-form.
    """

    raw: str
    path: str
    literal: str
    query: str
    authority: str = ""


def read_target(raw: str) -> Target:
    """Parse the request target *raw* (RFC 9112, section 3.2: origin-form or absolute-form).

    Raises ``Refused(TARGET_INVALID | PATH_AMBIGUOUS, 400)``. Refused as ambiguous: ``.`` and ``..`` segments in every
    spelling, empty segments, encoded slashes, backslashes and control characters, double encoding.
    """
    if len(raw) > _LONGEST:
        raise Refused(Reason.TARGET_INVALID, 414, "target too long")
    authority = ""
    if not raw.startswith("/"):
        raw, authority = _from_absolute(raw)
    path, _, query = raw.partition("?")
    if not _QUERY.fullmatch(query) or "#" in query:
        raise Refused(Reason.TARGET_INVALID, 400, "query has characters that must be encoded")
    if _SIMPLE.fullmatch(path):
        # Nearly every request: nothing to decode, nothing to doubt.
        return Target(raw, path, path, query, authority)
    literal = _decoded(path)
    stripped = "/".join(segment.partition(";")[0] for segment in literal.split("/"))
    for candidate in {literal, stripped}:
        _refuse_ambiguous(candidate)
    return Target(raw, stripped, literal, query, authority)


def read_simple_start(head: bytes) -> tuple[bytes, bytes, str, bytes, int] | None:
    """Read the first line of *head*: method, the target as it came, its path, the version, and how long the line is.

    Of the version that is what stands after ``HTTP/1.``; the line is so many bytes long.

    None when it is anything but an ordinary method and a path that cannot be read two ways: ``read_target`` comes to
    the same path for it, and refuses nothing of it.
    """
    match = _SIMPLE_START.match(head)
    if match is None or match.end() > _LONGEST:
        return None
    return match[1], match[2], match[3].decode(), match[4], match.end()


def read_simple_target(target: bytes) -> str | None:
    """Path of a *target* as ``read_simple_start`` would read it; None when it takes a second look."""
    match = _SIMPLE_WHOLE.fullmatch(target)
    return None if match is None or len(target) > _LONGEST else match[1].decode()


def _from_absolute(raw: str) -> tuple[str, str]:
    try:
        parts = urlsplit(raw) if raw.lower().startswith(("http://", "https://")) else None
    except ValueError:
        parts = None
    if parts is None or not parts.netloc or "@" in parts.netloc:
        raise Refused(Reason.TARGET_INVALID, 400, "neither a path nor an http address")
    rest = raw[raw.index("//") + 2 + len(parts.netloc) :]
    return (rest if rest.startswith("/") else "/" + rest), parts.netloc


def _decoded(path: str) -> str:
    if not _PLAIN.fullmatch(path):
        raise Refused(Reason.TARGET_INVALID, 400, "path has characters that must be encoded")
    if _HIDDEN.search(path) or _TWICE.search(path):
        raise Refused(Reason.PATH_AMBIGUOUS, 400, "encoded slash, backslash, control character or percent sign")
    try:
        return unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise Refused(Reason.TARGET_INVALID, 400, "path is not UTF-8") from None


def _refuse_ambiguous(path: str) -> None:
    segments = path.split("/")[1:]
    if any(segment in (".", "..") or segment.startswith("..;") for segment in segments):
        raise Refused(Reason.PATH_AMBIGUOUS, 400, "dot segment")
    if any(not segment for segment in segments[:-1]):
        raise Refused(Reason.PATH_AMBIGUOUS, 400, "empty segment")


def refuse_windows_names(target: Target) -> None:
    """Raise Refused(PATH_AMBIGUOUS, 400) for a segment that Windows opens under another name.

    Dots and spaces at the end are cut off there, and a colon begins the name of a stream: ``admin.``,
    ``web.config::$DATA``.
    """
    if is_shortened(target.literal) or is_shortened(target.path):
        raise Refused(Reason.PATH_AMBIGUOUS, 400, "a name that Windows shortens")


def is_shortened(path: str) -> bool:
    """True when Windows opens a segment of *path* under another name."""
    return any(segment.endswith((".", " ")) or ":" in segment for segment in path.split("/"))


def safe_return_to(text: str) -> str | None:
    """Give *text* back when it is a path of this very site, None otherwise: the only door for return targets.

    Stricter than a browser: whatever one could read as another host, or as a script, does not pass.
    """
    if not text.startswith("/") or text.startswith(("//", "/\\")) or len(text) > _LONGEST:
        return None
    try:
        target = read_target(text)
    except Refused:
        return None
    return target.raw
