"""What operators can do with synchronisations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar.condition import Accounts
from sidecar.console.errands import Errands, Note, asker_of, told
from sidecar.console.operators import Operator
from sidecar.faults import Refused
from sidecar.reason import Reason
from sidecar.sync import Synchroniser
from sidecar.sync.runs import Wish

_RUN = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True, kw_only=True)
class Syncs:
    """The sources by name, and what goes on with them in this process."""

    sources: Mapping[str, Synchroniser]
    accounts: Accounts
    errands: Errands = field(default_factory=Errands)

    async def plan(self, target: str, operator: Operator, note: Note) -> Mapping[str, object]:
        """Read the source *target* and plan. Raises Refused and Unavailable."""
        one, asker = self._source(target), await asker_of(self.accounts, operator)
        return await self.errands.begin(target, asker, note, one.plan(Wish(asker.by, keys=asker.keys)))

    async def apply(self, target: str, operator: Operator, note: Note) -> Mapping[str, object]:
        """Apply the run that *target* names. Raises Refused and Unavailable."""
        name, run_id = _parts(target)
        one, asker = self._source(name), await asker_of(self.accounts, operator)
        return await self.errands.begin(name, asker, note, one.apply(run_id, asker.by))

    async def approve(self, target: str, operator: Operator) -> Mapping[str, object]:
        """Let a quarantined run be applied. Raises Refused, also for whoever asked for it, and Unavailable."""
        name, run_id = _parts(target)
        one, asker = self._source(name), await asker_of(self.accounts, operator)
        return told(await one.approve(run_id, asker.by, asker.keys))

    async def reject(self, target: str, operator: Operator) -> Mapping[str, object]:
        """Never apply a run that waits. Raises Refused and Unavailable."""
        name, run_id = _parts(target)
        one, asker = self._source(name), await asker_of(self.accounts, operator)
        return told(await one.reject(run_id, asker.by))

    async def close(self) -> None:
        """End what goes on: a plan is made anew, and what is being applied goes on with the next run."""
        await self.errands.close()

    def _source(self, name: str) -> Synchroniser:
        if name not in self.sources:
            raise Refused(Reason.NOT_FOUND, 404, "there is no such source")
        return self.sources[name]


def _parts(target: str) -> tuple[str, str]:
    """Source and run that a form names; a run is named whole, so that nobody approves another than they saw."""
    name, _, run_id = target.rpartition("/")
    if not _RUN.fullmatch(run_id):
        raise Refused(Reason.NOT_FOUND, 404, "there is no such run")
    return name, run_id
