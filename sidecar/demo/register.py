"""Hold what the provider knows: its clients, its people and their groups, and who is signed in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from secrets import token_urlsafe
from typing import Any

from sidecar.demo.grants import ACCESS_SECONDS, Grant, Grants, SignIn
from sidecar.demo.people import GROUPS, DemoClient, DemoPerson
from sidecar.demo.shelf import Shelf
from sidecar.demo.signer import Signer

SESSION_SECONDS = 8 * 3600


@dataclass(frozen=True, slots=True)
class Register:
    """The provider's state, in memory only; `clock` returns seconds since the epoch."""

    issuer: str
    clients: Mapping[str, DemoClient]
    people: dict[str, DemoPerson]
    groups: tuple[str, ...]
    sign_ins: Shelf[SignIn]
    grants: Grants
    signer: Signer
    clock: Callable[[], float]

    @classmethod
    def of(
        cls,
        issuer: str,
        clients: Mapping[str, DemoClient],
        people: Sequence[DemoPerson],
        clock: Callable[[], float],
    ) -> "Register":
        """Start with nobody signed in."""
        theirs = [group for person in people for group in person.groups]
        return cls(
            issuer=issuer,
            clients=dict(clients),
            people={person.login: person for person in people},
            groups=tuple(dict.fromkeys([*GROUPS, *theirs])),
            sign_ins=Shelf(SESSION_SECONDS, clock),
            grants=Grants(clock),
            signer=Signer(),
            clock=clock,
        )

    def change_groups(self, login: str, groups: Iterable[str]) -> None:
        """Give a person other groups; tokens made from now on say so. Raises KeyError."""
        kept = frozenset(groups)
        chosen = tuple(group for group in self.groups if group in kept)
        self.people[login] = replace(self.people[login], groups=chosen)

    def change_name(self, login: str, name: str) -> None:
        """Give a person another name; tokens made from now on say so. Raises KeyError."""
        self.people[login] = replace(self.people[login], name=name)

    def sign_in(self, login: str, acr: str) -> SignIn:
        """Return a new sign-in of now."""
        return SignIn(token_urlsafe(16), login, int(self.clock()), acr)

    def sign_out(self, sid: str) -> None:
        """End one sign-in with everything that it was given."""
        self.sign_ins.discard(lambda sign_in: sign_in.sid == sid)
        self.grants.end(sid)

    def claims_about(self, grant: Grant) -> dict[str, Any]:
        """Return what the scopes of `grant` tell about its person (OpenID Connect Core section 5.4)."""
        person = self.people[grant.sign_in.login]
        claims: dict[str, Any] = {"sub": person.subject, "groups": list(person.groups)}
        if "profile" in grant.scopes:
            claims |= {"preferred_username": person.login, "name": person.name}
        if "email" in grant.scopes:
            claims |= {"email": person.email, "email_verified": person.email_verified}
        return claims

    def id_token(self, grant: Grant, nonce: str | None) -> str:
        """Return a signed ID token (OpenID Connect Core section 2)."""
        now = int(self.clock())
        claims = {
            **self.claims_about(grant),
            "iss": self.issuer,
            "aud": grant.client_id,
            "azp": grant.client_id,
            "iat": now,
            "exp": now + ACCESS_SECONDS,
            "auth_time": grant.sign_in.auth_time,
            "acr": grant.sign_in.acr,
            "sid": grant.sign_in.sid,
        }
        return self.signer.sign(claims if nonce is None else {**claims, "nonce": nonce})
