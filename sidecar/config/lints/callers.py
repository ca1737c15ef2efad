"""Check what is said about programs that call: API tokens, certificates, opaque tokens."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.callers import CERTIFICATES, TOKENS
from sidecar.config.claims import templates_of
from sidecar.config.document import Document, Location
from sidecar.config.lints.addresses import is_loopback, split_url
from sidecar.config.lints.templates import CLAIMS, unknown_names
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.core.headers import is_header_name
from sidecar.core.regulars import VARYING

_WORDS = {TOKENS: "API tokens", CERTIFICATES: "certificates"}


def words(config: Config, document: Document) -> Iterator[Problem]:
    """Names that rules use for what no login vouches for belong to no login."""
    for word in (TOKENS, CERTIFICATES):
        if getattr(config, word) is not None and word in config.logins:
            message = f"rules mean {_WORDS[word]} by that name"
            yield document.error(("logins", word), message, "Call the login something else")


def use(config: Config, document: Document) -> Iterator[Problem]:
    """Whatever is accepted is of use somewhere."""
    used = {name for rule in config.access for one in rule.alternatives for name in one.bearer}
    for word in (TOKENS, CERTIFICATES):
        if getattr(config, word) is not None and word not in used:
            fix = f"Add a rule such as {{path: /api/**, allow: {{bearer: {word}}}}}"
            yield document.warning((word,), f"no access rule accepts {_WORDS[word]}", fix)


def tokens(config: Config, document: Document) -> Iterator[Problem]:
    """Tokens that end, and a user name that is asked for where it can be."""
    section = config.tokens
    if section is None:
        return
    if section.lifetime > section.max_lifetime:
        message = "is longer than tokens.max_lifetime, so no token could be issued without --expires"
        yield document.error(("tokens", "lifetime"), message, "Make lifetime the shorter one")
    if config.provision is None:
        message = "without provision nobody is remembered, so there are tokens of services only"
        yield document.warning(("tokens",), message, "Add provision, if people shall have tokens")


def certificates(config: Config, document: Document) -> Iterator[Problem]:
    """A header that can be one, and networks that are proxies and not everybody."""
    section = config.certificates
    if section is None:
        return
    if not is_header_name(section.header):
        yield document.error(("certificates", "header"), "is no name of a header", "Write Client-Cert")
    elif section.header.lower().encode() in VARYING:
        # What such lines say is not looked at again when all others came before.
        yield document.error(("certificates", "header"), "means something else to everybody", "Write Client-Cert")
    for number, proxy in enumerate(section.proxies):
        if proxy != "unix" and proxy.num_addresses > 1 << (16 if proxy.version == 4 else 80):
            message = (
                "anybody in there can be whoever they like: they only need to send a certificate, not to have its key"
            )
            yield document.error(("certificates", "proxies", number), message, "Name the proxies' own addresses")
    for location, template in templates_of({"subject": section.subject, "identity": section.identity}):
        yield from unknown_names(document, ("certificates", *location), template, CLAIMS, {})
    if section.callers and section.subject is not None:
        yield document.warning(("certificates", "subject"), "has no effect with callers", "Remove it")


def introspection(config: Config, document: Document) -> Iterator[Problem]:
    """One provider is asked about opaque tokens, and knows who asks."""
    asked = ""
    for name, login in config.oidc_logins.items():
        section = login.bearer.introspection if login.bearer is not None else None
        if section is None:
            continue
        place: Location = ("logins", name, "bearer", "introspection")
        if asked:
            message = f"logins.{asked} has it, too: nobody could tell whose an opaque token is, and each would see all"
            yield document.error(place, message, "Keep one")
        asked = asked or name
        if login.client_authentication == "none":
            fix = f"Add client_secret or private_key to logins.{name}"
            yield document.error(place, "the provider must know who asks", fix)
        address = split_url(section.endpoint) if section.endpoint is not None else None
        is_safe = address is not None and (address.scheme == "https" or is_loopback(address.hostname or ""))
        if section.endpoint is not None and not is_safe:
            yield document.error(
                (*place, "endpoint"), "tokens go there, so it must be an https address", "Write https://…"
            )
