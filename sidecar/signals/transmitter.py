"""Know one transmitter: what it says about itself, its keys, and which of its events may be believed."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sidecar.config.login import OidcLogin
from sidecar.config.signals import SignalTransmitter
from sidecar.core.addresses import is_trusted
from sidecar.core.credentials import bearer_hash
from sidecar.core.signals import Consequence, Signal, Subject, signals_of
from sidecar.faults import Refused, Unavailable
from sidecar.logins.discovery import Discovery, address_in
from sidecar.logins.http import Answer, ProviderHttp
from sidecar.logins.keys import Keys
from sidecar.logins.provider import Provider
from sidecar.logins.token_claims import SECURITY_EVENT, Expected, check, text_claim, time_claim
from sidecar.logins.tokens import verify
from sidecar.model import Visit
from sidecar.reason import Reason
from sidecar.signals.access import Access

_TYPES = ("secevent+jwt", "application/secevent+jwt")
# Parts of a complex subject that are looked at; an event about anything else that the transmitter calls critical is not
# acted on (Shared Signals Framework 1.0, section 7.1.3).
_UNDERSTOOD = frozenset(["user", "session"])
# A poll may bring many events at once.
_ANSWER_LIMIT = 4 << 20
_MOST_CRITICAL = 20


@dataclass(frozen=True, slots=True)
class Description:
    """What a transmitter says about itself; an empty address means that it has no such endpoint."""

    issuer: str
    jwks_uri: str
    configuration_endpoint: str = ""
    status_endpoint: str = ""
    verification_endpoint: str = ""
    critical: frozenset[str] = frozenset()


def well_known(issuer: str) -> str:
    """The standard place of the document: between host and path (Shared Signals Framework 1.0, section 7.2)."""
    parts = urlsplit(issuer)
    path = f"/.well-known/ssf-configuration{parts.path.rstrip('/')}"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def described(document: Mapping[str, Any], issuer: str) -> Description:
    """Check the *document* of *issuer*; raises ``Unavailable(PROVIDER_DOWN)`` that says what is wrong with it."""
    said = document.get("issuer")
    if said != issuer:
        detail = f"ssf-configuration: issuer is {str(said)[:200]!a}, configured is {issuer!a}"
        raise Unavailable(Reason.PROVIDER_DOWN, detail)
    critical = document.get("critical_subject_members", [])
    if not isinstance(critical, list) or len(critical) > _MOST_CRITICAL:
        raise Unavailable(Reason.PROVIDER_DOWN, "ssf-configuration: critical_subject_members is no short list")
    return Description(
        issuer=issuer,
        jwks_uri=address_in(document, "jwks_uri"),
        configuration_endpoint=address_in(document, "configuration_endpoint", needed=False),
        status_endpoint=address_in(document, "status_endpoint", needed=False),
        verification_endpoint=address_in(document, "verification_endpoint", needed=False),
        critical=frozenset(one for one in critical if isinstance(one, str)),
    )


@dataclass(frozen=True, slots=True)
class Received:
    """A token that was verified: its id, when it was issued, and its events."""

    jti: str
    issued: float
    signals: tuple[Signal, ...]


class Transmitter:
    """One transmitter as it was configured. Belongs to the event loop that first uses it."""

    def __init__(
        self, name: str, section: SignalTransmitter, audience: str, login: OidcLogin, clock: Callable[[], float]
    ) -> None:
        """Believe *section*'s issuer about the people of that *login*; no network is used yet.

        *audience* is what its events are for unless the section says it. Raises ValueError for an unusable CA file.
        """
        self.name = name
        self.section = section
        self.people = login.issuer
        self.access = Access(section, Provider(name, login, clock), clock)
        self.audience = section.audience or (audience,)
        self.http = ProviderHttp(name, section.timeout.total_seconds(), section.ca, _ANSWER_LIMIT)
        address = section.discovery or well_known(section.issuer)
        self.discovery = Discovery(self.http, section.issuer, address, described, clock)
        self.effects: dict[str, Consequence] = {event: Consequence(what) for event, what in section.effects.items()}
        self.memory = section.max_age.total_seconds() + 2 * section.leeway.total_seconds()
        self._tokens = [hashlib.sha256(one.reveal().encode()).digest() for one in section.token if one.reveal()]
        self._keys = Keys(self.http, self.discovery, clock)

    def is_at_home(self, visit: Visit) -> bool:
        """True when its pushes may come from there."""
        networks = self.section.networks
        return not networks or bool(visit.client and is_trusted(visit.client, networks))

    def is_shown_by(self, visit: Visit) -> bool:
        """True when the request shows a token of the transmitter's; it takes as long for every wrong one."""
        presented = bearer_hash(visit.authorization)
        return any(hmac.compare_digest(presented, known) for known in self._tokens)

    async def verified(self, token: str, now: float) -> Received:
        """Verify a security event token; raises Refused (TOKEN_…, SIGNAL_INVALID) and Unavailable."""
        verified = await verify(token, self._keys, self.section.algorithms)
        if verified.header.type not in _TYPES:
            raise Refused(Reason.TOKEN_INVALID, 400, "typ is not secevent+jwt")
        expected = Expected(
            issuer=self.section.issuer,
            audience=frozenset(self.audience),
            now=now,
            leeway=self.section.leeway.total_seconds(),
            algorithm=verified.header.algorithm,
            longest=self.section.max_age.total_seconds(),
        )
        check(verified.claims, SECURITY_EVENT, expected)
        issued = time_claim(verified.claims, "iat", now) or now
        return Received(text_claim(verified.claims, "jti"), issued, signals_of(verified.claims, issued))

    async def what_hinders(self, subject: Subject) -> str:
        """Why nothing can follow for *subject*, "" when something can; raises Refused for another's people."""
        if not subject.names_somebody:
            return "the subject names nobody by a format that is known here"
        if subject.kind and subject.kind not in self.section.subjects:
            return f"subjects by {subject.kind} are not taken"
        if subject.issuer and subject.issuer != self.people:
            raise Refused(Reason.SIGNAL_INVALID, 400, f"it speaks of people of {subject.issuer[:200]!a}")
        unknown = subject.members & (await self.discovery.metadata()).critical - _UNDERSTOOD
        return f"critical, and not known here: {', '.join(sorted(unknown))[:200]!a}" if unknown else ""

    async def asked(self, method: str, url: str, value: Mapping[str, Any] | None) -> Answer:
        """What the transmitter answers when it is asked with our token; raises Unavailable."""
        answer = await self.http.send(method, url, value, await self.access.token())
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self.access.forget()
        return answer

    async def probe(self) -> str:
        """Fetch metadata and keys and describe them in a line; raises Unavailable."""
        await self.discovery.fetch()
        keys = await self._keys.fetch()
        algorithms: Sequence[str] = sorted(frozenset().union(*(key.algorithms for key in keys)))
        if not set(algorithms) & set(self.section.algorithms):
            raise Unavailable(Reason.PROVIDER_DOWN, f"{self.name}: no signing key for {self.section.algorithms}")
        return f"{self.section.issuer}: {len(keys)} signing keys for {', '.join(algorithms)}"

    async def close(self) -> None:
        """Let go of connections and background work."""
        await self.discovery.close()
        await self._keys.close()
        await self.access.close()
        await self.http.close()
