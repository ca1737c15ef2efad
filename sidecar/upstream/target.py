"""Where the application is: the configured address, read once, with the TLS settings that belong to it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from sidecar.config.service import App, UpstreamTls

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """A TCP address or a Unix socket; ``tls`` is None for plain connections.

    ``authority`` is what a Host header names when the application shall see its own address.
    """

    authority: str
    host: str = ""
    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str | None = None

    def __str__(self) -> str:
        """Show the address as operators write it."""
        if self.path:
            return f"unix:{self.path}"
        return f"{'https' if self.tls else 'http'}://{self.authority}"


def targets_of(section: App) -> tuple[Target, ...]:
    """Read ``app.upstream`` and ``app.tls``; raises ValueError that names the key when either cannot be used."""
    tls = tls_context(section.tls) if any(one.startswith("https:") for one in section.upstream) else None
    return tuple(_target(one, section.tls, tls) for one in section.upstream)


def _target(address: str, section: UpstreamTls, context: ssl.SSLContext | None) -> Target:
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.startswith("/"):
            message = "app.upstream: a Unix socket is written unix:/path/to/socket"
            raise ValueError(message)
        return Target(authority="localhost", path=path)
    url = urlsplit(address)
    if url.scheme not in _DEFAULT_PORTS or not url.hostname:
        message = "app.upstream: write http://host:port, https://host:port or unix:/path/to/socket"
        raise ValueError(message)
    if url.path not in ("", "/") or url.query or url.fragment or url.username is not None:
        message = "app.upstream: scheme, host and port only; paths are forwarded as they come"
        raise ValueError(message)
    tls = context if url.scheme == "https" else None
    return Target(
        authority=url.netloc,
        host=url.hostname,
        port=url.port or _DEFAULT_PORTS[url.scheme],
        tls=tls,
        server_name=(section.server_name or url.hostname) if tls else None,
    )


def tls_context(section: UpstreamTls) -> ssl.SSLContext:
    """TLS towards the application; raises ValueError that names the key when a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=section.ca)
    except OSError as error:
        message = f"app.tls.ca: {error.strerror or error}"
        raise ValueError(message) from error
    context.set_alpn_protocols(["http/1.1"])
    if not section.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if section.certificate:
        try:
            context.load_cert_chain(section.certificate, section.key)
        except OSError as error:
            message = f"app.tls.certificate: {error.strerror or error}"
            raise ValueError(message) from error
    return context
