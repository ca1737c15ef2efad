"""Check what joins the people of a source to those who sign in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sidecar.config.document import Document, Location
from sidecar.config.lints.templates import unknown_names
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.wording import closest
from sidecar.core.template import Template

_NAMES = frozenset(["claims", "user", "subject"])
_FIELDS = {"user": frozenset(["username", "email"])}


def join_problems(
    config: Config, document: Document, place: Location, join: Mapping[str, Template]
) -> Iterator[Problem]:
    """What is wrong with *join* (login → the value that its people have) at *place*."""
    for login, template in join.items():
        here = (*place, login)
        if login not in config.logins:
            fix = closest(login, sorted(config.logins), "There are")
            yield document.error(here, f"there is no login {document.quoted(here, login)}", fix)
        yield from unknown_names(document, here, template, _NAMES, _FIELDS)


def joins_nobody(document: Document, place: Location, join: Mapping[str, Template], example: str) -> Iterator[Problem]:
    """Whoever signs in must be found among the people of a source; *example* is the way out."""
    if not join:
        message = "nobody who signs in is ever one of these people: their groups and their end do not count"
        yield document.warning(place, message, example)
