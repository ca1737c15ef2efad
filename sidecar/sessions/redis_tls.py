"""Read the certificates for Redis once for all connections, and again when their files were renewed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection

from sidecar.config.renewing import Renewing
from sidecar.config.service import Sessions
from sidecar.config.trust import Trust


class _Sharing:
    """A connection of redis-py that takes a context that is there, instead of making its own.

    Its own costs 50 ms, in which nothing else runs: a burst that opened 64 connections stood still for three seconds.
    """

    ssl_context: Any

    def __init__(self, *, shared: Renewing, **options: Any) -> None:
        super().__init__(**options)
        self._shared = shared

    def _connection_arguments(self) -> Mapping[str, Any]:
        # Asked each time: the library keeps this object and connects it again after years.
        self.ssl_context.context = self._shared.current()
        arguments: Mapping[str, Any] = super()._connection_arguments()  # type: ignore[misc]
        return arguments


class _Direct(_Sharing, SSLConnection):
    pass


class _BySentinel(_Sharing, SentinelManagedSSLConnection):
    pass


_SHARING = {SSLConnection: _Direct, SentinelManagedSSLConnection: _BySentinel}


def tls_of(section: Sessions) -> Renewing | None:
    """What rediss:// needs; None for addresses without TLS. Raises ValueError for files that do not serve."""
    if section.redis is None or not section.redis.reveal().startswith("rediss://"):
        return None
    return Renewing("sessions", Trust(section.redis_ca, section.redis_certificate, section.redis_key))


def share(tls: Renewing | None, *makers: Any) -> None:
    """Let all connections of *makers*, which are pools or nodes of a cluster, share *tls*."""
    if tls is not None:
        for maker in makers:
            maker.connection_class = _SHARING[maker.connection_class]
            maker.connection_kwargs["shared"] = tls
