"""Run a command about people: open what it needs, ask before it does harm, and leave with the right exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sidecar.cli.loading import load_or_leave
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_UNAVAILABLE, EXIT_USAGE, give_up, say, say_json
from sidecar.faults import Refused, Unavailable
from sidecar.model import Person

if TYPE_CHECKING:
    from sidecar.config.models import Config
    from sidecar.office import Office

T = TypeVar("T")

JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
YES = click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can answer.")
MEMORY = "sessions are kept in the memory of the sidecar that runs; put them into Redis to reach them from here"


def in_office(path: Path, work: Callable[[Office], Awaitable[T]], *, needs_sessions: bool = False) -> T:
    """What *work* gives with the configuration at *path*; leaves with 1 refused, 2 cannot be asked, 3 not there."""
    from sidecar.telemetry.log import set_up

    settings = load_or_leave(path, quiet=True).config
    set_up("error", "text")
    if settings.provision is None:
        give_up(f"{path}: there is no provision section, so nobody is remembered", EXIT_USAGE)
    if needs_sessions and settings.sessions.redis is None:
        give_up(MEMORY, EXIT_USAGE)
    try:
        return asyncio.run(_working(settings, work))
    except Refused as refused:
        give_up(f"{refused.reason.value}: {refused.detail}", EXIT_PROBLEMS)
    except Unavailable as fault:
        give_up(f"{fault.reason.value}: {fault.detail}", EXIT_UNAVAILABLE)
    except (OSError, ValueError) as error:
        give_up(str(error), EXIT_UNAVAILABLE)


async def _working(settings: Config, work: Callable[[Office], Awaitable[T]]) -> T:
    from sidecar.office import open_office

    async with open_office(settings) as office:
        return await work(office)


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether to go on; leaves with 2 when nobody can answer, with 1 when the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        give_up(f"{question} Nobody can answer here: add --yes", EXIT_USAGE)
    if not click.confirm(question, err=True):
        raise SystemExit(EXIT_PROBLEMS)


def answer(value: Mapping[str, Any], *lines: str, as_json: bool) -> None:
    """Print *value* as JSON, or *lines* for people."""
    if as_json:
        say_json(value)
        return
    for line in lines:
        say(line)


def called(person: Person) -> str:
    """Name of somebody in a sentence."""
    return f"{person.username} ({person.id})"


def moment(seconds: float | None) -> str:
    """Time for people to read, "" for none."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if seconds else ""


def described(person: Person) -> dict[str, Any]:
    """Somebody as JSON."""
    return {
        "id": person.id,
        "username": person.username,
        "email": person.email,
        "name": person.name,
        "source": person.source,
        "active": person.active,
        "disabled_by": person.disabled_by,
        "deleted": person.tombstone is not None,
        "account": None if person.account is None else person.account.key,
        "account_id": None if person.account is None else person.account.id,
        "roles": list(person.roles),
        "last_seen": person.last_seen,
    }
