"""Tell by the bytes of a request's header lines whether the same ones came before, but for what differs each time."""

from __future__ import annotations

import re

# Lines that nothing here reads, and that differ from request to request.
VARYING = frozenset(
    [
        b"baggage",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"range",
        b"referer",
        b"request-id",
        b"sentry-trace",
        b"traceparent",
        b"tracestate",
        b"x-amzn-trace-id",
        b"x-cloud-trace-context",
        b"x-correlation-id",
        b"x-request-id",
    ]
)
# Only values that could not be read as anything else: printable, no space at either end.
_VALUE = rb"[!-~](?:[ -~]*[!-~])?"
_VARYING_LINE = re.compile(rb"(\r\n(?:%b): )(%b)(?=\r\n)" % (b"|".join(sorted(VARYING)), _VALUE), re.IGNORECASE)
_PLAIN_VALUE = re.compile(_VALUE)


def without_varying(head: bytes) -> tuple[bytes, list[bytes]]:
    """Take the values of varying lines out of *head*, which begins with the line break after the first line.

    Heads that are equal then differ in nothing but those values, so that whatever reads one line after the other comes
    to the same end with all of them.
    """
    parts = _VARYING_LINE.split(head)
    values = parts[2::3]
    if values:
        del parts[2::3]
        head = b"".join(parts)
    return head, values


def varies(name: bytes, value: bytes) -> bool:
    """Whether the value of this line is one that ``without_varying`` takes out."""
    return name.lower() in VARYING and _PLAIN_VALUE.fullmatch(value) is not None
