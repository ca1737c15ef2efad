"""The seams of signing in: how a login begins and ends, and how a request identifies itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.model import Grant, Requirement, Session, SignedIn, Visit


@dataclass(frozen=True, slots=True)
class Ask:
    """What this sign-in must achieve; empty values ask for nothing.

    ``max_age`` in seconds, None for none; of ``acr`` one must come, of ``amr`` all; ``login_hint`` is what the person
    typed in the chooser; ``prompt`` is one of "login", "select_account", "consent", "none".
    """

    max_age: float | None = None
    acr: tuple[str, ...] = ()
    amr: tuple[str, ...] = ()
    login_hint: str = ""
    prompt: str = ""

    def is_met_by(self, session: Session, now: float) -> bool:
        """True when *session* already is fresh and strong enough; *now* in epoch seconds."""
        needed = Requirement(self.max_age, self.acr, self.amr)
        return needed.is_met_by(session.auth_time, session.acr, session.amr, now)


@dataclass(frozen=True, slots=True)
class Begin:
    """Where to send the browser, and what to keep (sealed, in the store) until the answer comes.

    With ``form`` not empty, these fields are posted to ``url``; a redirect otherwise.
    """

    url: str
    kept: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Brought:
    """A message that a browser brought from the provider: in the very octets of a ``query``, or in a ``form``."""

    query: str = ""
    form: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogoutAsked:
    """What a provider's verified LogoutRequest says: whose sessions must end.

    ``sids`` name sessions (``Session.sid``); without any, all of whom the provider calls ``alias`` end. ``message`` is
    its id, which counts once until ``expires`` (epoch seconds); ``relay_state`` and ``binding`` belong to the answer.
    """

    issuer: str
    alias: str
    sids: tuple[str, ...]
    message: str
    expires: float
    relay_state: str = ""
    binding: str = "redirect"


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """What a provider's logout token says: which of its sessions, or all of which subject, must end.

    ``jti`` names the token: whoever has acted on it notes that in the store, until ``expires`` (epoch seconds), so that
    it cannot be used a second time. ``provider`` is the login's name.
    """

    issuer: str
    subject: str = ""
    sid: str = ""
    jti: str = ""
    expires: float = 0.0
    provider: str = ""


class Login(Protocol):
    """One provider. Returns values; never sees a request or writes a response.

    ``answers_by_post`` when its answers come as a cross-site POST; ``takes_unsolicited`` when it may also begin.
    ``place`` is the address (or the file) where the provider describes itself, ``calls_provider`` when no sign-in ends
    without a call of ours to the provider.

    All coroutines raise Refused when the provider or the browser sent something that may not pass, and
    ``Unavailable(Reason.PROVIDER_DOWN)`` when the provider is down, slow or answers nonsense: Unreached when it is the
    former.
    """

    name: str
    title: str
    domains: tuple[str, ...]
    answers_by_post: bool
    takes_unsolicited: bool
    place: str
    calls_provider: bool

    async def begin(self, state: str, ask: Ask) -> Begin:
        """Begin a sign-in; *state* is random and comes back with the answer."""

    async def finish(self, kept: Mapping[str, str], answer: Mapping[str, str], now: float) -> SignedIn:
        """Verify the *answer* (query or form parameters, each once) to what was *kept*; the code is redeemed last."""

    async def refresh(self, session: Session, grant: Grant, now: float) -> SignedIn:
        """Ask the provider for the present state; ``Refused(REFRESH_REFUSED)`` when it ended the session."""

    async def begin_sign_out(self, session: Session, grant: Grant, return_to: str, state: str) -> Begin | None:
        """Where the browser goes to sign out at the provider too; None when the provider has no such place.

        What is ``kept`` with it is kept under *state* until an answer comes.
        """

    async def logged_out(self, token: str, now: float) -> LoggedOut:
        """Verify a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.6)."""

    async def probe(self) -> str:
        """Reach the provider and describe it in a line; raises Unavailable."""

    async def reach(self) -> None:
        """Raise Unreached when no sign-in can work because the provider does not answer, Unavailable when it is wrong.

        It asks for nothing in which a browser has a part: what is found out is nobody's doing but the provider's.
        """

    async def close(self) -> None:
        """Let go of connections."""


class Framing(Protocol):
    """An OpenID provider that tells of sign-outs through a frame in the browser."""

    @property
    def issuer(self) -> str:
        """What it calls itself."""

    async def frames(self) -> tuple[str, ...]:
        """Origins whose pages may frame ours; raises nothing."""


class SamlParty(Protocol):
    """What a SAML login does besides, for pages that only SAML has. Raises as Login does."""

    async def own_metadata(self, now: float) -> bytes:
        """Our own metadata for this provider."""

    async def logout_asked(self, brought: Brought, now: float) -> LogoutAsked:
        """Verify the provider's LogoutRequest."""

    async def logout_answer(self, asked: LogoutAsked, now: float) -> Begin | None:
        """Say that it was done; None when the provider takes no answers."""

    async def logout_answered(self, brought: Brought, kept: Mapping[str, str], now: float) -> bool:
        """Verify the answer to our own LogoutRequest: True when the provider signed the person out everywhere."""


class Authenticator(Protocol):
    """Finds out who sends a request, by one kind of credential.

    ``via`` is what rules know the kind by (see core.policy.Standing). ``knows`` says that what it gives is who somebody
    is at this moment, so that nobody else need be asked.
    """

    @property
    def via(self) -> str:
        """The kind of credential."""

    @property
    def knows(self) -> bool:
        """Whether sources were asked already."""

    async def identify(self, visit: Visit, now: float) -> Session | None:
        """None: nothing of mine here. Refused: mine, and bad."""

    def at_hand(self, visit: Visit, now: float) -> Session | None:
        """What ``identify`` would give, if that is known without waiting; None says nothing. Raises Refused."""
