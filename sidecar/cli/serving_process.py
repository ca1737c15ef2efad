"""A process that serves: alone, or as a worker that does what its parent asks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sidecar.cli.levels import Levels, asked_of
from sidecar.cli.outcomes import outcome_fields, outcome_of
from sidecar.cli.watching import Watched
from sidecar.config.loader import ConfigError
from sidecar.core.audit import Event
from sidecar.faults import Unavailable
from sidecar.lasting import Outcome
from sidecar.reloading import Prepared, Reloading, problems_of

if TYPE_CHECKING:
    from sidecar.cli.leash import Leash
    from sidecar.cli.wire import Message

_PATIENCE = 90.0


class Alone:
    """Operates the only process (see operating.Operated)."""

    def __init__(self, reloading: Reloading, levels: Levels) -> None:
        """Reload by *reloading*, log by *levels*."""
        self._reloading = reloading
        self._levels = levels

    async def reload(self, trigger: str, who: str = "") -> Outcome:
        """See Operated."""
        return await self._reloading.reload(trigger, who)

    async def set_level(self, level: str, logger: str, seconds: float, who: str) -> str:
        """See Operated."""
        return set_level(self._reloading, self._levels, (level, logger, seconds), who)

    async def toggle_debug(self, seconds: float) -> None:
        """See Operated."""
        set_level(self._reloading, self._levels, (self._levels.toggled(), "", seconds), "signal")

    def watched(self) -> Watched:
        """See Operated."""
        section = self._reloading.config.reload
        return Watched(self._reloading.files, section.every.total_seconds(), section.watch)

    async def is_alive(self) -> bool:
        """See Operated: that this is asked shows it."""
        return True

    def status(self) -> str:
        """See Operated."""
        return f"serving {self._reloading.config.server.public_url}"


def set_level(
    reloading: Reloading, levels: Levels, asked: tuple[str, str, float], who: str, *, is_noted: bool = True
) -> str:
    """Set a level in this process, and write it down; what is wrong with that, "" when nothing."""
    level, logger, seconds = asked
    problem = levels.set(level, logger, seconds)
    if not problem and is_noted:
        fields = {"level": level, "logger": logger, "by": who, **({} if level == "reset" else {"seconds": seconds})}
        reloading.sidecar.audit.record(Event.LOG_LEVEL_CHANGED, fields)
    return problem


class Worker:
    """Does what the parent asks: a configuration is prepared first, and in force once all workers could prepare it."""

    def __init__(self, reloading: Reloading, levels: Levels, leash: Leash) -> None:
        """Reload by *reloading*, log by *levels*, speak over *leash*."""
        self._reloading = reloading
        self._levels = levels
        self._leash = leash
        self._prepared: Prepared | None = None

    def state(self) -> dict[str, Any]:
        """What the parent has to know of the configuration in force here."""
        config = self._reloading.config
        return {
            "fingerprint": self._reloading.fingerprint,
            "files": [str(path) for path in self._reloading.files],
            "every": config.reload.every.total_seconds(),
            "watch": config.reload.watch,
            "log": [config.log.level, config.log.format],
        }

    async def reload(self, trigger: str, who: str = "") -> Outcome:
        """Ask the parent to have all workers reload."""
        try:
            return outcome_of(await self._leash.ask("reload", _PATIENCE, trigger=trigger, who=who))
        except (OSError, TimeoutError):
            return Outcome(is_loaded=False, digest="", problems=("the parent process does not answer",))

    async def serve(self, message: Message) -> Message:
        """Answer what the parent asks."""
        do, who = message["do"], str(message.get("who", ""))
        is_noted = bool(message.get("noted"))
        if do == "prepare":
            return await self._prepare()
        if do == "commit" and self._prepared is not None:
            prepared, self._prepared = self._prepared, None
            outcome = self._reloading.commit(prepared, message["trigger"], who, is_noted=is_noted)
            return {**outcome_fields(outcome), **self.state()}
        if do == "refuse":
            await self.abandon()
            outcome = self._reloading.refuse(message["problems"], message["trigger"], who, is_noted=is_noted)
            return {**outcome_fields(outcome), **self.state()}
        if do == "log-level":
            problem = set_level(self._reloading, self._levels, asked_of(message), who, is_noted=is_noted)
            return {"problem": problem}
        if do == "condition":
            return await self._condition()
        return {}

    async def _condition(self) -> Message:
        try:
            return {"parts": dict(await self._reloading.sidecar.condition.readiness())}
        except Unavailable as fault:
            return {"fault": [fault.reason.value, fault.detail]}

    async def _prepare(self) -> Message:
        await self.abandon()
        try:
            self._prepared = await self._reloading.prepare()
        except ConfigError as error:
            return {"problems": problems_of(error)}
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, this configuration cannot be used
            return {"problems": [f"cannot be used: {type(error).__name__}"]}
        return {"problems": [], "fingerprint": self._prepared.fingerprint}

    async def abandon(self) -> None:
        """Let go of what was prepared."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await self._reloading.abandon(prepared)
