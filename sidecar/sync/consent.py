"""Let somebody else than the one who asked for it decide on a run that waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sidecar.core.audit import Event
from sidecar.core.wanted import folded
from sidecar.directory.sync_runs import RunRecord, SyncRuns
from sidecar.faults import Refused
from sidecar.reason import Reason

# A run in one of these states is decided on, or may still be thought better of.
WAITING = frozenset(["planned", "quarantined", "approved"])
# In a run's head: every key of whoever asked for it.
ASKED_KEYS = "asked_keys"


def is_asker(run: RunRecord, by: str, keys: Iterable[str]) -> bool:
    """True when *by*, or the one human whom *keys* name, asked for this run."""
    asked = frozenset(run.head.get(ASKED_KEYS, ()))
    return folded(by.strip()) == folded(run.asked_by.strip()) or not asked.isdisjoint(keys)


@dataclass(frozen=True, slots=True)
class Consent:
    """Approves and rejects; ``what`` says how its runs are called. Coroutines raise Unavailable(DIRECTORY_DOWN)."""

    book: SyncRuns
    what: str
    approved: Event
    rejected: Event
    record: Callable[[Event, dict[str, object]], None]
    clock: Callable[[], float]

    async def approve(self, run: RunRecord, by: str, keys: Iterable[str]) -> RunRecord:
        """Let a run that was quarantined be done, once. Raises Refused(CONFLICT).

        Never for who asked for it, by their name in any spelling or by any of their *keys*.
        """
        if run.state != "quarantined":
            raise Refused(
                Reason.CONFLICT, 409, f"the {self.what} is {run.state}; only a quarantined one can be approved"
            )
        if is_asker(run, by, keys):
            raise Refused(Reason.CONFLICT, 409, f"{by} asked for this {self.what}: somebody else has to approve it")
        now = self.clock()
        if not await self.book.change(run.id, ["quarantined"], state="approved", approved_by=by, updated=now):
            raise Refused(Reason.CONFLICT, 409, "somebody else was faster")
        self._say(self.approved, run, by)
        return replace(run, state="approved", approved_by=by, updated=now)

    async def reject(self, run: RunRecord, by: str) -> RunRecord:
        """Never do a run that waits. Raises Refused(CONFLICT)."""
        now = self.clock()
        if not await self.book.change(run.id, WAITING, state="rejected", updated=now):
            raise Refused(Reason.CONFLICT, 409, f"the {self.what} is {run.state}; only one that waits can be rejected")
        self._say(self.rejected, run, by)
        return replace(run, state="rejected", updated=now)

    def _say(self, event: Event, run: RunRecord, by: str) -> None:
        fields = {"source": run.source, "run": run.id, "plan": run.hash, "by": by, "asked_by": run.asked_by}
        self.record(event, dict(fields))
