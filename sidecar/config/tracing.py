"""The section about traces: which requests are recorded, and where the spans go."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from sidecar.config.section import Section
from sidecar.config.values import Duration, FilePath, SecretText, Text

_PATH = "/v1/traces"


class Tracing(Section):
    """OpenTelemetry traces, sent by OTLP over HTTP. Needs `pip install '.[tracing]'`."""

    otlp: Text = Field(description="the collector, such as http://127.0.0.1:4318")
    sample: float = Field(0.01, ge=0, le=1, description="share of the requests that are traced")
    service: Text = Field("auth-sidecar", description="service.name of the spans")
    headers: dict[str, SecretText] = Field(default_factory=dict, description="name → what the collector wants to see")
    ca: FilePath | None = Field(None, description="PEM file of the authorities to trust, for https")
    timeout: Duration = Field(timedelta(seconds=10), description="longest wait for the collector; no request waits")

    @property
    def address(self) -> str:
        """Where spans are posted (OTLP/HTTP Request)."""
        base = self.otlp.rstrip("/")
        return base if base.endswith(_PATH) else f"{base}{_PATH}"
