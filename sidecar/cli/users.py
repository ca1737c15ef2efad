"""``sidecar users``: people by hand, while the sidecar runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.invite import invite, invited
from sidecar.cli.loading import CONFIG
from sidecar.cli.officing import (
    DRY_RUN,
    JSON,
    MEMORY,
    YES,
    answer,
    called,
    confirm,
    described,
    in_office,
    moment,
)
from sidecar.cli.roster import import_
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_UNAVAILABLE, EXIT_USAGE, give_up, say, say_json
from sidecar.core.roster import entry_of

if TYPE_CHECKING:
    from sidecar.office import Office

WHO = click.argument("who")


@click.group()
def users() -> None:
    """Add people, look at them, switch them off and on.

    WHO is a user name, an e-mail address, or an id as `sidecar users list` shows it. What concerns the application is
    done by the sidecars that run. Exit code 0: done. 1: refused. 2: cannot be asked so. 3: something is not there.
    """


users.add_command(import_, "import")
users.add_command(invite)


@users.command()
@click.argument("username")
@CONFIG
@click.option("--email", default="", help="E-mail address.")
@click.option("--name", default="", help="Name for people to read.")
@click.option("--group", "groups", multiple=True, help="A group, as roles name it; may be repeated.")
@click.option("--attribute", "attributes", multiple=True, metavar="NAME=VALUE", help="A claim; may be repeated.")
@click.option("--id", "entry_id", default="", help="What never changes about them; the user name when left out.")
@click.option("--invite", "is_invited", is_flag=True, help="Print a link by which they sign in for the first time.")
@click.option("--login", default="", help="With --invite: the login that the link leads to.")
@DRY_RUN
@JSON
def add(  # noqa: PLR0913, PLR0917 - one option each
    username: str,
    config: Path,
    email: str,
    name: str,
    groups: tuple[str, ...],
    attributes: tuple[str, ...],
    entry_id: str,
    login: str,
    *,
    is_invited: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add somebody before they ever sign in, or change what was said of them. Said twice it changes nothing.

    Their account is made by the sidecar that runs. They are found at their first sign-in by `people.join`, or by the
    link that --invite prints.
    """
    said: dict[str, Any] = {**_pairs(attributes), "username": username, "email": email, "name": name, "id": entry_id}
    if groups:
        said["groups"] = list(groups)
    try:
        entry = entry_of(said)
    except ValueError as error:
        give_up(str(error), EXIT_USAGE)

    async def work(office: Office) -> tuple[Any, dict[str, Any]]:
        _refuse_without_people(office)
        now = time.time()
        if dry_run:
            return await office.register.foresee(entry), {}
        taken = await office.register.take(entry, now)
        person = await office.desk.find(taken.person_id)
        return taken, (await invited(office, person, login, None, now) if is_invited else {})

    taken, link = in_office(config, work)
    value = {"change": taken.change, "id": taken.person_id, "username": username, "dry_run": dry_run, **link}
    known = f" ({taken.person_id})" if taken.person_id else ""
    text = f"{'would be ' if dry_run else ''}{taken.change}: {username}{known}"
    answer(value, text, *([link["link"]] if link else ()), as_json=as_json)


def _pairs(attributes: tuple[str, ...]) -> Mapping[str, str]:
    pairs = [one.partition("=") for one in attributes]
    if not all(name and mark for name, mark, _ in pairs):
        give_up("an attribute is written NAME=VALUE", EXIT_USAGE)
    return {name: value for name, _, value in pairs}


def _refuse_without_people(office: Office) -> None:
    if office.config.people is None:
        give_up("add a `people` section to the configuration: it says how they are found when they sign in", EXIT_USAGE)


@users.command("list")
@CONFIG
@click.option("--search", default="", help="Whose user name or address begins so.")
@click.option("--source", default="", help="From there alone, such as manual or scim:okta.")
@click.option("--state", type=click.Choice(["on", "off"]), help="Only those who are switched on, or off.")
@click.option("--deleted", is_flag=True, help="Those who are gone for good.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Most of them.")
@click.option("--offset", default=0, show_default=True, type=click.IntRange(0), help="Leave out so many.")
@JSON
def list_(  # noqa: PLR0917 - one option each
    config: Path,
    search: str,
    source: str,
    state: str | None,
    limit: int,
    offset: int,
    *,
    deleted: bool,
    as_json: bool,
) -> None:
    """List people, by user name."""
    from sidecar.directory.roll import Search

    wanted = Search(search, source, None if state is None else state == "on", is_gone=deleted)
    people, total = in_office(config, lambda office: office.directory.roll.page(wanted, limit=limit, offset=offset))
    if as_json:
        say_json({"total": total, "people": [described(one) for one in people]})
        return
    for one in people:
        turned = "on " if one.active else "off"
        account = one.account.key if one.account is not None else "-"
        say(f"{one.id}  {turned}  {one.username}  {one.email or '-'}  {one.source}  account {account}")
    say(f"{len(people)} of {total}")


@users.command()
@WHO
@CONFIG
@JSON
def show(who: str, config: Path, *, as_json: bool) -> None:
    """Show everything about somebody: sources, groups, account, what is owed, sessions, invitations."""

    async def work(office: Office) -> tuple[Any, bool]:
        return await office.desk.show(await office.desk.find(who), time.time()), office.shares_sessions

    shown, shares = in_office(config, work)
    person, more = shown.person, dict(shown.more)
    if not shares:
        more["sessions"] = None
    if as_json:
        say_json({**described(person), "identities": list(person.identities), **more})
        return
    off = f"off, by {', '.join(more['off_by'])}"
    state = "gone for good" if person.tombstone else "on" if person.active else off
    say(f"{called(person)}  {state}")
    say(f"  name {person.name or '-'}, e-mail {person.email or '-'}, owned by {person.source}")
    account = person.account
    say(f"  account {account.key if account else '-'}, state {more['state']} {more['error']}".rstrip())
    say(f"  roles {', '.join(person.roles) or '-'}")
    say(f"  groups {', '.join(one['name'] for one in more['groups']) or '-'}")
    for one in more["sources"]:
        source = f"{one['source']}{' (sign-in)' if one['is_login'] else ''}"
        say(f"  known to {source} as {one['username']}, {moment(one['updated'])}")
    for one in more["owed"]:
        say(f"  owed {one['duty']} ({one['state']}) {one['error']} {one['id']}")
    say(f"  sessions {MEMORY if more['sessions'] is None else len(more['sessions'])}")
    for one in more["invitations"]:
        said = f"until {moment(one['expires'])}" if one["expires"] else "replaced by a newer one"
        said = f"used {moment(one['used'])}" if one["used"] else said
        say(f"  invited {one['email'] or '-'}, {said}")


@users.command()
@WHO
@CONFIG
@DRY_RUN
@JSON
def disable(who: str, config: Path, *, dry_run: bool, as_json: bool) -> None:
    """Switch somebody off: every session ends at once, then the account is deactivated.

    With sessions in Redis they end within a moment in every replica; with sessions in memory the sidecar that runs ends
    them within five seconds. Nothing but `sidecar users enable` switches them on again.
    """

    async def work(office: Office) -> tuple[Any, int, bool]:
        person = await office.desk.find(who)
        if dry_run:
            return person, len(await office.desk.sessions(person)), office.shares_sessions
        return *(await office.desk.disable(person, time.time())), office.shares_sessions

    person, ended, shares = in_office(config, work)
    value = {**described(person), "sessions_ended": ended if shares else None, "dry_run": dry_run}
    tail = f", sessions ended: {ended}" if shares else ", sessions end within 5 seconds"
    by = "" if dry_run or person.disabled_by == "manual" else f" (by {person.disabled_by}, too)"
    answer(value, f"{'would be ' if dry_run else ''}switched off: {called(person)}{by}{tail}", as_json=as_json)


@users.command()
@WHO
@CONFIG
@DRY_RUN
@JSON
def enable(who: str, config: Path, *, dry_run: bool, as_json: bool) -> None:
    """Switch somebody on again whom an operator had switched off; who else did it keeps the say.

    An operator's own word is lifted in any case; where others have them off, too, the exit code is 1.
    """

    async def work(office: Office) -> tuple[Any, tuple[str, ...]]:
        person = await office.desk.find(who)
        if not dry_run:
            person = await office.desk.enable(person, time.time())
        return person, await office.desk.others(person)

    person, others = in_office(config, work)
    if others:
        give_up(f"person-disabled: switched off by {', '.join(others)}", EXIT_PROBLEMS)
    text = f"{'would be ' if dry_run else ''}switched on: {called(person)}"
    answer({**described(person), "dry_run": dry_run}, text, as_json=as_json)


@users.command()
@WHO
@CONFIG
@YES
@DRY_RUN
@JSON
def delete(who: str, config: Path, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Switch somebody off for good, and delete their account (or deactivate it, where there are no delete steps).

    Nobody can switch them on again. Their user name may be given to somebody else, who inherits nothing.
    """
    if not dry_run:
        confirm(f"Delete {who} for good?", yes=yes)

    async def work(office: Office) -> tuple[Any, int]:
        person = await office.desk.find(who)
        return person, 0 if dry_run else await office.desk.delete(person, time.time())

    person, _ = in_office(config, work)
    text = f"{'would be ' if dry_run else ''}deleted: {called(person)}"
    answer({**described(person), "deleted": True, "dry_run": dry_run}, text, as_json=as_json)


@users.command()
@WHO
@CONFIG
@click.option("--to", "taker", default="", help="Who gets the account.")
@click.option("--unlink", is_flag=True, help="Make the account nobody's.")
@YES
@DRY_RUN
@JSON
def relink(who: str, config: Path, taker: str, *, unlink: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Give the account of WHO to somebody else, or to nobody. The application is told nothing by that.

    Refused when the other one has an account already: an account has one owner, and a person one account.
    """
    if bool(taker) is unlink:
        give_up("say either --to SOMEBODY or --unlink", EXIT_USAGE)
    if not dry_run:
        confirm(f"Take the account of {who} away" + (f" and give it to {taker}?" if taker else "?"), yes=yes)

    async def work(office: Office) -> dict[str, Any]:
        now = time.time()
        giver = await office.desk.find(who)
        to = await office.desk.find(taker) if taker else None
        key = giver.account.key if giver.account is not None else None
        if not dry_run:
            moved = office.desk.relink(giver, to, now) if to is not None else office.desk.unlink(giver, now)
            key = (await moved).key
        return {"account": key, "from": giver.id, "to": None if to is None else to.id, "dry_run": dry_run}

    value = in_office(config, work)
    end = f"now that of {taker}" if taker else "nobody's"
    answer(value, f"account {value['account']} of {who}: {'would be ' * dry_run}{end}", as_json=as_json)


@users.command()
@WHO
@CONFIG
@click.option("--wait", "patience", default=30.0, show_default=True, help="Seconds to wait for a sidecar that runs.")
@DRY_RUN
@JSON
def provision(who: str, config: Path, patience: float, *, dry_run: bool, as_json: bool) -> None:
    """Have somebody's account looked at and made as it shall be, whatever was known of it; wait until it is done.

    Exit code 1: it failed. 3: nobody has done it yet; is a sidecar running?
    """

    async def work(office: Office) -> dict[str, Any]:
        now = time.time()
        person = await office.desk.find(who)
        if dry_run:
            says, calls = await office.foresee(person, now)
            shown = [{"step": one.step, "on": one.target, "does": one.action} for one in calls]
            return {"id": person.id, "state": says, "calls": shown, "dry_run": True}
        await office.desk.provision(person, now)
        end = await office.desk.settled(person.id, patience)
        return {"id": person.id, "state": end.state, "error": end.error, "dry_run": False}

    value = in_office(config, work)
    lines = [f"{one['step']} on {one['on']}: {one['does']}" for one in value.get("calls", ())]
    answer(value, f"{who}: {value['state']} {value.get('error', '')}".rstrip(), *lines, as_json=as_json)
    if value["state"] == "failed":
        raise SystemExit(EXIT_PROBLEMS)
    if value["state"] in ("pending", "retrying"):
        raise SystemExit(EXIT_UNAVAILABLE)
