"""``sidecar demo``: the whole thing on embedded defaults, within seconds."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.app import build
from sidecar.cli.loading import show
from sidecar.cli.run import Stop
from sidecar.cli.saying import EXIT_UNAVAILABLE, give_up, say
from sidecar.config.loader import ConfigError, load
from sidecar.demo import PEOPLE, DemoClient, settings, start
from sidecar.faults import Unavailable
from sidecar.hooks.passwords import FILTERS
from sidecar.portal.site import site_of
from sidecar.telemetry.log import set_up

if TYPE_CHECKING:
    from sidecar.config.models import Config


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Where the sidecar answers; 0 takes any free port.",
)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Keep the demo's databases here.")
@click.option("--quiet", is_flag=True, help="Do not print audit lines.")
def demo(port: int, folder: Path | None, *, quiet: bool) -> None:
    """Try it: a small legacy application, a small identity provider, and the sidecar between them.

    Everything listens on this machine alone; Ctrl-C ends it and, unless --folder is given, leaves nothing behind.
    """
    set_up("warning", "auto")
    with tempfile.TemporaryDirectory(prefix="sidecar-demo-") as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        try:
            asyncio.run(_serve(place, port or _free_port(), quiet=quiet))
        except (OSError, sqlite3.Error) as error:
            give_up(f"cannot start: {error}. Another port or folder may do: sidecar demo --port 0")
        except Unavailable as fault:
            give_up(f"cannot start: {fault}", EXIT_UNAVAILABLE)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _serve(place: Path, port: int, *, quiet: bool) -> None:
    stop = Stop()
    secret = secrets.token_urlsafe(32)
    public = f"http://localhost:{port}"
    client = DemoClient(
        secret=secret,
        redirect_uris=(f"{public}/-/callback/demo",),
        post_logout_redirect_uris=(f"{public}/-/signed-out",),
        title="DeskNotes",
    )
    foreign = await start(
        database=place / "desknotes.db", api_token=secrets.token_urlsafe(16), clients={settings.CLIENT_ID: client}
    )
    try:
        environment = settings.environment(
            listen=f"127.0.0.1:{port}",
            public_url=public,
            issuer=foreign.issuer,
            application_url=foreign.application_url,
            client_secret=secret,
            database=place / "desknotes.db",
            directory=place / "sidecar.db",
        )
        try:
            config = load(settings.CONFIGURATION, environment={**os.environ, **environment}, filters=FILTERS).config
        except ConfigError as error:
            show(error.problems)
            raise SystemExit(1) from None
        sidecar = await build(_for_a_terminal(config, quiet=quiet))
        try:
            await sidecar.start()
            _welcome(site_of(config.server, config.sessions).origin, foreign.issuer, foreign.application_url)
            await stop.wait()
        finally:
            sidecar.hurry()
            await sidecar.stop()
    finally:
        await foreign.stop()


def _for_a_terminal(config: Config, *, quiet: bool) -> Config:
    if not quiet:
        return config
    return config.model_copy(update={"audit": config.audit.model_copy(update={"stdout": False})})


def _welcome(public: str, issuer: str, application: str) -> None:
    say()
    say(f"  Open  {public}/  and choose who to be:", "bold")
    say()
    for person in PEOPLE:
        groups = ", ".join(person.groups) or "no group: may not enter"
        say(f"    {person.name:<16} {groups}")
    say()
    say("  You arrive in DeskNotes, an application that knows nothing of signing in: its page shows the headers that")
    say("  the sidecar sent, and the row that the sidecar has just added to its users table.")
    say()
    say(f"  Change somebody's groups:  {issuer}/people")
    say(f"  Without the sidecar:       {application}/  (it refuses everybody)")
    say(f"  The configuration:         {settings.CONFIGURATION}")
    say("  Ctrl-C ends the demo. Audit lines follow.", "dim")
    say()
