"""Sections about the sidecar as a service: listener, application, sessions, directory, audit, logs, pages."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator

from sidecar.config.section import Section
from sidecar.config.values import Dsn, DsnText, Duration, FilePath, Network, OneOrMany, SecretText, Size, Text


class ServerTls(Section):
    """TLS of the sidecar's own listener; leave it out where a front proxy ends TLS."""

    certificate: FilePath
    key: FilePath


class Server(Section):
    """Where the sidecar listens and what its address is for the outside."""

    listen: Text = Field("127.0.0.1:8080", description="host:port, [v6]:port or unix:/path")
    public_url: Text = Field(description="what people type: scheme, host and port; no path")
    prefix: Text = Field("/-", description="path below which the sidecar's own pages live")
    trusted_proxies: tuple[Network, ...] = Field((), description="peers whose X-Forwarded-* are believed")
    tls: ServerTls | None = None
    workers: int = Field(1, ge=1, le=256)
    metrics: Text | None = Field(None, description="host:port of the metrics and health listener")
    drain: Duration = timedelta(seconds=30)
    max_header: Size = Field(32 * 1024, description="largest request head")
    max_body: Size | None = Field(None, description="largest request body; none when left out")
    client_idle: Duration = timedelta(seconds=75)


class UpstreamTls(Section):
    """TLS towards the application."""

    verify: bool = True
    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    server_name: Text | None = None


class App(Section):
    """The application that stands behind."""

    name: Text = Field("", description="what pages call it; the public host when left out")
    upstream: Text = Field(description="http://host:port, https://host:port or unix:/path/to/socket")
    host: Literal["public", "upstream"] = Field("public", description="which Host header it gets")
    tls: UpstreamTls = UpstreamTls()
    connect_timeout: Duration = timedelta(seconds=5)
    answer_timeout: Duration = Field(timedelta(seconds=60), description="until the first byte of the answer")
    idle_timeout: Duration = Field(
        timedelta(minutes=5), description="longest silence inside a body or WebSocket"
    )
    max_connections: int = Field(256, ge=1)
    websocket_origins: tuple[Text, ...] = Field(
        (), description="origins besides public_url that may open WebSockets"
    )
    sign_out_cookies: tuple[Text, ...] = Field((), description="application cookies dropped at sign-out")


class Sentinel(Section):
    """Redis Sentinel: who watches which master."""

    master: Text
    nodes: tuple[Text, ...] = Field(min_length=1, description="host:port of each sentinel")
    username: Text | None = None
    password: SecretText | None = None


class Cookie(Section):
    """The session cookie; the safest form that the public address allows is the default."""

    name: Text = "sidecar"
    domain: Text | None = None
    same_site: Literal["lax", "strict", "none"] = "lax"


class Sessions(Section):
    """Where sessions live and how long."""

    redis: DsnText | None = Field(None, description="redis://, rediss:// or unix://; memory when left out")
    sentinel: Sentinel | None = None
    cluster: bool = False
    redis_ca: FilePath | None = None
    redis_certificate: FilePath | None = None
    redis_key: FilePath | None = None
    prefix: Text = Field(
        "sidecar:", description="in front of every key, so that several applications share a Redis"
    )
    secrets: Annotated[tuple[SecretText, ...], OneOrMany] = Field(
        (), description="newest first; the others still open what they sealed"
    )
    idle: Duration = timedelta(minutes=30)
    absolute: Duration = timedelta(hours=12)
    login: Duration = Field(timedelta(minutes=15), description="how long a sign-in may take")
    timeout: Duration = Field(timedelta(seconds=2), description="longest wait for the store")
    cache: int = Field(10_000, ge=0, description="live sessions that each worker remembers")
    keep_post: Size = Field(64 * 1024, description="largest form kept across a sign-in; 0 keeps none")
    cookie: Cookie = Cookie()

    @field_validator("secrets")
    @classmethod
    def _long_enough(cls, secrets: tuple[SecretText, ...]) -> tuple[SecretText, ...]:
        if any(0 < len(secret.reveal()) < 32 for secret in secrets):  # noqa: PLR2004 - 32 characters, said below
            message = "a session secret has at least 32 characters; make one with: openssl rand -base64 32"
            raise ValueError(message)
        return secrets


class Directory(Section):
    """Where people, bindings and the outbox are kept durably."""

    url: DsnText = Field(
        Dsn("sqlite:///sidecar.db"), description="sqlite:///path, postgresql://… or mysql://…"
    )
    timeout: Duration = timedelta(seconds=5)


class Audit(Section):
    """Where the audit lines go: a file or standard output."""

    file: FilePath | None = None
    stdout: bool = False


class Log(Section):
    """The operator's log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Pages(Section):
    """The few pages that people see."""

    templates: FilePath | None = Field(None, description="folder whose files replace the built-in templates")
    support: Text = Field("", description="whom to ask: shown on refusal pages")
