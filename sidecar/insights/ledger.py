"""Keep one document for all replicas under one key of the store, read in one round trip."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sidecar.sessions.store import Store

_TRIES = 10


async def read(store: Store, key: str) -> Any:
    """The document at *key*; None when there is none, or none that can be read. Raises Unavailable."""
    return _parsed(await store.get(key))


async def amend(store: Store, key: str, change: Callable[[Any], Any], ttl: float) -> bool:
    """Put what *change* makes of the document (None: there is none) in its place, for *ttl* seconds.

    False when others were faster each time, and nothing was written. Raises Unavailable.
    """
    for _ in range(_TRIES):
        held = await store.get(key)
        value = json.dumps(change(_parsed(held)), separators=(",", ":")).encode()
        done = await (store.claim(key, value, ttl) if held is None else store.exchange(key, held, value, ttl))
        if done:
            return True
    return False


def _parsed(raw: bytes | None) -> Any:
    try:
        return None if raw is None else json.loads(raw)
    except ValueError:
        return None
