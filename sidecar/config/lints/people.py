"""Check how people who were added by hand are joined to those who sign in."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.document import Document
from sidecar.config.lints.joins import join_problems
from sidecar.config.models import Config
from sidecar.config.problem import Problem


def by_hand(config: Config, document: Document) -> Iterator[Problem]:
    """Whoever signs in must be found for sure, and nobody else in their place."""
    if config.people is None:
        return
    if config.provision is None:
        yield document.error(("people",), "people come for the sake of their accounts", "Add provision")
    yield from join_problems(config, document, ("people", "join"), config.people.join)
    for login, template in config.people.join.items():
        if config.people.on == "email" and "claims" in template.names:
            message = "a claim may say any address: whoever can write theirs at the provider takes others' places"
            yield document.warning(
                ("people", "join", login), message, 'Write "{{ user.email }}", which is empty unless verified'
            )
    if not config.sessions.secrets:
        message = "invitations are signed with sessions.secrets, and there are none"
        yield document.warning(("people", "invitations"), message, "Add sessions.secrets, or do not invite")
