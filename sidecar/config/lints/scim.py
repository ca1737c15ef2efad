"""Check SCIM clients: names, tokens, and how their people are joined to those who sign in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from sidecar.config.document import Document, Location
from sidecar.config.lints.addresses import is_host
from sidecar.config.lints.joins import join_problems, joins_nobody
from sidecar.config.lints.templates import CLAIMS, unknown_names
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.scim import Scim, ScimClient, ScimToken

# It is part of addresses: /-/scim/NAME/v2.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SHORTEST_TOKEN = 24
# Days before the end of a token.
_SOON = 14


def clients(config: Config, document: Document) -> Iterator[Problem]:
    """Each client by itself, and all of them together."""
    if config.scim is None:
        return
    ways = {client.groups for client in config.scim.clients.values()}
    for name, client in config.scim.clients.items():
        place: Location = ("scim", "clients", name)
        if not _NAME.fullmatch(name):
            yield document.error(place, "the name becomes part of addresses", "Use letters, digits, - and _")
        if len(ways) > 1:
            yield document.error((*place, "groups"), "differs between clients", "Write the same for all of them")
        yield from _people(client, place, document)
    yield from _tokens(config.scim, document)


def _tokens(section: Scim, document: Document) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, client in section.clients.items():
        place: Location = ("scim", "clients", name, "token")
        for token in client.token:
            text = token.value.reveal()
            yield from _end(token, place, document)
            if 0 < len(text) < _SHORTEST_TOKEN:
                fix = "Make one with: openssl rand -base64 32"
                yield document.error(place, f"has fewer than {_SHORTEST_TOKEN} characters", fix)
            other = seen.setdefault(text, name) if text else name
            if other != name:
                yield document.error(place, f"is the token that scim.clients.{other} has", "Give each client its own")


def _end(token: ScimToken, place: Location, document: Document) -> Iterator[Problem]:
    left = None if token.expires is None else (token.expires - datetime.now(UTC).date()).days
    if left is not None and left < _SOON:
        when = f"ended on {token.expires}" if left < 0 else f"ends on {token.expires}"
        yield document.warning(place, f"a token {when}", "Add a new one beside it, and change it at the provider")


def _people(client: ScimClient, place: Location, document: Document) -> Iterator[Problem]:
    for number, domain in enumerate(client.domains):
        here = (*place, "domains", number)
        if not is_host(domain):
            yield document.error(here, f"{document.quoted(here, domain)} is no domain", "Write example.com")
    for key in ("username", "email", "name", "groups"):
        template = getattr(client.identity, key)
        if template is not None:
            yield from unknown_names(document, (*place, "identity", key), template, CLAIMS, {})


def joins(config: Config, document: Document) -> Iterator[Problem]:
    """Whoever signs in must be found among the people of a client."""
    if config.scim is None:
        return
    for name, client in config.scim.clients.items():
        place: Location = ("scim", "clients", name)
        yield from join_problems(config, document, (*place, "join"), client.join)
        example = f'Add join: {{corp: "{{{{ claims.oid }}}}"}}, the claim that equals {client.on}'
        yield from joins_nobody(document, place, client.join, example)


def accounts(config: Config, document: Document) -> Iterator[Problem]:
    """People are kept in the directory, which is there for accounts."""
    if config.scim is not None and config.provision is None:
        message = "people come for the sake of their accounts, and provision is missing"
        yield document.error(("scim",), message, "Add provision")
