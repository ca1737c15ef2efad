"""What a decision costs with many rules, measured inside one process."""

from __future__ import annotations

from bench.decisions import RULES, measured
from bench.peers import Surroundings
from bench.report import Report, Table


def measure(here: Surroundings, report: Report) -> None:  # noqa: ARG001 - a scenario's signature
    """Ask for pages that early rules, late rules and only the general one speak about."""
    costs = measured()
    about = f"{RULES} rules without expressions; the best of several rounds, in one process."
    rows = [(name, f"{cost:.2f}") for name, cost in costs.items()]
    report.tables.append(Table("Decision", about, ("which rules speak", "µs"), rows))
    by_index = [cost for name, cost in costs.items() if name.endswith("index")]
    report.judge(f"a decision by {RULES} rules at most 3 µs", max(by_index), 3.0, " µs")
