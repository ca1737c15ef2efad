"""Put a changed configuration in force while serving: whole or not at all."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from sidecar.app import build
from sidecar.config.comparing import Change, Laid, changes_between, digest_of, files_of, fingerprint_of, laid_out, shown
from sidecar.config.document import Document, Location, read_document
from sidecar.config.loader import ConfigError, Loaded, Problem, load
from sidecar.config.models import Config
from sidecar.core.audit import Event
from sidecar.faults import Unavailable
from sidecar.hooks.passwords import FILTERS
from sidecar.lasting import Outcome
from sidecar.running import Sidecar
from sidecar.telemetry.log import set_up

_log = structlog.get_logger("reload")
# What a process has from its beginning to its end.
_FIXED: Sequence[Location] = (
    ("server", "listen"),
    ("server", "prefix"),
    ("server", "metrics"),
    ("server", "workers"),
    ("server", "cpu_affinity"),
    ("server", "huge_pages"),
    ("server", "proxy_protocol"),
    ("server", "max_header"),
    ("server", "head_timeout"),
    ("server", "client_idle"),
    ("sessions", "redis"),
    ("sessions", "sentinel"),
    ("sessions", "cluster"),
    ("sessions", "redis_ca"),
    ("sessions", "redis_certificate"),
    ("sessions", "redis_key"),
    ("sessions", "prefix"),
    ("sessions", "timeout"),
    ("reload", "control"),
)
# What stands in backticks in a message may be a value of the file.
_QUOTED = re.compile(r"`.*`", re.DOTALL)
_MOST_PROBLEMS = 50


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration that was read, checked and wired, and waits to take over; None where nothing has changed."""

    loaded: Loaded
    laid: Laid
    changes: tuple[Change, ...]
    sidecar: Sidecar | None
    take_over: Callable[[], None]

    @property
    def digest(self) -> str:
        """The name of the configuration, which says nothing of secrets."""
        return digest_of(self.loaded.config)

    @property
    def fingerprint(self) -> str:
        """A name for everything in it, secrets and files included: for comparing on this machine, for nobody to see."""
        return fingerprint_of(self.laid)


class Reloading:
    """Knows which configuration is in force in this process, and puts another in its place."""

    def __init__(
        self, path: Path, loaded: Loaded, sidecar: Sidecar, environment: Mapping[str, str] | None = None
    ) -> None:
        """*sidecar* runs by *loaded*, which was read from *path*."""
        self._path = path
        self._environment = os.environ if environment is None else environment
        self._lock = asyncio.Lock()
        self._is_over = False
        self._tried: tuple[Path, ...] = ()
        self.loaded = loaded
        self.sidecar = sidecar
        # What was read, with the contents of files: they may be others by now.
        self._laid: Laid = laid_out(loaded.config)
        self.fingerprint = fingerprint_of(self._laid)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.loaded.config

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the configuration in force, and of the one that was refused last."""
        return tuple(dict.fromkeys([*files_of(self._path, self.loaded.document, self.config), *self._tried]))

    def note_start(self) -> None:
        """Write down which configuration this process began with."""
        self._count("loaded")
        fields = {"digest": digest_of(self.config), "file": str(self._path), "trigger": "start"}
        self.sidecar.audit.record(Event.CONFIGURATION_LOADED, fields)

    async def reload(self, trigger: str, who: str = "") -> Outcome:
        """Read the configuration again and put it in force, or keep the former one. Never raises for what is wrong."""
        return await asyncio.shield(asyncio.create_task(self._reload(trigger, who)))

    async def _reload(self, trigger: str, who: str) -> Outcome:
        async with self._lock:
            try:
                prepared = await self.prepare()
            except ConfigError as error:
                return self.refuse(problems_of(error), trigger, who)
            return self.commit(prepared, trigger, who)

    async def prepare(self) -> Prepared:
        """Read, check and wire; nothing of it is in force yet. Raises ConfigError."""
        if self._is_over:
            raise ConfigError([_unusable(self._path, "the sidecar is stopping")])
        try:
            loaded = await asyncio.to_thread(load, self._path, environment=self._environment, filters=FILTERS)
            laid = await asyncio.to_thread(laid_out, loaded.config)
        except ConfigError:
            self._tried = await asyncio.to_thread(_files_tried, self._path)
            raise
        fixed = list(_fixed_problems(self.config, loaded))
        if fixed:
            raise ConfigError(fixed)
        changes = changes_between(self.config, self._laid, loaded.config, laid)
        if not changes:
            return Prepared(loaded, laid, (), None, _nothing)
        try:
            sidecar = await build(loaded.config, self.sidecar.lasting.clock, self.sidecar.lasting)
        except (ValueError, OSError, Unavailable) as error:
            raise ConfigError([_unusable(self._path, str(error))]) from None
        try:
            return Prepared(loaded, laid, changes, sidecar, await sidecar.prepare(self.sidecar))
        except (OSError, ValueError) as error:
            await sidecar.abandon()
            raise ConfigError([_unusable(self._path, str(error))]) from None
        except BaseException:
            await sidecar.abandon()
            raise

    def commit(self, prepared: Prepared, trigger: str, who: str = "", *, is_noted: bool = True) -> Outcome:
        """Put *prepared* in force: at once, and without fail. Only where *is_noted* an audit line is written."""
        logs = [self.sidecar.audit]
        if prepared.sidecar is not None:
            before, self.sidecar = self.sidecar, prepared.sidecar
            # Where lines went until now it is written, too, that they go elsewhere or that fewer come.
            logs = list(dict.fromkeys([*logs, self.sidecar.audit]))
            prepared.take_over()
            if before.config.log != self.sidecar.config.log:
                set_up(self.sidecar.config.log.level, self.sidecar.config.log.format)
        self.loaded, self._laid, self._tried = prepared.loaded, prepared.laid, ()
        self.fingerprint = fingerprint_of(self._laid)
        was_refused, self.sidecar.lasting.complaint = self.sidecar.lasting.complaint, ""
        outcome = Outcome(is_loaded=True, digest=prepared.digest, changes=prepared.changes)
        # A look at files that came to nothing is no news; there is one soon after each start.
        is_news = bool(prepared.changes or was_refused or trigger != "watch")
        if is_news:
            self._count("loaded")
        if is_noted and is_news:
            _log.info("the configuration is loaded", trigger=trigger, by=who, changed=[c.path for c in outcome.changes])
            fields = {"digest": outcome.digest, "file": str(self._path), "trigger": trigger, "by": who}
            for log in logs:
                log.record(Event.CONFIGURATION_LOADED, {**fields, "changes": shown(outcome.changes)})
        return outcome

    async def abandon(self, prepared: Prepared) -> None:
        """Let go of *prepared*, which shall not be in force."""
        if prepared.sidecar is not None:
            await prepared.sidecar.abandon()

    def refuse(self, problems: Sequence[str], trigger: str, who: str = "", *, is_noted: bool = True) -> Outcome:
        """Say everywhere that a configuration was refused because of *problems*."""
        problems = tuple(problems)[:_MOST_PROBLEMS]
        self.sidecar.lasting.complaint = f"the newest state of the file was refused: {'; '.join(problems[:3])}"
        self._count("refused")
        if is_noted:
            _log.error("the configuration is refused, the former one stays", trigger=trigger, by=who, problems=problems)
            fields = {"file": str(self._path), "trigger": trigger, "by": who, "problems": list(problems)}
            self.sidecar.audit.record(Event.CONFIGURATION_REFUSED, fields)
        return Outcome(is_loaded=False, digest=digest_of(self.config), problems=problems)

    async def stop(self, *, is_replaced: bool = False) -> None:
        """Stop what runs, and reload no more."""
        async with self._lock:
            self._is_over = True
        await self.sidecar.stop(is_replaced=is_replaced)

    def hurry(self) -> None:
        """Make a ``stop`` that is under way end at once."""
        self.sidecar.hurry()

    def _count(self, result: str) -> None:
        metrics = self.sidecar.metrics
        metrics.of_configuration(result, self.sidecar.lasting.clock())


def problems_of(error: ConfigError) -> list[str]:
    """The errors of *error* by place, without what may be a value of the file."""
    errors = [problem for problem in error.problems if problem.severity == "error"]
    return [_QUOTED.sub("`…`", str(replace(problem, fix=""))) for problem in errors]


def _nothing() -> None:
    """Stand in where there is nothing to do."""


def _unusable(path: Path, message: str) -> Problem:
    return Problem("error", str(path), 0, 0, "", message)


def _files_tried(path: Path) -> tuple[Path, ...]:
    try:
        return files_of(path, read_document(path), None)
    except ConfigError:
        return ()


def _fixed_problems(before: Config, loaded: Loaded) -> Iterator[Problem]:
    """What has changed and cannot while the process runs."""
    fix = "Restart the sidecar for that, or take the change back"
    for place in _FIXED:
        if _at(before, place) != _at(loaded.config, place):
            yield _error(loaded.document, place, fix)
    if (before.server.tls is None) != (loaded.config.server.tls is None):
        yield _error(loaded.document, ("server", "tls"), fix)


def _error(document: Document, place: Location, fix: str) -> Problem:
    return document.error(place, "cannot change while the sidecar runs", fix)


def _at(config: Config, place: Location) -> Any:
    value: Any = config
    for name in place:
        value = getattr(value, str(name))
    return value
