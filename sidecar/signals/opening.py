"""Make the room of shared signals out of its section of the configuration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.config.models import Config
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.opening import server_secrets
from sidecar.sessions.store import Store
from sidecar.signals.effects import Effects
from sidecar.signals.handshake import Handshake
from sidecar.signals.intake import Intake
from sidecar.signals.poller import Poller
from sidecar.signals.push import SignalServer
from sidecar.signals.transmitter import Transmitter
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from sidecar.directory import Directory
    from sidecar.provision import Provisioner


@dataclass(frozen=True, slots=True)
class SignalRoom:
    """Where pushes come in, and the work that fetches the others."""

    server: SignalServer
    work: Sequence[Callable[[], Awaitable[None]]]

    async def close(self) -> None:
        """Let go of connections."""
        for transmitter in self.server.transmitters.values():
            await transmitter.close()


def transmitters_of(config: Config, origin: str, clock: Callable[[], float]) -> Mapping[str, Transmitter]:
    """The transmitters of *config* by name; *origin* is whom their events are for by default."""
    sections = config.signals.transmitters if config.signals is not None else {}
    return {
        name: Transmitter(name, section, origin, config.oidc_logins[section.login], clock)
        for name, section in sections.items()
    }


def open_signals(  # noqa: PLR0913, PLR0917 - the parts that it joins
    config: Config,
    origin: str,
    prefix: str,
    store: Store,
    keeper: SessionKeeper,
    accounts: tuple[Directory | None, Provisioner | None],
    audit: AuditLog,
    metrics: Metrics,
    clock: Callable[[], float],
) -> SignalRoom:
    """Join the parts; sessions are looked at for marks from now on. Raises ValueError for an unusable CA file."""
    keeper.take_marks()
    transmitters = transmitters_of(config, origin, clock)
    secrets = server_secrets(config.sessions)
    intake = Intake(
        store=store,
        effects=Effects(keeper, store, *accounts),
        handshakes={name: Handshake(store, secrets, name) for name in transmitters},
        audit=audit,
        metrics=metrics,
    )
    pollers = [
        Poller(one, one.section.poll, intake, store, clock)
        for one in transmitters.values()
        if one.section.poll is not None
    ]
    server = SignalServer(
        prefix=prefix, transmitters=transmitters, intake=intake, store=store, audit=audit, metrics=metrics
    )
    return SignalRoom(server, [poller.run for poller in pollers])
