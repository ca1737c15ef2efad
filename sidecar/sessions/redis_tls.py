"""Read the certificates for Redis once, for every connection there will ever be."""

from __future__ import annotations

import ssl
from typing import Any

from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection

from sidecar.config.service import Sessions


class _Sharing:
    """A connection of redis-py that takes a context that is there, instead of making its own.

    Its own costs 50 ms, in which nothing else runs: a burst that opened 64 connections stood still for three seconds.
    """

    ssl_context: Any

    def __init__(self, *, shared: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = shared


class _Direct(_Sharing, SSLConnection):
    pass


class _BySentinel(_Sharing, SentinelManagedSSLConnection):
    pass


_SHARING = {SSLConnection: _Direct, SentinelManagedSSLConnection: _BySentinel}


def tls_context(section: Sessions) -> ssl.SSLContext | None:
    """What rediss:// needs; None for addresses without TLS. Raises ValueError for files that do not serve."""
    if section.redis is None or not section.redis.reveal().startswith("rediss://"):
        return None
    try:
        context = ssl.create_default_context(cafile=section.redis_ca)
        if section.redis_certificate is not None:
            context.load_cert_chain(section.redis_certificate, section.redis_key)
    except OSError as error:
        # ssl.SSLError is one too; its text names no secret, but neither does it name the file.
        message = f"sessions: a PEM file for Redis cannot be used: {type(error).__name__}"
        raise ValueError(message) from None
    return context


def share(context: ssl.SSLContext | None, *makers: Any) -> None:
    """Let all connections of *makers*, which are pools or nodes of a cluster, share *context*."""
    if context is not None:
        for maker in makers:
            maker.connection_class = _SHARING[maker.connection_class]
            maker.connection_kwargs["shared"] = context
