"""``sidecar users invite``: a link by which somebody takes the place that was made for them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.loading import CONFIG
from sidecar.cli.officing import DRY_RUN, JSON, answer, called, in_office, moment
from sidecar.cli.saying import EXIT_USAGE, give_up
from sidecar.config.values import parse_duration

if TYPE_CHECKING:
    from sidecar.model import Person
    from sidecar.office import Office


@click.command()
@click.argument("who")
@CONFIG
@click.option("--email", default="", help="The address that is invited; the person's own when left out.")
@click.option("--login", default="", help="The login that the link leads to, where there are several.")
@click.option("--lifetime", default="", metavar="7d", help="How long the link can be used.")
@DRY_RUN
@JSON
def invite(who: str, config: Path, email: str, login: str, lifetime: str, *, dry_run: bool, as_json: bool) -> None:
    """Print a link by which WHO, who was added before, signs in for the first time. Send it to them yourself.

    It works once, for a while, and (unless people.invitations.strict is false) only for who signs in with the invited
    address. Links that were printed for them before end.
    """
    seconds = _seconds(lifetime)

    async def work(office: Office) -> tuple[Person, dict[str, Any]]:
        person = await office.desk.find(who)
        if dry_run:
            _login_of(office, person, login)
            return person, {"invited": email or person.email}
        return person, await invited(office, person, login, seconds, time.time(), email)

    person, made = in_office(config, work)
    text = made.get("link") or f"would be invited: {called(person)} at {made['invited']}"
    answer({"id": person.id, "username": person.username, "dry_run": dry_run, **made}, text, as_json=as_json)


def _seconds(lifetime: str) -> float | None:
    try:
        return parse_duration(lifetime).total_seconds() if lifetime else None
    except ValueError as error:
        give_up(f"--lifetime: {error}", EXIT_USAGE)


async def invited(  # noqa: PLR0917 - what an invitation is made of
    office: Office, person: Person, login: str, lifetime: float | None, now: float, email: str = ""
) -> dict[str, Any]:
    """Invite somebody: the link, and until when it works."""
    name = _login_of(office, person, login)
    if office.invitations is None:
        what = "a `people` section" if office.config.people is None else "sessions.secrets, which sign them"
        give_up(f"invitations need {what}", EXIT_USAGE)
    code, made = await office.invitations.invite(person, email or person.email, now, lifetime, name)
    return {"link": office.link(code, name), "invited": made.email, "expires": moment(made.expires)}


def _login_of(office: Office, person: Person, login: str) -> str:
    logins = office.config.logins
    if login and login not in logins:
        give_up(f"there is no login {login}; there are: {', '.join(logins)}", EXIT_USAGE)
    domain = person.email.rpartition("@")[2].lower()
    at_home = [name for name, section in logins.items() if domain in map(str.lower, section.domains)]
    name = login or (next(iter(logins)) if len(logins) == 1 else at_home[0] if len(at_home) == 1 else "")
    if not name:
        give_up(f"say --login, one of: {', '.join(logins)}", EXIT_USAGE)
    return name if len(logins) > 1 else ""
