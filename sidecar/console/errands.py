"""Do what operators ask for and takes long: it goes on when its page has been answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from sidecar.cancelling import cancelled
from sidecar.condition import Accounts
from sidecar.console.operators import Operator
from sidecar.directory.sync_runs import RunRecord
from sidecar.faults import Refused, Unavailable
from sidecar.reason import Reason

_log = structlog.get_logger("console")
_PATIENCE = 2.0
_LONGEST_NAME = 190
Note = Callable[[Mapping[str, object]], None]


@dataclass(frozen=True, slots=True)
class Asker:
    """An operator as the books of runs know them: what they are called, and every key that they are known by."""

    by: str
    keys: tuple[str, ...]


async def asker_of(accounts: Accounts, operator: Operator) -> Asker:
    """Who *operator* is: two sign-ins of one person are one human, whatever they are called there.

    Raises Unavailable(DIRECTORY_DOWN): without it nobody knows.
    """
    identity, directory = operator.session.identity, accounts.directory
    person = None if directory is None else await directory.person_by_identity(identity.key)
    if person is None:
        return Asker(identity.username[:_LONGEST_NAME], (identity.key,))
    keys = dict.fromkeys([person.id, identity.key, *person.identities])
    return Asker((person.username or identity.username)[:_LONGEST_NAME], tuple(keys))


@dataclass(frozen=True, slots=True)
class Late:
    """What came of work that was not over when the page was answered."""

    by: str
    says: str
    is_bad: bool


@dataclass(slots=True)
class Errands:
    """What goes on in this process, and by name what came of what took too long to wait for."""

    late: dict[str, Late] = field(default_factory=dict)
    _tasks: set[asyncio.Task[RunRecord]] = field(default_factory=set)

    async def begin(
        self, name: str, asker: Asker, note: Note, work: Coroutine[None, None, RunRecord]
    ) -> Mapping[str, object]:
        """What came of *work*, or that it has begun: then *note* hears of its end. Raises what *work* raises."""
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
        return told(await task) if is_over else {"result": "begun"}

    def _ended(self, name: str, asker: Asker, note: Note, task: asyncio.Task[RunRecord]) -> None:
        if task.cancelled():
            note({"result": "interrupted"})
            return
        fault = task.exception()
        if fault is None:
            run = task.result()
            self.late[name] = Late(asker.by, run.state, run.state == "failed")
            note({**told(run), "result": "done"})
            return
        reason = fault.reason if isinstance(fault, Refused | Unavailable) else Reason.INTERNAL
        says = str(getattr(fault, "detail", "")) or reason.value
        self.late[name] = Late(asker.by, says, is_bad=True)
        if reason is Reason.INTERNAL:
            _log.error("what an operator asked for failed", about=name, exc_info=fault)
        note({"reason": reason.value, "detail": says})

    async def close(self) -> None:
        """End what goes on; what was begun in the application or the directory goes on with the next run."""
        await cancelled(self._tasks)


def told(run: RunRecord) -> Mapping[str, object]:
    """What audit lines say of a run."""
    return {"run": run.id, "plan": run.hash, "state": run.state}
