"""Under which names of the store sessions are found by their person, and by their session at the provider."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode

from sidecar.model import Session, identity_key


def index_of(kind: str, key: str) -> str:
    """Store key of an index; hashed, so that a dump of the store names nobody.

    Four of the hash's 43 letters are left out: 234 bits name nobody else either, and Redis keeps a shorter name in
    two thirds of the memory.
    """
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
    return f"index:{kind}:{urlsafe_b64encode(digest).decode()[:39]}"


def word_of_end(index: str) -> str:
    """Store key of the moment (epoch seconds) when all sessions of an *index* were ended last."""
    return f"ended:{index.removeprefix('index:')}"


def indexes_of_provider(issuer: str, sid: str, subject: str) -> tuple[str, ...]:
    """Indexes of the sessions that end with one at the provider; see ``SessionKeeper.end_provider_session``."""
    named = index_of("sid", identity_key(issuer, sid))
    return (named, index_of("nameless", identity_key(issuer, subject))) if subject else (named,)


def indexes_of(session: Session) -> tuple[str, ...]:
    """All indexes that *session* is in."""
    issuer = session.identity.issuer
    keys = [("sid", session.sid), ("alias", session.alias)]
    return (
        index_of("person", session.identity.key),
        *(() if session.sid else (index_of("nameless", session.identity.key),)),
        *(index_of(kind, identity_key(issuer, key)) for kind, key in keys if key),
    )
