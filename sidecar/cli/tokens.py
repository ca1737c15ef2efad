"""``sidecar tokens``: issue API tokens, look at them, end them."""

from __future__ import annotations

import asyncio
import getpass
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.saying import EXIT_UNAVAILABLE, EXIT_USAGE, complain, give_up, say, say_json
from sidecar.core.api_tokens import digest_of, is_ours
from sidecar.faults import Refused, Unavailable
from sidecar.model import Person
from sidecar.reason import Reason

if TYPE_CHECKING:
    from sidecar.config.models import Config
    from sidecar.directory import Directory
    from sidecar.directory.tokens import ApiToken
    from sidecar.tokens import Issuer, Order

T = TypeVar("T")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
_MOST_NAMESAKES = 20


@dataclass(frozen=True, slots=True)
class _Desk:
    """What the commands work with."""

    directory: Directory
    issuer: Issuer


@click.group()
def tokens() -> None:
    """Issue API tokens, look at them, end them."""


@tokens.command()
@CONFIG
@click.option("--person", help="User name, address or id of the person whose token it is.")
@click.option("--service", help="Name of the service whose token it is; nobody signs in as it.")
@click.option("--role", "roles", multiple=True, help="A role that the service has; may be given several times.")
@click.option(
    "--scope", multiple=True, help="Rule, /path/** or GET,POST /path/** that alone it is good for; repeatable."
)
@click.option("--expires", help="How long it is good, such as 12h or 30d; tokens.lifetime by default.")
@click.option("--name", required=True, help="What it is for: shown in lists.")
@_DRY_RUN
@_JSON
def create(config: Path, *, expires: str | None, dry_run: bool, as_json: bool, **wanted: Any) -> None:
    """Issue a token. The token itself is printed once, and kept nowhere.

    A personal token is what its owner is at the time of each request, never more. Exit code 1: refused.
    """
    settings = load_or_leave(config, quiet=True).config
    lifetime = _lifetime(settings, expires)

    async def work(desk: _Desk) -> tuple[str, ApiToken, Person | None]:
        order = await _order(desk, lifetime, **wanted)
        if order.person is not None and not await desk.directory.profiles.of_person(order.person.id):
            complain("The owner has to sign in once before the token is good: nothing is known of them.", "yellow")
        now, by = time.time(), _operator()
        if dry_run:
            return "", await desk.issuer.plan(order, by, now), order.person
        return *(await desk.issuer.issue(order, by, now)), order.person

    secret, made, person = _run(settings, work)
    if as_json:
        say_json({**_as_data(made, person), **({"dry_run": True} if dry_run else {"token": secret})})
        return
    _tell(made, person)
    if dry_run:
        say("This was a dry run: no token was issued.", "yellow")
    else:
        say("The token, which is shown this once:", "bold")
        click.echo(secret)


@tokens.command("list")
@CONFIG
@click.option("--person", help="Only those of this person.")
@click.option("--service", help="Only those of this service.")
@click.option("--all", "everything", is_flag=True, help="Also those that were revoked or have expired.")
@_JSON
def list_tokens(config: Path, *, person: str | None, service: str | None, everything: bool, as_json: bool) -> None:
    """List tokens, the newest first."""
    settings = load_or_leave(config, quiet=True).config

    async def work(desk: _Desk) -> Sequence[ApiToken]:
        owner = None if person is None else await _person(desk.directory, person)
        return await desk.directory.tokens.find(person_id=owner.id if owner else "", subject=service or "")

    now = time.time()
    found = [one for one in _run(settings, work) if everything or _state(one, now) == "good"]
    if as_json:
        say_json([_as_data(one) for one in found])
        return
    for one in found:
        say(f"{one.id}  {_state(one, now):8}  {one.kind.value:8}  until {_day(one.expires)}  {one.subject}  {one.name}")
    if not found:
        say("no tokens", "dim")


@tokens.command()
@click.argument("token")
@CONFIG
@_JSON
def show(token: str, config: Path, *, as_json: bool) -> None:
    """Show one token by its id; with - a token is read from standard input, and its record shown."""
    settings = load_or_leave(config, quiet=True).config

    async def work(desk: _Desk) -> tuple[ApiToken, Person | None]:
        return await _meant(desk.directory, token)

    found, person = _run(settings, work)
    if as_json:
        say_json(_as_data(found, person))
    else:
        _tell(found, person)


@tokens.command()
@click.argument("token")
@CONFIG
@_DRY_RUN
@_JSON
def revoke(token: str, config: Path, *, dry_run: bool, as_json: bool) -> None:
    """End a token by its id; with - a token that was found somewhere is read from standard input.

    It is refused everywhere within a second. Exit code 1: there is none, or it is revoked already.
    """
    settings = load_or_leave(config, quiet=True).config

    async def work(desk: _Desk) -> ApiToken:
        found, _ = await _meant(desk.directory, token)
        if not dry_run:
            await desk.issuer.revoke(found.id, _operator(), time.time())
        return found

    found = _run(settings, work)
    if as_json:
        say_json({"id": found.id, "name": found.name, "revoked": not dry_run})
    else:
        say(f"{found.id}  {found.name}: {'would be revoked' if dry_run else 'revoked'}")


def _run(settings: Config, work: Callable[[_Desk], Awaitable[T]]) -> T:
    """Do *work* at an open desk; leaves with an exit code when it cannot be done."""
    if settings.tokens is None:
        give_up("the configuration has no tokens section, so no token would be accepted", EXIT_USAGE)

    async def whole() -> T:
        async with _desk(settings) as desk:
            return await work(desk)

    try:
        return asyncio.run(whole())
    except Refused as refused:
        give_up(f"refused: {refused.reason.value}: {refused.detail}")
    except Unavailable as fault:
        give_up(f"unavailable: {fault}", EXIT_UNAVAILABLE)
    except (OSError, ValueError) as error:
        give_up(f"the audit log cannot be written: {error}", EXIT_UNAVAILABLE)


@asynccontextmanager
async def _desk(settings: Config) -> AsyncIterator[_Desk]:
    from sidecar.directory import Directory
    from sidecar.people import Changes
    from sidecar.plans import rules_of
    from sidecar.recording import open_recording
    from sidecar.sessions.opening import open_store
    from sidecar.tokens import Issuer

    # Standard output is for the answer.
    audit = open_recording(settings, time.time, is_command=True)
    store = open_store(settings.sessions, time.time)
    directory = await Directory.open(
        settings.directory.url.reveal(), settings.directory.application, settings.directory.timeout.total_seconds()
    )
    rules = [rule.name for rule in rules_of(settings.access)]
    try:
        yield _Desk(directory, Issuer(directory, Changes(store), audit.record, rules, settings.roles))
    finally:
        await directory.close()
        await store.close()
        audit.close()


def _lifetime(settings: Config, expires: str | None) -> float:
    from sidecar.config.values import parse_duration

    section = settings.tokens
    if section is None:
        return 0.0
    try:
        wanted = section.lifetime if expires is None else parse_duration(expires)
    except ValueError as error:
        give_up(f"--expires: {error}", EXIT_USAGE)
    if not 0 < wanted.total_seconds() <= section.max_lifetime.total_seconds():
        give_up(f"--expires: at most {section.max_lifetime}, which is tokens.max_lifetime", EXIT_USAGE)
    return wanted.total_seconds()


async def _order(
    desk: _Desk,
    lifetime: float,
    *,
    person: str | None,
    service: str | None,
    roles: tuple[str, ...],
    scope: tuple[str, ...],
    name: str,
) -> Order:
    from sidecar.tokens import Order

    if (person is None) == (service is None):
        give_up("say whose token it is: --person or --service", EXIT_USAGE)
    if person is not None and roles:
        give_up("--role is for services: a person's token has the roles that the person has", EXIT_USAGE)
    if service is not None and (not service.isprintable() or not service.strip() or ":" in service):
        give_up("--service: a name without colons and control characters", EXIT_USAGE)
    owner = None if person is None else await _person(desk.directory, person)
    return Order(name, lifetime, scope, owner, service or "", roles)


async def _person(directory: Directory, text: str) -> Person:
    """The one person whom *text* means; raises Refused(NOT_FOUND) when there is none, or more than one."""
    by_id = await directory.person(text)
    if by_id is not None:
        return by_id
    wanted = text.casefold()
    near = await directory.find(text, limit=_MOST_NAMESAKES)
    found = [one for one in near if wanted in (one.username.casefold(), one.email.casefold())]
    if len(found) != 1:
        for one in found:
            complain(f"  {one.id}  {one.username}  {one.email}", "yellow")
        raise Refused(Reason.NOT_FOUND, 404, f"{len(found) or 'no'} people are called {text}; give the id")
    return found[0]


async def _meant(directory: Directory, text: str) -> tuple[ApiToken, Person | None]:
    shown = sys.stdin.readline().strip() if text == "-" else text
    if is_ours(shown) and text != "-":
        complain("A token on the command line stays in the history of the shell; use - and standard input.", "yellow")
    found = await (directory.tokens.shown(digest_of(shown)) if is_ours(shown) else directory.tokens.get(shown))
    if found is None:
        raise Refused(Reason.NOT_FOUND, 404, "there is no such token")
    return found


def _operator() -> str:
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        # A container often has no name for its user.
        return "cli"


def _state(token: ApiToken, now: float) -> str:
    from sidecar.directory.tokens import standing_of

    return standing_of(token, now).value


def _day(at: float | None) -> str:
    return "never" if not at else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _as_data(token: ApiToken, person: Person | None = None) -> dict[str, Any]:
    return {
        "id": token.id,
        "kind": token.kind.value,
        "name": token.name,
        "state": _state(token, time.time()),
        "person": token.person_id,
        "username": person.username if person is not None else None,
        "service": token.subject or None,
        "roles": list(token.roles),
        "scope": list(token.scope),
        "created": token.created,
        "created_by": token.created_by,
        "expires": token.expires,
        "last_used": token.last_used or None,
        "revoked": token.revoked,
        "revoked_by": token.revoked_by or None,
    }


def _tell(token: ApiToken, person: Person | None) -> None:
    owner = token.subject or (person.username if person is not None else token.person_id or "")
    say(f"{token.kind.value} token {token.id}", "bold")
    say(f"  name: {token.name}")
    say(f"  owner: {owner}")
    if token.roles:
        say(f"  roles: {', '.join(token.roles)}")
    say(f"  scope: {', '.join(token.scope) or 'whatever the owner may do by token'}")
    say(f"  issued: {_day(token.created)} by {token.created_by}")
    say(f"  good until: {_day(token.expires)}")
    say(f"  last used: {_day(token.last_used)}")
    if token.revoked is not None:
        say(f"  revoked: {_day(token.revoked)} by {token.revoked_by}", "red")
