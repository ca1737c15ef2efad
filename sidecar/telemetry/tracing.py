"""Trace requests with OpenTelemetry, and send the spans to a collector (OTLP over HTTP)."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping

import requests
from aiohttp import web
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from sidecar import __version__
from sidecar.config.tracing import Tracing as Section
from sidecar.core.addresses import Network, is_trusted
from sidecar.telemetry.spans import Kind, Span, Value

# W3C Trace Context, section 3.2.2; later versions may go on after a further dash.
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
_PARENT_HEADER = "traceparent"
# Spans that wait for the collector; what does not fit is dropped, and nobody waits.
_MOST_WAITING = 4096
_LONGEST_VALUE = 512
# Connections whose lot was drawn and whose request has not come yet.
_MOST_DRAWN = 10_000


class _Recorded:
    """A span that OpenTelemetry records."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: Tracer, span: OtelSpan) -> None:
        """Begin children of *span* by *tracer*."""
        self._tracer = tracer
        self._span = span

    def child(self, name: str, kind: Kind, attributes: Mapping[str, Value]) -> Span:
        context = set_span_in_context(self._span)
        return _Recorded(
            self._tracer, self._tracer.start_span(name, context, kind=_KINDS[kind], attributes=dict(attributes))
        )

    def note(self, attributes: Mapping[str, Value]) -> None:
        self._span.set_attributes(dict(attributes))

    def fail(self, why: str) -> None:
        self._span.set_attribute("error.type", why)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        self._span.end()

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class Tracing:
    """Chooses which requests are traced, and begins their spans."""

    def __init__(
        self,
        section: Section,
        trusted: tuple[Network, ...],
        *,
        draw: Callable[[], float] = random.random,
        exporter: SpanExporter | None = None,
    ) -> None:
        """Send to the collector of *section*; whether a request is sampled is believed of *trusted* peers only.

        *draw* gives 0 ≤ x < 1. *exporter* takes the spans in the collector's place.
        """
        self._share = section.sample
        self._trusted = trusted
        self._draw = draw
        self._drawn: dict[int, bool] = {}
        resource = Resource({"service.name": section.service, "service.version": __version__})
        # Limits are given here: an environment variable must not change what a configuration says.
        limits = SpanLimits(max_span_attributes=32, max_span_attribute_length=_LONGEST_VALUE, max_links=0, max_events=0)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, span_limits=limits, shutdown_on_exit=False
        )
        if exporter is None:
            headers = {name: secret.reveal() for name, secret in section.headers.items()}
            exporter = OTLPSpanExporter(
                endpoint=section.address,
                headers=headers,
                timeout=section.timeout.total_seconds(),
                certificate_file=str(section.ca) if section.ca is not None else None,
                session=_session(),
            )
        self._processor = BatchSpanProcessor(
            exporter,
            max_queue_size=_MOST_WAITING,
            schedule_delay_millis=1000,
            max_export_batch_size=512,
            export_timeout_millis=section.timeout.total_seconds() * 1000,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("sidecar")

    def draws(self, client: object, data: bytes) -> bool:
        """True when a whole request, known by its bytes alone so far, has to be looked at: it may be traced.

        One lot is drawn for each request: it is remembered for the connection *client* until ``begin`` or ``forget``.
        """
        if b"traceparent:" in data.lower():
            return True
        return self._remember(client, is_chosen=self._draw() < self._share)

    def takes(self, client: object, request: web.BaseRequest) -> bool:
        """True when *request* is traced: as whoever sent it says, if they may, else by lot."""
        is_chosen = self._drawn.pop(id(client), None)
        parent = self._believed(request)
        if parent is not None:
            is_chosen = bool(parent.trace_flags & TraceFlags.SAMPLED)
        return self._remember(client, is_chosen=self._draw() < self._share if is_chosen is None else is_chosen)

    def forget(self, client: object) -> None:
        """The request of *client* went its way untraced."""
        self._drawn.pop(id(client), None)

    def _remember(self, client: object, *, is_chosen: bool) -> bool:
        if len(self._drawn) >= _MOST_DRAWN:
            self._drawn.clear()
        self._drawn[id(client)] = is_chosen
        return is_chosen

    def begin(self, request: web.BaseRequest) -> Span | None:
        """Begin the span of a whole request; None when it is not traced."""
        is_chosen = self.takes(request.protocol, request)
        self.forget(request.protocol)
        if not is_chosen:
            return None
        # Whoever the caller is, the trace goes on under its id: only whether it is recorded is not up to strangers.
        parent = _parent_of(request)
        context = set_span_in_context(NonRecordingSpan(parent)) if parent is not None else None
        method = request.method if request.method in _METHODS else "_OTHER"
        attributes = {"http.request.method": method, "url.path": request.raw_path.partition("?")[0][:_LONGEST_VALUE]}
        return _Recorded(
            self._tracer, self._tracer.start_span(method, context, kind=SpanKind.SERVER, attributes=attributes)
        )

    def _believed(self, request: web.BaseRequest) -> SpanContext | None:
        return _parent_of(request) if is_trusted(request.remote or "", self._trusted) else None

    async def close(self) -> None:
        """Send what waits, for as long as one export may take."""
        await asyncio.to_thread(self._provider.shutdown)


def _session() -> requests.Session:
    """No proxy that the environment names, and no redirect: spans go to the collector, or nowhere."""
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = 0
    return session


def _parent_of(request: web.BaseRequest) -> SpanContext | None:
    values = request.headers.getall(_PARENT_HEADER, ())
    found = _PARENT.fullmatch(values[0]) if len(values) == 1 else None
    if found is None:
        return None
    trace, span, flags = (int(part, 16) for part in found.groups())
    parent = SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))
    return parent if parent.is_valid else None
