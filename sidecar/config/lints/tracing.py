"""Check where traces go."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from sidecar.config.document import Document
from sidecar.config.lints.addresses import is_loopback, split_url
from sidecar.config.models import Config
from sidecar.config.problem import Problem

_PLACE = ("tracing", "otlp")


def tracing(config: Config, document: Document) -> Iterator[Problem]:
    """Spans name paths and people's errands: they go to the collector and nowhere else."""
    section = config.tracing
    if section is None:
        return
    if find_spec("opentelemetry") is None:
        yield document.error(
            ("tracing",), "OpenTelemetry is not installed", "In the sidecar's source: pip install '.[tracing]'"
        )
    parts = split_url(section.otlp)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
        yield document.error(_PLACE, f"{section.otlp} is no address", "Write http://host:4318")
        return
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        yield document.warning(_PLACE, "spans cross the network in the clear", "Write https:// where the collector can")
    if section.ca is not None and parts.scheme != "https":
        yield document.error(("tracing", "ca"), "is for https:// only", "Write https://, or remove ca")
    if section.sample > 0.2:
        yield document.warning(
            ("tracing", "sample"), "each traced request costs about as much again", "0.01 is enough to see what is slow"
        )
