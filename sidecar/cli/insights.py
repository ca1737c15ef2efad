"""``sidecar insights``: what was noticed lately, and what could be looked at now."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.saying import EXIT_UNAVAILABLE, EXIT_USAGE, give_up, say, say_json
from sidecar.faults import Unavailable

if TYPE_CHECKING:
    from sidecar.config.insights import Insights
    from sidecar.config.models import Config
    from sidecar.insights.present import State

_DAY = 86400.0


@click.command()
@CONFIG
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Newest alerts to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def insights(config: Path, limit: int, *, as_json: bool) -> None:
    """Show what goes on, the alerts of the last seven days, the newest first, and what nobody uses.

    Exit code 0: shown. 2: there is no section insights. 3: Redis or the directory is not there.
    """
    settings = load_or_leave(config, quiet=True).config
    if settings.insights is None:
        give_up(f"{config}: there is no section insights, so nothing is noticed", EXIT_USAGE)
    try:
        state = asyncio.run(seen(settings, settings.insights, limit))
    except Unavailable as fault:
        give_up(f"{fault.reason.value}: {fault.detail}", EXIT_UNAVAILABLE)
    if as_json:
        say_json(state)
        return
    _say_present(state["present"])
    for one in state["alerts"] or ():
        rest = "  ".join(f"{name}={value}" for name, value in one.items() if name not in {"time", "insight", "id"})
        say(f"{str(one.get('time', ''))[:19].replace('T', ' ')}  {one.get('insight')}  {rest}")
    if state["alerts"] is None:
        say("alerts are in the memory of the sidecar that runs; see: sidecar audit search --event insight-raised")
    if state["silent_tokens"] is not None:
        one = state["silent_tokens"]
        say(f"{one['count']} API tokens were not used for {one['days']} days")
    if state["dormant"] is not None:
        say(f"{state['dormant']['count']} accounts were not used for {state['dormant']['days']} days")


def _say_present(state: dict[str, Any] | None) -> None:
    if state is None:
        return
    refusals = state["refusals"]
    say(f"{state['accounts_today']} accounts made today")
    say(f"{refusals[-2]} refusals in the last minute, {sum(refusals)} in the last {len(refusals)}")
    for cause, number in state["failures"].items():
        say(f"{number} times in the last hour accounts could not be made or changed: {cause}")
    for change, took in state["orders"].items():
        say(
            f"{took['count']} orders in the last hour: {change}, {took['mean']:.2f} s on average, "
            f"{took['longest']:.2f} s at most, {took['slow']} slow"
        )


def _as_json(state: State, now: float) -> dict[str, Any]:
    orders = {
        change: {"count": took.count, "slow": took.slow, "mean": round(took.mean, 4), "longest": took.longest}
        for change, took in sorted(state.orders.items())
    }
    return {
        "accounts_today": state.accounts,
        "refusals": list(state.by_minute(now)),
        "failures": dict(sorted(state.failures.items(), key=lambda one: -one[1])),
        "orders": orders,
    }


async def seen(config: Config, section: Insights, most: int) -> dict[str, Any]:
    """What stands in the store and the directory; None for what cannot be seen from here. Raises Unavailable."""
    from sidecar.directory.database import Database
    from sidecar.directory.dormant import dormant, silent
    from sidecar.insights.alerts import recent
    from sidecar.insights.present import present
    from sidecar.sessions.opening import open_store

    alerts, state, unused, unheard, now = None, None, None, None, time.time()
    if config.sessions.redis is not None:
        store = open_store(config.sessions, time.time)
        try:
            alerts = list(await recent(store, most, now))
            state = _as_json(await present(store, now), now)
        finally:
            await store.close()
    if config.provision is not None or config.tokens is not None:
        database = Database(config.directory.url.reveal(), config.directory.timeout.total_seconds())
        application = config.directory.application
        try:
            if section.dormant is not None and config.provision is not None:
                silence = section.dormant.after.total_seconds()
                count, some = await dormant(database, application, now - silence, most)
                unused = {"count": count, "days": int(silence / _DAY), "people": list(some)}
            if section.silent_token is not None and config.tokens is not None:
                silence = section.silent_token.after.total_seconds()
                unheard = {"count": await silent(database, application, now - silence, now)}
                unheard["days"] = int(silence / _DAY)
        finally:
            await database.close()
    return {"present": state, "alerts": alerts, "dormant": unused, "silent_tokens": unheard}
