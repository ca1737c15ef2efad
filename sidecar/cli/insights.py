"""``sidecar insights``: what was noticed lately, and what could be looked at now."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import click

from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.saying import EXIT_UNAVAILABLE, EXIT_USAGE, give_up, say, say_json
from sidecar.config.insights import Insights
from sidecar.config.models import Config
from sidecar.directory.database import Database
from sidecar.directory.dormant import dormant
from sidecar.insights.alerts import recent
from sidecar.model import Unavailable
from sidecar.sessions.opening import open_store

_DAY = 86400.0


@click.command()
@CONFIG
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Newest alerts to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def insights(config: Path, limit: int, *, as_json: bool) -> None:
    """Show the alerts of the last seven days, the newest first, and accounts that nobody uses.

    Exit code 0: shown. 2: there is no section insights. 3: Redis or the directory is not there.
    """
    settings = load_or_leave(config, quiet=True).config
    if settings.insights is None:
        give_up(f"{config}: there is no section insights, so nothing is noticed", EXIT_USAGE)
    try:
        state = asyncio.run(present(settings, settings.insights, limit))
    except Unavailable as fault:
        give_up(f"{fault.reason.value}: {fault.detail}", EXIT_UNAVAILABLE)
    if as_json:
        say_json(state)
        return
    for one in state["alerts"] or ():
        rest = "  ".join(f"{name}={value}" for name, value in one.items() if name not in {"time", "insight", "id"})
        say(f"{str(one.get('time', ''))[:19].replace('T', ' ')}  {one.get('insight')}  {rest}")
    if state["alerts"] is None:
        say("alerts are in the memory of the sidecar that runs; see: sidecar audit search --event insight-raised")
    if state["dormant"] is not None:
        say(f"{state['dormant']['count']} accounts were not used for {state['dormant']['days']} days")


async def present(config: Config, section: Insights, most: int) -> dict[str, Any]:
    """What stands in the store and the directory; None for what cannot be seen from here. Raises Unavailable."""
    alerts, unused = None, None
    if config.sessions.redis is not None:
        store = open_store(config.sessions, time.time)
        try:
            alerts = list(await recent(store, most))
        finally:
            await store.close()
    if section.dormant is not None and config.provision is not None:
        database = Database(config.directory.url.reveal(), config.directory.timeout.total_seconds())
        silence = section.dormant.after.total_seconds()
        try:
            count, some = await dormant(database, config.directory.application, time.time() - silence, most)
        finally:
            await database.close()
        unused = {"count": count, "days": int(silence / _DAY), "people": list(some)}
    return {"alerts": alerts, "dormant": unused}
