"""What a decision costs with many rules, measured inside one process."""

from __future__ import annotations

import timeit

from bench.peers import Surroundings
from bench.report import Report, Table
from sidecar.config.access import AccessRule
from sidecar.core.policy import Standing, decide
from sidecar.core.rulebook import match
from sidecar.plans import rules_of

_RULES = 200


def measure(here: Surroundings, report: Report) -> None:  # noqa: ARG001 - a scenario's signature
    """Ask for paths that one rule of many speaks about, and for one that only the general rule does."""
    sections = [
        AccessRule.model_validate({"path": f"/team-{number}/**", "allow": "signed_in"}) for number in range(_RULES - 1)
    ]
    rules = rules_of([*sections, AccessRule.model_validate({"path": "/**", "allow": "signed_in"})])
    standing = Standing(login="corp", via="cookie")
    rows = []
    worst = 0.0
    for number in (0, _RULES // 2, _RULES - 2, None):
        path = "/elsewhere/page" if number is None else f"/team-{number}/some/page"
        cost = _cost(lambda path=path: decide(match(rules, "GET", "127.0.0.1", path), standing, 0.0))
        worst = max(worst, cost)
        rows.append(("the last, for everything" if number is None else f"{number + 1}", f"{cost:.2f}"))
    about = f"{_RULES} rules; the quickest of many runs, in one process."
    report.tables.append(Table("Decision", about, ("rule that decides", "µs"), rows))
    report.judge(f"a decision by {_RULES} rules at most 3 µs", worst, 3.0, " µs")


def _cost(call: object) -> float:
    number = 2000
    return min(timeit.repeat(call, number=number, repeat=25)) / number * 1e6  # type: ignore[arg-type]
