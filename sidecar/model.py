"""The nouns that every room shares; this module imports nothing of ours but its reasons.

Times are seconds since the Unix epoch as ``float``; they come in as arguments, nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sidecar.reason import Reason


class Effect(Enum):
    """What happens to a request."""

    ALLOW = "allow"
    CHALLENGE = "challenge"
    STEP_UP = "step_up"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a provider says somebody is.

    ``email`` is empty unless the provider verified it. ``groups`` is None when the provider did not say (claim
    missing, or an overflow reference in its place): unknown never removes anything. ``claims`` holds the raw
    claims that the configuration's templates refer to, JSON values only.
    """

    provider: str
    issuer: str
    subject: str
    username: str
    email: str = ""
    name: str = ""
    groups: tuple[str, ...] | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Unambiguous text key of (issuer, subject): lengths come first, so no two pairs share one."""
        return identity_key(self.issuer, self.subject)


def identity_key(issuer: str, subject: str) -> str:
    """Encode (issuer, subject) so that no other pair has the same text (netstring style)."""
    return f"{len(issuer)}:{issuer}{len(subject)}:{subject}"


@dataclass(frozen=True, slots=True)
class Profile:
    """What one source says of a person, kept durably.

    ``source`` is a login's name, ``scim:NAME``, ``sync:NAME`` or ``manual``; ``is_login`` tells sign-ins (what the last
    one said) from sources that own people. Within a source (issuer, subject) of ``identity`` names the person.
    """

    source: str
    person_id: str
    identity: Identity
    is_login: bool = False
    updated: float = 0.0


@dataclass(frozen=True, slots=True)
class Account:
    """What the application calls a person: its key, its immutable id, and the outputs that hooks saved.

    ``id`` is empty until a hook has told it. ``outputs`` are text values by name. ``linked`` says that the account was
    there before us, ``deactivated`` that it was us who switched it off. ``renaming`` is the key that the application
    was told to give it, while nobody has seen yet whether it did.
    """

    key: str
    id: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    linked: bool = False
    deactivated: bool = False
    renaming: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """The directory's durable record of somebody.

    ``id`` is ours (opaque text). ``fingerprint`` is that of the last provisioning that succeeded, "" when none did.
    ``account`` is None until bound. ``tombstone`` is the time of removal, None while alive. ``disabled_by`` names who
    switched the person off first ("" while active); others may have, too, and each lifts only what it said. ``roles``
    are the application's roles as last set. ``reserved`` is the key of an account whose creation was begun and whose
    end nobody recorded, ``attempt`` names that creation. ``version`` grows with every change of the record.
    """

    id: str
    identities: tuple[str, ...]
    source: str
    active: bool = True
    disabled_by: str = ""
    account: Account | None = None
    fingerprint: str = ""
    roles: tuple[str, ...] = ()
    tombstone: float | None = None
    username: str = ""
    email: str = ""
    name: str = ""
    last_seen: float = 0.0
    reserved: str = ""
    attempt: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in of one person in one browser. A value: no lock, clock or store inside.

    ``id`` names the session in audit lines and store keys and opens nothing. ``created`` and ``expires`` bound it
    absolutely, ``seen`` is the last use (coalesced), ``auth_time`` when the provider authenticated the person,
    ``sid`` the provider's own session id ("" when it gave none). ``alias`` is what the provider calls the person in
    messages about the session, where that is not the subject. ``refresh_at`` is when the provider's tokens want
    refreshing, 0.0 when never.
    ``scope`` is what an API token alone is good for, ``roles`` those that it was given (None: they follow otherwise).
    ``foreign`` are marks of cookies (core.cookies) that the application had set for
    somebody else in the same browser: they never reach it again.
    """

    id: str
    identity: Identity
    created: float
    expires: float
    seen: float
    auth_time: float
    acr: str = ""
    amr: tuple[str, ...] = ()
    sid: str = ""
    refresh_at: float = 0.0
    alias: str = ""
    scope: tuple[str, ...] = ()
    roles: tuple[str, ...] | None = None
    foreign: tuple[str, ...] = ()

    @property
    def provider(self) -> str:
        """Name of the login in the configuration that this session came from."""
        return self.identity.provider


@dataclass(frozen=True, slots=True)
class Grant:
    """The provider's tokens behind a session, stored apart from it because nearly no request needs them.

    ``saml`` is what a SAML provider must be told to end its session (logins.saml.naming).
    """

    id_token: str = ""
    refresh_token: str = ""
    saml: str = ""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A sign-in that was verified. Times are epoch seconds; ``refresh_at`` is 0.0 when nothing can be refreshed.

    ``expires`` is when the provider wants the session to end (0.0 when it does not say); ``once`` are ids of messages
    that must never be used again, with the time until which that must be remembered. ``alias`` as in ``Session``.
    """

    identity: Identity
    auth_time: float
    acr: str = ""
    amr: tuple[str, ...] = ()
    sid: str = ""
    grant: Grant = field(default_factory=Grant)
    refresh_at: float = 0.0
    expires: float = 0.0
    once: tuple[tuple[str, float], ...] = ()
    alias: str = ""


_VISIT = (
    "method",
    "path",
    "host",
    "client",
    "scheme",
    "cookies",
    "authorization",
    "literal",
    "wants_page",
    "reference",
    "certificate",
    "is_browser",
)


# One is made for nearly every request: a frozen dataclass sets each field by a call, and a tuple with names is made and
# read by calls, also where this is compiled.
class Visit:
    """The only part of a request that decisions may depend on.

    ``path`` is the canonical path and ``literal`` the same with ``;parameters`` kept (see core.paths); ``host`` is
    lower-case without port; ``client`` the person's address after trusted proxies were taken off; ``scheme``
    how the browser came as far as that can be known, "" when not; ``cookies`` and
    ``authorization`` the credentials as sent; ``certificate`` the caller's TLS certificate (DER) as a trusted proxy
    gives it; ``wants_page`` whether a human looks at the answer; ``is_browser`` whether a browser surely sent it;
    ``reference`` names this request in audit lines and on refusal pages.
    """

    __slots__ = _VISIT

    def __init__(  # noqa: PLR0913 - the parts of one request
        self,
        method: str,
        path: str,
        host: str,
        client: str,
        *,
        scheme: str = "",
        cookies: tuple[tuple[str, str], ...] = (),
        authorization: str = "",
        literal: str = "",
        wants_page: bool = False,
        reference: str = "",
        certificate: bytes = b"",
        is_browser: bool = False,
    ) -> None:
        """Nobody changes it afterwards: who needs another one asks ``but``."""
        self.method = method
        self.path = path
        self.host = host
        self.client = client
        self.scheme = scheme
        self.cookies = cookies
        self.authorization = authorization
        self.literal = literal
        self.wants_page = wants_page
        self.reference = reference
        self.certificate = certificate
        self.is_browser = is_browser

    def but(self, **changes: Any) -> Visit:
        """Give the same with *changes*, each by the name of what it is."""
        return Visit(**{name: changes.pop(name, getattr(self, name)) for name in _VISIT}, **changes)


@dataclass(frozen=True, slots=True)
class Requirement:
    """How fresh (seconds) and strong a sign-in must be: one of ``acr``, and all of the methods in ``amr``."""

    max_age: float | None = None
    acr: tuple[str, ...] = ()
    amr: tuple[str, ...] = ()

    def is_met_by(self, auth_time: float, acr: str, amr: Collection[str], now: float) -> bool:
        """True when somebody who signed in at *auth_time* with *acr* and *amr* need not do it again."""
        if self.max_age is not None and now - auth_time > self.max_age:
            return False
        return (not self.acr or acr in self.acr) and all(method in amr for method in self.amr)


NOTHING_NEEDED = Requirement()


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on a visit and why; ``needs`` is what a sign-in must be for it. ``Decision()`` denies."""

    effect: Effect = Effect.DENY
    reason: Reason = Reason.NO_RULE
    rule: str = ""
    needs: Requirement = NOTHING_NEEDED

    @property
    def is_public(self) -> bool:
        """True when nobody needs to be signed in for it."""
        return self.effect is Effect.ALLOW and self.reason is Reason.PUBLIC


class Change(Enum):
    """What a hook is asked to do to the application's account."""

    LOOKUP = "lookup"
    CREATE = "create"
    UPDATE = "update"
    SET_ROLES = "set_roles"
    RENAME = "rename"
    DEACTIVATE = "deactivate"
    REACTIVATE = "reactivate"
    DELETE = "delete"


class Duty(Enum):
    """What may be owed to the application: to make an account as it shall be, to switch it off, to delete it."""

    SETTLE = "settle"
    DEACTIVATE = "deactivate"
    DELETE = "delete"


class Result(Enum):
    """What a hook found or did."""

    FOUND = "found"
    NOT_FOUND = "not_found"
    AMBIGUOUS = "ambiguous"
    CREATED = "created"
    UPDATED = "updated"
    CONFLICT = "conflict"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one change: its result and the values that the hook's steps saved, text by name.

    FAILED means that the application answered, and surely did not do it; UNKNOWN that nobody knows whether it did
    (a time-out, a connection lost after sending): look it up before anything else. ``detail`` is for the log:
    a status or SQLSTATE and the step's position, never an answer's body.
    """

    result: Result
    saved: Mapping[str, str] = field(default_factory=dict)
    detail: str = ""
