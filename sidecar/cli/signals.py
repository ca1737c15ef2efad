"""``sidecar signals``: make, look at, verify and pause our streams at transmitters of shared signals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_UNAVAILABLE, EXIT_USAGE, give_up, say, say_json
from sidecar.faults import Unavailable

if TYPE_CHECKING:
    from sidecar.config.models import Config
    from sidecar.signals.handshake import Handshake
    from sidecar.signals.stream import Streams
    from sidecar.signals.transmitter import Transmitter

_NAME = click.option("--transmitter", "name", help="Which transmitter; needed when there are several.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class _Bench:
    """What a command works with."""

    transmitter: Transmitter
    streams: Streams
    handshake: Handshake
    address: str

    async def stream(self) -> dict[str, Any]:
        """Our stream; leaves when there is none."""
        found = await self.streams.ours(polled=self.transmitter.section.poll is not None)
        if found is None:
            give_up(f"{self.transmitter.name}: there is no stream of ours; make one with: sidecar signals create")
        return found

    async def stream_id(self) -> str:
        """Its id."""
        return str((await self.stream())["stream_id"])


@click.group()
def signals() -> None:
    """Manage our streams of security events (Shared Signals Framework)."""


@signals.command()
@CONFIG
@_NAME
@_JSON
def status(config: Path, name: str | None, *, as_json: bool) -> None:
    """Say how our stream at a transmitter is, and when the last event came.

    Exit code 0: it is enabled. 1: it is not, or there is none. 3: the transmitter or the store cannot be reached.
    """

    async def look(bench: _Bench) -> dict[str, Any]:
        stream = await bench.stream()
        said = await bench.streams.status(str(stream["stream_id"]))
        heard = await bench.handshake.heard()
        return {
            "transmitter": bench.transmitter.name,
            "stream_id": stream["stream_id"],
            "status": said.get("status"),
            **({"reason": said["reason"]} if "reason" in said else {}),
            "delivery": stream["delivery"].get("method"),
            "events": stream.get("events_delivered", stream.get("events_requested", [])),
            "last_event": None if heard is None else datetime.fromtimestamp(heard, UTC).isoformat(),
        }

    found = _done(config, name, look)
    _tell(found, as_json=as_json)
    if found["status"] != "enabled":
        raise SystemExit(EXIT_PROBLEMS)


@signals.command()
@CONFIG
@_NAME
@_JSON
def create(config: Path, name: str | None, *, as_json: bool) -> None:
    """Make a stream at a transmitter: pushed to us, or polled where the configuration says poll."""

    async def make(bench: _Bench) -> dict[str, Any]:
        made = await bench.streams.create(bench.address)
        return {"transmitter": bench.transmitter.name, "stream_id": made.get("stream_id"), "created": True}

    _tell(_done(config, name, make), as_json=as_json)


@signals.command()
@CONFIG
@_NAME
@click.option("--wait", default=30.0, show_default=True, help="Seconds to wait for the event; 0 does not wait.")
@_JSON
def verify(config: Path, name: str | None, wait: float, *, as_json: bool) -> None:
    """Ask for a verification event, and wait until the running sidecar has received it.

    Whether it came is read from Redis; with sessions in memory look for `signal-received` in the audit log.

    Exit code 0: it came, or was not waited for. 1: it did not. 3: the transmitter or the store cannot be reached.
    """
    settings = load_or_leave(config, quiet=True).config
    if not settings.sessions.secrets:
        give_up("sessions.secrets is needed: the running sidecar knows by it that the verification is ours", EXIT_USAGE)
    can_see = settings.sessions.redis is not None

    async def ask(bench: _Bench) -> dict[str, Any]:
        state = bench.handshake.new_state(time.time())
        await bench.streams.verify(await bench.stream_id(), state)
        has_come = await _came_back(bench, state, wait) if can_see and wait > 0 else None
        return {"transmitter": bench.transmitter.name, "asked": True, "received": has_come}

    found = _done(config, name, ask)
    _tell(found, as_json=as_json)
    if found["received"] is False:
        raise SystemExit(EXIT_PROBLEMS)


@signals.command()
@CONFIG
@_NAME
@_JSON
def pause(config: Path, name: str | None, *, as_json: bool) -> None:
    """Pause our stream: the transmitter keeps events for later."""
    _switch(config, name, "paused", as_json=as_json)


@signals.command()
@CONFIG
@_NAME
@_JSON
def resume(config: Path, name: str | None, *, as_json: bool) -> None:
    """Let events come again."""
    _switch(config, name, "enabled", as_json=as_json)


@signals.command()
@CONFIG
@_NAME
@_JSON
def remove(config: Path, name: str | None, *, as_json: bool) -> None:
    """Remove our stream at the transmitter."""

    async def gone(bench: _Bench) -> dict[str, Any]:
        stream_id = await bench.stream_id()
        await bench.streams.remove(stream_id)
        return {"transmitter": bench.transmitter.name, "stream_id": stream_id, "removed": True}

    _tell(_done(config, name, gone), as_json=as_json)


async def _came_back(bench: _Bench, state: str, wait: float) -> bool:
    until = time.monotonic() + wait
    while time.monotonic() < until:
        if await bench.handshake.has_come_back(state):
            return True
        await asyncio.sleep(_EVERY)
    return False


def _switch(config: Path, name: str | None, wanted: str, *, as_json: bool) -> None:
    async def switch(bench: _Bench) -> dict[str, Any]:
        said = await bench.streams.switch(await bench.stream_id(), wanted)
        return {"transmitter": bench.transmitter.name, "status": said.get("status", wanted)}

    _tell(_done(config, name, switch), as_json=as_json)


def _done(config: Path, name: str | None, work: Callable[[_Bench], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    settings = load_or_leave(config, quiet=True).config
    try:
        return asyncio.run(_with_bench(settings, _chosen(settings, name), work))
    except Unavailable as fault:
        give_up(f"unavailable: {fault}", EXIT_UNAVAILABLE)


def _chosen(settings: Config, name: str | None) -> str:
    names = list(settings.signals.transmitters) if settings.signals is not None else []
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        give_up(f"--transmitter must be one of: {', '.join(names)}" if names else "there is no transmitter", EXIT_USAGE)
    return str(name)


async def _with_bench(
    settings: Config, name: str, work: Callable[[_Bench], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    from sidecar.portal.site import site_of
    from sidecar.sessions.opening import open_store, server_secrets
    from sidecar.signals.handshake import Handshake
    from sidecar.signals.opening import transmitters_of
    from sidecar.signals.stream import Streams

    site = site_of(settings.server, settings.sessions)
    transmitter = transmitters_of(settings, site.origin, time.time)[name]
    store = open_store(settings.sessions, time.time)
    handshake = Handshake(store, server_secrets(settings.sessions), name)
    address = f"{site.origin}{site.prefix}/signals/{name}"
    try:
        return await work(_Bench(transmitter, Streams(transmitter), handshake, address))
    finally:
        await transmitter.close()
        await store.close()


def _tell(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(found)
        return
    for key, value in found.items():
        say(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
