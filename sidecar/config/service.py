"""Sections about the sidecar as a service: listener, application, sessions, directory, logs, pages."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator

from sidecar.config.section import Section
from sidecar.config.values import (
    Dsn,
    DsnText,
    Duration,
    FilePath,
    Network,
    OneOrMany,
    RateText,
    SecretText,
    Size,
    Text,
    Texts,
)
from sidecar.core.rates import Rate


class ServerTls(Section):
    """TLS of the sidecar's own listener; leave it out where a front proxy ends TLS."""

    certificate: FilePath = Field(description="PEM file with the certificate and its chain")
    key: FilePath = Field(description="PEM file with its private key")


class Server(Section):
    """Where the sidecar listens and what its address is for the outside."""

    listen: Text = Field("127.0.0.1:8080", description="host:port, [v6]:port or unix:/path")
    public_url: Text = Field(description="what people type: scheme, host and port; no path")
    hosts: Texts = Field(
        (), description="further host names under which the application is asked for; sign-ins take place at public_url"
    )
    prefix: Text = Field("/-", description="path below which the sidecar's own pages live")
    trusted_proxies: Annotated[tuple[Network, ...], OneOrMany] = Field(
        (), description="peers whose X-Forwarded-* are believed"
    )
    proxy_protocol: bool = Field(
        default=False,
        description="true: trusted_proxies announce each connection by the PROXY protocol; nobody else gets in",
    )
    tls: ServerTls | None = Field(None, description="serve TLS itself; leave it out behind a proxy that does")
    workers: int = Field(1, ge=1, le=256, description="processes that share the listener; more than one needs Redis")
    cpu_affinity: bool = Field(
        default=False, description="true: each worker keeps to one core, as nginx's with worker_cpu_affinity auto"
    )
    huge_pages: bool = Field(
        default=True, description="gather the memory of each worker in huge pages (Linux 6.1 or later): quicker"
    )
    metrics: Text | None = Field(None, description="host:port of the metrics and health listener")
    drain: Duration = Field(timedelta(seconds=30), description="how long stopping may take; running requests end")
    notice: Duration = Field(
        timedelta(seconds=2),
        description="its first part: /-/ready says 503, all is served",
    )
    max_header: Size = Field(32 * 1024, description="largest request head")
    max_body: Size | None = Field(None, description="largest request body; none when left out")
    head_timeout: Duration = Field(timedelta(seconds=15), description="how long a request head may take to arrive")
    client_idle: Duration = Field(timedelta(seconds=75), description="how long an idle connection is kept open")


class UpstreamTls(Section):
    """TLS towards the application."""

    verify: bool = Field(default=True, description="false accepts any certificate: only for trying things out")
    ca: FilePath | None = Field(None, description="PEM file of the authorities to trust; the system's when left out")
    certificate: FilePath | None = Field(None, description="PEM file of our own certificate, where one is asked for")
    key: FilePath | None = Field(None, description="PEM file of its private key")
    server_name: Text | None = Field(None, description="name in its certificate when it differs from the host")


class Health(Section):
    """Ask each of the application's servers from time to time whether it is well."""

    path: Text = Field(description="what is asked for; 2xx and 3xx are well")
    host: Text | None = Field(None, description="Host header of the question; the server's own address when left out")
    every: Duration = Field(timedelta(seconds=5), description="how often each server is asked")
    timeout: Duration = Field(timedelta(seconds=2), description="longest wait for the head of its answer")
    up: int = Field(2, ge=1, le=100, description="good answers in a row until it gets requests again")
    down: int = Field(3, ge=1, le=100, description="bad ones in a row until it gets no more requests")


class Circuit(Section):
    """Leave a server alone that keeps failing; one request tries it again after each pause."""

    failures: int = Field(5, ge=1, le=1000, description="requests in a row that fail until it is left alone")
    pause: Duration = Field(timedelta(seconds=2), description="how long it is left alone")


class AppLogoutCall(Section):
    """What the application is asked when somebody signs out here, with the cookies of their browser."""

    method: Literal["GET", "POST"] = Field("POST", description="without a body")
    path: Text = Field(description="its sign-out, such as /logout")
    timeout: Duration = Field(timedelta(seconds=5), description="longest wait; the sign-out here goes on then")


class AppLogout(Section):
    """The application's own sign-out: it ends the session here too, and ours ends the one there."""

    path: Texts = Field((), description="requests that sign out there; ?name=value must be in the query")
    methods: Annotated[tuple[Literal["GET", "POST"], ...], OneOrMany] = Field(
        ("GET", "POST"), min_length=1, description="by which methods"
    )
    then: Literal["pass", "take_over"] = Field(
        "pass", description="pass: the application gets it too; take_over: our sign-out answers in its place"
    )
    call: AppLogoutCall | None = Field(None, description="asked of the application when somebody signs out here")


class App(Section):
    """The application that stands behind."""

    name: Text = Field("", description="what pages call it; the public host when left out")
    upstream: Texts = Field(
        min_length=1,
        description="http://host:port, https://host:port or unix:/path/to/socket; a list when several serve",
    )
    draining: Texts = Field((), description="those of upstream that get nothing new")
    sticky: bool = Field(default=False, description="one session stays at one server while that is up")
    health: Health | None = Field(None, description="look after the servers; only failed requests tell when left out")
    circuit: Circuit = Field(Circuit(), description="when a server is left alone")
    repeats: int = Field(20, ge=0, le=100, description="requests sent a second time, in percent of all; safe ones only")
    host: Literal["public", "upstream"] = Field("public", description="which Host header it gets")
    ignore_case: bool = Field(default=False, description="true when /ADMIN and /admin are one to the application (IIS)")
    tls: UpstreamTls = Field(UpstreamTls(), description="for https upstreams")
    connect_timeout: Duration = Field(timedelta(seconds=5), description="longest wait for a connection")
    answer_timeout: Duration = Field(timedelta(seconds=60), description="until the first byte of the answer")
    idle_timeout: Duration = Field(timedelta(minutes=5), description="longest silence inside a body or WebSocket")
    max_connections: int = Field(256, ge=1, description="most connections to it, for each worker")
    websocket_message: Size | None = Field(
        None, description="largest WebSocket message as it is sent; none when left out"
    )
    websocket_origins: Texts = Field((), description="origins besides public_url that may open WebSockets")
    sign_out_cookies: Texts = Field(
        (), description="application cookies dropped at sign-out and for the next person; * fits anything"
    )
    logout: AppLogout | None = Field(None, description="the application's own sign-out")


class Sentinel(Section):
    """Redis Sentinel: who watches which master."""

    master: Text = Field(description="name of the master, as the sentinels call it")
    nodes: Texts = Field(min_length=1, description="host:port of each sentinel")
    username: Text | None = Field(None, description="user at the sentinels themselves")
    password: SecretText | None = Field(None, description="password at the sentinels themselves")


class Cookie(Section):
    """The session cookie; the safest form that the public address allows is the default."""

    name: Text = Field("sidecar", description="its name; __Host- or __Secure- is put in front over https")
    domain: Text | None = Field(None, description="share it with the hosts below this domain; left out, with nobody")
    same_site: Literal["lax", "strict", "none"] = Field("lax", description="none only where other sites embed this one")


class Sessions(Section):
    """Where sessions live and how long."""

    redis: DsnText | None = Field(None, description="redis://, rediss:// or unix://; memory when left out")
    sentinel: Sentinel | None = Field(None, description="ask sentinels for the master; redis gives user and database")
    cluster: bool = Field(default=False, description="the address is one node of a Redis Cluster")
    redis_ca: FilePath | None = Field(None, description="PEM file of the authorities to trust, for rediss://")
    redis_certificate: FilePath | None = Field(None, description="PEM file of our own certificate, for rediss://")
    redis_key: FilePath | None = Field(None, description="PEM file of its private key")
    prefix: Text = Field("sidecar:", description="in front of every key, so that several applications share a Redis")
    secrets: Annotated[tuple[SecretText, ...], OneOrMany] = Field(
        (), description="newest first; the others still open what they sealed"
    )
    idle: Duration = Field(timedelta(minutes=30), description="a session ends after this long without a request")
    absolute: Duration = Field(timedelta(hours=12), description="a session ends after this long in any case")
    outage: Duration | None = Field(
        None,
        description="longest life of a session whose provider cannot be asked any more; its other ends when left out",
    )
    login: Duration = Field(timedelta(minutes=15), description="how long a sign-in may take")
    timeout: Duration = Field(timedelta(seconds=2), description="longest wait for the store")
    cache: int = Field(10_000, ge=0, description="live sessions that each worker remembers")
    keep_post: Size = Field(64 * 1024, description="largest form kept across a sign-in; 0 keeps none")
    cookie: Cookie = Field(Cookie(), description="the session cookie")

    @field_validator("secrets")
    @classmethod
    def _long_enough(cls, secrets: tuple[SecretText, ...]) -> tuple[SecretText, ...]:
        if any(0 < len(secret.reveal()) < 32 for secret in secrets):
            message = "a session secret has at least 32 characters; make one with: openssl rand -base64 32"
            raise ValueError(message)
        return secrets


class Directory(Section):
    """Where people, bindings and the outbox are kept durably."""

    url: DsnText = Field(Dsn("sqlite:///sidecar.db"), description="sqlite:///path, postgresql://… or mysql://…")
    timeout: Duration = Field(timedelta(seconds=5), description="longest wait for the database")
    application: Text = Field("application", description="this application's name there, where several share one")


class Limits(Section):
    """What each client may do, by its address (IPv6: by its /64), in each worker; beyond it 429 with Retry-After."""

    sign_in: RateText = Field(Rate(60, 60.0), description="sign-ins begun")
    answers: RateText = Field(Rate(120, 60.0), description="answers and messages of providers")
    bad_tokens: RateText = Field(Rate(20, 60.0), description="bearer tokens and API tokens that are not accepted")
    requests: RateText = Field(Rate(0, 1.0), description="requests for the application; no limit by default")


class Log(Section):
    """The operator's log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is written")
    format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, JSON elsewhere")


class Reload(Section):
    """Read the configuration again while serving: whole or not at all."""

    watch: bool = Field(default=False, description="do it by itself when one of its files has changed")
    every: Duration = Field(timedelta(seconds=2), description="how often they are looked at; twice alike, it is read")
    control: FilePath | None = Field(
        None, description="Unix socket that `sidecar reload` and `sidecar log-level` speak to"
    )


class Pages(Section):
    """The few pages that people see."""

    templates: FilePath | None = Field(None, description="folder whose files replace the built-in templates")
    support: Text = Field("", description="whom to ask: shown on refusal pages")
