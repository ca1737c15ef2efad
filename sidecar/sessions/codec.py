"""Write sessions and grants as compact JSON and read them back."""

from __future__ import annotations

import json
import zlib
from typing import Any

from sidecar.model import Grant, Identity, Session

_VERSION = 1
# Raw deflate (RFC 1951) with 4 KB to look back, and what stands in nearly every session to begin with. Whoever changes
# these takes another letter, as what was packed before cannot be read any more.
_PACKED = b"z"
_LEVEL = 6
_WINDOW = -12
_USUAL = (
    b'"]},"c":{"d":"","a":"urn:","t":[0.0],"g":["admins","users","everyone"],"n":"","e":"@example.com",".com","u":"'
    b'","s":"","i":"https://login.id.auth/realms/{"v":1,"p":"'
)


def pack(raw: bytes) -> bytes:
    """Make *raw* smaller: a million sessions are to fit into a gigabyte."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, _USUAL)
    return _PACKED + packer.compress(raw) + packer.flush()


def unpack(raw: bytes) -> bytes:
    """What ``pack`` was given; what was never packed comes back as it is."""
    if not raw.startswith(_PACKED):
        return raw
    return zlib.decompressobj(_WINDOW, _USUAL).decompress(raw[len(_PACKED) :])


def write_session(session: Session) -> bytes:
    """Compact JSON of *session* without its id, which is the store's key."""
    identity = session.identity
    record: dict[str, Any] = {
        "v": _VERSION,
        "p": identity.provider,
        "i": identity.issuer,
        "s": identity.subject,
        "u": identity.username,
        "e": identity.email,
        "n": identity.name,
        "g": None if identity.groups is None else list(identity.groups),
        "c": dict(identity.claims),
        "t": [session.created, session.expires, session.seen, session.auth_time, session.refresh_at],
        "a": session.acr,
        "m": list(session.amr),
        "d": session.sid,
        "l": session.alias,
        "f": list(session.foreign),
    }
    slim = {name: value for name, value in record.items() if name == "g" or value not in ("", [], {})}
    # A provider may send half a surrogate pair in a name: strange, and no reason to fail.
    return json.dumps(slim, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def read_session(raw: bytes, session_id: str) -> Session | None:
    """Session from its JSON; None for a version that this program does not know."""
    record = json.loads(raw.decode(errors="surrogatepass"))
    if record.get("v") != _VERSION:
        return None
    groups = record.get("g")
    identity = Identity(
        provider=record.get("p", ""),
        issuer=record.get("i", ""),
        subject=record.get("s", ""),
        username=record.get("u", ""),
        email=record.get("e", ""),
        name=record.get("n", ""),
        groups=None if groups is None else tuple(groups),
        claims=record.get("c", {}),
    )
    created, expires, seen, auth_time, refresh_at = record["t"]
    return Session(
        id=session_id,
        identity=identity,
        created=created,
        expires=expires,
        seen=seen,
        auth_time=auth_time,
        acr=record.get("a", ""),
        amr=tuple(record.get("m", ())),
        sid=record.get("d", ""),
        refresh_at=refresh_at,
        alias=record.get("l", ""),
        foreign=tuple(record.get("f", ())),
    )


def write_grant(grant: Grant) -> bytes:
    """Compact JSON of *grant*."""
    return json.dumps([grant.id_token, grant.refresh_token, grant.saml]).encode()


def read_grant(raw: bytes | None) -> Grant:
    """Grant from its JSON; an empty one when there is none."""
    return Grant() if raw is None else Grant(*json.loads(raw))
