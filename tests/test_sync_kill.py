"""Whoever kills a synchronisation, at any moment and however often, changes nothing about where it ends.

The suite kills it 20 times; `SYNC_KILLS=200 pytest tests/test_sync_kill.py` does it as often as one likes.
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.sync_world import Company, person

KILLS = int(os.environ.get("SYNC_KILLS", "20"))
PEOPLE = 24
WIDE = {
    name: {"count": 1000, "percent": None}
    for name in ("deactivate", "remove_roles", "grant_privileged", "rename", "create", "group_members")
}


class Nursery:
    """Children of one company."""

    def __init__(self, company: Company) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sync_nursery", str(company.file)],
            env={**os.environ, **company.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, seconds: float = 0.0, ahead: float = 0.0) -> str:
        """Run a child and give how it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(seconds, ahead, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def companies(tmp_path: Path) -> Iterator[list[tuple[Company, Nursery]]]:
    made = []
    for name in ("killed", "quiet"):
        (tmp_path / name).mkdir()
        company = Company(tmp_path / name, {"sync": {"hr": {"limits": WIDE}}})
        made.append((company, Nursery(company)))
    yield made
    for _, nursery in made:
        nursery.close()


def lists(chance: random.Random) -> Iterator[list[dict[str, str]]]:
    """One list of people after the other; nobody ever goes missing, who comes last is there in the end."""
    while True:
        yield [
            person(
                number,
                mail=f"{chance.choice('ab')}{number}@example.com",
                teams=chance.choice(["", "editors", "admins;editors"]),
                # Some leave and come back; the last few are never switched off, so that they all have an account.
                status=chance.choice(["active", "left"]) if number < 6 else "active",
            )
            for number in range(1, PEOPLE + 1)
        ]


def end_of(company: Company) -> dict[str, Any]:
    with closing(sqlite3.connect(company.folder / "directory.db")) as database, database:
        people = database.execute(
            "SELECT t.external, p.active, p.source, t.mark, t.missing, pr.email, pr.groups, pr.claims"
            " FROM sidecar_sync_track t JOIN sidecar_person p ON p.id = t.person_id"
            " JOIN sidecar_profile pr ON pr.person_id = p.id AND pr.source = t.source ORDER BY t.external"
        ).fetchall()
        identities = database.execute("SELECT COUNT(*), COUNT(DISTINCT person_id) FROM sidecar_identity").fetchone()
        owed = database.execute(
            "SELECT person_id, change, state, tries, due - created, last_error FROM sidecar_outbox"
            " WHERE state <> 'done'"
        ).fetchall()
        begun = database.execute(
            "SELECT COUNT(*) FROM sidecar_sync_run WHERE state IN ('reading', 'applying')"
        ).fetchone()
        reserved = database.execute("SELECT COUNT(*) FROM sidecar_account WHERE state = 'reserved'").fetchone()
    active = {login: user for login, user in company.users().items() if user[2]}
    counts = (identities, owed, begun, reserved)
    return {"people": people, "active": active, "counts": counts}


@pytest.mark.timeout(3600 if KILLS > 20 else 240)
def test_a_run_that_is_killed_ends_where_one_that_is_not_does(companies: list[tuple[Company, Nursery]]) -> None:
    seed = int(os.environ.get("SYNC_SEED", "7"))
    chance = random.Random(seed)
    (killed, nursery), (quiet, calm) = companies
    many = lists(chance)
    everybody = [person(number) for number in range(1, PEOPLE + 1)]
    quiet.list(everybody)
    killed.list(everybody)
    # By then everything is imported.
    nursery.run(0.01)
    calm.run(0.01)
    began = time.monotonic()
    assert calm.run() == "done"
    longest = time.monotonic() - began
    ends = []
    for _ in range(KILLS):
        ends.append(nursery.run(chance.uniform(0.01, longest)))
        killed.list(next(many))
    last = [*everybody[:-1], person(PEOPLE, teams="admins", mail="z@example.com")]
    for company, one in companies:
        company.list(last)
        # An item of the outbox that somebody died over is free again after its lease.
        for ahead in (1000.0, 5000.0, 9000.0):
            assert one.run(ahead=ahead) == "done"
    assert ends.count("killed") > KILLS // 3, ends
    assert end_of(killed) == end_of(quiet), f"seed {seed}"
    assert len(end_of(killed)["active"]) == PEOPLE
