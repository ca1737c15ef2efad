"""Check providers, the domains they speak for, and what identities are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sidecar.config.document import Document, Location
from sidecar.config.lints.addresses import is_host, is_loopback, split_url
from sidecar.config.login import OidcLogin
from sidecar.config.models import Config
from sidecar.config.problem import Problem

# It is part of addresses: /-/callback/NAME.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# OpenID Connect Core 1.0, section 3.1.2.1; RFC 7636; RFC 9126: the sidecar writes these itself.
_OURS = frozenset(
    [
        "client_id", "client_secret", "code_challenge", "code_challenge_method", "nonce", "redirect_uri", "request",
        "request_uri", "response_mode", "response_type", "scope", "state",
    ]
)  # fmt: skip


def names(config: Config, document: Document) -> Iterator[Problem]:
    """Names that addresses can be made of."""
    for name in config.logins:
        if not _NAME.fullmatch(name):
            message, fix = "the name becomes part of addresses", "Use letters, digits, - and _"
            yield document.error(("logins", name), message, fix)


def providers(config: Config, document: Document) -> Iterator[Problem]:
    """Addresses that can be believed, and no provider twice by accident."""
    seen: dict[tuple[str, str], str] = {}
    for name, login in config.oidc_logins.items():
        place: Location = ("logins", name)
        yield from _addresses(login, place, document)
        for parameter in sorted(_OURS & set(login.parameters)):
            here = (*place, "parameters", parameter)
            yield document.error(here, "is written by the sidecar itself", "Remove it")
        other = seen.setdefault((login.issuer.rstrip("/"), login.client_id), name)
        if other != name:
            yield document.warning((*place, "issuer"), f"the same provider and client as logins.{other}", "Remove one")


def _addresses(login: OidcLogin, place: Location, document: Document) -> Iterator[Problem]:
    for key, address in (("issuer", login.issuer), ("discovery", login.discovery)):
        if address is None:
            continue
        parts = split_url(address)
        if parts is None or "@" in parts.netloc or parts.fragment or (key == "issuer" and parts.query):
            yield document.error((*place, key), "is no plain address", "Write https://id.example.com")
        elif parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            yield document.error((*place, key), "without https nobody knows who answers", "Write https://")


def domains(config: Config, document: Document) -> Iterator[Problem]:
    """One e-mail domain belongs to one login."""
    seen: dict[str, str] = {}
    for name, login in config.logins.items():
        for number, written in enumerate(login.domains):
            place: Location = ("logins", name, "domains", number)
            domain = written.lower()
            if not is_host(domain) or "." not in domain:
                message = f"{document.quoted(place, written)} is no e-mail domain"
                yield document.error(place, message, "Write example.com, without @ and *")
            other = seen.setdefault(domain, name)
            if other != name:
                message = f"{document.quoted(place, written)} belongs to logins.{other} already"
                yield document.error(place, message, "Nobody could tell where its people sign in; remove one")


def user_names(config: Config, document: Document) -> Iterator[Problem]:
    """Everybody needs a user name."""
    if config.identity.username is not None:
        return
    nameless = [name for name, login in config.logins.items() if login.identity.username is None]
    fix = 'Add username: "{{ claims.preferred_username }}"'
    if len(nameless) == len(config.logins):
        yield document.error(("identity", "username"), "is missing: nothing says what people are called", fix)
        return
    for name in nameless:
        message = f"nothing says what people of logins.{name} are called"
        yield document.error(("logins", name, "identity", "username"), message, fix)


def groups(config: Config, document: Document) -> Iterator[Problem]:
    """Groups that nothing fills are always empty."""
    sections = (*config.logins.values(), *config.sync.values())
    if config.identity.groups or any(one.identity.groups for one in sections):
        return
    fix = 'Add identity: {groups: "{{ claims.groups }}"}'
    for name, role in config.roles.items():
        if role.group or (role.when is not None and "groups" in role.when.names):
            yield document.warning(("roles", name), "reads groups, which nothing fills", fix)
    for number, rule in enumerate(config.access):
        for kind, item, lines in rule.line_sets:
            if lines.group or (lines.when is not None and "groups" in lines.when.names):
                place: Location = ("access", number, kind, item, "group" if lines.group else "when")
                yield document.warning(place, "needs groups, which nothing fills", fix)


def groups_sources(config: Config, document: Document) -> Iterator[Problem]:
    """An access token goes over https only, and is asked for with the scope that the place wants."""
    for name, login in config.oidc_logins.items():
        source = login.groups_source
        if source is None:
            continue
        place: Location = ("logins", name, "groups_source", "url")
        address = split_url(source.url)
        is_safe = address is not None and (address.scheme == "https" or is_loopback(address.hostname or ""))
        if address is None or not is_safe or "@" in address.netloc or address.fragment:
            message = "the access token goes there, so it must be an https address, without a user name or #"
            yield document.error(place, message, "Write https://…")
        for item, scope in enumerate(source.scope):
            if scope in login.scopes:
                here = (*place[:-1], "scope", item)
                yield document.warning(here, f"{document.quoted(here, scope)} is among scopes already", "Remove it")


def addresses(config: Config, document: Document) -> Iterator[Problem]:
    """An address that nobody can verify is never there."""
    for name, login in config.saml_logins.items():
        if (login.identity.email or config.identity.email) and not (login.domains or login.trust_email):
            message = "e-mail addresses are never believed: SAML has no word for verified"
            fix = "List the domains that the provider looks after, such as domains: [example.com]"
            yield document.warning(("logins", name), message, fix)


def linking(config: Config, document: Document) -> Iterator[Problem]:
    """Taking accounts over needs a login that may speak for their addresses."""
    if config.provision is None:
        return
    account = config.provision.account
    kinds = {"existing": account.existing == "link_verified", "other_login": account.other_login == "join_verified"}
    asked = [key for key, is_on in kinds.items() if is_on]
    if not asked:
        return
    for key in asked if not any(login.domains for login in config.logins.values()) else ():
        message = "nobody is ever linked, because no login may speak for an e-mail domain"
        fix = "List the domains under logins, such as domains: [example.com]"
        yield document.warning(("provision", "account", key), message, fix)
    if kinds["other_login"] and len(config.logins) == 1:
        fix = "Remove it, or add the other login"
        yield document.warning(("provision", "account", "other_login"), "there is only one login", fix)
    for name, login in config.logins.items():
        if login.trust_email and login.domains:
            message = "an address that nobody verified is enough to take over an account"
            fix = "Remove it, unless the provider verifies every address without saying so"
            yield document.warning(("logins", name, "trust_email"), message, fix)
