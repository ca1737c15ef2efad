"""Say what a request waits for: steps inside it, each a span where the request is traced, and nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol

from sidecar.core.headers import Line
from sidecar.faults import Refused, Unavailable

Kind = Literal["internal", "client"]
Value = str | int | float | bool


class Span(Protocol):
    """One piece of a trace that is being recorded."""

    def child(self, name: str, kind: Kind, attributes: Mapping[str, Value]) -> Span:
        """Begin a piece of this one."""

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes: never a secret, and nothing that a person typed but the path."""

    def fail(self, why: str) -> None:
        """Mark it as failed, because of a word out of a closed set."""

    def end(self) -> None:
        """It is over."""

    @property
    def traceparent(self) -> str:
        """Header value that makes whoever gets it a part of this span (W3C Trace Context, section 3.2)."""


_current: ContextVar[Span | None] = ContextVar("span", default=None)


@contextmanager
def within(span: Span) -> Iterator[Span]:
    """Record what happens inside as *span*, and end it."""
    token = _current.set(span)
    try:
        yield span
    except (Refused, Unavailable) as error:
        span.fail(error.reason.value)
        raise
    except BaseException as error:
        span.fail(type(error).__name__)
        raise
    finally:
        _current.reset(token)
        span.end()


@contextmanager
def step(name: str, kind: Kind = "internal", **attributes: Value) -> Iterator[Span | None]:
    """A span inside the request's own; None, and nothing is recorded, where the request is not traced."""
    around = _current.get()
    if around is None:
        yield None
        return
    with within(around.child(name, kind, _ours(attributes))) as span:
        yield span


def note(**attributes: Value) -> None:
    """Add attributes of ours to the span that is being recorded, if there is one."""
    span = _current.get()
    if span is not None:
        span.note(_ours(attributes))


def carrying(span: Span, lines: Sequence[Line]) -> tuple[Line, ...]:
    """Lines of a request that make whoever gets it a part of *span*, in place of what they said before."""
    return (*(line for line in lines if line[0].lower() != "traceparent"), ("traceparent", span.traceparent))


def _ours(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {f"sidecar.{name}": value for name, value in attributes.items()}
