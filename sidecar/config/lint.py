"""Check across sections: what each of them alone cannot know, said plainly and with the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sidecar.config.document import Document
from sidecar.config.lints import (
    access,
    audit,
    break_glass,
    callers,
    console,
    drift,
    engines,
    forward_auth,
    headers,
    insights,
    logins,
    people,
    provision,
    requirements,
    saml,
    scim,
    service,
    sessions,
    signals,
    steps,
    sync,
    templates,
    tracing,
)
from sidecar.config.models import Config
from sidecar.config.problem import Problem

Look = Callable[[Config, Document], Iterator[Problem]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check and the sections that it reads; it is left out when one of them is broken by itself."""

    sections: frozenset[str]
    look: Look


def _check(look: Look, *sections: str) -> Check:
    return Check(frozenset(sections), look)


CHECKS: tuple[Check, ...] = (
    _check(service.public_address, "server"),
    _check(service.listeners, "server"),
    _check(service.proxies, "server"),
    _check(service.proxy_protocol, "server"),
    _check(service.application, "app"),
    _check(service.servers, "app"),
    _check(service.health, "app"),
    _check(service.application_cookies, "app"),
    _check(service.application_logout, "app"),
    _check(service.durations, *Config.model_fields),
    _check(service.reloading, "reload"),
    _check(audit.audit, "audit"),
    _check(insights.insights, "insights", "roles"),
    _check(insights.reach, "insights", "provision", "tokens"),
    _check(insights.spools, "insights", "audit"),
    _check(tracing.tracing, "tracing"),
    _check(console.address, "console", "server"),
    _check(console.operators, "console", "roles", "logins"),
    _check(sessions.store, "server", "sessions"),
    _check(sessions.redis, "sessions"),
    _check(sessions.sentinel, "sessions"),
    _check(sessions.cookie, "server", "sessions"),
    _check(sessions.lifetimes, "sessions"),
    _check(sessions.directory, "sessions", "directory", "provision", "tokens"),
    _check(logins.names, "logins"),
    _check(logins.providers, "logins"),
    _check(saml.saml, "logins"),
    _check(logins.domains, "logins"),
    _check(logins.user_names, "logins", "identity"),
    _check(logins.groups, "logins", "identity", "roles", "access", "sync"),
    _check(logins.groups_sources, "logins"),
    _check(logins.addresses, "logins", "identity"),
    _check(logins.linking, "logins", "provision"),
    _check(access.patterns, "access"),
    _check(access.names, "access", "roles", "logins", "tokens", "certificates"),
    _check(access.roles, "roles", "logins"),
    _check(access.hosts, "access", "server"),
    _check(access.openness, "access"),
    _check(access.order, "access", "app"),
    _check(access.depth, "access", "app"),
    _check(requirements.classes, "access", "app"),
    _check(access.bearer_use, "access", "logins"),
    _check(break_glass.hashes, "break_glass"),
    _check(break_glass.reach, "break_glass"),
    _check(break_glass.outage, "break_glass", "logins"),
    _check(break_glass.forgetting, "break_glass", "sessions"),
    _check(break_glass.names, "break_glass", "logins"),
    _check(break_glass.accounts, "break_glass", "provision", "headers"),
    _check(break_glass.sessions_outage, "sessions"),
    _check(callers.words, "logins", "tokens", "certificates"),
    _check(callers.use, "access", "tokens", "certificates"),
    _check(callers.tokens, "tokens", "provision"),
    _check(callers.introspection, "logins"),
    _check(callers.certificates, "certificates"),
    _check(drift.drift, "drift", "provision"),
    _check(engines.sections, "engines", "logins", "access"),
    _check(engines.questions, "engines", "access"),
    _check(headers.names, "headers", "assertion"),
    _check(headers.values, "headers"),
    _check(headers.assertion, "assertion"),
    _check(templates.identity, "identity", "logins"),
    _check(templates.roles, "roles"),
    _check(templates.rules, "access"),
    _check(templates.single_values, "roles", "access", "logins"),
    _check(templates.statements, "headers", "assertion", "provision"),
    _check(templates.accounts, "provision"),
    _check(provision.roles, "roles", "provision"),
    _check(provision.changes, "provision"),
    _check(provision.connections, "provision"),
    _check(steps.steps, "provision"),
    _check(forward_auth.peers, "forward_auth", "server"),
    _check(forward_auth.own_pages, "forward_auth", "server"),
    _check(forward_auth.headers, "forward_auth", "headers"),
    _check(scim.clients, "scim"),
    _check(scim.joins, "scim", "logins"),
    _check(scim.accounts, "scim", "provision"),
    _check(people.by_hand, "people", "provision", "logins", "sessions"),
    _check(sync.sources, "sync"),
    _check(sync.people, "sync", "logins"),
    _check(sync.together, "sync", "scim", "roles", "provision"),
    _check(signals.transmitters, "signals"),
    _check(signals.people, "signals", "logins"),
    _check(signals.accounts, "signals", "provision"),
)


def lint(config: Config, document: Document, usable: frozenset[str]) -> list[Problem]:
    """Everything that the checks find; *usable* are the sections of *config* that are valid by themselves."""
    return [problem for check in CHECKS if check.sections <= usable for problem in check.look(config, document)]
