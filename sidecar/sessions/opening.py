"""Make the store that the configuration asks for."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Sequence

from sidecar.config.service import Sessions
from sidecar.sessions.memory import MemoryStore
from sidecar.sessions.store import Store


def open_store(section: Sessions, clock: Callable[[], float]) -> Store:
    """Memory, or Redis as *section* says; connects to nothing yet. Raises ValueError for an address that is none."""
    if section.redis is None:
        return MemoryStore(clock)
    # Its client is a tenth of the start and eight megabytes.
    from sidecar.sessions.redis_opening import open_redis  # noqa: PLC0415 - for those whose sessions are there

    return open_redis(section, section.redis)


def server_secrets(section: Sessions) -> tuple[bytes, ...]:
    """Secrets that seal; for a store in this process a random one is enough."""
    if section.secrets:
        return tuple(secret.reveal().encode() for secret in section.secrets)
    if section.redis is not None:
        message = "sessions.secrets is needed with Redis, so that all replicas share it"
        raise ValueError(message)
    return (secrets.token_bytes(32),)


def for_site(secrets: Sequence[bytes], site: str) -> tuple[bytes, ...]:
    """Secrets that seal for one *site* alone.

    Applications that share a Redis and its secret by habit share no session: where another application lets people
    in, by its own providers and rules, nobody has shown anything to this one.
    """
    return tuple([hmac.digest(secret, f"site {site}".encode(), "sha256") for secret in secrets])
