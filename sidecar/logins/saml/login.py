"""Sign people in at a SAML identity provider (SAML 2.0 Profiles, section 4.1: Web Browser SSO)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sidecar.config.saml import SamlLogin
from sidecar.core.claims import IdentityPlan, identity_from
from sidecar.core.template import TemplateError
from sidecar.faults import Refused, Unavailable
from sidecar.logins.addresses import is_safe_address
from sidecar.logins.login import Ask, Begin, Brought, LoggedOut, LogoutAsked
from sidecar.logins.saml.answer import Demand, Verified, guarded, verified
from sidecar.logins.saml.attributes import claims_of, name_id_of
from sidecar.logins.saml.bench import Bench
from sidecar.logins.saml.conditions import Expected, Statement, check, check_name_format
from sidecar.logins.saml.document import BLANKS, decode
from sidecar.logins.saml.names import NAME_ID_FORMATS, held_to
from sidecar.logins.saml.naming import TRANSIENT, NameId, issuer_of, session_key, subject_of, write_handle
from sidecar.logins.saml.parties import Binding, IdentityProvider, KeyPair, ProviderMetadata, ServiceProvider
from sidecar.logins.saml.publishing import published
from sidecar.logins.saml.request import Wish, ask_for, message, posted, redirected
from sidecar.logins.saml.sign_out import SamlSignOut, with_known_keys
from sidecar.logins.saml.signing import check_pair, new_id
from sidecar.model import Grant, Identity, Session, SignedIn
from sidecar.reason import Reason

_PUBLISHED_FOR = 14 * 24 * 3600.0
_Read = tuple[Statement, NameId | None, dict[str, Any]]


class SamlSignIn:
    """One SAML identity provider as a Login."""

    answers_by_post = True
    calls_provider = False

    def __init__(
        self,
        name: str,
        section: SamlLogin,
        service: ServiceProvider,
        metadata: ProviderMetadata,
        plan: IdentityPlan,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Sign in at the provider that *metadata* describes, as *service*; no network is used yet.

        Raises ValueError, which names the setting, when a key of ours cannot be used.
        """
        for number, pair in enumerate(service.keys):
            try:
                check_pair(pair)
            except ValueError as error:
                problem = f"keys[{number}].{error}"
                raise ValueError(problem) from None
        if section.encrypted == "required" and not service.keys:
            problem = "encrypted: required needs keys, to decrypt with"
            raise ValueError(problem)
        self.name = name
        self.title = section.title or name
        self.domains = section.domains
        self.takes_unsolicited = section.unsolicited
        self.service = service
        self.metadata = metadata
        self.plan = plan
        self._section = section
        self._clock = clock
        self._bench = Bench()
        self._weak: frozenset[str] = frozenset(section.weak)
        self.place = section.metadata
        self._sign_out = SamlSignOut(section, service, metadata, self._bench)

    async def begin(self, state: str, ask: Ask) -> Begin:
        """Ask the provider; RelayState is *state*, and the request's id is what the answer must name."""
        now = self._clock()
        provider = await self.metadata.current(now)
        binding = self._binding(provider)
        url = provider.sso[binding]
        wish = self._wish(ask)
        kept = {"request": new_id(), "issuer": provider.entity_id, **self._limits(ask, wish, now)}
        pair = self._signing_key()
        root = message("AuthnRequest", kept["request"], now, self.service.entity_id, url)
        ask_for(root, self.service.acs_url, wish)
        if binding == "redirect":
            return Begin(redirected(root, "SAMLRequest", state, url, pair), kept)
        return Begin(url, kept, posted(root, "SAMLRequest", state, pair))

    def _binding(self, provider: IdentityProvider) -> Binding:
        chosen = self._section.binding if self._section.binding in provider.sso else next(iter(provider.sso), None)
        if chosen is None or not is_safe_address(provider.sso[chosen]):
            detail = f"{self.name}: the metadata has no https address that takes requests"
            raise Unavailable(Reason.PROVIDER_DOWN, detail)
        return chosen

    def _signing_key(self) -> KeyPair | None:
        if not self.service.keys or self._section.sign_requests is False:
            return None
        return self.service.keys[0]

    def _wish(self, ask: Ask) -> Wish:
        # SAML has no max_age: a sign-in that must not be old can only be asked for anew.
        is_fresh = ask.max_age is not None or self._section.max_login_age is not None
        return Wish(
            force=self._section.force_authn or is_fresh or ask.prompt == "login",
            passive=ask.prompt == "none",
            name_id_format=NAME_ID_FORMATS.get(self._section.name_id or "", ""),
            classes=ask.acr or self._section.authn_context,
        )

    def _limits(self, ask: Ask, wish: Wish, now: float) -> dict[str, str]:
        """What the answer will be held to."""
        longest = self._section.max_login_age
        ages = [
            age for age in (ask.max_age, longest.total_seconds() if longest is not None else None) if age is not None
        ]
        if self._section.force_authn or ask.prompt == "login":
            ages.append(0.0)
        limits = {"oldest_login": str(now - max(0.0, min(ages)))} if ages else {}
        # Of a page's `acr` the gate sees whether it came; what the operator always asks for must be there.
        return {**limits, "classes": " ".join(wish.classes)} if self._section.authn_context else limits

    async def finish(self, kept: Mapping[str, str], answer: Mapping[str, str], now: float) -> SignedIn:
        """Verify the answer in a thread; nothing of it is believed before."""
        return await with_known_keys(self.metadata, now, lambda provider: self._finish(provider, kept, answer, now))

    async def _finish(
        self, provider: IdentityProvider, kept: Mapping[str, str], answer: Mapping[str, str], now: float
    ) -> SignedIn:
        if kept and kept.get("issuer") != provider.entity_id:
            raise Refused(Reason.LOGIN_ISSUER_MIXED, detail="this sign-in was begun at another provider")
        if not kept and not self.takes_unsolicited:
            raise Refused(Reason.LOGIN_STATE_UNKNOWN, 400, "SAML: an answer that nobody asked for")
        text = answer.get("SAMLResponse", "")
        if not text:
            raise Refused(Reason.LOGIN_ANSWER_INVALID, 400, "SAML: no SAMLResponse")
        raw = decode(text, self._section.max_answer)
        expected = self._expected(provider, kept, now)
        statement, name, attributes = await self._bench.work(lambda: self._read(raw, provider, expected))
        return self._signed_in(provider, statement, name, attributes)

    def _expected(self, provider: IdentityProvider, kept: Mapping[str, str], now: float) -> Expected:
        return Expected(
            provider=provider.entity_id,
            service=self.service.entity_id,
            acs_url=self.service.acs_url,
            request=kept.get("request", ""),
            now=now,
            leeway=self._section.leeway.total_seconds(),
            oldest_login=float(kept["oldest_login"]) if "oldest_login" in kept else self._oldest_unasked(kept, now),
            classes=frozenset(kept["classes"].split() if "classes" in kept else self._classes_unasked(kept)),
            name_format=held_to(self._section.name_id),
        )

    def _oldest_unasked(self, kept: Mapping[str, str], now: float) -> float | None:
        """How old a sign-in may be that began at the provider: as old as one that began here."""
        longest = self._section.max_login_age
        return None if kept or longest is None else now - longest.total_seconds()

    def _classes_unasked(self, kept: Mapping[str, str]) -> tuple[str, ...]:
        return () if kept else self._section.authn_context

    def _read(self, raw: bytes, provider: IdentityProvider, expected: Expected) -> _Read:
        """Everything that handles XML, to be run in a thread."""
        section = self._section
        demand = Demand(
            certificates=provider.certificates,
            keys=self.service.keys,
            signed=section.signed,
            must_be_encrypted=section.encrypted == "required",
            weak=self._weak,
        )
        return guarded(lambda: self._checked(verified(raw, demand), expected))

    def _checked(self, found: Verified, expected: Expected) -> _Read:
        statement = check(found, expected)
        name = name_id_of(found.assertion, self.service.keys, self._weak)
        if name is not None:
            check_name_format(name.format, expected)
        return statement, name, claims_of(found.assertion, self._section.attributes)

    def _signed_in(
        self, provider: IdentityProvider, statement: Statement, name: NameId | None, attributes: Mapping[str, Any]
    ) -> SignedIn:
        claims = {**attributes, "acr": statement.acr}
        alias = ""
        if name is not None:
            alias = subject_of(name, provider.entity_id, self.service.entity_id)
            claims |= {"name_id": name.value, "name_id_format": name.format}
        identity = self._identity(provider, claims, name, alias)
        return SignedIn(
            identity=identity,
            auth_time=statement.auth_time,
            acr=statement.acr,
            sid=session_key(alias, statement.session_index) if alias else "",
            grant=Grant(saml="" if name is None else write_handle(name, statement.session_index)),
            expires=statement.session_ends,
            once=tuple((message_id, statement.valid_until) for message_id in statement.ids),
            alias=alias,
        )

    def _identity(
        self, provider: IdentityProvider, claims: Mapping[str, Any], name: NameId | None, alias: str
    ) -> Identity:
        template = self._section.subject
        if template is not None:
            try:
                subject = template.text({"claims": dict(claims)}).strip(BLANKS)
            except TemplateError as error:
                raise Refused(Reason.IDENTITY_INCOMPLETE, 403, f"SAML: subject: {error}") from None
        elif name is None:
            raise Refused(Reason.IDENTITY_INCOMPLETE, 403, "SAML: no NameID, and the login has no subject")
        elif name.format == TRANSIENT:
            detail = "SAML: the NameID is transient: it names nobody the next time; set subject"
            raise Refused(Reason.IDENTITY_INCOMPLETE, 403, detail)
        else:
            subject = alias
        return identity_from(self.name, issuer_of(provider.entity_id), {**claims, "sub": subject}, self.plan)

    async def refresh(self, session: Session, grant: Grant, now: float) -> SignedIn:
        """Refuse: there is nothing to ask a SAML provider between sign-ins."""
        del session, grant, now
        raise Refused(Reason.REFRESH_REFUSED, detail="SAML has no refresh")

    async def begin_sign_out(self, session: Session, grant: Grant, return_to: str, state: str) -> Begin | None:
        """Our LogoutRequest; the answer comes to our own address for it, whatever *return_to* is."""
        del session, return_to
        return await self._sign_out.begin(grant, state, self._clock())

    async def own_metadata(self, now: float) -> bytes:
        """Our metadata, valid for a while."""
        return await self._bench.work(lambda: published(self.service, self._section, now + _PUBLISHED_FOR))

    async def logout_asked(self, brought: Brought, now: float) -> LogoutAsked:
        """See SamlParty."""
        return await self._sign_out.asked(brought, now)

    async def logout_answer(self, asked: LogoutAsked, now: float) -> Begin | None:
        """See SamlParty."""
        return await self._sign_out.answer(asked, now)

    async def logout_answered(self, brought: Brought, kept: Mapping[str, str], now: float) -> bool:
        """See SamlParty."""
        return await self._sign_out.finish(brought, kept, now)

    async def logged_out(self, token: str, now: float) -> LoggedOut:
        """Refuse: a SAML provider signs people out by messages through the browser, never by a token."""
        del token, now
        raise Refused(Reason.METHOD_REFUSED, 405, "no back-channel sign-out with SAML")

    async def probe(self) -> str:
        """Fetch the provider's metadata anew, and say what must be registered there."""
        line = await self.metadata.probe()
        provider = await self.metadata.current(self._clock())
        self._binding(provider)
        if provider.wants_signed_requests and self._signing_key() is None:
            raise Unavailable(Reason.PROVIDER_DOWN, f"{self.name}: the provider wants signed requests: add keys")
        return f"{line}; register {self.service.acs_url} for {self.service.entity_id}"

    async def reach(self) -> None:
        """See Login: its metadata is all that can be asked for without a browser."""
        await self.metadata.probe()

    async def close(self) -> None:
        """Let go of threads and connections."""
        self._bench.close()
        await self.metadata.close()
