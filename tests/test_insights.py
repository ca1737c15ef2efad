"""What is odd is noticed, told once by whichever replica, and not again for a while."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.config.insights import Burst, Insights, NewNetwork, Refusals, Silence, SlowHooks
from sidecar.config.service import Sessions
from sidecar.core.audit import Event
from sidecar.directory import Directory
from sidecar.directory.database import Database
from sidecar.directory.dormant import dormant, silent
from sidecar.directory.tokens import ApiToken, Kind
from sidecar.faults import Unavailable
from sidecar.insights import Alert, Alerts, Watch
from sidecar.insights.alerts import recent
from sidecar.insights.opening import open_insights
from sidecar.insights.watch import network_of
from sidecar.model import Account, Identity
from sidecar.reason import Reason
from sidecar.sessions.memory import MemoryStore
from sidecar.sessions.opening import open_store
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.personal import Policy
from tests.test_audit_chain import Ticking
from tests.test_audit_webhook import Receiver, receiver, section, until  # noqa: F401 - the receiver is a fixture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from sidecar.sessions.store import Store

ADA = {"issuer": "https://id", "subject": "a1", "person": "ada", "provider": "corp"}


class Kept:
    """A sink that keeps lines."""

    def __init__(self) -> None:
        self.lines: list[Mapping[str, Any]] = []

    def write(self, lines: bytes) -> int:
        self.lines += map(json.loads, lines.splitlines())
        return len(lines)

    def place(self) -> str:
        return ""

    def close(self) -> None:
        pass


class Replica:
    """One sidecar's watch."""

    def __init__(self, how: Insights, store: Store, clock: Ticking, policy: Policy | None = None) -> None:
        self.sink = Kept()
        self.metrics = Metrics()
        self.audit = AuditLog([self.sink], clock, None, policy)
        self.alerts = Alerts(how, store, self.audit, self.metrics, clock, None)
        self.watch = Watch(how, store, self.alerts, clock)
        self.audit.listen(self.watch.hear)

    async def told(self) -> list[Mapping[str, Any]]:
        await self.watch.look()
        await asyncio.to_thread(self.audit.flush)
        return [line for line in self.sink.lines if line["event"] == "insight-raised"]

    def signs_in(self, client: str, **who: str) -> None:
        self.audit.record(Event.LOGIN_SUCCEEDED, {**ADA, "client": client, **who})


@pytest.fixture
def clock() -> Ticking:
    return Ticking()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, clock: Ticking) -> AsyncIterator[Store]:
    if request.param == "memory":
        made: Store = MemoryStore(clock)
    else:
        made = open_store(Sessions(redis=request.getfixturevalue("redis_url")), time.time)
    yield made
    await made.close()


def kinds(told: list[Mapping[str, Any]]) -> list[str]:
    return [line["insight"] for line in told]


async def test_a_sign_in_from_a_new_network_is_told_once(store: Store, clock: Ticking) -> None:
    one, two = Replica(Insights(), store, clock), Replica(Insights(), store, clock)
    one.signs_in("192.0.2.1")
    one.signs_in("192.0.2.99")
    assert await one.told() == []
    one.signs_in("198.51.100.7")
    two.signs_in("198.51.100.7")
    found = [*await one.told(), *await two.told()]
    assert [(line["insight"], line["network"], line["person"]) for line in found] == [
        ("new-network", "198.51.100.0/24", "ada")
    ]
    # Known by now, for everybody; and another person's networks are their own.
    clock.now += 7200
    two.signs_in("198.51.100.8")
    two.signs_in("192.0.2.3", subject="b2", person="bob")
    assert await two.told() == []


async def test_bursts_of_refusals_are_told_by_client_person_and_all_together(store: Store, clock: Ticking) -> None:
    few = Refusals(
        client=Burst(count=10, within="5m"), person=Burst(count=6, within="5m"), everybody=Burst(count=30, within="5m")
    )
    replicas = [Replica(Insights(refusals=few), store, clock) for _ in range(2)]
    denied = {"effect": "deny", "reason": "no-rule"}
    # Neither of them alone has seen ten.
    for one in replicas:
        for _ in range(5):
            one.audit.record(Event.DECISION, {**denied, "client": "192.0.2.1"})
            one.audit.record(Event.DECISION, {"effect": "allow", "client": "192.0.2.2"})
            one.audit.record(Event.DECISION, {"effect": "challenge", "client": "192.0.2.2"})
    found = [*await replicas[0].told(), *await replicas[1].told()]
    assert [(line["insight"], line["client"], line["count"]) for line in found] == [
        ("refusals-client", "192.0.2.1", 10)
    ]
    for number in range(20):
        replicas[0].audit.record(Event.LOGIN_FAILED, {"client": f"192.0.2.{number + 50}", "person": "ada"})
    found = await replicas[0].told()
    assert sorted(kinds(found)[-2:]) == ["refusals-everybody", "refusals-person"]
    # No storm: nobody hears of it again before the cool-down has passed.
    for _ in range(1000):
        replicas[1].audit.record(Event.DECISION, {**denied, "client": "192.0.2.1"})
    assert len(await replicas[1].told()) <= 1


async def test_t75_whoever_has_many_addresses_or_guesses_at_scim_or_break_glass_is_noticed_too(
    store: Store, clock: Ticking
) -> None:
    few = Refusals(client=Burst(count=10, within="5m"), person=None, everybody=None)
    one = Replica(Insights(refusals=few), store, clock)
    for number in range(5):
        # What is wrong with a SCIM token is written with the client's name, and with an address besides.
        one.audit.record(Event.SCIM_REFUSED, {"client": "", "address": f"2001:db8::{number}"})
        one.audit.record(Event.BREAK_GLASS_FAILED, {"subject": "unknown", "client": f"2001:db8::1:{number}"})
        one.audit.record(Event.SCIM_REFUSED, {"client": "okta", "address": f"192.0.2.{number}"})
        one.audit.record(Event.DECISION, {"effect": "deny", "client": "2001:db8:0:1::1"})
    assert [(line["insight"], line["client"], line["count"]) for line in await one.told()] == [
        ("refusals-client", "2001:db8::0", 10)
    ]


async def test_after_the_cooldown_it_is_told_again(clock: Ticking) -> None:
    one = Replica(Insights(new_accounts=Burst(count=3, within="1h")), MemoryStore(clock), clock)
    for _ in range(2):
        for _ in range(5):
            one.audit.record(Event.ACCOUNT_CREATED, {"username": "x"})
        await one.told()
        clock.now += 3601
    assert kinds(await one.told()) == ["new-accounts"] * 2
    # Slowly, over a long time, is no burst.
    for _ in range(5):
        one.audit.record(Event.ACCOUNT_CREATED, {"username": "x"})
        await one.told()
        clock.now += 3601
    assert len(await one.told()) == 2


async def test_grants_of_privileged_roles_are_told(store: Store, clock: Ticking) -> None:
    one = Replica(Insights(privileged=("admin",)), store, clock)
    one.audit.record(Event.ROLES_CHANGED, {**ADA, "before": ["editor"], "after": ["editor", "reader"]})
    one.audit.record(Event.ROLES_CHANGED, {**ADA, "before": ["admin"], "after": ["editor"]})
    one.audit.record(Event.ROLES_CHANGED, {**ADA, "before": ["admin"], "after": ["admin", "editor"]})
    assert await one.told() == []
    one.audit.record(Event.ROLES_CHANGED, {**ADA, "before": ["editor"], "after": ["admin", "editor"]})
    one.audit.record(Event.ACCOUNT_CREATED, {**ADA, "subject": "b2", "roles": ["admin"]})
    one.audit.record(Event.TOKEN_CREATED, {"token": "t1", "roles": ("admin",), "by": "eve"})
    found = await one.told()
    assert [(line["roles"], line["granted_by"]) for line in found] == [
        (["admin"], "roles-changed"), (["admin"], "account-created"), (["admin"], "token-created"),
    ]  # fmt: skip


async def test_tokens_after_a_silence_failures_by_cause_and_slow_hooks(store: Store, clock: Ticking) -> None:
    how = Insights(failures=Burst(count=3), slow_hooks=SlowHooks(longer_than="1s", count=2))
    one = Replica(how, store, clock)
    one.watch.token_used("t1", 29 * 86400, {})
    one.watch.token_used("t2", 31 * 86400, {"client": "192.0.2.1"})
    for reason in ("provisioning-down", "account-ambiguous"):
        for _ in range(2):
            one.audit.record(Event.PROVISIONING_FAILED, {"reason": reason})
    one.audit.record(Event.ACCOUNT_REFUSED, {"reason": "account-ambiguous"})
    for seconds in (0.5, 2, 3):
        one.watch.hook_took("create", seconds)
    found = await one.told()
    assert [(line["insight"], line.get("token") or line.get("reason") or line.get("change")) for line in found] == [
        ("silent-token", "t2"), ("provisioning-failures", "account-ambiguous"), ("slow-hooks", "create"),
    ]  # fmt: skip


async def test_of_all_replicas_one_tells(store: Store, clock: Ticking) -> None:
    replicas = [Replica(Insights(), store, clock) for _ in range(3)]
    told = await asyncio.gather(*(one.alerts.tell(Alert("silent-token", "t1", {})) for one in replicas))
    assert sum(told) == 1
    assert sum([len(await one.told()) for one in replicas]) == 1


async def test_there_is_never_a_storm(store: Store, clock: Ticking) -> None:
    one = Replica(Insights(most=5), store, clock)
    for number in range(50):
        await one.alerts.tell(Alert("silent-token", str(number), {}))
    assert kinds(await one.told()) == ["silent-token"] * 5 + ["more"]
    assert b'sidecar_insights_total{kind="suppressed"} 44.0' in one.metrics.render()


async def test_memory_is_bounded_whatever_an_attack_sends(clock: Ticking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.insights.watch._MOST_COUNTED", 100)
    monkeypatch.setattr("sidecar.insights.watch._MOST_WAITING", 100)
    monkeypatch.setattr("sidecar.insights.alerts._MOST_REMEMBERED", 100)
    one = Replica(Insights(most=10_000), MemoryStore(clock), clock)
    for number in range(1000):
        one.audit.record(Event.LOGIN_FAILED, {"client": f"2001:db8:{number:x}::1"})
        one.signs_in("192.0.2.1", subject=str(number))
    assert len(one.watch._counts) == len(one.watch._waiting) == 100
    assert one.watch.overlooked > 1000
    for number in range(1000):
        await one.alerts.tell(Alert("silent-token", str(number), {}))
    assert len(one.alerts._told) == 100


async def test_without_the_store_each_tells_for_itself(clock: Ticking) -> None:
    class Down(MemoryStore):
        async def claim(self, *_: Any) -> bool:
            raise Unavailable(Reason.STORE_DOWN, "down")

        async def put(self, *_: Any) -> None:
            raise Unavailable(Reason.STORE_DOWN, "down")

    one = Replica(Insights(most=2), Down(clock), clock)
    for number in (1, 1, 2, 3, 4):
        await one.alerts.tell(Alert("silent-token", str(number), {}))
    assert kinds(await one.told()) == ["silent-token", "silent-token", "more"]


async def test_personal_data_are_treated_wherever_an_alert_goes(
    store: Store,
    clock: Ticking,
    receiver: Receiver,  # noqa: F811 - pytest's way
    tmp_path: Path,
) -> None:
    policy = Policy({"person": "pseudonym", "client": "network", "subject": "drop"}, b"key")
    how = Insights(webhook=section(receiver, tmp_path), new_network=NewNetwork())
    sink = Kept()
    audit = AuditLog([sink], clock, None, policy)
    insight = open_insights(how, store, audit, Metrics(), time.time, None, "")
    working = asyncio.create_task(insight.work())
    await asyncio.sleep(0)
    for client in ("192.0.2.1", "198.51.100.7"):
        audit.record(Event.LOGIN_SUCCEEDED, {**ADA, "client": client})
        await insight.watch.look()
    await until(lambda: bool(receiver.messages))
    await asyncio.to_thread(audit.flush)
    alert = receiver.messages[0]["lines"][0]
    assert (receiver.messages[0]["kind"], alert["insight"]) == ("insight", "new-network")
    assert alert["client"] == "198.51.100.0/24"
    assert alert["person"].startswith("~")
    remembered = await recent(store, 5, time.time())
    assert [one["insight"] for one in remembered] == ["new-network"]
    for text in (json.dumps(receiver.messages), json.dumps(sink.lines), json.dumps(remembered)):
        assert "ada" not in text
        assert "a1" not in {*json.loads(text)[0]}
        assert "198.51.100.7" not in text
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    # Whoever takes over after a reload hears of everything once.
    assert audit._hearers == []
    await insight.close()


async def test_dormant_accounts_are_found(database_url: str, clock: Ticking) -> None:
    directory = await Directory.open(database_url, "wiki", 15)
    ada = Identity("corp", "https://id", "a1", "ada")
    for number, seen in enumerate((1000.0, 2000.0, 9000.0)):
        who = replace(ada, subject=f"s{number}", username=f"u{number}")
        person = await directory.reserve(await directory.admit(who, seen), f"u{number}", seen)
        assert person is not None
        await directory.settle(person, Account(f"u{number}", str(number)), seen)
    await directory.admit(replace(ada, subject="nobody"), 1000)
    database = Database(database_url, 15)
    count, some = await dormant(database, "wiki", 5000, 1)
    assert (count, len(some)) == (2, 1)
    assert await dormant(database, "other", 5000, 9) == (0, [])
    made = ApiToken("t", Kind.SERVICE, "ci", None, "ci", (), (), 1000.0, "ada", 9e9)
    for name, changes in {
        "never": {},
        "long": {"last_used": 2000.0},
        "lately": {"last_used": 8000.0},
        "new": {"created": 8000.0},
        "over": {"expires": 6000.0},
        "ended": {"revoked": 5000.0},
    }.items():
        await directory.tokens.add(replace(made, id=name, **changes), f"hash of {name}")  # type: ignore[arg-type]
    assert await silent(database, "wiki", 5000, 7000) == 2
    assert await silent(database, "other", 5000, 7000) == 0
    how = Insights(dormant=Silence(after="90d"))
    audit = AuditLog([sink := Kept()], clock)
    insight = open_insights(how, MemoryStore(clock), audit, Metrics(), clock, database, "wiki")
    await insight.watch.look()
    clock.now += 7200
    await insight.watch.look()
    await asyncio.to_thread(audit.flush)
    assert [(line["insight"], line["count"]) for line in sink.lines] == [("dormant-accounts", 3)]
    await database.close()
    await directory.close()


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("unix", ""),
        ("", ""),
    ],
)
def test_networks(client: str, network: str) -> None:
    assert network_of(client, 24, 48) == network
