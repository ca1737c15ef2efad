"""What operators can do with synchronisations; long work goes on while their page is answered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from sidecar.condition import Accounts
from sidecar.console.operators import Operator
from sidecar.directory.sync_runs import RunRecord
from sidecar.model import Refused, Unavailable
from sidecar.reason import Reason
from sidecar.sync import Synchroniser
from sidecar.sync.runs import Wish

_log = structlog.get_logger("console")
_PATIENCE = 2.0
_RUN = re.compile(r"[0-9a-f]{32}")
_LONGEST_NAME = 190
Note = Callable[[Mapping[str, object]], None]


@dataclass(frozen=True, slots=True)
class Asker:
    """An operator as the books of synchronisations know them: what they are called, and who that is."""

    by: str
    key: str


@dataclass(frozen=True, slots=True)
class Late:
    """What came of work that was not over when the page was answered."""

    by: str
    says: str
    is_bad: bool


@dataclass(slots=True, kw_only=True)
class Syncs:
    """The sources by name, and what goes on with them in this process."""

    sources: Mapping[str, Synchroniser]
    accounts: Accounts
    late: dict[str, Late] = field(default_factory=dict)
    _tasks: set[asyncio.Task[RunRecord]] = field(default_factory=set)

    async def asker(self, operator: Operator) -> Asker:
        """Who *operator* is. Two sign-ins of one person are the same, whatever they are called there."""
        identity, directory = operator.session.identity, self.accounts.directory
        person = None if directory is None else await directory.person_by_identity(identity.key)
        if person is None:
            return Asker(identity.username[:_LONGEST_NAME], identity.key)
        return Asker((person.username or identity.username)[:_LONGEST_NAME], person.id)

    async def plan(self, target: str, operator: Operator, note: Note) -> Mapping[str, object]:
        """Read the source *target* and plan. Raises Refused and Unavailable."""
        one, asker = self._source(target), await self.asker(operator)
        return await self._begin(target, asker, note, one.plan(Wish(asker.by, key=asker.key)))

    async def apply(self, target: str, operator: Operator, note: Note) -> Mapping[str, object]:
        """Apply the run that *target* names. Raises Refused and Unavailable."""
        name, run_id = _parts(target)
        one, asker = self._source(name), await self.asker(operator)
        return await self._begin(name, asker, note, one.apply(run_id, asker.by))

    async def approve(self, target: str, operator: Operator) -> Mapping[str, object]:
        """Let a quarantined run be applied. Raises Refused, also for whoever asked for it, and Unavailable."""
        name, run_id = _parts(target)
        one, asker = self._source(name), await self.asker(operator)
        return _told(await one.approve(run_id, asker.by, asker.key))

    async def reject(self, target: str, operator: Operator) -> Mapping[str, object]:
        """Never apply a run that waits. Raises Refused and Unavailable."""
        name, run_id = _parts(target)
        one, asker = self._source(name), await self.asker(operator)
        return _told(await one.reject(run_id, asker.by))

    async def close(self) -> None:
        """End what goes on: a plan is made anew, and what is being applied goes on with the next run."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _source(self, name: str) -> Synchroniser:
        if name not in self.sources:
            raise Refused(Reason.NOT_FOUND, 404, "there is no such source")
        return self.sources[name]

    async def _begin(
        self, name: str, asker: Asker, note: Note, work: Coroutine[None, None, RunRecord]
    ) -> Mapping[str, object]:
        """What came of *work*, or that it has begun: then *note* hears of its end."""
        self.late.pop(name, None)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        is_over = False
        try:
            await asyncio.wait({task}, timeout=_PATIENCE)
            is_over = task.done()
        finally:
            # Also when whoever asked has gone away: what comes of it stands in the books all the same.
            if not is_over:
                task.add_done_callback(partial(self._ended, name, asker, note))
        return _told(await task) if is_over else {"result": "begun"}

    def _ended(self, name: str, asker: Asker, note: Note, task: asyncio.Task[RunRecord]) -> None:
        if task.cancelled():
            note({"result": "interrupted"})
            return
        fault = task.exception()
        if fault is None:
            run = task.result()
            self.late[name] = Late(asker.by, run.state, run.state == "failed")
            note({**_told(run), "result": "done"})
            return
        reason = fault.reason if isinstance(fault, Refused | Unavailable) else Reason.INTERNAL
        says = str(getattr(fault, "detail", "")) or reason.value
        self.late[name] = Late(asker.by, says, is_bad=True)
        if reason is Reason.INTERNAL:
            _log.error("synchronising for an operator failed", source=name, exc_info=fault)
        note({"reason": reason.value, "detail": says})


def _parts(target: str) -> tuple[str, str]:
    """Source and run that a form names; a run is named whole, so that nobody approves another than they saw."""
    name, _, run_id = target.rpartition("/")
    if not _RUN.fullmatch(run_id):
        raise Refused(Reason.NOT_FOUND, 404, "there is no such run")
    return name, run_id


def _told(run: RunRecord) -> Mapping[str, object]:
    return {"run": run.id, "plan": run.hash, "state": run.state}
