"""Put a portal together: the same parts for the application's people and for the console's operators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sidecar.config.break_glass import BreakGlass
from sidecar.logins.login import Ask, Framing, Login, SamlParty
from sidecar.pages.answers import Answers
from sidecar.portal.application import ApplicationSession
from sidecar.portal.attempts import Attempts
from sidecar.portal.break_glass import PAGE, BreakGlassPage
from sidecar.portal.callback import Callback
from sidecar.portal.circles import Circles
from sidecar.portal.emergency import Emergency
from sidecar.portal.farewells import Farewells
from sidecar.portal.forms import KeptForms
from sidecar.portal.front_channel import FrontChannel
from sidecar.portal.handover import Handover
from sidecar.portal.invitation import Accept, InvitationPage, Open, nobody_invites
from sidecar.portal.lookout import Lookout
from sidecar.portal.portal import Portal
from sidecar.portal.reach import Doorplate, Reach
from sidecar.portal.saml import SamlPages
from sidecar.portal.sign_in import SignIn
from sidecar.portal.sign_out import SignOut
from sidecar.portal.site import Site
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.store import Store
from sidecar.sessions.vault import Vault
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from sidecar.portal.vetting import Vetting


class Closer(Protocol):
    """Remembers what has to be closed."""

    def add(self, part: Vetting, /) -> Vetting:
        """Remember *part*, and give it back."""


@dataclass(slots=True, kw_only=True)
class Entrance:
    """Signs people in and out at one site, and keeps the forms that they sent before.

    ``secrets`` seal what is kept in ``store``. A sign-in may take ``patience`` seconds, a session ``lifetime``;
    forms are kept up to ``keep_post`` bytes. ``saml`` are those of ``logins`` that speak it; ``accept`` takes
    invitations.
    """

    site: Site
    store: Store
    secrets: Sequence[bytes]
    keeper: SessionKeeper
    logins: Mapping[str, Login]
    saml: Mapping[str, SamlParty]
    application: ApplicationSession
    answers: Answers
    audit: AuditLog
    metrics: Metrics
    patience: float
    lifetime: float
    keep_post: int = 0
    accept: Accept | None = None
    doorplate: Doorplate | None = None
    lookout: Lookout | None = None
    forms: KeptForms = field(init=False)
    sign_in: SignIn = field(init=False)
    sign_out: SignOut = field(init=False)
    _attempts: Attempts = field(init=False)
    _farewells: Farewells = field(init=False)

    def __post_init__(self) -> None:
        """Make the parts."""
        seconds = self.patience
        vaults = self._vault("form"), self._vault("owner")
        self.forms = KeptForms(*vaults, self.site, self.keep_post, seconds, self.lifetime + seconds)
        self._attempts = Attempts(self._vault("login"), self.store, seconds)
        self._farewells = Farewells(self._vault("farewell"))
        self.sign_in = SignIn(
            site=self.site,
            logins=self.logins,
            attempts=self._attempts,
            circles=Circles(self.site, self.store),
            keeper=self.keeper,
            forms=self.forms,
            application=self.application,
            answers=self.answers,
            accept=self.accept,
            doorplate=self.doorplate,
            lookout=self.lookout,
        )
        self.sign_out = SignOut(
            site=self.site,
            logins=self.logins,
            keeper=self.keeper,
            store=self.store,
            farewells=self._farewells,
            answers=self.answers,
            application=self.application,
        )

    def _vault(self, purpose: str) -> Vault:
        return Vault(self.store, self.secrets, purpose)

    def portal(
        self,
        *,
        asks: Callable[[str, str], Ask],
        is_ready: Callable[[], Awaitable[Mapping[str, str]]],
        keys: Mapping[str, object],
        invitations: Open = nobody_invites,
        front_channel: Mapping[str, Framing],
        break_glass: BreakGlassPage | None = None,
    ) -> Portal:
        """The pages of this site; *front_channel* are the logins that may sign people out by a frame. As ``Portal``."""
        return Portal(
            site=self.site,
            sign_in=self.sign_in,
            callback=Callback(
                site=self.site,
                sign_in=self.sign_in,
                handover=Handover(self._vault("answer")),
                answers=self.answers,
                audit=self.audit,
                metrics=self.metrics,
            ),
            sign_out=self.sign_out,
            saml=SamlPages(
                parties=self.saml,
                keeper=self.keeper,
                attempts=self._attempts,
                farewells=self._farewells,
                sign_out=self.sign_out,
                answers=self.answers,
                audit=self.audit,
            ),
            invitation=InvitationPage(open=invitations, sign_in=self.sign_in, answers=self.answers),
            front_channel=FrontChannel(
                parties=front_channel, keeper=self.keeper, answers=self.answers, audit=self.audit
            ),
            keeper=self.keeper,
            answers=self.answers,
            audit=self.audit,
            metrics=self.metrics,
            keys=keys,
            asks=asks,
            is_ready=is_ready,
            break_glass=break_glass,
        )


def doorplate_of(section: BreakGlass | None, site: Site, logins: Mapping[str, Login], lookout: Lookout) -> Doorplate:
    """What tells people of the page for emergencies."""
    return Doorplate(section, site.path(PAGE), Reach(tuple(logins), lookout))


def open_break_glass(
    section: BreakGlass | None, entrance: Entrance, emergency: Emergency, reach: Reach, parts: Closer
) -> BreakGlassPage | None:
    """The page for emergencies; None, and nothing of it there, unless the configuration has accounts for it."""
    if section is None:
        return None
    # argon2 is for those who have such accounts.
    from sidecar.portal.vetting import Vetting  # noqa: PLC0415

    return BreakGlassPage(
        section=section,
        site=entrance.site,
        sign_in=entrance.sign_in,
        emergency=emergency,
        vetting=parts.add(Vetting(section.accounts, entrance.store)),
        reach=reach,
        store=entrance.store,
        answers=entrance.answers,
        audit=entrance.audit,
        metrics=entrance.metrics,
    )
