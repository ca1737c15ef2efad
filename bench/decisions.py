"""Measure what one decision costs among 200 rules, by the index and by the plain list."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from sidecar.config.access import AccessRule
from sidecar.core.policy import Standing, decide, fitting, is_open
from sidecar.core.rulebook import Rulebook
from sidecar.model import Visit
from sidecar.plans import rules_of

RULES = 200
NOW = 1_000_000.0
_ROUNDS = 7
_CALLS = 20_000


def sections() -> list[AccessRule]:
    """Rules as a large application has them: exact paths, folders, one open segment, methods; no expressions."""
    found: list[dict[str, Any]] = []
    for number in range(RULES // 4):
        found += [
            {"path": f"/area{number}/settings", "allow": {"role": "admin"}},
            {"path": f"/area{number}/**", "methods": ["GET"], "allow": {"role": ["reader", "editor"]}},
            {"path": f"/api/v1/resource{number}/**", "allow": {"role": "editor"}},
            {"path": f"/api/v2/*/item{number}", "allow": {"group": "api"}},
        ]
    found[-1] = {"path": "/**", "allow": "signed_in"}
    return [AccessRule.model_validate(one) for one in found]


def cost(work: Callable[[], object]) -> float:
    """CPU microseconds of one call: the best of several rounds, since the others only saw more of other programs."""
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_CALLS):
            work()
        best = min(best, time.process_time() - began)
    return best / _CALLS * 1e6


def measured() -> dict[str, float]:
    """Microseconds for each kind of request, first by the index, then by the list."""
    rules = rules_of(sections())
    book = Rulebook(rules)
    person = Standing("corp", "cookie", frozenset(["editor"]), frozenset(["api"]), NOW)
    found: dict[str, float] = {}
    for name, path in (
        ("first rules", "/area0/pages/1"),
        ("last rules", "/area49/pages/1"),
        ("deep", "/api/v1/resource40/a/b/c"),
        ("open segment", "/api/v2/anything/item30"),
        ("none but the last", "/somewhere/else"),
    ):
        visit = Visit("GET", path, "wiki.example.com", "192.0.2.1", literal=path)

        def by_index(visit: Visit = visit) -> object:
            chain = book.about(visit)
            return is_open(chain, visit), decide(chain, visit, person, NOW)

        def by_list(visit: Visit = visit) -> object:
            chain = fitting(rules, visit.method, visit.host, visit.path)
            return is_open(chain, visit), decide(chain, visit, person, NOW)

        assert by_index() == by_list()  # noqa: S101 - a fast wrong answer is none
        found[f"{name}, index"] = cost(by_index)
        found[f"{name}, list"] = cost(by_list) if name == "none but the last" else 0.0
    return {name: round(value, 2) for name, value in found.items() if value}


if __name__ == "__main__":
    print(json.dumps({"rules": RULES, "microseconds": measured()}, indent=2))
