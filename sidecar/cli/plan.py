"""``sidecar plan`` and ``sidecar hooks test``: look ahead for one person."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_UNAVAILABLE, EXIT_USAGE, complain, give_up, say, say_json
from sidecar.core.reasons import EXPLANATIONS
from sidecar.faults import Refused, Unavailable
from sidecar.model import Effect

if TYPE_CHECKING:
    from sidecar.config.models import Config
    from sidecar.foresight import Foresight, Question
    from sidecar.hooks.order import PlannedCall

_USER = click.option(
    "--user",
    "claims",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON file with the claims that the provider would send.",
)
_LOGIN = click.option("--login", help="Whose claims these are; needed when there are several logins.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


@click.command()
@CONFIG
@_USER
@_LOGIN
@click.option("--method", default="GET", show_default=True, help="Method of the request.")
@click.option("--path", "target", default="/", show_default=True, help="Path of the request.")
@click.option("--connect", is_flag=True, help="Ask the engine that the rule names, where it is asked over the network.")
@_JSON
def plan(config: Path, *, claims: Path, login: str | None, as_json: bool, connect: bool, **asked: str) -> None:
    """Print what would happen to a person: decision, roles, headers, and every call and statement. Runs none of them.

    Whether the account exists is assumed from what the sidecar remembers; `sidecar hooks test` really looks.
    Exit code 0: they would get in. 1: they would not.
    """
    from sidecar.foresight import Question

    settings = load_or_leave(config).config
    question = Question(login_of(settings, login), claims_in(claims), asked["method"].upper(), asked["target"])
    _answer(settings, question, lookup=False, engines=connect, as_json=as_json)


@click.group()
def hooks() -> None:
    """Try the hooks of a configuration."""


@hooks.command("test")
@CONFIG
@_USER
@_LOGIN
@_JSON
def hooks_test(config: Path, claims: Path, login: str | None, *, as_json: bool) -> None:
    """Run the lookup for real, and print what would follow from what it found. Changes nothing."""
    from sidecar.foresight import Question

    settings = load_or_leave(config).config
    if settings.provision is None:
        give_up(f"{config}: there is no provision section, so there are no hooks", EXIT_USAGE)
    _answer(settings, Question(login_of(settings, login), claims_in(claims)), lookup=True, as_json=as_json)


def login_of(settings: Config, name: str | None) -> str:
    """Name of the login that is meant; leaves when there is none."""
    if name is None and len(settings.logins) == 1:
        return next(iter(settings.logins))
    if name not in settings.logins:
        give_up(f"--login must be one of: {', '.join(settings.logins)}", EXIT_USAGE)
    return str(name)


def claims_in(path: Path) -> Mapping[str, Any]:
    """Claims out of a JSON file; leaves when it holds none."""
    try:
        claims = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        give_up(f"{path}: {error}", EXIT_USAGE)
    if not isinstance(claims, dict):
        give_up(f'{path}: claims are a JSON object, such as {{"sub": "1", "preferred_username": "ada"}}', EXIT_USAGE)
    return claims


def _answer(settings: Config, question: Question, *, lookup: bool, as_json: bool, engines: bool = False) -> None:
    from sidecar.foresight import foresee

    try:
        seen = asyncio.run(foresee(settings, question, lookup=lookup, engines=engines))
    except Refused as refused:
        if as_json:
            say_json({"refused": refused.reason.value, "detail": refused.detail})
        else:
            complain(f"refused: {refused.reason.value}: {EXPLANATIONS[refused.reason].happened} {refused.detail}")
        raise SystemExit(EXIT_PROBLEMS) from None
    except Unavailable as fault:
        give_up(f"unavailable: {fault}", EXIT_UNAVAILABLE)
    if as_json:
        say_json(_as_data(seen))
    else:
        _tell(seen)
    if seen.refused or seen.decision.effect is not Effect.ALLOW:
        raise SystemExit(EXIT_PROBLEMS)


def _as_data(seen: Foresight) -> dict[str, Any]:
    identity = seen.identity
    assert identity is not None  # noqa: S101 - there always are claims here
    account = seen.account
    return {
        "identity": {
            "username": identity.username,
            "email": identity.email,
            "name": identity.name,
            "groups": identity.groups,
        },
        "roles": seen.roles,
        "decision": {
            "effect": seen.decision.effect.value,
            "reason": seen.decision.reason.value,
            "rule": seen.decision.rule,
        },
        "engine": None if seen.engine is None else {"asked": seen.engine.wants, "says": seen.engine.has},
        "headers": [list(line) for line in seen.headers],
        "refused": seen.refused,
        "account": None
        if account is None
        else {
            "key": account.verdict.account.key,
            "found": account.found.value,
            "assumed": account.is_assumed,
            "changes": [change.value for change in account.verdict.changes],
            "roles": account.verdict.roles,
            "calls": [
                {"step": call.step, "target": call.target, "action": call.action, "values": dict(call.values)}
                for call in seen.calls
            ],
        },
    }


def _tell(seen: Foresight) -> None:
    identity = seen.identity
    assert identity is not None  # noqa: S101 - there always are claims here
    groups = "unknown" if identity.groups is None else ", ".join(identity.groups) or "none"
    say("Identity", "bold")
    say(f"  {identity.username} <{identity.email or 'no verified address'}> {identity.name}")
    say(f"  groups: {groups}")
    say("Roles", "bold")
    say(f"  {', '.join(seen.roles) or 'none'}")
    say("Decision", "bold")
    rule = f", by rule {seen.decision.rule}" if seen.decision.rule else ""
    style = "green" if seen.decision.effect is Effect.ALLOW else "red"
    say(f"  {seen.decision.effect.value}: {seen.decision.reason.value}{rule}", style)
    if seen.engine is not None:
        say("Engine", "bold")
        say(f"  {seen.engine.wants}: {seen.engine.has}")
    if seen.account is not None:
        _tell_account(seen)
    if seen.refused:
        say(f"  refused: {seen.refused}", "red")
    if seen.headers:
        say("Headers", "bold")
        for name, value in seen.headers:
            say(f"  {name}: {value}")


def _tell_account(seen: Foresight) -> None:
    account = seen.account
    assert account is not None  # noqa: S101 - the caller looked
    how = "assumed" if account.is_assumed else "looked up"
    changes = ", ".join(change.value for change in account.verdict.changes)
    if account.is_settled:
        changes = "nothing, it is as it should be"
    elif account.verdict.links:
        changes = f"link{', ' if changes else ''}{changes}"
    say("Account", "bold")
    say(f"  {account.verdict.account.key}: {account.found.value} ({how}); then: {changes or 'nothing'}")
    for call in seen.calls:
        _tell_call(call)


def _tell_call(call: PlannedCall) -> None:
    say(f"  {call.step}  {call.target}", "cyan")
    say(f"    {call.action}")
    for name, value in call.values.items():
        say(f"      {name} = {value}")
