"""Accounts in a real table, whose application forgot the unique index, are made once and kept true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sidecar.config.provision import Provision
from sidecar.config.service import Sessions
from sidecar.config.values import Dsn
from sidecar.directory import Directory
from sidecar.faults import Refused, Unavailable
from sidecar.hooks.hook import StepHook
from sidecar.hooks.order import Order, PlannedCall
from sidecar.model import Account, Change, Identity, Outcome, Person, Result
from sidecar.provision import Provisioner
from sidecar.provision.ensure import Who
from sidecar.provision.making import Made
from sidecar.reason import Reason
from sidecar.sessions.memory import MemoryStore
from sidecar.sessions.opening import open_store
from sidecar.sessions.store import Store

ALICE = Identity("corp", "https://id.example.com", "a1", "alice", "alice@example.com", "Alice", groups=("staff",))
BOB = Identity("corp", "https://id.example.com", "b2", "bob", "bob@example.com", "Bob", groups=())
NOW = 1_000.0


def section_of(url: str, **changes: Any) -> Provision:
    """The section for the test's table, with some of its lines changed (``account__existing="link_verified"``)."""
    by_id = {"id": "{{ account.id }}"}
    plain: dict[str, Any] = {
        "account": {"key": "{{ user.username }}", "protected": ["root"]},
        "attributes": {"email": {"from": "{{ user.email }}", "required": True}},
        "roles": {"managed": ["admin", "editor", "reader"], "default": "reader"},
        "connections": {"db": {"sql": url}},
        "lookup": {
            "sql": {
                "on": "db",
                "query": "SELECT id, email, role, active FROM users WHERE login = :login",
                "params": {"login": "{{ account.key }}"},
            }
        },
        "create": {
            "sql": {
                "on": "db",
                "exec": "INSERT INTO users (login, email, role, active) VALUES (:login, :email, :role, 1)",
                "params": {"login": "{{ account.key }}", "email": "{{ attributes.email }}", "role": "{{ role }}"},
            }
        },
        "update": {
            "sql": {
                "on": "db",
                "exec": "UPDATE users SET email = :email WHERE id = :id",
                "params": {"email": "{{ attributes.email }}", **by_id},
                "affected": 1,
            }
        },
        "set_roles": {
            "sql": {
                "on": "db",
                "exec": "UPDATE users SET role = :role WHERE id = :id",
                "params": {"role": "{{ role }}", **by_id},
                "affected": 1,
            }
        },
        "deactivate": {
            "sql": {"on": "db", "exec": "UPDATE users SET active = 0 WHERE id = :id", "params": by_id, "affected": 1}
        },
        "reactivate": {
            "sql": {"on": "db", "exec": "UPDATE users SET active = 1 WHERE id = :id", "params": by_id, "affected": 1}
        },
        "wait": "60s",
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = plain
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return Provision.model_validate(plain)


@dataclass
class Faults:
    """The real hook, with faults of the network and of this process around it."""

    hook: StepHook
    orders: list[Order] = field(default_factory=list)
    before: dict[Change, Callable[[Order], Any]] = field(default_factory=dict)
    after: dict[Change, Callable[[Outcome], Any]] = field(default_factory=dict)

    def has(self, change: Change) -> bool:
        return self.hook.has(change)

    async def apply(self, order: Order) -> Outcome:
        self.orders.append(order)
        if order.change in self.before and (end := self.before[order.change](order)) is not None:
            await end
        outcome = await self.hook.apply(order)
        if order.change in self.after:
            outcome = self.after[order.change](outcome)
        return outcome

    async def verify(self, order: Order) -> Outcome | None:
        return await self.hook.verify(order)

    def plan(self, order: Order) -> tuple[PlannedCall, ...]:
        return self.hook.plan(order)

    async def probe(self) -> Mapping[str, str]:
        return await self.hook.probe()

    async def close(self) -> None:
        await self.hook.close()

    def sent(self, *changes: Change) -> list[Change]:
        """The changes asked of the application so far, of these kinds (all but lookups when none are given)."""
        wanted = changes or tuple(change for change in Change if change is not Change.LOOKUP)
        return [order.change for order in self.orders if order.change in wanted]


class World:
    """One application with its table, one store, and replicas with a directory of their own connection."""

    def __init__(self, url: str, directory_url: str) -> None:
        self.url = url
        self.directory_url = directory_url
        self.time = NOW
        self.store: Store = MemoryStore(lambda: self.time)
        self.events: list[tuple[str, Mapping[str, object]]] = []
        self.ended: list[str] = []
        self.hooks: list[Faults] = []
        self.directories: list[Directory] = []
        self.engine: AsyncEngine = create_async_engine(url)

    async def prepare(self) -> None:
        serial = {"sqlite": "INTEGER PRIMARY KEY", "postgresql": "SERIAL PRIMARY KEY"}
        number = serial.get(self.engine.dialect.name, "INTEGER AUTO_INCREMENT PRIMARY KEY")
        columns = f"id {number}, login VARCHAR(60), email VARCHAR(100), role VARCHAR(20), active INTEGER"
        async with self.engine.begin() as connection:
            await connection.execute(text(f"CREATE TABLE users ({columns})"))

    async def replica(
        self, store: Store | None = None, *, who: Who | None = None, **changes: Any
    ) -> tuple[Provisioner, Faults, Directory]:
        directory = await Directory.open(self.directory_url, "wiki", 30)
        section = section_of(self.url, **changes)
        hook = Faults(StepHook(section))
        self.hooks.append(hook)
        self.directories.append(directory)

        def record(event: str, fields: Mapping[str, object]) -> None:
            self.events.append((event, fields))

        async def end_sessions(person: Person) -> None:
            self.ended.append(person.id)

        domains = {"corp": ("example.com",)}
        parts = (section, hook, directory, store or self.store, "wiki", lambda: self.time, domains, record)
        provisioner = Provisioner(*parts, end_sessions, **({} if who is None else {"who": who}))
        return provisioner, hook, directory

    async def rows(self) -> list[tuple[str, str, str, int]]:
        async with self.engine.connect() as connection:
            found = await connection.execute(text("SELECT login, email, role, active FROM users ORDER BY id"))
            return [(row[0], row[1], row[2], row[3]) for row in found]

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(statement), values)

    async def insert(self, login: str, email: str = "", role: str = "reader") -> None:
        statement = "INSERT INTO users (login, email, role, active) VALUES (:login, :email, :role, 1)"
        await self.execute(statement, login=login, email=email, role=role)

    def event_names(self) -> list[str]:
        return [event for event, _ in self.events]

    async def close(self) -> None:
        for part in (*self.hooks, *self.directories):
            await part.close()
        await self.engine.dispose()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(f"sqlite+aiosqlite:///{tmp_path}/app.db", f"sqlite:///{tmp_path}/directory.db")
    await made.prepare()
    yield made
    await made.close()


@pytest.fixture
async def big_world(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """The application and the directory on each kind of server."""
    made = World(database_url, directory_url_beside(database_url, tmp_path, request))
    await made.prepare()
    yield made
    await made.close()


def directory_url_beside(url: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if url.startswith("sqlite"):
        return f"sqlite:///{folder}/directory.db"
    kind = "postgres" if url.startswith("postgresql") else "mariadb"
    fresh: str = request.getfixturevalue(f"{kind}_databases")()
    return fresh


async def refusal(work: Any) -> Reason:
    with pytest.raises((Refused, Unavailable)) as end:
        await work
    reason: Reason = end.value.reason
    return reason


# The ordinary way


async def test_the_first_visit_makes_the_account_and_the_second_asks_for_nothing(world: World) -> None:
    provisioner, hook, directory = await world.replica()
    account = await provisioner.ensure(ALICE, ["editor"], NOW)
    assert (account.key, account.id, account.outputs["role"]) == ("alice", "1", "editor")
    assert await world.rows() == [("alice", "alice@example.com", "editor", 1)]
    asked = len(hook.orders)
    assert await provisioner.ensure(ALICE, ["editor"], NOW + 1) == account
    assert await provisioner.ensure(ALICE, ["editor"], NOW + 3600 * 5) == account
    assert len(hook.orders) == asked
    person = await directory.person_by_identity(ALICE.key)
    assert person is not None
    assert (person.account, person.roles, person.last_seen) == (account, ("editor",), NOW + 3600 * 5)
    assert world.event_names() == ["account-created"]


async def test_another_replica_after_a_restart_asks_for_nothing_either(world: World) -> None:
    first, _, _ = await world.replica()
    account = await first.ensure(ALICE, ["editor"], NOW)
    second, hook, _ = await world.replica()
    assert await second.ensure(ALICE, ["editor"], NOW) == account
    assert hook.orders == []


async def gone(_key: str) -> Person | None:
    raise Unavailable(Reason.DIRECTORY_DOWN)


async def test_a_remembered_person_costs_neither_the_store_nor_the_directory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioner, _, directory = await world.replica()
    account = await provisioner.ensure(ALICE, ["editor"], NOW)
    monkeypatch.setattr(directory, "person_by_identity", gone)
    assert await provisioner.ensure(ALICE, ["editor"], NOW + 59) == account
    assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW + 61)) is Reason.DIRECTORY_DOWN


async def test_a_changed_role_is_set_and_said_by_name(world: World) -> None:
    provisioner, hook, _ = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    await provisioner.ensure(ALICE, ["admin"], NOW)
    assert (await world.rows())[0][2] == "admin"
    assert hook.sent() == [Change.CREATE, Change.SET_ROLES]
    event, fields = world.events[-1]
    assert (event, fields["before"], fields["after"]) == ("roles-changed", ["editor"], ["admin"])
    await provisioner.ensure(ALICE, [], NOW)
    assert (await world.rows())[0][2] == "reader"


async def test_a_changed_attribute_is_written_and_its_value_is_not_said(world: World) -> None:
    provisioner, hook, _ = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    await provisioner.ensure(replace(ALICE, email="new@example.com"), ["editor"], NOW)
    assert (await world.rows())[0][1] == "new@example.com"
    assert hook.sent() == [Change.CREATE, Change.UPDATE]
    assert world.events[-1][0] == "account-updated"
    assert world.events[-1][1]["attributes"] == ["email"]
    assert "new@example.com" not in str(world.events)


async def test_a_group_claim_that_is_missing_takes_nothing_away(world: World) -> None:
    provisioner, hook, _ = await world.replica()
    await provisioner.ensure(ALICE, ["admin"], NOW)
    await provisioner.ensure(replace(ALICE, groups=None), [], NOW)
    assert (await world.rows())[0][2] == "admin"
    assert hook.sent() == [Change.CREATE]
    # And when the provider says again that there are none, that counts, although the roles are the same.
    await provisioner.ensure(replace(ALICE, groups=()), [], NOW)
    assert (await world.rows())[0][2] == "reader"


async def test_a_role_that_the_application_gave_itself_and_that_is_not_managed_stays(world: World) -> None:
    provisioner, _, _ = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    await world.execute("UPDATE users SET role = 'owner'")
    await provisioner.ensure(ALICE, ["admin"], NOW)
    assert (await world.rows())[0][2] == "owner"


async def test_a_changed_section_provisions_once_more(world: World) -> None:
    first, _, _ = await world.replica()
    await first.ensure(ALICE, ["editor"], NOW)
    await world.execute("UPDATE users SET email = 'old@example.com'")
    section = {"roles__default": "editor"}
    second, hook, _ = await world.replica(**section)
    await second.ensure(ALICE, ["editor"], NOW)
    third, unasked, _ = await world.replica(**section)
    await third.ensure(ALICE, ["editor"], NOW)
    assert (hook.sent(), unasked.orders) == ([Change.UPDATE], [])


# Once, however many ask


async def test_t70_fifty_first_requests_on_two_replicas_make_one_account(big_world: World) -> None:
    one, first, _ = await big_world.replica()
    two, second, _ = await big_world.replica()
    requests = [place.ensure(ALICE, ("editor",), NOW) for place in (one, two) * 25]
    accounts = await asyncio.gather(*requests)
    assert len(await big_world.rows()) == 1
    assert len({account.id for account in accounts}) == 1
    assert len(first.sent(Change.CREATE) + second.sent(Change.CREATE)) == 1
    assert big_world.event_names() == ["account-created"]


@pytest.fixture
async def stores(redis_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """The same Redis, seen by two replicas."""
    section = Sessions(redis=Dsn(redis_url))
    both = open_store(section, time.time), open_store(section, time.time)
    yield both
    for store in both:
        await store.close()


async def test_t70_two_replicas_with_redis_make_one_account(world: World, stores: tuple[Store, Store]) -> None:
    replicas = [(await world.replica(store))[0] for store in stores]
    accounts = await asyncio.gather(*[place.ensure(ALICE, (), NOW) for place in replicas * 25])
    assert len(await world.rows()) == 1
    assert {account.id for account in accounts} == {"1"}


async def test_t68_another_replica_hears_through_redis_that_somebody_was_switched_off(
    world: World, stores: tuple[Store, Store]
) -> None:
    here, _, directory = await world.replica(stores[0])
    there, _, _ = await world.replica(stores[1])
    for place in (here, there):
        await place.ensure(ALICE, (), NOW)
    forgotten = asyncio.Event()
    there._changes.listen(lambda _person_id: forgotten.set(), lambda: None)
    await switch_off(world, here, directory)
    async with asyncio.timeout(5):
        await forgotten.wait()
    assert await refusal(there.ensure(ALICE, (), NOW)) is Reason.PERSON_DISABLED


async def test_two_people_who_want_the_same_key_at_once_get_one_account_for_one_of_them(big_world: World) -> None:
    replicas = [(await big_world.replica())[0] for _ in range(2)]
    twins = [replace(ALICE, subject=str(number), username=name) for number, name in enumerate(("ann", "ANN"))]
    ends = await asyncio.gather(
        *[place.ensure(twin, ("editor",), NOW) for place, twin in zip(replicas, twins, strict=True)],
        return_exceptions=True,
    )
    assert sorted(type(end).__name__ for end in ends) == ["Account", "Refused"]
    assert len(await big_world.rows()) == 1


async def told(began: asyncio.Event, gate: asyncio.Event) -> None:
    began.set()
    await gate.wait()


async def test_whoever_waits_too_long_for_somebody_else_is_told_so(world: World) -> None:
    provisioner, hook, _ = await world.replica(wait="50ms")
    began, stuck = asyncio.Event(), asyncio.Event()
    hook.before[Change.CREATE] = lambda _order: told(began, stuck)
    other, _, _ = await world.replica(wait="50ms")
    first = asyncio.create_task(provisioner.ensure(ALICE, (), NOW))
    await began.wait()
    assert await refusal(other.ensure(ALICE, (), NOW)) is Reason.PROVISIONING_DOWN
    stuck.set()
    assert (await first).id == "1"


async def test_nobody_touches_an_account_while_somebody_else_has_its_turn(world: World) -> None:
    provisioner, hook, _ = await world.replica(wait="50ms")
    async with provisioner._turn("account", "alice"):
        assert await refusal(provisioner.ensure(replace(ALICE, username="Alice"), (), NOW)) is Reason.PROVISIONING_DOWN
    assert hook.orders == []


async def test_a_request_that_goes_away_does_not_leave_a_creation_half_way(world: World) -> None:
    provisioner, hook, directory = await world.replica()
    began, gate = asyncio.Event(), asyncio.Event()
    hook.before[Change.CREATE] = lambda _order: told(began, gate)
    request = asyncio.create_task(provisioner.ensure(ALICE, (), NOW))
    await began.wait()
    request.cancel()
    gate.set()
    await provisioner.close()
    person = await directory.person_by_identity(ALICE.key)
    assert person is not None
    assert person.account is not None
    assert person.fingerprint


# Things break


def unknown(_outcome: Outcome) -> Outcome:
    return Outcome(Result.UNKNOWN, detail="time-out")


def unreachable(*_: object) -> Any:
    raise Unavailable(Reason.PROVISIONING_DOWN, "connection refused")


class Killed(BaseException):
    """The process dies here."""


def killed(*_: object) -> Any:
    raise Killed


async def test_t70_a_time_out_after_the_application_committed_finds_the_account(world: World) -> None:
    provisioner, hook, _ = await world.replica()
    hook.after[Change.CREATE] = unknown
    account = await provisioner.ensure(ALICE, ["editor"], NOW)
    assert account.id == "1"
    assert not account.linked
    assert len(await world.rows()) == 1
    assert hook.sent(Change.CREATE) == [Change.CREATE]
    assert world.event_names() == ["account-created"]


async def test_t70_a_create_that_commits_only_after_we_gave_up_is_found_at_the_next_visit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioner, hook, directory = await world.replica()

    async def times_out(order: Order) -> None:
        raise _LostError

    hook.before[Change.CREATE] = times_out
    real = hook.apply

    async def apply(order: Order) -> Outcome:
        try:
            return await real(order)
        except _LostError:
            return Outcome(Result.UNKNOWN, detail="time-out")

    monkeypatch.setattr(hook, "apply", apply)
    assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW)) is Reason.PROVISIONING_DOWN
    begun = await directory.person_by_identity(ALICE.key)
    assert begun is not None
    assert (begun.account, begun.reserved) == (None, "alice")
    await world.insert("alice", "alice@example.com", "editor")
    account = await provisioner.ensure(ALICE, ["editor"], NOW)
    assert (account.id, account.linked) == ("1", False)
    assert len(await world.rows()) == 1


class _LostError(Exception):
    pass


async def test_t70_a_create_that_never_arrived_is_sent_again_with_the_same_idempotency_key(world: World) -> None:
    provisioner, hook, _ = await world.replica()
    # The first answer is lost, and so is the row: the application rolled back.
    hook.after[Change.CREATE] = unknown
    looks: list[Order] = []

    async def rolled_back(order: Order) -> None:
        looks.append(order)
        if len(looks) == 2:
            await world.execute("DELETE FROM users")

    hook.before[Change.LOOKUP] = rolled_back
    assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW)) is Reason.PROVISIONING_DOWN
    hook.after.clear()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    keys = [order.idempotency for order in hook.orders if order.change is Change.CREATE]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert keys[0]
    assert len(await world.rows()) == 1


async def test_t70_an_application_that_is_down_is_said_and_nothing_is_recorded(world: World) -> None:
    provisioner, hook, directory = await world.replica()
    for change in (Change.LOOKUP, Change.CREATE):
        hook.before = {change: unreachable}
        assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW)) is Reason.PROVISIONING_DOWN
        person = await directory.person_by_identity(ALICE.key)
        assert person is None or (person.account, person.reserved) == (None, "")
    assert await directory.holders("alice", "") == frozenset()
    assert world.event_names() == ["provisioning-failed"] * 2
    hook.before.clear()
    assert (await provisioner.ensure(ALICE, ["editor"], NOW)).id == "1"


@pytest.mark.parametrize("where", ["before create", "after create", "while recording"])
async def test_a_process_that_dies_in_the_middle_leaves_no_double_and_no_orphan(
    world: World, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioner, hook, directory = await world.replica()
    if where == "before create":
        hook.before[Change.CREATE] = killed
    elif where == "after create":
        hook.after[Change.CREATE] = killed
    else:
        monkeypatch.setattr(directory, "settle", killed)
    with pytest.raises(Killed):
        await provisioner._settled(ALICE, ("editor",), NOW)
    # The dead one's turn ends with its lease.
    world.time += 31
    survivor, _, records = await world.replica()
    account = await survivor.ensure(ALICE, ["editor"], NOW)
    assert (account.id, account.linked) == ("1", False)
    assert await world.rows() == [("alice", "alice@example.com", "editor", 1)]
    person = await records.person_by_identity(ALICE.key)
    assert person is not None
    assert (person.account, person.reserved) == (account, "")


async def test_roles_that_were_half_changed_when_the_process_died_are_looked_at_again(world: World) -> None:
    provisioner, hook, _ = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    hook.after[Change.SET_ROLES] = killed
    with pytest.raises(Killed):
        await provisioner._settled(ALICE, ("admin",), NOW)
    world.time += 31
    survivor, _, _ = await world.replica()
    await survivor.ensure(ALICE, ["editor"], NOW)
    assert (await world.rows())[0][2] == "editor"


async def test_a_create_that_conflicts_never_becomes_a_link(world: World) -> None:
    provisioner, hook, directory = await world.replica()

    async def somebody_else_first(order: Order) -> None:
        await world.insert("alice", "eve@example.com")

    hook.before[Change.CREATE] = somebody_else_first
    hook.after[Change.CREATE] = lambda _outcome: Outcome(Result.CONFLICT)
    await world.execute("CREATE UNIQUE INDEX only_once ON users (login)")
    for _ in range(2):
        assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW)) is Reason.ACCOUNT_EXISTS
    assert hook.sent(Change.CREATE) == [Change.CREATE]
    assert await directory.holders("alice", "1") == frozenset()
    assert await world.rows() == [("alice", "eve@example.com", "reader", 1)]


async def test_a_conflict_does_not_make_the_account_ours_when_the_application_is_down_afterwards(world: World) -> None:
    provisioner, hook, _ = await world.replica()

    async def somebody_else_first(order: Order) -> None:
        await world.insert("alice", "alice@example.com")
        hook.before[Change.LOOKUP] = unreachable

    hook.before[Change.CREATE] = somebody_else_first
    hook.after[Change.CREATE] = lambda _outcome: Outcome(Result.CONFLICT)
    assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW)) is Reason.PROVISIONING_DOWN
    await world.execute("DELETE FROM users WHERE id = 2")
    hook.before.clear()
    hook.after.clear()
    assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW)) is Reason.ACCOUNT_EXISTS


async def test_what_the_application_does_not_want_is_refused_and_forgotten(world: World) -> None:
    provisioner, hook, directory = await world.replica(create={"sql": {"on": "db", "exec": "DELETE FROM users"}})
    hook.after[Change.CREATE] = lambda _outcome: Outcome(Result.REFUSED, detail="422")
    assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW)) is Reason.ACCOUNT_REFUSED
    assert await directory.holders("alice", "") == frozenset()


async def test_somebody_with_an_account_comes_in_when_only_an_attribute_cannot_be_written(world: World) -> None:
    provisioner, hook, _ = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    hook.before[Change.UPDATE] = unreachable
    married = replace(ALICE, email="new@example.com")
    for _ in range(3):
        assert (await provisioner.ensure(married, ["admin"], NOW)).id == "1"
    # Not at every request.
    assert hook.sent(Change.UPDATE, Change.SET_ROLES) == [Change.UPDATE, Change.SET_ROLES]
    assert world.event_names()[-2:] == ["provisioning-failed", "roles-changed"]
    assert (await world.rows())[0] == ("alice", "alice@example.com", "admin", 1)
    hook.before.clear()
    await provisioner.ensure(married, ["admin"], NOW + 61)
    assert (await world.rows())[0][1] == "new@example.com"


async def test_an_attribute_that_cannot_be_written_keeps_people_out_where_that_is_wanted(world: World) -> None:
    provisioner, hook, _ = await world.replica(on_error__update="deny")
    await provisioner.ensure(ALICE, ["editor"], NOW)
    hook.before[Change.UPDATE] = unreachable
    married = replace(ALICE, email="new@example.com")
    assert await refusal(provisioner.ensure(married, ["editor"], NOW)) is Reason.PROVISIONING_DOWN


@pytest.mark.parametrize("on_error", ["deny", "allow_existing"])
async def test_a_role_that_cannot_be_taken_away_keeps_people_out(world: World, on_error: str) -> None:
    provisioner, hook, _ = await world.replica(on_error__set_roles=on_error)
    await provisioner.ensure(ALICE, ["admin"], NOW)
    hook.before[Change.SET_ROLES] = unreachable
    assert await refusal(provisioner.ensure(ALICE, ["reader"], NOW)) is Reason.PROVISIONING_DOWN
    # The fingerprint of before is not believed any more.
    hook.before.clear()
    await provisioner.ensure(ALICE, ["reader"], NOW)
    assert (await world.rows())[0][2] == "reader"


async def test_an_answer_that_did_nothing_is_found_out_by_verify(world: World) -> None:
    check = "SELECT id FROM users WHERE id = :id AND role = :role"
    params = {"id": "{{ account.id }}", "role": "{{ role }}"}
    verify = {"sql": {"on": "db", "query": check, "params": params}}
    idle = {"sql": {"on": "db", "exec": "UPDATE users SET role = role"}}
    first, _, _ = await world.replica()
    await first.ensure(ALICE, ["editor"], NOW)
    second, _, _ = await world.replica(verify=verify, set_roles=idle)
    assert await refusal(second.ensure(ALICE, ["admin"], NOW)) is Reason.PROVISIONING_DOWN


# Who may have which account


async def test_an_account_that_was_there_before_is_not_taken_over(world: World) -> None:
    await world.insert("alice", "alice@example.com", "admin")
    provisioner, hook, directory = await world.replica()
    assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW)) is Reason.ACCOUNT_EXISTS
    assert hook.sent() == []
    assert await directory.person_by_identity(ALICE.key) is None
    event, fields = world.events[-1]
    assert (event, fields["reason"]) == ("account-refused", "account-exists")


async def test_t67_an_account_is_linked_by_a_verified_address_where_that_is_wanted(world: World) -> None:
    await world.insert("alice", "ALICE@example.com", "admin")
    provisioner, hook, directory = await world.replica(account__existing="link_verified")
    account = await provisioner.ensure(ALICE, ["editor"], NOW)
    assert (account.id, account.linked) == ("1", True)
    assert world.event_names() == ["account-linked", "account-updated", "roles-changed"]
    assert hook.sent() == [Change.UPDATE, Change.SET_ROLES]
    assert await directory.holders("", "1")


async def test_t67_nobody_links_by_an_address_that_is_not_verified_or_not_that_accounts(world: World) -> None:
    await world.insert("alice", "alice@example.com", "admin")
    await world.insert("root2", "root@example.com", "admin")
    provisioner, _, _ = await world.replica(account__existing="link_verified", attributes={})
    for impostor in (replace(ALICE, email=""), replace(ALICE, username="root2"), replace(ALICE, provider="partners")):
        assert await refusal(provisioner.ensure(impostor, ["editor"], NOW)) is Reason.ACCOUNT_EXISTS


async def test_two_accounts_with_one_name_are_nobodys(world: World) -> None:
    for _ in range(2):
        await world.insert("alice", "alice@example.com")
    provisioner, _, _ = await world.replica(account__existing="link_verified")
    assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW)) is Reason.ACCOUNT_AMBIGUOUS


async def test_a_protected_account_is_neither_made_nor_touched(world: World) -> None:
    provisioner, hook, _ = await world.replica(account__existing="link_verified")
    for _ in range(2):
        assert await refusal(provisioner.ensure(replace(ALICE, username="ROOT"), (), NOW)) is Reason.ACCOUNT_PROTECTED
        await world.insert("ROOT", "alice@example.com")
    assert hook.sent() == []


@pytest.mark.parametrize("existing", ["deny", "link_verified"])
async def test_t69_a_recycled_user_name_does_not_inherit_the_account(world: World, existing: str) -> None:
    provisioner, hook, _ = await world.replica(account__existing=existing)
    await provisioner.ensure(ALICE, ["admin"], NOW)
    newcomer = replace(ALICE, subject="a2")
    assert await refusal(provisioner.ensure(newcomer, ["editor"], NOW)) is Reason.ACCOUNT_BOUND
    # Nor after the account was deleted in the application: the old person may still come back to it.
    await world.execute("DELETE FROM users")
    assert await refusal(provisioner.ensure(newcomer, ["editor"], NOW)) is Reason.ACCOUNT_BOUND
    assert hook.sent() == [Change.CREATE]


async def test_t67_one_person_by_two_logins_has_one_account_only_where_that_is_wanted(world: World) -> None:
    by_other = replace(ALICE, issuer="https://idp.example.com", subject="pairwise-1")
    strict, hook, directory = await world.replica(account__existing="link_verified")
    first = await strict.ensure(ALICE, ["editor"], NOW)
    assert await refusal(strict.ensure(by_other, ["editor"], NOW)) is Reason.ACCOUNT_BOUND
    joining, _, _ = await world.replica(account__other_login="join_verified")
    assert await refusal(joining.ensure(replace(by_other, email=""), ["editor"], NOW)) is Reason.ACCOUNT_ATTRIBUTE
    again = await joining.ensure(by_other, ["editor"], NOW)
    assert (again.key, again.id) == (first.key, first.id)
    assert "account-linked" in world.event_names()
    assert len(await world.rows()) == 1
    assert hook.sent() == [Change.CREATE]
    person = await directory.person_by_identity(by_other.key)
    assert person is not None
    assert set(person.identities) == {ALICE.key, by_other.key}
    # Somebody who is switched off is switched off by both doors.
    await joining.disable(person.id, "scim", NOW)
    for who in (ALICE, by_other):
        assert await refusal(joining.ensure(who, ["editor"], NOW)) is Reason.PERSON_DISABLED


async def test_t69_a_person_keeps_the_account_when_their_name_changes(world: World) -> None:
    provisioner, hook, _ = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    account = await provisioner.ensure(replace(ALICE, username="alice.b"), ["editor"], NOW)
    assert (account.key, account.id) == ("alice", "1")
    assert hook.sent() == [Change.CREATE]
    assert len(await world.rows()) == 1


async def test_an_account_that_we_made_and_somebody_deleted_is_made_anew(world: World) -> None:
    provisioner, _, _ = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    await world.execute("DELETE FROM users")
    await world.insert("somebody", "else")
    account = await provisioner.ensure(ALICE, ["admin"], NOW)
    assert (account.key, account.outputs["role"]) == ("alice", "admin")
    assert len(await world.rows()) == 2


async def test_a_linked_account_that_somebody_deleted_is_not_made_anew(world: World) -> None:
    await world.insert("alice", "alice@example.com")
    provisioner, hook, _ = await world.replica(account__existing="link_verified")
    await provisioner.ensure(ALICE, ["editor"], NOW)
    await world.execute("DELETE FROM users")
    assert await refusal(provisioner.ensure(ALICE, ["admin"], NOW)) is Reason.ACCOUNT_GONE
    assert hook.sent(Change.CREATE) == []


async def test_an_account_that_was_replaced_by_another_of_the_same_name_is_not_inherited(world: World) -> None:
    provisioner, _, _ = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    await world.insert("alice", "eve@example.com", "admin")
    await world.execute("DELETE FROM users WHERE id = 1")
    assert await refusal(provisioner.ensure(ALICE, ["admin"], NOW)) is Reason.ACCOUNT_GONE


async def test_somebody_without_a_required_attribute_gets_no_account(world: World) -> None:
    provisioner, hook, _ = await world.replica()
    assert await refusal(provisioner.ensure(replace(ALICE, email=""), (), NOW)) is Reason.ACCOUNT_ATTRIBUTE
    assert hook.orders == []


@pytest.mark.parametrize("subject", ["a\x00", "a\ud800"])
async def test_a_subject_that_cannot_be_kept_exactly_gets_no_account(world: World, subject: str) -> None:
    provisioner, hook, _ = await world.replica()
    impossible = replace(ALICE, subject=subject)
    assert await refusal(provisioner.ensure(impossible, ["editor"], NOW)) is Reason.IDENTITY_INCOMPLETE
    assert hook.sent() == []


async def test_t71_what_a_person_is_called_is_only_ever_a_value(world: World) -> None:
    provisioner, _, _ = await world.replica()
    name = "'; DROP TABLE users; -- {{ 7 * 7 }} *)(uid=*"
    await provisioner.ensure(replace(ALICE, username=name), (), NOW)
    assert (await world.rows())[0][0] == name


# Switching people off


async def switch_off(world: World, provisioner: Provisioner, directory: Directory, who: Identity = ALICE) -> Person:
    person = await directory.person_by_identity(who.key)
    assert person is not None
    return await provisioner.disable(person.id, "hr", world.time)


async def test_t68_somebody_who_is_switched_off_is_refused_at_once_on_every_replica(world: World) -> None:
    provisioner, _, directory = await world.replica()
    other, _, _ = await world.replica()
    for place in (provisioner, other):
        await place.ensure(ALICE, ["editor"], NOW)
    person = await switch_off(world, provisioner, directory)
    assert world.ended == [person.id]
    for place in (provisioner, other):
        assert await refusal(place.ensure(ALICE, ["editor"], NOW)) is Reason.PERSON_DISABLED
    assert world.event_names() == ["account-created", "person-disabled", "account-refused", "account-refused"]


async def test_the_memory_is_not_trusted_while_no_word_comes_from_other_replicas(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioner, _, directory = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    person = await directory.person_by_identity(ALICE.key)
    assert person is not None
    await directory.disable(person.id, "hr", NOW)
    await provisioner.ensure(ALICE, ["editor"], NOW)
    monkeypatch.setattr(MemoryStore, "is_watching", False)
    assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW)) is Reason.PERSON_DISABLED


async def test_a_deactivation_that_comes_in_the_middle_of_a_creation_wins(world: World) -> None:
    provisioner, hook, directory = await world.replica()
    await directory.admit(ALICE, NOW)

    async def meanwhile(order: Order) -> None:
        await switch_off(world, provisioner, directory)

    hook.before[Change.CREATE] = meanwhile
    assert await refusal(provisioner.ensure(ALICE, ["editor"], NOW)) is Reason.PERSON_DISABLED
    assert await provisioner.outbox.work_off() == 1
    assert (await world.rows())[0][3] == 0


async def test_somebody_switched_off_at_the_last_moment_is_not_remembered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioner, _, directory = await world.replica()
    settled = provisioner._settled

    async def and_then_off(identity: Identity, roles: tuple[str, ...], now: float) -> Made:
        made = await settled(identity, roles, now)
        await switch_off(world, provisioner, directory)
        return made

    await provisioner.ensure(BOB, (), NOW)
    monkeypatch.setattr(provisioner, "_settled", and_then_off)
    await provisioner.ensure(ALICE, (), NOW)
    monkeypatch.undo()
    assert await refusal(provisioner.ensure(ALICE, (), NOW)) is Reason.PERSON_DISABLED


async def test_a_begun_creation_is_not_repeated_for_somebody_switched_off_meanwhile(world: World) -> None:
    provisioner, hook, directory = await world.replica()
    hook.before[Change.CREATE] = killed
    with pytest.raises(Killed):
        await provisioner._settled(ALICE, (), NOW)
    world.time += 31

    async def meanwhile(order: Order) -> None:
        hook.before.clear()
        await switch_off(world, provisioner, directory)

    hook.before = {Change.LOOKUP: meanwhile}
    assert await refusal(provisioner.ensure(ALICE, (), NOW)) is Reason.PERSON_DISABLED
    assert await world.rows() == []


async def test_sessions_end_also_when_whoever_switched_the_person_off_died_before_that(world: World) -> None:
    provisioner, _, directory = await world.replica()
    await provisioner.ensure(ALICE, (), NOW)
    person = await directory.person_by_identity(ALICE.key)
    assert person is not None
    await directory.disable(person.id, "hr", NOW)
    await provisioner.outbox.work_off()
    assert world.ended == [person.id]
    assert await refusal(provisioner.ensure(ALICE, (), NOW)) is Reason.PERSON_DISABLED


async def test_somebody_switched_on_before_the_deactivation_began_keeps_the_account(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioner, hook, directory = await world.replica()
    await provisioner.ensure(ALICE, (), NOW)
    person = await switch_off(world, provisioner, directory)
    ended = provisioner.outbox._end_sessions

    async def and_then_on(who: Person) -> None:
        await ended(who)
        await provisioner.enable(person.id, "hr", NOW)

    monkeypatch.setattr(provisioner.outbox, "_end_sessions", and_then_on)
    assert await provisioner.outbox.work_off() == 1
    assert hook.sent(Change.DEACTIVATE) == []
    assert (await world.rows())[0][3] == 1


async def test_the_outbox_deactivates_the_account_and_signing_in_again_reactivates_it(world: World) -> None:
    provisioner, hook, directory = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    person = await switch_off(world, provisioner, directory)
    assert await provisioner.outbox.work_off() == 1
    assert await provisioner.outbox.work_off() == 0
    assert (await world.rows())[0][3] == 0
    assert await refusal(provisioner.enable(person.id, "admin", NOW)) is Reason.PERSON_DISABLED
    await provisioner.enable(person.id, "hr", NOW)
    account = await provisioner.ensure(ALICE, ["editor"], NOW)
    assert not account.deactivated
    assert (await world.rows())[0][3] == 1
    assert hook.sent() == [Change.CREATE, Change.DEACTIVATE, Change.REACTIVATE]
    events = ["account-created", "person-disabled", "account-deactivated", "account-refused"]
    assert [event for event in world.event_names() if event in events[:3]] == events[:3]
    assert world.event_names()[-2:] == ["person-enabled", "account-reactivated"]


@pytest.mark.parametrize("end", [killed, unknown])
async def test_whoever_comes_back_gets_in_again_when_nobody_noted_that_we_switched_them_off(
    world: World, end: Callable[[Outcome], Any]
) -> None:
    provisioner, hook, directory = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    person = await switch_off(world, provisioner, directory)
    hook.after[Change.DEACTIVATE] = end
    with suppress(Killed):
        await provisioner.outbox.work_off()
    assert (await world.rows())[0][3] == 0
    world.time += 31
    survivor, _, _ = await world.replica()
    await survivor.enable(person.id, "hr", NOW)
    await survivor.ensure(ALICE, ["editor"], NOW)
    assert (await world.rows())[0][3] == 1


async def test_a_deactivation_that_the_application_refuses_did_not_happen(world: World) -> None:
    provisioner, hook, directory = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    person = await switch_off(world, provisioner, directory)
    hook.after[Change.DEACTIVATE] = lambda _outcome: Outcome(Result.REFUSED, detail="no")
    await provisioner.outbox.work_off()
    known = await directory.person(person.id)
    assert known is not None
    assert known.account is not None
    assert not known.account.deactivated


async def test_an_account_that_an_administrator_switched_off_stays_off(world: World) -> None:
    provisioner, hook, _ = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    await world.execute("UPDATE users SET active = 0")
    assert await refusal(provisioner.ensure(ALICE, ["admin"], NOW)) is Reason.ACCOUNT_REFUSED
    assert hook.sent() == [Change.CREATE]


async def test_a_deactivation_that_fails_is_tried_until_it_is_done(world: World) -> None:
    provisioner, hook, directory = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    hook.before[Change.DEACTIVATE] = unreachable
    await switch_off(world, provisioner, directory)
    pauses = []
    for _ in range(4):
        assert await provisioner.outbox.work_off() == 1
        began = world.time
        while not (await directory.outbox.due(world.time, 0)):
            world.time += 5
        pauses.append(world.time - began)
    # Luck takes up to a quarter off, and the clock of this test goes by five seconds.
    assert pauses[:3] == [5, 10, 20]
    assert pauses[3] in (30, 35, 40)
    hook.before.clear()
    # Another replica, after a restart.
    survivor, _, _ = await world.replica()
    assert await survivor.outbox.work_off() == 1
    assert (await world.rows())[0][3] == 0
    assert await survivor.outbox.work_off() == 0


async def test_a_deactivation_that_verify_does_not_confirm_is_not_done(world: World) -> None:
    check = "SELECT id FROM users WHERE id = :id AND (active = 0 OR :change <> 'deactivate')"
    params = {"id": "{{ account.id }}", "change": "{{ change }}"}
    idle = {"sql": {"on": "db", "exec": "UPDATE users SET active = active"}}
    section = {"verify": {"sql": {"on": "db", "query": check, "params": params}}, "deactivate": idle}
    first, _, _ = await world.replica()
    await first.ensure(ALICE, ["editor"], NOW)
    provisioner, _, directory = await world.replica(**section)
    await switch_off(world, provisioner, directory)
    assert await provisioner.outbox.work_off() == 1
    event, fields = world.events[-1]
    assert (event, fields["change"]) == ("provisioning-failed", "deactivate")
    world.time += 3600
    assert await provisioner.outbox.work_off() == 1


async def test_several_replicas_share_the_deactivations_without_doubling(big_world: World) -> None:
    replicas = [await big_world.replica() for _ in range(2)]
    provisioner, _, directory = replicas[0]
    people = [replace(BOB, subject=str(number), username=f"bob{number}") for number in range(6)]
    for who in people:
        await provisioner.ensure(who, (), NOW)
        await switch_off(big_world, provisioner, directory, who)
    worked = await asyncio.gather(*[place.outbox.work_off() for place, _, _ in replicas])
    assert sum(worked) == 6
    assert sum(len(hook.sent(Change.DEACTIVATE)) for _, hook, _ in replicas) == 6
    assert {row[3] for row in await big_world.rows()} == {0}


async def test_an_account_that_is_gone_needs_no_deactivation(world: World) -> None:
    provisioner, _, directory = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    await world.execute("DELETE FROM users")
    await switch_off(world, provisioner, directory)
    assert await provisioner.outbox.work_off() == 1
    world.time += 3600
    assert await provisioner.outbox.work_off() == 0


async def test_a_protected_account_is_not_deactivated_either(world: World) -> None:
    provisioner, _, directory = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    guarded, _, _ = await world.replica(account__protected=["Alice"])
    await switch_off(world, provisioner, directory)
    assert await guarded.outbox.work_off() == 1
    world.time += 99_999
    assert await guarded.outbox.work_off() == 0
    assert (await world.rows())[0][3] == 1


async def test_the_worker_runs_until_it_is_stopped_and_wakes_at_once(world: World) -> None:
    provisioner, _, directory = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    done = asyncio.Event()
    provisioner._journal._record = lambda event, _fields: done.set() if event == "account-deactivated" else None
    worker = asyncio.create_task(provisioner.outbox.run())
    await switch_off(world, provisioner, directory)
    async with asyncio.timeout(4):
        await done.wait()
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker


# Looking ahead


async def test_a_plan_says_what_would_be_done_and_does_nothing(world: World) -> None:
    provisioner, hook, directory = await world.replica()
    plan = await provisioner.plan(ALICE, ["editor"], NOW)
    assert (plan.found, plan.is_assumed, plan.is_settled) == (Result.NOT_FOUND, True, False)
    assert plan.verdict.changes == (Change.CREATE,)
    assert [call.step.partition(".")[0].partition("[")[0] for call in (*plan.lookup, *plan.calls)] == [
        "lookup",
        "create",
        "set_roles",
    ]
    assert hook.orders == []
    assert await world.rows() == []
    assert await directory.person_by_identity(ALICE.key) is None
    assert world.events == []


async def test_a_plan_that_probes_looks_for_real(world: World) -> None:
    await world.insert("alice", "eve@example.com")
    provisioner, hook, _ = await world.replica()
    plan = await provisioner.plan(ALICE, ["editor"], NOW, probe=True)
    assert (plan.found, plan.is_assumed, plan.verdict.refused) == (Result.FOUND, False, Reason.ACCOUNT_EXISTS)
    assert plan.calls == ()
    assert hook.sent() == []


async def test_a_plan_for_somebody_in_order_is_empty(world: World) -> None:
    provisioner, _, _ = await world.replica()
    await provisioner.ensure(ALICE, ["editor"], NOW)
    plan = await provisioner.plan(ALICE, ["editor"], NOW)
    assert (plan.is_settled, plan.calls) == (True, ())


async def test_no_generated_password_is_kept_anywhere(world: World) -> None:
    provisioner, hook, directory = await world.replica()
    account: Account = await provisioner.ensure(ALICE, ["editor"], NOW)
    (password,) = [order.generated["password"] for order in hook.orders if order.change is Change.CREATE]
    assert len(password) >= 24
    person = await directory.person_by_identity(ALICE.key)
    assert password not in f"{account} {person} {world.events} {hook.orders}"
