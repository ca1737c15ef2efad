"""Know a provider's endpoints from its discovery document (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sidecar.faults import Unavailable
from sidecar.logins.addresses import is_safe_address
from sidecar.logins.flight import Flight
from sidecar.logins.http import ProviderHttp
from sidecar.reason import Reason

_FRESH = 3600.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0
Described = TypeVar("Described")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a provider says about itself; an empty address means that it has no such endpoint."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    introspection_endpoint: str = ""
    names_itself: bool = False
    """It puts ``iss`` into every authorization answer (RFC 9207, section 3)."""
    takes_claims: bool = False
    """It understands the parameter ``claims`` (OpenID Connect Core 1.0, section 5.5)."""
    challenge_methods: tuple[str, ...] = ()
    client_methods: tuple[str, ...] = ("client_secret_basic",)


def discovery_address(issuer: str) -> str:
    """Return the standard place of the document (Discovery 1.0, section 4.1)."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def metadata_from(document: Mapping[str, Any], issuer: str) -> Metadata:
    """Check the *document* of *issuer*; raises ``Unavailable(PROVIDER_DOWN)`` that says what is wrong with it."""
    said = document.get("issuer")
    if said != issuer:
        # Section 4.3: identical, character by character; else any site could speak for another.
        raise _bad(f"issuer is {str(said)[:200]!a}, configured is {issuer!a}")
    return Metadata(
        issuer=issuer,
        authorization_endpoint=address_in(document, "authorization_endpoint"),
        token_endpoint=address_in(document, "token_endpoint"),
        jwks_uri=address_in(document, "jwks_uri"),
        userinfo_endpoint=address_in(document, "userinfo_endpoint", needed=False),
        end_session_endpoint=address_in(document, "end_session_endpoint", needed=False),
        introspection_endpoint=address_in(document, "introspection_endpoint", needed=False),
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
        takes_claims=document.get("claims_parameter_supported") is True,
        challenge_methods=_texts(document, "code_challenge_methods_supported", ()),
        client_methods=_texts(document, "token_endpoint_auth_methods_supported", ("client_secret_basic",)),
    )


def address_in(document: Mapping[str, Any], field: str, *, needed: bool = True) -> str:
    """Read an address that may be used; "" for one that is not *needed*; raises Unavailable."""
    value = document.get(field)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or not is_safe_address(value):
        raise _bad(f"{field} is missing or not an https address")
    return value


def _texts(document: Mapping[str, Any], field: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = document.get(field)
    if not isinstance(value, list):
        return default
    return tuple(text for text in value if isinstance(text, str))


def _bad(what: str) -> Unavailable:
    return Unavailable(Reason.PROVIDER_DOWN, f"discovery document: {what}")


class Discovery(Generic[Described]):
    """One provider's metadata, fetched when first needed, kept, and renewed in the background.

    A provider that is down when the sidecar starts stops nothing; tries are spaced out until it answers.
    """

    def __init__(
        self,
        http: ProviderHttp,
        issuer: str,
        address: str,
        read: Callable[[Mapping[str, Any], str], Described],
        clock: Callable[[], float],
    ) -> None:
        """Fetch the document of *issuer* at *address*, which *read* makes sense of; *clock* gives seconds."""
        self._http = http
        self._issuer = issuer
        self._address = address
        self._read = read
        self._clock = clock
        self._flight = Flight(self._fetch)
        self._known: Described | None = None
        self._failure: tuple[type[Unavailable], str] = (Unavailable, "")
        self._pause = 0.0
        self._next_try = 0.0

    async def metadata(self) -> Described:
        """Return the metadata, fetched now if it was never known; raises Unavailable."""
        is_due = self._is_due()
        if self._known is None:
            if not is_due and not self._flight.is_under_way:
                kind, detail = self._failure
                raise kind(Reason.PROVIDER_DOWN, detail)
            return await self._flight.join()
        if is_due:
            self._flight.start()
        return self._known

    @property
    def known(self) -> Described | None:
        """What is known, None when nothing ever was."""
        return self._known

    async def fetch(self) -> Described:
        """Fetch the document now, whatever is known; raises Unavailable."""
        return await self._flight.join()

    async def close(self) -> None:
        """Stop fetching."""
        await self._flight.close()

    def _is_due(self) -> bool:
        # A clock that was set back must not postpone the next try by the difference.
        wait = self._next_try - self._clock()
        return wait <= 0 or wait > _FRESH

    async def _fetch(self) -> Described:
        try:
            answer = await self._http.get(self._address)
            known = self._read(answer.document(), self._issuer)
        except Unavailable as error:
            self._failure = type(error), error.detail
            self._pause = min(max(_FIRST_PAUSE, self._pause * 2), _LONGEST_PAUSE)
            self._next_try = self._clock() + self._pause
            raise
        self._known = known
        self._pause = 0.0
        self._next_try = self._clock() + _FRESH
        return known
