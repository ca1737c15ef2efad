"""Check transmitters of shared signals: addresses, tokens, whose people they speak of, and what can follow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from sidecar.config.document import Document, Location
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.signals import SignalTransmitter
from sidecar.config.wording import closest
from sidecar.core.signals import DEFAULTS, Consequence

# It is part of addresses: /-/signals/NAME.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SHORTEST_TOKEN = 24
_LOCAL = frozenset(["localhost", "127.0.0.1", "::1"])
_ACCOUNTS = frozenset([Consequence.DISABLE, Consequence.DELETE])


def transmitters(config: Config, document: Document) -> Iterator[Problem]:
    """Each transmitter by itself, and that no two show the same token."""
    if config.signals is None:
        return
    seen: dict[str, str] = {}
    for name, section in config.signals.transmitters.items():
        place: Location = ("signals", "transmitters", name)
        if not _NAME.fullmatch(name):
            yield document.error(place, "the name becomes part of addresses", "Use letters, digits, - and _")
        yield from _addresses(section, place, document)
        yield from _delivery(section, place, document)
        for text in (token.reveal() for token in section.token):
            if 0 < len(text) < _SHORTEST_TOKEN:
                fix = "Make one with: openssl rand -base64 32"
                yield document.error((*place, "token"), f"has fewer than {_SHORTEST_TOKEN} characters", fix)
            other = seen.setdefault(text, name) if text else name
            if other != name:
                message = f"is the token that signals.transmitters.{other} has"
                yield document.error((*place, "token"), message, "Give each transmitter its own")


def _addresses(section: SignalTransmitter, place: Location, document: Document) -> Iterator[Problem]:
    named: dict[Location, str | None] = {("issuer",): section.issuer, ("discovery",): section.discovery}
    if section.poll is not None:
        named["poll", "endpoint"] = section.poll.endpoint
    for key, address in named.items():
        if address is not None and not _is_plain(address):
            yield document.error((*place, *key), "must be an https address", "http only to this machine")


def _is_plain(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)
    return is_safe and bool(parts.hostname) and "@" not in parts.netloc and "#" not in address


def _delivery(section: SignalTransmitter, place: Location, document: Document) -> Iterator[Problem]:
    if not section.token and section.poll is None:
        message = "no event can come: neither token (it pushes) nor poll (we fetch)"
        yield document.error(place, message, "Add token or poll")
    if section.poll is not None and section.access is None and not section.scopes:
        message = "without access nobody answers a poll"
        yield document.error((*place, "poll"), message, "Add access (a token), or scopes (to be given one)")
    if section.access is not None and section.scopes:
        yield document.warning((*place, "scopes"), "has no effect beside access", "Remove one of the two")


def people(config: Config, document: Document) -> Iterator[Problem]:
    """Whose people a transmitter speaks of."""
    if config.signals is None:
        return
    for name, section in config.signals.transmitters.items():
        place: Location = ("signals", "transmitters", name, "login")
        if section.login not in config.logins:
            fix = closest(section.login, sorted(config.oidc_logins), "There are")
            yield document.error(place, f"there is no login {document.quoted(place, section.login)}", fix)
        elif section.login not in config.oidc_logins:
            message = "a SAML login: its people are called otherwise in events"
            yield document.error(place, message, "Name a login of type oidc")


def accounts(config: Config, document: Document) -> Iterator[Problem]:
    """Switching people off needs a place that remembers it."""
    if config.signals is None or config.provision is not None:
        return
    for name, section in config.signals.transmitters.items():
        place: Location = ("signals", "transmitters", name)
        if "email" in section.subjects:
            message = "people are found by address in the directory, and provision is missing"
            yield document.error((*place, "subjects"), message, "Add provision, or leave email out")
        chosen: dict[str, Consequence] = {event: Consequence(what) for event, what in section.effects.items()}
        if _ACCOUNTS & set({**DEFAULTS, **chosen}.values()):
            message = "without provision an event about an account ends sessions, and switches nobody off"
            fix = "Add provision, or write effects: {account-disabled: end_sessions, account-purged: end_sessions}"
            yield document.warning(place, message, fix)
