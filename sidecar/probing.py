"""Reach everything that a configuration names, and say in a line each what was found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypedDict
from urllib.parse import urlsplit

from sidecar.config.audit import Syslog, Webhook
from sidecar.config.models import Config
from sidecar.directory import Directory
from sidecar.engines.opening import open_engine
from sidecar.faults import Unavailable
from sidecar.hooks.hook import StepHook
from sidecar.logins.opening import open_logins
from sidecar.plans import identity_plan
from sidecar.portal.site import site_of
from sidecar.sessions.opening import open_store
from sidecar.signals.opening import transmitters_of
from sidecar.telemetry.opening import open_syslog
from sidecar.telemetry.webhook import trust_of
from sidecar.upstream import Upstream

_PATIENCE = 20.0


class Finding(TypedDict):
    """One part: was it reached, and what it says or what is wrong."""

    ok: bool
    says: str


async def probe(config: Config) -> dict[str, Finding]:
    """Probe store, providers, engines, directory, application and hook connections, all at once."""
    probes = probes_of(config)
    if config.provision is not None or config.tokens is not None:
        probes["directory"] = lambda: _directory(config)
    found = await asyncio.gather(*(tried(one) for one in probes.values()))
    findings = dict(zip(probes, found, strict=True))
    if config.provision is not None:
        findings |= await probe_hooks(config)
    return findings


def probed(config: Config) -> dict[str, Finding]:
    """As ``probe``, for whoever has no event loop."""
    return asyncio.run(probe(config))


def probes_of(config: Config) -> dict[str, Callable[[], Awaitable[str]]]:
    """What reaches each part, by its name; without directory, whose tables it would make, and hook connections."""
    probes: dict[str, Callable[[], Awaitable[str]]] = {
        "sessions": lambda: _store(config),
        **{where: _application(config, number) for number, where in enumerate(_servers(config))},
        **{f"logins.{name}": _login(config, name) for name in config.logins},
    }
    if config.signals is not None:
        probes |= {f"signals.transmitters.{name}": _transmitter(config, name) for name in config.signals.transmitters}
    probes |= {f"engines.{name}": _engine(config, name) for name in config.engines}
    probes |= {f"sync.{name}": partial(_source, config, name) for name in config.sync}
    if config.audit.syslog is not None:
        probes["audit.syslog"] = partial(asyncio.to_thread, _syslog, config.audit.syslog)
    if config.audit.webhook is not None:
        probes["audit.webhook"] = partial(_receiver, config.audit.webhook)
    return probes


async def tried(one: Callable[[], Awaitable[str]]) -> Finding:
    """Carry out *one* probe, bounded in time."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return {"ok": True, "says": await one()}
    except Unavailable as fault:
        return {"ok": False, "says": f"{fault.reason.value}: {fault.detail}"}
    except (OSError, ValueError, TimeoutError) as error:
        return {"ok": False, "says": str(error) or "no answer in time"}


async def _store(config: Config) -> str:
    store = open_store(config.sessions, time.time)
    try:
        return await store.ping()
    finally:
        await store.close()


def _servers(config: Config) -> list[str]:
    count = len(config.app.upstream)
    return ["app"] if count == 1 else [f"app.upstream[{number}]" for number in range(count)]


def _application(config: Config, number: int) -> Callable[[], Awaitable[str]]:
    async def one() -> str:
        upstream = Upstream(config.app)
        try:
            return await upstream.probe(number)
        finally:
            await upstream.close()

    return one


def _login(config: Config, name: str) -> Callable[[], Awaitable[str]]:
    async def one() -> str:
        site = site_of(config.server, config.sessions)
        sections = {name: config.logins[name]}
        login = open_logins(sections, site.origin, site.prefix, {name: identity_plan(config, name)})[name]
        try:
            return await login.probe()
        finally:
            await login.close()

    return one


def _transmitter(config: Config, name: str) -> Callable[[], Awaitable[str]]:
    async def one() -> str:
        site = site_of(config.server, config.sessions)
        transmitter = transmitters_of(config, site.origin, time.time)[name]
        try:
            return await transmitter.probe()
        finally:
            await transmitter.close()

    return one


def _engine(config: Config, name: str) -> Callable[[], Awaitable[str]]:
    async def one() -> str:
        engine = open_engine(name, config.engines[name])
        try:
            return await engine.probe()
        finally:
            await engine.close()

    return one


async def _source(config: Config, name: str) -> str:
    from sidecar.sync.sources.opening import open_source  # noqa: PLC0415 - only for those who have one

    source = open_source(name, config.sync[name].source)
    try:
        return await source.probe()
    finally:
        await source.close()


def _syslog(section: Syslog) -> str:
    sink = open_syslog(section)
    try:
        return sink.reach()
    finally:
        sink.close()


async def _receiver(section: Webhook) -> str:
    """Connect, and post nothing: what stands there would take it for an event."""
    address = urlsplit(section.url.reveal())
    trust = trust_of(section, "audit.webhook") if address.scheme == "https" else None
    port = address.port or (443 if address.scheme == "https" else 80)
    _, writer = await asyncio.open_connection(address.hostname, port, ssl=trust)
    writer.transport.abort()
    return f"{address.hostname} takes connections"


async def _directory(config: Config) -> str:
    directory = await Directory.open(
        config.directory.url.reveal(), config.directory.application, config.directory.timeout.total_seconds()
    )
    try:
        return await directory.ping()
    finally:
        await directory.close()


async def probe_hooks(config: Config) -> dict[str, Finding]:
    """Probe the connections of the hooks."""
    assert config.provision is not None  # noqa: S101 - the caller looked
    hook = StepHook(config.provision)
    try:
        said = await hook.probe()
    finally:
        await hook.close()
    return {f"provision.connections.{name}": {"ok": line.startswith("ok"), "says": line} for name, line in said.items()}
