"""What operators can do about accounts that are not what they should be."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field

from sidecar.condition import Accounts
from sidecar.console.errands import Errands, Note, asker_of, told
from sidecar.console.operators import Operator
from sidecar.directory.sync_runs import RunRecord
from sidecar.drift import DriftWatch
from sidecar.drift.watch import SOURCE, Report
from sidecar.faults import Refused
from sidecar.reason import Reason

_RUN = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True, kw_only=True)
class Drifts:
    """The looks at the application's accounts, and what goes on with them in this process."""

    watch: DriftWatch
    accounts: Accounts
    errands: Errands = field(default_factory=Errands)

    async def look(self, operator: Operator, note: Note) -> Mapping[str, object]:
        """Compare, and change nothing. Raises Unavailable."""
        asker = await asker_of(self.accounts, operator)
        return await self.errands.begin(SOURCE, asker, note, _run(self.watch.look(asker.by, keys=asker.keys)))

    async def fix(self, operator: Operator, note: Note) -> Mapping[str, object]:
        """Put right what may be, within the limits or as it was approved. Raises Refused and Unavailable."""
        asker = await asker_of(self.accounts, operator)
        return await self.errands.begin(SOURCE, asker, note, _run(self.watch.fix(asker.by, keys=asker.keys)))

    async def approve(self, run_id: str, operator: Operator) -> Mapping[str, object]:
        """Let a quarantined repair be done. Raises Refused, also for whoever asked for it, and Unavailable."""
        asker = await asker_of(self.accounts, operator)
        return told(await self.watch.approve(_whole(run_id), asker.by, asker.keys))

    async def reject(self, run_id: str, operator: Operator) -> Mapping[str, object]:
        """Never do a repair that waits. Raises Refused and Unavailable."""
        asker = await asker_of(self.accounts, operator)
        return told(await self.watch.reject(_whole(run_id), asker.by))

    async def close(self) -> None:
        """End what goes on: what is not put right yet is found by the next look."""
        await self.errands.close()


async def _run(work: Coroutine[None, None, Report]) -> RunRecord:
    return (await work).run


def _whole(run_id: str) -> str:
    """A repair is named whole, so that nobody approves another than they saw."""
    if not _RUN.fullmatch(run_id):
        raise Refused(Reason.NOT_FOUND, 404, "there is no such repair")
    return run_id
