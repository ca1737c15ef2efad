"""Have all workers take a configuration over, or none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from sidecar.cli.outcomes import outcome_of
from sidecar.lasting import Outcome, Reload
from sidecar.telemetry.log import set_up

if TYPE_CHECKING:
    from sidecar.cli.wire import Wire

_log = structlog.get_logger("workers")
_PATIENCE = 60.0
_SHORT = 15.0


@dataclass(slots=True, eq=False)
class Worker:
    """A process that was started. Its wire ends when we die, which ends the worker, and when the worker does."""

    process: asyncio.subprocess.Process
    wire: Wire | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    serves: bool = False
    heard: float = 0.0
    listening: asyncio.Task[None] | None = None

    async def ask(self, do: str, patience: float, **fields: Any) -> Mapping[str, Any] | None:
        """Ask it; None when it is gone or does not answer in time."""
        if self.wire is None:
            return None
        try:
            return await self.wire.ask(do, patience, **fields)
        except (OSError, TimeoutError):
            return None


class Assembly:
    """All workers that serve. First each prepares the new configuration, then each puts it in force, at one moment."""

    def __init__(self, serving: Callable[[], Sequence[Worker]]) -> None:
        """*serving* gives those that serve at the time."""
        self.serving = serving
        self.lock = asyncio.Lock()
        # Of the configuration in force; nothing while none of the workers has said it.
        self.fingerprint = ""
        self.complaint = ""

    async def admits(self, worker: Worker, reload: Reload) -> bool:
        """Whether *worker* may serve: with the configuration in force, which the others take over if they can."""
        if not self.serving():
            self.fingerprint = str(worker.state.get("fingerprint"))
        elif not await self.agrees(worker):
            _log.warning("a new worker has read another configuration than the one in force", pid=worker.process.pid)
            await reload("worker", "")
        return await self.agrees(worker)

    async def agrees(self, worker: Worker) -> bool:
        """Whether *worker* has the configuration in force, once nobody is about to change it."""
        async with self.lock:
            return str(worker.state.get("fingerprint")) == self.fingerprint

    async def reload(self, trigger: str, who: str) -> Outcome:
        """See lasting.Reload. A worker that dies meanwhile is no yes."""
        async with self.lock:
            workers = self.serving()
            if not workers:
                return Outcome(is_loaded=False, digest="", problems=("no worker serves",))
            answers = await asyncio.gather(*(one.ask("prepare", _PATIENCE) for one in workers))
            problems = _problems(answers)
            if problems:
                return await self._refuse(workers, problems, trigger, who)
            return await self._commit(workers, trigger, who)

    async def _refuse(self, workers: Sequence[Worker], problems: Sequence[str], trigger: str, who: str) -> Outcome:
        told = {"problems": list(problems), "trigger": trigger, "who": who}
        said = await self._tell(workers, "refuse", told)
        self.complaint = f"the newest state of the file was refused: {'; '.join(problems[:3])}"
        digest = str(said[0]["digest"]) if said else ""
        return Outcome(is_loaded=False, digest=digest, problems=tuple(problems))

    async def _commit(self, workers: Sequence[Worker], trigger: str, who: str) -> Outcome:
        said = await self._tell(workers, "commit", {"trigger": trigger, "who": who})
        if not said:
            return Outcome(is_loaded=False, digest="", problems=("every worker died",))
        self.complaint = ""
        self.fingerprint = str(said[0]["fingerprint"])
        set_up(*said[0]["log"])
        return outcome_of(said[0])

    async def _tell(self, workers: Sequence[Worker], do: str, told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Tell all at once; the answers of those that are still there. Only one of them writes it down."""
        answers = await asyncio.gather(
            *(one.ask(do, _SHORT, noted=not number, **told) for number, one in enumerate(workers))
        )
        for one, answer in zip(workers, answers, strict=True):
            if answer and "fingerprint" in answer:
                one.state = answer
            elif do == "commit" and one.process.returncode is None:
                # Whatever it does now, it may not be by the configuration in force: another one takes its place.
                _log.error("a worker does not do as it is told, it is killed", pid=one.process.pid)
                one.process.kill()
        return [answer for answer in answers if answer and "fingerprint" in answer]


def _problems(answers: Sequence[Mapping[str, Any] | None]) -> list[str]:
    problems = [str(text) for answer in answers if answer is not None for text in answer.get("problems", ())]
    if any(answer is None for answer in answers):
        problems.append("a worker died or did not answer meanwhile")
    elif not problems and len({answer["fingerprint"] for answer in answers if answer is not None}) > 1:
        problems.append("the files changed while they were read")
    return list(dict.fromkeys(problems))
