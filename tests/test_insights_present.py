"""What goes on at present is counted by all replicas together and read in one round trip."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from sidecar.config.insights import Insights, SlowHooks
from sidecar.config.service import Sessions
from sidecar.core.audit import Event
from sidecar.faults import Unavailable
from sidecar.insights.alerts import MOST_KEPT, recent, remember
from sidecar.insights.ledger import amend, read
from sidecar.insights.present import Present, Took, present
from sidecar.reason import Reason
from sidecar.sessions.memory import MemoryStore
from sidecar.sessions.opening import open_store
from sidecar.sessions.store import Store
from tests.services import commands
from tests.test_audit_chain import Ticking
from tests.test_insights import Replica, clock, store  # noqa: F401 - fixtures
from tests.world import World


class Counted:
    """A store that counts what it is asked for, and may be away."""

    def __init__(self, inner: Store) -> None:
        self._store = inner
        self.asked: list[str] = []
        self.is_away = False

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*arguments: Any) -> Any:
            self.asked.append(name)
            if self.is_away:
                raise Unavailable(Reason.STORE_DOWN)
            return await getattr(self._store, name)(*arguments)

        return ask


async def test_replicas_count_together(store: Store, clock: Ticking) -> None:  # noqa: F811 - fixtures
    slow = Insights(slow_hooks=SlowHooks(longer_than="1s"))
    one, two = Replica(slow, store, clock), Replica(slow, store, clock)
    for replica in (one, two):
        replica.audit.record(Event.ACCOUNT_CREATED, {"username": "x"})
        for _ in range(5):
            replica.audit.record(Event.DECISION, {"effect": "deny", "reason": "no-rule", "client": "192.0.2.1"})
        replica.audit.record(Event.PROVISIONING_FAILED, {"reason": "provisioning-unavailable"})
        replica.watch.hook_took("create", 0.5)
        replica.watch.hook_took("create", 2.5)
        await replica.watch.post()
    counted = Counted(store)
    state = await present(cast("Store", counted), clock())
    assert counted.asked == ["get"]
    assert (state.accounts, sum(state.by_minute(clock()))) == (2, 10)
    assert state.failures == {"provisioning-unavailable": 2}
    assert state.orders == {"create": Took(4, 2, 6.0, 2.5)}
    assert state.orders["create"].mean == 1.5
    # What was written down is not written again.
    clock.now += 10
    await one.watch.post()
    assert (await present(store, clock())).accounts == 2


async def test_what_is_over_is_shown_no_more(clock: Ticking) -> None:  # noqa: F811
    kept, counts = MemoryStore(clock), Present(clock)

    def count() -> None:
        counts.account_made()
        counts.refused()
        counts.failed("x")
        counts.took("create", 1.0, is_slow=False)

    count()
    await counts.post(kept)
    clock.now += 120
    state = await present(kept, clock())
    assert state.by_minute(clock())[-3] == 1
    clock.now += 660
    state = await present(kept, clock())
    assert (sum(state.by_minute(clock())), state.failures) == (0, {"x": 1})
    clock.now += 4200
    state = await present(kept, clock())
    assert (state.failures, state.orders) == ({}, {})
    clock.now += 86400
    assert (await present(kept, clock())).accounts == 0
    count()
    await counts.post(kept)
    assert (await present(kept, clock())).accounts == 1
    # Nor is it kept.
    document = await read(kept, "insight:present")
    assert [len(document[name]) for name in ("minutes", "slots")] == [1, 1]


async def test_what_could_not_be_written_waits_and_does_not_pile_up(clock: Ticking) -> None:  # noqa: F811
    kept, counts = Counted(MemoryStore(clock)), Present(clock)
    away = cast("Store", kept)
    kept.is_away = True
    for _ in range(200):
        counts.account_made()
        counts.refused()
        counts.failed("x")
        with pytest.raises(Unavailable):
            await counts.post(away)
        clock.now += 60
    assert len(counts._counts.refusals) <= 11
    assert len(counts._counts.failures) <= 8
    kept.is_away = False
    await counts.post(away)
    state = await present(away, clock())
    assert state.failures["x"] >= 60
    assert state.accounts >= 1


async def test_what_happens_while_it_is_written_is_not_lost(clock: Ticking) -> None:  # noqa: F811
    counts = Present(clock)

    class Slow(MemoryStore):
        async def claim(self, key: str, value: bytes, ttl: float) -> bool:
            counts.account_made()
            return await super().claim(key, value, ttl)

    kept = Slow(clock)
    counts.account_made()
    await counts.post(kept)
    await counts.post(kept)
    assert (await present(kept, clock())).accounts == 2


async def test_names_are_bounded(clock: Ticking) -> None:  # noqa: F811
    kept, counts = MemoryStore(clock), Present(clock)
    for number in range(500):
        counts.failed(f"cause-{number}")
        counts.took(f"change-{number}", 1.0, is_slow=True)
    await counts.post(kept)
    state = await present(kept, clock())
    assert (len(state.failures), len(state.orders)) == (51, 51)
    assert sum(state.failures.values()) == 500


async def test_no_writer_undoes_another(store: Store) -> None:  # noqa: F811
    def more(held: Any) -> Any:
        return (held or 0) + 1

    done = await asyncio.gather(*(amend(store, "n", more, 60) for _ in range(30)))
    assert await read(store, "n") == sum(done) >= 10


async def test_what_cannot_be_read_is_begun_anew(store: Store) -> None:  # noqa: F811
    await store.put("n", b"{not json", 60)
    assert await read(store, "n") is None
    assert await amend(store, "n", lambda held: [held], 60)
    assert await read(store, "n") == [None]


async def test_the_newest_alerts_come_in_one_round_trip_and_are_bounded(
    store: Store,  # noqa: F811
    clock: Ticking,  # noqa: F811
) -> None:
    def alert(number: int, age: float) -> dict[str, str]:
        said = datetime.fromtimestamp(clock() - age, UTC).isoformat(timespec="milliseconds")
        return {"time": said, "insight": "x", "id": str(number)}

    await amend(store, "insight:newest", lambda _: [alert(n, 2000 - n) for n in range(MOST_KEPT + 500)], 60)
    await remember(store, alert(9000, 0), clock())
    await remember(store, alert(9001, 8 * 86400), clock())
    counted = Counted(store)
    found = await recent(cast("Store", counted), 3, clock())
    assert counted.asked == ["get"]
    assert [one["id"] for one in found] == ["9000", str(MOST_KEPT + 499), str(MOST_KEPT + 498)]
    everything = await recent(store, 10_000, clock())
    assert len(everything) == MOST_KEPT - 1
    assert "9001" not in [one["id"] for one in everything]


async def test_the_command_says_what_goes_on(world: World, redis_url: str, tmp_path: Path) -> None:
    changes = {"insights": {}, "sessions": {"redis": redis_url}}
    running = await world(changes, provision=True, environment={"USERS_DB": f"sqlite:///{tmp_path}/no.db"})
    own = open_store(Sessions(redis=redis_url), time.time)
    counts = Present(time.time)
    counts.account_made()
    counts.failed("provisioning-unavailable")
    counts.took("create", 2.25, is_slow=True)
    await counts.post(own)
    await own.close()

    def asked(*words: str) -> str:
        environment = {
            "ISSUER": running.provider.issuer, "OIDC_SECRET": "x", "SESSION_SECRET": "a session secret long enough, ok",
            "USERS_DB": f"sqlite:///{tmp_path}/no.db", "PATH": "/usr/bin:/bin",
        }  # fmt: skip
        line = ("insights", *words, str(running.folder / "config.yaml"))
        done = commands.typed(*line, folder=tmp_path, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = await asyncio.to_thread(asked)
    assert "1 accounts made today" in text
    assert "0 refusals in the last minute, 0 in the last 10" in text
    assert "could not be made or changed: provisioning-unavailable" in text
    assert "create, 2.25 s on average, 2.25 s at most, 1 slow" in text
    state = json.loads(await asyncio.to_thread(asked, "--json"))
    assert state["present"]["orders"]["create"] == {"count": 1, "slow": 1, "mean": 2.25, "longest": 2.25}
