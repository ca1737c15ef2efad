"""Find every template of a configuration, and the claims that they read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidecar.config.models import Config
from sidecar.config.within import within
from sidecar.core.template import Template

Location = tuple[str | int, ...]


def templates_of(section: Any, location: Location = ()) -> Iterator[tuple[Location, Template]]:
    """All templates inside a section, however deep, each with its location."""
    return within(section, Template, location)


def claims_read(config: Config, login: str) -> frozenset[str] | None:
    """Names of the claims that must be kept for people of *login*; None for all of them.

    Read by roles, rules, engines, headers, assertion, provisioning and what joins people to those of sources. The
    identity's own templates see all claims while signing in.
    """
    names: set[str] = set()
    clients = config.scim.clients.values() if config.scim is not None else ()
    joins = [one.join[login] for one in (*clients, *config.sync.values()) if login in one.join]
    for section in (
        config.roles,
        config.access,
        config.engines,
        config.headers,
        config.assertion,
        config.provision,
        joins,
    ):
        for _, template in templates_of(section):
            if template.claims is None:
                return None
            names |= template.claims
    return frozenset(names)
