"""Check what is worth an alert."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from sidecar.config.document import Document
from sidecar.config.lints.audit import webhook
from sidecar.config.models import Config
from sidecar.config.problem import Problem

_SHORTEST = 86400.0


def insights(config: Config, document: Document) -> Iterator[Problem]:
    """Nobody should believe that they would be told of what can never be noticed."""
    section = config.insights
    if section is None:
        return
    for role in section.privileged:
        if role not in config.roles and role not in _managed(config):
            near = get_close_matches(role, [*config.roles, *_managed(config)], 1)
            yield document.error(
                ("insights", "privileged"), f"there is no role {role}", f"Write {near[0]}" if near else "Name a role"
            )
    for name in ("silent_token", "dormant"):
        silence = getattr(section, name)
        if silence is not None and silence.after.total_seconds() < _SHORTEST:
            yield document.error(("insights", name, "after"), "must be at least 1d", "Write 30d")
    if section.webhook is not None:
        yield from webhook(section.webhook, ("insights", "webhook"), document)


def reach(config: Config, document: Document) -> Iterator[Problem]:
    """What was asked for by name needs something to look at."""
    section = config.insights
    if section is None:
        return
    if section.privileged and config.provision is None and config.tokens is None:
        message = "roles are given by the sidecar only to accounts and tokens, and there are neither"
        yield document.warning(("insights", "privileged"), message, "Add provision, or remove this")


def spools(config: Config, document: Document) -> Iterator[Problem]:
    """Alerts that nobody is told of."""
    section, kept = config.insights, config.audit
    if section is None or section.webhook is not None:
        return
    if not (kept.file or kept.stdout or kept.syslog or kept.database or kept.webhook):
        yield document.warning(("insights",), "nobody is told of alerts", "Set insights.webhook, or audit.file")


def _managed(config: Config) -> tuple[str, ...]:
    return () if config.provision is None or config.provision.roles is None else tuple(config.provision.roles.managed)
