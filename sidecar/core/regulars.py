"""Tell by the bytes of a request's header lines whether the same ones came before, but for what differs each time."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Lines that nothing here reads, and that differ from request to request: what browsers say about where they are, names
# of traces, what content delivery networks and balancers call each request, and what forms and signed requests prove.
VARYING = frozenset(
    [
        b"b3",
        b"baggage",
        b"cf-ray",
        b"content-digest",
        b"content-md5",
        b"date",
        b"digest",
        b"elastic-apm-traceparent",
        b"fly-request-id",
        b"hx-current-url",
        b"hx-prompt",
        b"hx-target",
        b"hx-trigger",
        b"hx-trigger-name",
        b"idempotency-key",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"last-event-id",
        b"newrelic",
        b"range",
        b"referer",
        b"request-id",
        b"sentry-trace",
        b"signature",
        b"signature-input",
        b"traceparent",
        b"tracestate",
        b"turbo-frame",
        b"uber-trace-id",
        b"x-akamai-request-id",
        b"x-amz-cf-id",
        b"x-amzn-requestid",
        b"x-amzn-trace-id",
        b"x-appgw-trace-id",
        b"x-arr-log-id",
        b"x-azure-ref",
        b"x-b3-parentspanid",
        b"x-b3-sampled",
        b"x-b3-spanid",
        b"x-b3-traceid",
        b"x-client-request-id",
        b"x-cloud-trace-context",
        b"x-correlation-id",
        b"x-csrf-token",
        b"x-csrftoken",
        b"x-datadog-parent-id",
        b"x-datadog-trace-id",
        b"x-kong-request-id",
        b"x-ms-client-request-id",
        b"x-nonce",
        b"x-request-id",
        b"x-request-start",
        b"x-signature",
        b"x-timestamp",
        b"x-trace-id",
        b"x-transaction-id",
        b"x-turbo-request-id",
        b"x-unique-id",
        b"x-vercel-id",
        b"x-xsrf-token",
    ]
)
_LENGTH = b"content-length"
# Of what came once only this many marks are held.
_MOST_ONCE = 32_768
# Only values that could not be read as anything else: printable, no space at either end.
_VALUE = rb"[!-~](?:[ -~]*[!-~])?"


def _any_of(names: Collection[bytes]) -> bytes:
    """Pattern for each of *names* in any case, letter by letter.

    Most lines are none of them by their first or second letter; one name after another took three times as long.
    """
    rests: dict[bytes, list[bytes]] = {}
    for name in sorted(names):
        rests.setdefault(name[:1], []).append(name[1:])
    may_end = bool(rests.pop(b"", None))
    branches = [_letter(first) + _any_of(more) for first, more in rests.items()]
    if len(branches) == 1 and not may_end:
        return branches[0]
    return b"(?:%b)%b" % (b"|".join(branches), b"?" if may_end else b"") if branches else b""


def _letter(letter: bytes) -> bytes:
    return b"[%b%b]" % (letter, letter.upper()) if letter.isalpha() else re.escape(letter)


# No parser takes it within a header line.
_MARK = b"\0"
_PLAIN_VALUE = re.compile(_VALUE)


def lines_of(names: Collection[bytes]) -> re.Pattern[bytes]:
    """Pattern of the lines with one of *names*, or about the length, whose values ``without_varying`` takes out."""
    return re.compile(rb"(\r\n%b: )(%b)(?=\r\n)" % (_any_of({*names, _LENGTH}), _VALUE))


_VARYING_LINE = lines_of(VARYING)


def without_varying(head: bytes, lines: re.Pattern[bytes] = _VARYING_LINE) -> tuple[bytes, list[bytes]]:
    """Take the values of varying *lines* out of *head*, which begins with the line break after the first line.

    With them goes what Content-Length says, as whoever asks knows better how long the body is. Heads that are equal
    then, with as many values, differ in nothing but those, so that whatever reads one line after the other comes to the
    same end with all of them. A mark stands in each place: a line that came empty is another.
    """
    parts = lines.split(head)
    values = parts[2::3]
    if values:
        parts[2::3] = [_MARK] * len(values)
        head = b"".join(parts)
    return head, values


def varies(name: bytes, value: bytes, names: Collection[bytes] = VARYING) -> bool:
    """Whether the value of this line is one that ``without_varying`` takes out where *names* vary."""
    return name.lower() in names and _PLAIN_VALUE.fullmatch(value) is not None


def is_length(name: bytes) -> bool:
    """Whether a line of this name says how long the body is."""
    return name.lower() == _LENGTH


class Differing(NamedTuple):
    """Lines that differ from request to request: names in lower case, values, and which of them is the length or -1."""

    names: list[bytes]
    values: list[bytes]
    length_at: int


def differing(lines: Sequence[tuple[bytes, bytes]], names: Collection[bytes] = VARYING) -> Differing:
    """Those of *lines* whose values ``without_varying`` takes out of a head where *names* vary."""
    found = [(name.lower(), value) for name, value in lines if varies(name, value, names) or is_length(name)]
    lengths = [at for at, (name, _) in enumerate(found) if name == _LENGTH]
    return Differing([name for name, _ in found], [value for _, value in found], lengths[0] if lengths else -1)


class Recurring(Generic[K, V]):
    """What belongs to keys that come again and again: at most so much of it, and least of all what nobody asks for.

    A key is worth remembering when it has come before: else clients whose requests never look alike would push out
    everybody who comes back. There are two generations; when the younger one is full, the elder one is forgotten, and
    what was asked for since has moved from it to the younger one.
    """

    __slots__ = ("_elder", "_most", "_once", "_size", "_younger")

    def __init__(self, most: int) -> None:
        """Hold in each of two generations what comes to *most* together, in the measure that ``keep`` is told."""
        self._most = most
        self._size = 0
        self._once: set[int] = set()
        self._younger: dict[K, tuple[V, int]] = {}
        self._elder: dict[K, tuple[V, int]] = {}

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._younger.keys() | self._elder.keys())

    def get(self, key: K) -> V | None:
        """What belongs to *key*, None when it is not remembered."""
        entry = self._younger.get(key)
        if entry is None:
            entry = self._elder.get(key)
            if entry is None:
                return None
            self._put(key, entry)
        return entry[0]

    def keep(self, key: K, value: V, size: int) -> None:
        """Remember *value* if *key* has come before; *size* is what it takes."""
        mark = hash(key)
        if mark in self._once:
            self._put(key, (value, size))
            return
        if len(self._once) >= _MOST_ONCE:
            self._once.clear()
        self._once.add(mark)

    def _put(self, key: K, entry: tuple[V, int]) -> None:
        before = self._younger.get(key)
        size = self._size + entry[1] - (before[1] if before is not None else 0)
        if size > self._most:
            self._elder, self._younger, size = self._younger, {}, entry[1]
        self._younger[key] = entry
        self._size = size
