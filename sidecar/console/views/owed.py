"""The page about what is owed to the application."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sidecar.condition import Accounts
from sidecar.console.page import Asked, Page
from sidecar.directory.browsing import DEAD, DONE, WAITING
from sidecar.faults import Refused
from sidecar.reason import Reason

PAGE = 50
_MOST = 1000
_STATES = {"waiting": WAITING, "dead": DEAD, "done": DONE}


@dataclass(slots=True, kw_only=True)
class OwedPage:
    """``/owed``."""

    accounts: Accounts

    async def show(self, asked: Asked) -> Page:
        """What waits, what can never be done, and what is done."""
        directory = self.accounts.directory
        if directory is None:
            raise Refused(Reason.NOT_FOUND, 404, "no accounts are kept here")
        state = asked.query.get("state", "waiting")
        if state not in _STATES:
            raise Refused(Reason.NOT_FOUND, 404, "no such state")
        after = _after(asked)
        found = await directory.browsing.owed(_STATES[state], after, PAGE + 1)
        more = found[PAGE - 1] if len(found) > PAGE else None
        # Of what is done nobody has to know how much there is.
        counts = {name: await directory.browsing.count(_STATES[name], _MOST) for name in ("waiting", "dead")}
        values = {
            "counts": counts,
            "most": _MOST,
            "state": state,
            "states": list(_STATES),
            "owed": found[:PAGE],
            "more": more,
        }
        return Page("owed", {**values, "is_begun": after is not None})


def _after(asked: Asked) -> tuple[float, str] | None:
    if "after" not in asked.query:
        return None
    try:
        after = float(asked.query["after"])
    except ValueError:
        after = math.nan
    if not math.isfinite(after):
        raise Refused(Reason.NOT_FOUND, 404, "no such place")
    return after, asked.query.get("id", "")
