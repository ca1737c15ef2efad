"""Run the scenarios, print the tables, write bench/results.md: ``python -m bench [--quick] [scenario ...]``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import audit, decide, kinds, latency, questions, sessions, small, sockets, start, transfer
from bench.peers import Surroundings
from bench.report import Report

RESULTS = Path(__file__).parent / "results.md"
SCENARIOS: Mapping[str, Callable[[Surroundings, Report], None]] = {
    "small": small.measure,
    "kinds": kinds.measure,
    "questions": questions.measure,
    "latency": latency.measure,
    "transfer": transfer.measure,
    "sockets": sockets.measure,
    "start": start.measure,
    "workers": start.workers,
    "sessions": sessions.measure,
    "revocation": sessions.revocation,
    "decide": decide.measure,
    "audit": audit.measure,
}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure the sidecar beside its peers.")
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="about a minute; results are rough and not written down")
    chosen = parser.parse_args()
    for name in set(chosen.scenarios) - set(SCENARIOS):
        parser.error(f"{name} is none of {', '.join(SCENARIOS)}")
    report = Report(chosen.quick)
    here = Surroundings.start()
    try:
        for name in chosen.scenarios or SCENARIOS:
            began, before = time.monotonic(), len(report.tables)
            SCENARIOS[name](here, report)
            for table in report.tables[before:]:
                print(table.text(), file=sys.stderr)
            print(f"{name} took {time.monotonic() - began:.0f} s\n", file=sys.stderr, flush=True)
        text = report.text(here.versions, here.absent)
    finally:
        here.stop()
    print(text)
    if not chosen.quick and not chosen.scenarios:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
