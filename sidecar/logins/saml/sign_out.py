"""Sign people out at a SAML identity provider, and here when it says so (single logout)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from lxml import etree

from sidecar.config.saml import SamlLogin
from sidecar.faults import Refused
from sidecar.logins.login import Begin, Brought, LogoutAsked
from sidecar.logins.saml.answer import guarded
from sidecar.logins.saml.bench import Bench
from sidecar.logins.saml.carried import opened_message, unpack
from sidecar.logins.saml.farewell import ANSWER, REQUEST, Terms, ask_to_end, read_answer, read_request, say_ended
from sidecar.logins.saml.naming import issuer_of, read_handle
from sidecar.logins.saml.parties import Binding, IdentityProvider, ProviderMetadata, ServiceProvider
from sidecar.logins.saml.request import posted, redirected
from sidecar.logins.saml.signing import new_id
from sidecar.model import Grant
from sidecar.reason import Reason

_Read = TypeVar("_Read")
_LONGEST_RELAY_STATE = 1024


async def with_known_keys(
    metadata: ProviderMetadata, now: float, read: Callable[[IdentityProvider], Awaitable[_Read]]
) -> _Read:
    """Result of *read*; once more with newer metadata, where that has other keys, when no known key had signed."""
    try:
        return await read(await metadata.current(now))
    except Refused as refused:
        newer = await metadata.renewed(now) if refused.reason is Reason.TOKEN_INVALID else None
        if newer is None:
            raise
    return await read(newer)


class SamlSignOut:
    """Single logout of one login, in both directions."""

    def __init__(self, section: SamlLogin, service: ServiceProvider, metadata: ProviderMetadata, bench: Bench) -> None:
        """Speak as *service* to the provider that *metadata* describes; what costs time is done on *bench*."""
        self._section = section
        self._service = service
        self._metadata = metadata
        self._bench = bench
        self._weak: frozenset[str] = frozenset(section.weak)

    async def begin(self, grant: Grant, state: str, now: float) -> Begin | None:
        """Our signed LogoutRequest; None when the provider takes none, or nobody could believe it."""
        if not self._section.sign_out or not grant.saml or not self._service.keys:
            return None
        provider = await self._metadata.current(now)
        binding = _binding(provider.slo, self._section.binding)
        if binding is None:
            return None
        name, session_index = read_handle(grant.saml)
        message_id, url = new_id(), provider.slo[binding]
        root = ask_to_end(self._terms(provider, now), message_id, url, name, session_index)
        kept = {"request": message_id, "issuer": provider.entity_id}
        return self._sent(root, "SAMLRequest", state, binding, url, kept)

    async def finish(self, brought: Brought, kept: Mapping[str, str], now: float) -> bool:
        """Verify the provider's answer to what was *kept*: True when it signed the person out everywhere."""
        parcel = unpack(brought)

        async def read(provider: IdentityProvider) -> bool:
            if kept.get("issuer") != provider.entity_id:
                raise Refused(Reason.LOGIN_ISSUER_MIXED, detail="this sign-out was begun at another provider")
            terms = self._terms(provider, now)

            def work() -> bool:
                root = opened_message(parcel, ANSWER, provider.certificates, self._section.max_answer, self._weak)
                return read_answer(root, terms, kept.get("request", ""))

            return await self._bench.work(lambda: guarded(work))

        return await with_known_keys(self._metadata, now, read)

    async def asked(self, brought: Brought, now: float) -> LogoutAsked:
        """Verify the provider's LogoutRequest: whose sessions must end. Raises Refused; unsigned it says nothing."""
        parcel = unpack(brought)

        async def read(provider: IdentityProvider) -> LogoutAsked:
            terms = self._terms(provider, now)

            def work() -> LogoutAsked:
                root = opened_message(parcel, REQUEST, provider.certificates, self._section.max_answer, self._weak)
                goodbye = read_request(root, terms, self._weak)
                return LogoutAsked(
                    issuer=issuer_of(provider.entity_id),
                    alias=goodbye.alias,
                    sids=goodbye.sids,
                    message=goodbye.message_id,
                    expires=goodbye.until,
                    relay_state=parcel.relay_state[:_LONGEST_RELAY_STATE],
                    binding=parcel.binding,
                )

            return await self._bench.work(lambda: guarded(work))

        return await with_known_keys(self._metadata, now, read)

    async def answer(self, asked: LogoutAsked, now: float) -> Begin | None:
        """Our LogoutResponse, by the way the question came where the provider takes that; None when it takes none."""
        provider = await self._metadata.current(now)
        places = {**provider.slo, **provider.slo_answers}
        binding = _binding(places, "post" if asked.binding == "post" else "redirect")
        if binding is None:
            return None
        root = say_ended(self._terms(provider, now), new_id(), places[binding], asked.message)
        return self._sent(root, "SAMLResponse", asked.relay_state, binding, places[binding], {})

    def _terms(self, provider: IdentityProvider, now: float) -> Terms:
        return Terms(provider, self._service, now, self._section.leeway.total_seconds())

    def _sent(  # noqa: PLR0917 - the parts of a message under way
        self, root: etree._Element, parameter: str, state: str, binding: Binding, url: str, kept: Mapping[str, str]
    ) -> Begin:
        pair = self._service.keys[0] if self._service.keys else None
        if binding == "redirect":
            return Begin(redirected(root, parameter, state, url, pair), kept)
        return Begin(url, kept, posted(root, parameter, state, pair))


def _binding(places: Mapping[Binding, str], wanted: Binding) -> Binding | None:
    return wanted if wanted in places else next(iter(places), None)
