"""Wire what commands about synchronisation need: the same rooms as a running sidecar's, without listeners."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sidecar.accounts import open_accounts
from sidecar.condition import Accounts, Parts
from sidecar.config.models import Config
from sidecar.core.audit import Event
from sidecar.drift import DriftWatch
from sidecar.recording import open_recording
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.opening import open_store, server_secrets
from sidecar.sync import Synchroniser
from sidecar.telemetry.metrics import Metrics
from sidecar.telling import open_drift, open_sync


@dataclass(frozen=True, slots=True)
class Syncing:
    """The sources by name, and the accounts that follow."""

    sources: dict[str, Synchroniser]
    accounts: Accounts
    drift: DriftWatch | None = None

    async def settle(self, progress: Callable[[int], None]) -> int:
        """Work off what is owed to the application and can be done now; how much that was. Raises Unavailable."""
        provisioner, done = self.accounts.provisioner, 0
        while provisioner is not None and (number := await provisioner.outbox.work_off()):
            done += number
            progress(done)
        return done


@asynccontextmanager
async def open_syncing(config: Config, clock: Callable[[], float] = time.time) -> AsyncIterator[Syncing]:
    """Open everything and close it again. Raises ValueError, OSError and Unavailable when that cannot be done."""
    # Standard output is the command's own.
    audit = open_recording(config, clock, is_command=True)
    parts = Parts()
    try:
        store = parts.add(open_store(config.sessions, clock))
        keeper = parts.add(SessionKeeper(store, config.sessions, server_secrets(config.sessions), clock))
        accounts = await open_accounts(config, store, keeper, audit, Metrics(), clock, parts)

        def record(event: Event, fields: dict[str, object]) -> None:
            audit.record(event, fields)

        drift = open_drift(config, accounts, record, clock)
        yield Syncing(open_sync(config, accounts, record, clock), accounts, drift)
    finally:
        await parts.close()
        audit.close()
