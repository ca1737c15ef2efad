"""Look at OpenID providers: what they publish, whether they know our address, and whether they know us."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from sidecar.config.login import OidcLogin
from sidecar.config.secret import Secret
from sidecar.doctor.finding import Finding, Probe
from sidecar.doctor.looking import Seen, UnreachableError, UnseenError, fetch
from sidecar.doctor.patient import Patient
from sidecar.doctor.providers import discovered
from sidecar.faults import Unavailable
from sidecar.logins.client_auth import ClientCredentials
from sidecar.logins.discovery import Metadata, metadata_from
from sidecar.logins.http import ProviderHttp
from sidecar.logins.keys import signing_keys
from sidecar.logins.login import Ask
from sidecar.logins.opening import callback_address, open_logins
from sidecar.logins.provider import error_code
from sidecar.logins.strict_json import parse_object
from sidecar.plans import identity_plan

_REDIRECTS = frozenset([302, 303, 307])
_FIRST_BAD, _FIRST_BROKEN = 400, 500
# What a provider answers a sign-in that must not ask anybody anything (OpenID Connect Core 1.0, section 3.1.2.6).
_NOBODY_THERE = frozenset(["login_required", "interaction_required", "consent_required", "account_selection_required"])
# How the error pages of products speak of an address, and of a client, that they do not know. Entra uses numbers.
_SAYS_ADDRESS = ("redirect_uri", "redirect uri", "redirect-uri", "aadsts50011", "aadsts500113")
_SAYS_CLIENT = ("invalid_client", "client not found", "unknown client", "client is invalid", "aadsts700016")
_CLIENT_ERRORS = frozenset(["invalid_client", "unauthorized_client"])


def probes(patient: Patient) -> list[Probe]:
    """What each provider publishes."""
    return [_published(patient, name, section) for name, section in patient.config.oidc_logins.items()]


async def _published(patient: Patient, name: str, section: OidcLogin) -> Probe:
    part, place = f"logins.{name}", ("logins", name, "issuer")
    try:
        document = await discovered(patient, name)
    except UnreachableError as error:
        yield patient.skipped("oidc-metadata", f"the provider does not answer: {error}", part)
        return
    except UnseenError as error:
        yield patient.failure("oidc-metadata", f"the discovery document cannot be had: {error}", place, part=part)
        return
    try:
        metadata = metadata_from(document, section.issuer)
    except Unavailable as fault:
        yield patient.failure("oidc-metadata", fault.detail, place, part=part)
        return
    yield patient.ok("oidc-metadata", f"{metadata.issuer}, all endpoints over https or on this machine", part)
    yield await _keys(patient, name, section, metadata)
    for finding in _capabilities(patient, name, section, document):
        yield finding


async def _keys(patient: Patient, name: str, section: OidcLogin, metadata: Metadata) -> Finding:
    part, place = f"logins.{name}", ("logins", name, "algorithms")
    try:
        keys = signing_keys(parse_object((await fetch(metadata.jwks_uri, ca=section.ca)).body))
    except (UnseenError, Unavailable, ValueError) as error:
        said = error.detail if isinstance(error, Unavailable) else str(error)[:100]
        return patient.failure("oidc-keys", f"the keys cannot be had: {said}", place, part=part)
    theirs = frozenset[str]().union(*(key.algorithms for key in keys))
    fitting = [one for one in section.algorithms if one in theirs]
    if not fitting:
        offered = _list(sorted(theirs)) or "nothing"
        seen = f"{len(keys)} usable key{'s' * (len(keys) != 1)} for {offered}; accepted is {_list(section.algorithms)}"
        return patient.failure("oidc-keys", seen, place, part=part)
    if "RS256" in fitting and any(key.kid == "" for key in keys) and len(keys) > 1:
        return patient.warning("oidc-keys", "several keys, and not all have a kid to choose by", place, part=part)
    return patient.ok("oidc-keys", f"{len(keys)} usable key{'s' * (len(keys) != 1)}, good for {_list(fitting)}", part)


def _capabilities(patient: Patient, name: str, section: OidcLogin, document: Mapping[str, Any]) -> list[Finding]:
    part = f"logins.{name}"
    wanted = [
        ("response_types_supported", "code", ("logins", name)),
        ("code_challenge_methods_supported", "S256", ("logins", name)),
        ("token_endpoint_auth_methods_supported", section.client_authentication, ("logins", name, "client_auth")),
    ]
    found = []
    for field, value, place in wanted:
        offered = document.get(field)
        if not isinstance(offered, list) or value in offered:
            continue
        seen = f"{field} has no {value}: {_list([str(one)[:40] for one in offered[:8]]) or 'nothing'}"
        found.append(patient.warning("oidc-capabilities", seen, place, part=part))
    algorithms = document.get("id_token_signing_alg_values_supported")
    if isinstance(algorithms, list) and not set(map(str, algorithms)) & set(section.algorithms):
        seen = f"ID tokens are signed with {_list([str(one)[:40] for one in algorithms[:8]])} only"
        found.append(patient.failure("oidc-capabilities", seen, ("logins", name, "algorithms"), part=part))
    if found:
        return found
    if not isinstance(document.get("code_challenge_methods_supported"), list):
        return [patient.skipped("oidc-capabilities", "it does not say whether it knows PKCE (S256)", part)]
    return [patient.ok("oidc-capabilities", "code flow, PKCE with S256, and the way we authenticate", part)]


def _list(texts: Sequence[str]) -> str:
    return ", ".join(texts)


def redirect_probes(patient: Patient) -> list[Probe]:
    """Whether each provider would return to us."""
    return [_returned(patient, name) for name in patient.config.oidc_logins]


async def _returned(patient: Patient, name: str) -> Probe:
    part, section = f"logins.{name}", patient.config.oidc_logins[name]
    address = callback_address(patient.site.origin, patient.site.prefix, name)
    login = open_logins(
        {name: section}, patient.site.origin, patient.site.prefix, {name: identity_plan(patient.config, name)}
    )[name]
    try:
        # The very request that a sign-in sends, except that nobody may be asked anything.
        begin = await login.begin(secrets.token_urlsafe(16), Ask(prompt="none"))
        seen = await fetch(begin.url, ca=section.ca, headers={"Accept": "text/html"})
    except (Unavailable, UnseenError):
        yield patient.skipped(
            "redirect-uri", f"the provider could not be asked; {address} must be registered there", part
        )
        return
    finally:
        await login.close()
    yield _judged(patient, name, address, seen)


def _judged(patient: Patient, name: str, address: str, seen: Seen) -> Finding:
    part = f"logins.{name}"
    place = seen.headers.get("Location", "")
    if seen.status in _REDIRECTS and place.partition("?")[0].partition("#")[0] == address:
        error = parse_qs(urlsplit(place).query).get("error", [""])[0]
        if error in _NOBODY_THERE or not error:
            return patient.ok("redirect-uri", f"it returns to {address}", part)
        seen_error = f"it returns to {address}, but says {error_code(error)}"
        change = "Compare `scopes` and the client's settings at the provider."
        return patient.warning("redirect-uri", seen_error, ("logins", name), part=part, change=change)
    # An error page is told from a sign-in page by its status; a redirect may carry the error to a page of its own.
    text = (place + " " + seen.body.decode("utf-8", "replace")).lower()
    is_error = seen.status >= _FIRST_BAD or "error" in place
    if is_error and any(word in text for word in _SAYS_CLIENT):
        said = f"the provider does not know the client (status {seen.status})"
        return patient.failure("redirect-uri", said, ("logins", name, "client_id"), part=part)
    if is_error and seen.status < _FIRST_BROKEN and any(word in text for word in _SAYS_ADDRESS):
        said = f"the provider refuses to return to {address} (status {seen.status})"
        way_out = f"Register {address} as redirect URI of this client, exactly so; it follows from server.public_url."
        return patient.failure("redirect-uri", said, ("server", "public_url"), part=part, change=way_out)
    return patient.skipped(
        "redirect-uri", f"status {seen.status} says nothing; {address} must be registered there", part
    )


def client_probes(patient: Patient) -> list[Probe]:
    """Whether each provider believes who we are."""
    return [_known(patient, name, section) for name, section in patient.config.oidc_logins.items()]


async def _known(patient: Patient, name: str, section: OidcLogin) -> Probe:
    part = f"logins.{name}"
    try:
        metadata = metadata_from(await discovered(patient, name), section.issuer)
        status, code = await _refusal(patient, name, section, metadata)
    except (Unavailable, UnseenError):
        yield patient.skipped("client-authentication", "the provider could not be asked", part)
        return
    how = section.client_authentication
    if code == "invalid_grant":
        # RFC 6749, section 5.2: the client was believed, and only the code was not.
        if await _takes_any_secret(patient, name, section, metadata):
            seen = f"{how} is accepted, and so is any other secret: the client is public at the provider"
            change = "Make it a confidential client there, or leave client_secret out."
            place = ("logins", name, "client_secret")
            yield patient.warning("client-authentication", seen, place, part=part, change=change)
        else:
            yield patient.ok("client-authentication", f"{how} is accepted", part)
    elif code in _CLIENT_ERRORS:
        seen = f"the token endpoint says {code} to the client `{section.client_id}`, by {how}"
        yield patient.failure("client-authentication", seen, ("logins", name, _credential(section)), part=part)
    else:
        yield patient.skipped("client-authentication", f"status {status} and {code} to a wrong code say nothing", part)


async def _takes_any_secret(patient: Patient, name: str, section: OidcLogin, metadata: Metadata) -> bool:
    if section.client_secret is None:
        return False
    wrong = section.model_copy(update={"client_secret": Secret(secrets.token_urlsafe(24))})
    try:
        return (await _refusal(patient, name, wrong, metadata))[1] == "invalid_grant"
    except Unavailable:
        return False


async def _refusal(patient: Patient, name: str, section: OidcLogin, metadata: Metadata) -> tuple[int, str]:
    """Status and error code that a code which cannot exist gets."""
    asked = {
        "grant_type": "authorization_code",
        "code": f"sidecar-doctor-{secrets.token_hex(8)}",
        "redirect_uri": callback_address(patient.site.origin, patient.site.prefix, name),
        "code_verifier": secrets.token_urlsafe(48),
    }
    form, headers = ClientCredentials(section).sign(metadata.token_endpoint, urlencode(asked), time.time())
    http = ProviderHttp(name, section.timeout.total_seconds(), section.ca)
    try:
        answer = await http.post(metadata.token_endpoint, form, headers)
    finally:
        await http.close()
    return answer.status, error_code(answer.json_object().get("error"))


def _credential(section: OidcLogin) -> str:
    if section.client_secret is not None:
        return "client_secret"
    return "private_key" if section.private_key is not None else "client_id"
