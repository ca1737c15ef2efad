"""Check how the application's accounts are listed and compared."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.document import Document, Location
from sidecar.config.drift import AccountTemplates
from sidecar.config.lints.sync import cron, source
from sidecar.config.lints.templates import no_condition, unknown_names
from sidecar.config.models import Config
from sidecar.config.problem import Problem

_ROW = frozenset(["row"])


def drift(config: Config, document: Document) -> Iterator[Problem]:
    """Nobody should believe that all is well because nothing was compared."""
    section = config.drift
    if section is None:
        return
    if config.provision is None:
        yield document.error(("drift",), "there are no accounts to compare with", "Add provision, or remove drift")
        return
    yield from source(section.list_, ("drift", "list"), document)
    yield from cron(section.cron, ("drift",), document)
    yield from _account(section.account, document)
    place: Location = ("drift", "account")
    if section.account.roles is not None and not config.provision.roles.managed:
        yield document.warning((*place, "roles"), "no role is managed, so none differs", "Set provision.roles.managed")
    if section.idle is not None and section.account.seen is None:
        fix = 'Add drift.account.seen: "{{ row.last_login }}"'
        yield document.error(("drift", "idle"), "says nothing while nobody says when the last sign-in was", fix)
    if section.repair and section.every is None and section.cron is None:
        yield document.error(("drift", "repair"), "is done by the timetable, and there is none", "Add every: 24h")


def _account(section: AccountTemplates, document: Document) -> Iterator[Problem]:
    for key in AccountTemplates.model_fields:
        template = getattr(section, key)
        if template is not None:
            yield from unknown_names(document, ("drift", "account", key), template, _ROW, {})
    if section.active is None:
        message = "is missing: accounts of people who left are not found"
        yield document.warning(("drift", "account", "active"), message, 'Add active: "{{ row.active == 1 }}"')
    else:
        yield from no_condition(document, ("drift", "account", "active"), section.active)
