"""Know a provider from its metadata, through changes and outages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_pem_x509_certificate

from sidecar.config.saml import SamlLogin
from sidecar.faults import Unavailable
from sidecar.logins.flight import Flight
from sidecar.logins.saml.description import Description, describe
from sidecar.logins.saml.metadata_document import Seal, bad, read_metadata
from sidecar.logins.saml.metadata_place import Place
from sidecar.logins.saml.parties import IdentityProvider
from sidecar.reason import Reason

_log = structlog.get_logger("metadata")
_SOONEST = 30.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 300.0
_FILE_PAUSE = 5.0
_BETWEEN_REFETCHES = 30.0
_GOOD_BITS = 2048
_SOON = timedelta(days=30)


@dataclass(slots=True)
class _Health:
    """How the last tries went: ``failure`` is "" after a good one."""

    failure: str = "not fetched yet"
    kind: type[Unavailable] = Unavailable
    pause: float = 0.0
    next_try: float = 0.0


class ProviderDescription:
    """The provider's description in force: fetched when first needed, renewed behind the scenes, never for worse.

    A new copy that is bad, unsigned, expired or about somebody else leaves the old one in force until that expires.
    """

    def __init__(self, name: str, section: SamlLogin, place: Place, seal: Seal, clock: Callable[[], float]) -> None:
        """Know the provider of the login *name*; *seal* says whose signature counts, *clock* gives epoch seconds."""
        self._name = name
        self._section = section
        self._place = place
        self._seal = seal
        self._clock = clock
        self._flight = Flight(self._fetch)
        self._known: Description | None = None
        self._health = _Health()
        self._refetched_at: float | None = None
        self.tell: Callable[[str], None] = _nobody

    @property
    def complaint(self) -> str:
        """What is wrong with the newest copy, "" when nothing is."""
        return self._health.failure

    async def current(self, now: float) -> IdentityProvider:
        """See ProviderMetadata; what was never known is fetched now."""
        if self._known is not None and _is_valid(self._known, now):
            return self._known.provider
        if not self._flight.is_under_way and 0 < self._health.next_try - self._clock() <= _LONGEST_PAUSE:
            detail = f"{self._name}: {self._health.failure or 'metadata: expired'}"
            raise self._health.kind(Reason.PROVIDER_DOWN, detail)
        known = await self._flight.join()
        if not _is_valid(known, now):
            raise Unavailable(Reason.PROVIDER_DOWN, f"{self._name}: metadata: expired (validUntil)")
        return known.provider

    async def renewed(self, now: float) -> IdentityProvider | None:
        """Look once more, because no known key made a signature; None when it is too soon or the keys are the same.

        Anybody can send such a signature: so at most every half minute, however many ask.
        """
        before = self._known
        if self._refetched_at is not None and 0 <= self._clock() - self._refetched_at < _BETWEEN_REFETCHES:
            return None
        self._refetched_at = self._clock()
        try:
            after = await self._flight.join()
        except Unavailable:
            return None
        is_new = before is None or after.provider.certificates != before.provider.certificates
        return after.provider if is_new and _is_valid(after, now) else None

    async def keep_fresh(self) -> None:
        """See ProviderMetadata."""
        while True:
            try:
                await self._flight.join()
            except Unavailable:
                await asyncio.sleep(max(_FIRST_PAUSE, self._health.pause) * _jitter())
            else:
                await asyncio.sleep(self.lifetime() * _jitter())

    def lifetime(self) -> float:
        """Seconds until the copy should be fetched again."""
        wanted = self._section.metadata_refresh.total_seconds()
        if self._place.is_near:
            # Looking at a file costs nothing.
            return min(wanted, _FILE_PAUSE)
        limits = [wanted]
        if self._known is not None:
            limits.append(self._known.cache or wanted)
            if self._known.provider.valid_until is not None:
                limits.append((self._known.provider.valid_until - self._clock()) / 2)
        return max(_SOONEST, min(limits)) if wanted >= _SOONEST else wanted

    async def probe(self) -> str:
        """See ProviderMetadata."""
        self._place.forget()
        provider = (await self._flight.join()).provider
        ways = ", ".join(sorted(provider.sso))
        line = f"{provider.entity_id}: {len(provider.certificates)} signing certificates, takes requests by {ways}"
        remarks = list(certificate_remarks(provider, self._clock()))
        if not self._seal.is_wanted and not self._place.is_near:
            remarks.append("its signature is not checked, only https is (metadata_certificate)")
        if self._section.sign_out and not provider.slo:
            remarks.append("it has no sign-out")
        return f"{line}{''.join(f'; {remark}' for remark in remarks)}"

    async def close(self) -> None:
        """Let go of connections."""
        await self._flight.close()
        await self._place.close()

    async def _fetch(self) -> Description:
        try:
            known = await self._newest()
        except Unavailable as fault:
            self._failed(fault.detail, type(fault))
            raise type(fault)(Reason.PROVIDER_DOWN, f"{self._name}: {fault.detail}") from None
        if self._health.failure and self._health.failure != _Health().failure:
            _log.info("metadata is good again", login=self._name, place=self._place.name)
        self._health = _Health(failure="")
        self._known = known
        self.tell("ok")
        return known

    async def _newest(self) -> Description:
        content = await self._place.fetch()
        if content is None and self._known is not None:
            if not _is_valid(self._known, self._clock()):
                # The same octets cannot become valid again.
                raise Unavailable(Reason.PROVIDER_DOWN, "metadata: expired (validUntil)")
            return self._known
        if content is None:
            raise Unavailable(Reason.PROVIDER_DOWN, self._health.failure)
        try:
            return await asyncio.to_thread(self._read, content, self._clock())
        except Unavailable:
            # What was bad is looked at again, even if it stays the same: a clock may have been wrong.
            self._place.forget()
            raise

    def _read(self, content: bytes, now: float) -> Description:
        found = describe(read_metadata(content, self._seal), self._section.idp, now)
        before = found if self._known is None else self._known
        if found.provider.entity_id != before.provider.entity_id:
            # Its people would be others all at once, or somebody else's.
            raise bad(f"about another provider: {found.provider.entity_id[:200]!a}")
        return found

    def _failed(self, failure: str, kind: type[Unavailable]) -> None:
        self.tell("failed")
        pause = min(max(_FIRST_PAUSE, self._health.pause * 2), _LONGEST_PAUSE)
        if failure != self._health.failure:
            kept = "the old copy stays in force" if self._known is not None else "there is no other copy"
            _log.warning("metadata cannot be used", login=self._name, place=self._place.name, why=failure, so=kept)
        self._health = _Health(failure, kind, pause, self._clock() + min(pause, _FILE_PAUSE))


def certificate_remarks(provider: IdentityProvider, now: float) -> list[str]:
    """What an operator should know of the provider's certificates; none of it makes a signature count less."""
    remarks = []
    today = datetime.fromtimestamp(now, UTC)
    for number, pem in enumerate(provider.certificates, 1):
        certificate = load_pem_x509_certificate(pem.encode())
        key = certificate.public_key()
        ends = certificate.not_valid_after_utc
        if ends < today + _SOON:
            remarks.append(f"certificate {number} {'ended' if ends < today else 'ends'} {ends:%Y-%m-%d}")
        if isinstance(key, RSAPublicKey) and key.key_size < _GOOD_BITS:
            remarks.append(f"certificate {number} has a weak key of {key.key_size} bits")
    return remarks


def _nobody(_: str) -> None:
    """Nobody counts."""


def _is_valid(known: Description, now: float) -> bool:
    until = known.provider.valid_until
    return until is None or now < until


def _jitter() -> float:
    # Many workers and replicas begin together, and should not ask together for ever.
    return random.uniform(0.8, 1.0)  # noqa: S311 - no secret
