"""``sidecar explain``: say rule by rule why somebody is let in or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.plan import claims_in, login_of
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_USAGE, complain, give_up, say, say_json
from sidecar.core.reasons import EXPLANATIONS
from sidecar.faults import Refused, Unavailable
from sidecar.model import NOTHING_NEEDED, Effect

if TYPE_CHECKING:
    from sidecar.config.models import Config
    from sidecar.core.explanation import Considered
    from sidecar.foresight import Foresight, Question

_VIA = {None: "cookie", "bearer": "bearer", "personal": "token", "service": "token", "certificate": "certificate"}
_SIGN = {True: "✓", False: "✗", None: "?"}
_STYLE = {True: "green", False: "red", None: "yellow"}


@click.command()
@click.argument("method")
@click.argument("target")
@CONFIG
@click.option(
    "--as",
    "claims",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON file with the claims of whoever asks; nobody is signed in without it.",
)
@click.option("--login", help="Whose claims these are; needed when there are several logins.")
@click.option(
    "--token",
    "kind",
    type=click.Choice(["bearer", "personal", "service", "certificate"]),
    is_flag=False,
    flag_value="bearer",
    help="Who asks comes with a token: bearer (the default; its claims), personal (an API token; its owner's claims), "
    "service, or certificate (what stands in it).",
)
@click.option("--scope", multiple=True, help="Scope of the API token; may be given several times.")
@click.option("--service", default="", help="Name of the service whose API token it is.")
@click.option("--role", "roles", multiple=True, help="A role of that service; may be given several times.")
@click.option("--client", default="", help="Address that the request comes from, for rules by network.")
@click.option("--host", default="", help="Host that is asked for; the one of public_url by default.")
@click.option("--offline", is_flag=True, help="Ask no engine over the network; say what it would be asked.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def explain(config: Path, *, as_json: bool, offline: bool, **asked: Any) -> None:
    """Print every rule that is considered for METHOD TARGET, which criterion holds, which rule decides, and why.

    Also the roles with the reason for each, and the headers that the application would get. Nothing is called but the
    engine that the rule names.
    Exit code 0: allowed. 1: refused, or to be signed in first.
    """
    settings = load_or_leave(config, quiet=True).config
    try:
        seen = asyncio.run(_foreseen(settings, _question(settings, asked), asks=not offline))
    except Refused as refused:
        if as_json:
            say_json({"refused": refused.reason.value, "detail": refused.detail})
        else:
            complain(f"refused: {refused.reason.value}: {EXPLANATIONS[refused.reason].happened} {refused.detail}")
        raise SystemExit(EXIT_PROBLEMS) from None
    if as_json:
        say_json(_as_data(seen))
    else:
        _tell(seen)
    if seen.refused or seen.decision.effect is not Effect.ALLOW:
        raise SystemExit(EXIT_PROBLEMS)


def _question(settings: Config, asked: Mapping[str, Any]) -> Question:
    from sidecar.foresight import Question

    kind, file = asked["kind"], asked["claims"]
    if (kind == "service") != bool(asked["service"]):
        give_up("--token service and --service NAME go together", EXIT_USAGE)
    if kind == "certificate" and settings.certificates is None:
        give_up("--token certificate: the configuration has no certificates section", EXIT_USAGE)
    has_login = file is not None and kind != "certificate"
    return Question(
        login=login_of(settings, asked["login"]) if has_login else "",
        claims=None if file is None else claims_in(file),
        method=asked["method"].upper(),
        target=asked["target"],
        host=asked["host"],
        client=asked["client"],
        via=_VIA[kind],
        scope=asked["scope"],
        service=asked["service"],
        roles=asked["roles"],
    )


async def _foreseen(settings: Config, question: Question, *, asks: bool) -> Foresight:
    from sidecar.foresight import foresee

    try:
        return await foresee(settings, question, lookup=False, engines=asks)
    except Unavailable:
        # The decision does not depend on the account; only headers that name it are missing then.
        return await foresee(settings, question, lookup=False, accounts=False, engines=asks)


def _as_data(seen: Foresight) -> dict[str, Any]:
    decision = seen.decision
    return {
        "decision": {
            "effect": decision.effect.value,
            "reason": decision.reason.value,
            "rule": decision.rule,
            "needs": {} if decision.needs == NOTHING_NEEDED else asdict(decision.needs),
        },
        "rules": [asdict(rule) for rule in seen.explanation.considered],
        "roles": [asdict(role) for role in seen.found_roles],
        "headers": [list(line) for line in seen.headers],
        "refused": seen.refused,
    }


def _tell(seen: Foresight) -> None:
    say("Rules", "bold")
    for rule in seen.explanation.considered:
        _tell_rule(rule)
    decision = seen.decision
    by = f", by rule {decision.rule}" if decision.rule else ""
    say("Decision", "bold")
    say(f"  {decision.effect.value}: {decision.reason.value}{by}", _STYLE[decision.effect is Effect.ALLOW])
    say(f"  {EXPLANATIONS[decision.reason].happened}")
    if seen.identity is not None:
        say("Roles", "bold")
        for role in seen.found_roles:
            say(f"  {_SIGN[role.held]} {role.name}: {role.why}", _STYLE[role.held])
    if seen.refused:
        say(f"  refused: {seen.refused}", "red")
    if seen.headers:
        say("Headers", "bold")
        for name, value in seen.headers:
            say(f"  {name}: {value}")


def _tell_rule(rule: Considered) -> None:
    if not rule.speaks:
        missed = next(one for one in rule.criteria if one.holds is False)
        say(f"  {rule.rule}: not about this request: {missed.part} is {missed.wants}, not {missed.has}", "dim")
        return
    say(f"  {rule.rule}: {'decides' if rule.decided else 'denies nobody here, so the next rules decide'}", "cyan")
    for one in rule.criteria:
        say(f"    {_SIGN[one.holds]} {one.part}: {one.wants} ({one.has})", _STYLE[one.holds])
