"""Where the application is: the configured address, read once, with the TLS settings that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sidecar.config.renewing import Renewing
from sidecar.config.trust import Trust

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
    tls: Renewing | None = None
    server_name: str | None = None

    def __str__(self) -> str:
        """Show the address as operators write it."""
        if self.path:
            return f"unix:{self.path}"
        return f"{'https' if self.tls else 'http'}://{self.authority}"


def targets_of(section: App) -> tuple[Target, ...]:
    """Read ``app.upstream`` and ``app.tls``; raises ValueError that names the key when either cannot be used."""
    tls = tls_of(section.tls) if any(one.startswith("https:") for one in section.upstream) else None
    return tuple(_target(one, section.tls, tls) for one in section.upstream)


def _target(address: str, section: UpstreamTls, shared: Renewing | None) -> Target:
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
    tls = shared if url.scheme == "https" else None
    return Target(
        authority=url.netloc,
        host=url.hostname,
        port=url.port or _DEFAULT_PORTS[url.scheme],
        tls=tls,
        server_name=(section.server_name or url.hostname) if tls else None,
    )


def tls_of(section: UpstreamTls) -> Renewing:
    """TLS towards the application; raises ValueError that names the key and the files when one cannot be used."""
    return Renewing(
        "app.tls",
        Trust(section.ca, section.certificate, section.key, is_verified=section.verify, protocols=("http/1.1",)),
    )
