"""Open what it takes to say what would become of an account, and leave nothing behind."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import make_url

from sidecar.config.provision import Provision
from sidecar.config.service import Directory as Place
from sidecar.directory import Directory
from sidecar.hooks.hook import StepHook
from sidecar.provision.ensure import Provisioner
from sidecar.sessions.memory import MemoryStore


@asynccontextmanager
async def looking_ahead(
    section: Provision, place: Place, domains: Mapping[str, tuple[str, ...]]
) -> AsyncIterator[Provisioner]:
    """Plan with the directory at *place*; *domains* are those that each login may speak for. Raises Unavailable."""
    hook = StepHook(section)
    with tempfile.TemporaryDirectory() as folder:
        directory = await Directory.open(
            _existing(place.url.reveal(), Path(folder)), place.application, place.timeout.total_seconds()
        )
        store = MemoryStore(time.time)
        try:
            yield Provisioner(
                section, hook, directory, store, place.application, time.time, domains, lambda _e, _f: None
            )
        finally:
            await hook.close()
            await directory.close()


def _existing(url: str, folder: Path) -> str:
    """Address of the directory, or of an empty one when its file does not exist: looking ahead creates nothing."""
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite" and not (parts.database and Path(parts.database).exists()):
        return f"sqlite:///{folder}/empty.db"
    return url
