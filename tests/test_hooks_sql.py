"""SQL steps against real SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sidecar.config.provision import Provision
from sidecar.config.values import Surroundings
from sidecar.core.template import Compiler
from sidecar.faults import Unavailable
from sidecar.hooks.hook import StepHook
from sidecar.hooks.order import Order
from sidecar.hooks.passwords import FILTERS
from sidecar.model import Account, Change, Identity, Result
from sidecar.reason import Reason
from tests.services.mariadb import MariadbServer
from tests.services.postgres import PostgresServer

ANN = Identity("corp", "https://id.example.com", "7", "ann", "ann@example.com", "Ann Ümlaut", ("staff",))
ORDER = Order(Change.LOOKUP, ANN, Account("ann"), now=1767225600.0, idempotency="k1")
FIND = {
    "sql": {
        "on": "db",
        "query": "SELECT id, role FROM users WHERE login = :login",
        "params": {"login": "{{ account.key }}"},
    }
}
TABLES = {
    "sqlite": ("id INTEGER PRIMARY KEY", "BOOLEAN", "BLOB"),
    "postgresql": ("id SERIAL PRIMARY KEY", "BOOLEAN", "BYTEA"),
    "mysql": ("id INTEGER PRIMARY KEY AUTO_INCREMENT", "BOOLEAN", "VARBINARY(16)"),
}

MakeHook = Callable[..., StepHook]
Query = Callable[[str], Awaitable[list[tuple[Any, ...]]]]


def section(url: str, **steps: Any) -> Provision:
    """The configuration section with one SQL connection, as the file would have it."""
    timeout = steps.pop("timeout", "5s")
    plain = {
        "account": {"key": "{{ user.username }}"},
        "connections": {"db": {"sql": url, "timeout": timeout}},
        "lookup": FIND,
        **steps,
    }
    return Provision.model_validate(plain, context=Surroundings(Path("/"), {}, Compiler(FILTERS)))


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The application's own view of its database, with two old users."""
    engine = create_async_engine(database_url)
    key, boolean, binary = TABLES[engine.dialect.name]
    async with engine.begin() as connection:
        await connection.execute(
            text(
                f"CREATE TABLE users ({key}, login VARCHAR(20) NOT NULL UNIQUE, email VARCHAR(80), role VARCHAR(20),"
                f" active {boolean} NOT NULL DEFAULT true, age INTEGER, born DATE, secret {binary},"
                " password VARCHAR(200))"
            )
        )
        await connection.execute(text("CREATE TABLE grants (user_id INTEGER NOT NULL, role VARCHAR(20) NOT NULL)"))
        await connection.execute(text("INSERT INTO users (login, role) VALUES ('root', 'admin'), ('bob', 'reader')"))
    yield engine
    await engine.dispose()


@pytest.fixture
async def make_hook(engine: AsyncEngine, database_url: str) -> AsyncIterator[MakeHook]:
    """A hook on that database, from steps."""
    hooks: list[StepHook] = []

    def make(**steps: Any) -> StepHook:
        hooks.append(StepHook(section(database_url, **steps)))
        return hooks[-1]

    yield make
    for hook in hooks:
        await hook.close()


@pytest.fixture
def query(engine: AsyncEngine) -> Query:
    """Look into the application's database."""

    async def run(sql: str) -> list[tuple[Any, ...]]:
        async with engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(sql))]

    return run


def order(change: Change, key: str = "ann", **rest: Any) -> Order:
    """An order for Ann."""
    values = {"now": 1767225600.0, "idempotency": "k1", **rest}
    account = Account(key, values.pop("id", ""), values.pop("outputs", {}))
    return Order(change, values.pop("identity", ANN), account, **values)


def execute(sql: str, **rest: Any) -> dict[str, Any]:
    """A step that writes."""
    outer = {name: rest.pop(name) for name in ("when", "foreach") if name in rest}
    return {"sql": {"on": "db", "exec": sql, **rest}, **outer}


INSERT = execute(
    "INSERT INTO users (login, email, role) VALUES (:login, :email, :role)",
    params={"login": "{{ account.key }}", "email": "{{ user.email }}", "role": "{{ role }}"},
)


async def test_a_lookup_finds_one_account_and_saves_its_columns_as_text(make_hook: MakeHook) -> None:
    outcome = await make_hook().apply(order(Change.LOOKUP, "bob"))
    assert (outcome.result, outcome.saved) == (Result.FOUND, {"id": "2", "role": "reader"})


async def test_a_lookup_without_rows_finds_nobody(make_hook: MakeHook) -> None:
    assert (await make_hook().apply(order(Change.LOOKUP))).result is Result.NOT_FOUND


async def test_two_rows_are_ambiguous(make_hook: MakeHook) -> None:
    hook = make_hook(lookup={"sql": {"on": "db", "query": "SELECT id FROM users"}})
    outcome = await hook.apply(order(Change.LOOKUP))
    assert (outcome.result, outcome.saved) == (Result.AMBIGUOUS, {})


@pytest.mark.parametrize(
    "attack", ["'; DROP TABLE users; --", "x' OR '1'='1", "\\' OR 1=1 -- ", "{{ 7 }}", ":login", "%s"]
)
async def test_a_name_with_sql_in_it_is_only_a_name(make_hook: MakeHook, query: Query, attack: str) -> None:
    hook = make_hook(
        create=execute("INSERT INTO users (login, email) VALUES ('m', :name)", params={"name": "{{ account.key }}"})
    )
    assert (await hook.apply(order(Change.LOOKUP, attack))).result is Result.NOT_FOUND
    assert (await hook.apply(order(Change.CREATE, attack))).result is Result.CREATED
    assert await query("SELECT email FROM users WHERE login = 'm'") == [(attack,)]


async def test_the_number_nought_finds_nobody_among_names(make_hook: MakeHook) -> None:
    # On MySQL every name without digits equals the number 0.
    find = {"sql": {**FIND["sql"], "params": {"login": "{{ claims.login }}"}}}
    for claim in (0, False):
        person = Identity("corp", "i", "7", "ann", claims={"login": claim})
        assert (await make_hook(lookup=find).apply(order(Change.LOOKUP, identity=person))).result is Result.NOT_FOUND


async def test_an_account_is_created_with_its_roles_in_one_transaction(make_hook: MakeHook, query: Query) -> None:
    hook = make_hook(
        create=[
            INSERT,
            FIND,
            execute(
                "INSERT INTO grants (user_id, role) VALUES (:id, :role)",
                params={"id": "{{ saved.id }}", "role": "{{ item }}"},
                foreach="{{ roles }}",
                when="{{ item != 'reader' }}",
                affected=1,
            ),
        ]
    )
    outcome = await hook.apply(order(Change.CREATE, roles=("editor", "reader", "author")))
    assert (outcome.result, outcome.saved["id"]) == (Result.CREATED, "3")
    assert await query("SELECT user_id, role FROM grants ORDER BY role") == [(3, "author"), (3, "editor")]


async def test_when_a_later_statement_fails_nothing_of_the_order_is_there(make_hook: MakeHook, query: Query) -> None:
    hook = make_hook(create=[INSERT, FIND, execute("INSERT INTO grants (user_id, role) VALUES (1, NULL)")])
    outcome = await hook.apply(order(Change.CREATE))
    assert (outcome.result, outcome.saved) == (Result.FAILED, {})
    assert outcome.detail.startswith("create[2]: SQLSTATE 23")
    assert await query("SELECT login FROM users WHERE login = 'ann'") == []


async def test_a_statement_that_begins_with_with_is_undone_like_any_other(sqlite_url: str) -> None:
    engine = create_async_engine(sqlite_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE users (login TEXT NOT NULL)"))
    insert = execute("WITH n (x) AS (SELECT 'ann') INSERT INTO users (login) SELECT x FROM n", affected=1)
    hook = StepHook(section(sqlite_url, create=[insert, execute("INSERT INTO users (login) VALUES (NULL)")]))
    assert (await hook.apply(order(Change.CREATE))).result is Result.FAILED
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM users")) == 0
    await hook.close()
    await engine.dispose()


async def test_a_name_that_is_taken_is_a_conflict(make_hook: MakeHook) -> None:
    outcome = await make_hook(create=INSERT).apply(order(Change.CREATE, "bob"))
    assert (outcome.result, outcome.detail) == (Result.CONFLICT, "create[0]: SQLSTATE 23505")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT id FROM usrs WHERE login = :login", "SQLITE_ERROR: no such table: usrs"),
        ("SELECT id FROM users WHERE logn = :login", "SQLITE_ERROR: no such column: logn"),
        ("SELECT id FRM users WHERE login = :login", 'SQLITE_ERROR: near "users": syntax error'),
        # This one could repeat the value.
        ("SELECT json_extract('{}', :login) AS id", "SQLITE_ERROR"),
    ],
)
async def test_what_sqlite_does_not_know_is_named_and_no_value_is(sqlite_url: str, query: str, said: str) -> None:
    engine = create_async_engine(sqlite_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY, login TEXT)"))
    await engine.dispose()
    step = {"sql": {"on": "db", "query": query, "params": {"login": "{{ account.key }}"}}}
    hook = StepHook(section(sqlite_url, lookup=step))
    outcome = await hook.apply(ORDER)
    await hook.close()
    assert outcome.result is Result.FAILED
    # A connection that reads a table for the first time says SCHEMA.
    assert outcome.detail.replace("SQLITE_SCHEMA", "SQLITE_ERROR") == f"lookup[0]: {said}"


async def test_an_outcome_can_be_chosen_by_sqlstate(make_hook: MakeHook) -> None:
    refused = {**INSERT["sql"], "outcomes": {"failed": {"sqlstate": "42"}, "refused": {"sqlstate": ["23505"]}}}
    outcome = await make_hook(create={"sql": refused}).apply(order(Change.CREATE, "bob"))
    assert outcome.result is Result.REFUSED


async def test_an_update_of_a_row_that_is_already_right_is_one_row(make_hook: MakeHook) -> None:
    step = execute(
        "UPDATE users SET role = :role WHERE id = :id", params={"role": "reader", "id": "{{ account.id }}"}, affected=1
    )
    outcome = await make_hook(update=step).apply(order(Change.UPDATE, "bob", id="2"))
    assert outcome.result is Result.UPDATED


async def test_an_update_of_nobody_is_not_found_and_one_of_too_many_is_undone(
    make_hook: MakeHook, query: Query
) -> None:
    step = execute("UPDATE users SET role = 'gone' WHERE id = :id", params={"id": "{{ account.id }}"}, affected=1)
    everybody = execute("UPDATE users SET role = 'gone'", affected=1)
    hook = make_hook(update=step, deactivate=everybody)
    assert (await hook.apply(order(Change.UPDATE, id="99"))).result is Result.NOT_FOUND
    outcome = await hook.apply(order(Change.DEACTIVATE, id="2"))
    assert (outcome.result, outcome.detail) == (Result.FAILED, "deactivate[0]: 2 rows in place of 1")
    assert await query("SELECT login FROM users WHERE role = 'gone'") == []


async def test_inserting_nobody_where_one_was_expected_is_a_conflict(make_hook: MakeHook) -> None:
    step = execute(
        "INSERT INTO users (login) SELECT :login FROM grants WHERE user_id = 12345",
        params={"login": "{{ account.key }}"},
        affected=1,
    )
    assert (await make_hook(create=step).apply(order(Change.CREATE))).result is Result.CONFLICT


async def test_text_from_templates_fits_columns_of_every_type(make_hook: MakeHook, query: Query) -> None:
    step = execute(
        "UPDATE users SET age = :age, born = :born, active = :active WHERE id = :id",
        params={"age": "4{{ '2' }}", "born": "{{ now[:10] }}", "active": "{{ false }}", "id": "{{ account.id }}"},
        affected=1,
    )
    outcome = await make_hook(update=step).apply(order(Change.UPDATE, id="2"))
    assert outcome.result is Result.UPDATED
    age, born, active = (await query("SELECT age, born, active FROM users WHERE id = 2"))[0]
    assert (age, str(born), bool(active)) == (42, "2026-01-01", False)
    step["sql"]["params"].update(age="{{ 43 }}", active="{{ true }}")
    assert (await make_hook(update=step).apply(order(Change.UPDATE, id="2"))).result is Result.UPDATED
    age, active = (await query("SELECT age, active FROM users WHERE id = 2"))[0]
    assert (age, bool(active)) == (43, True)


async def test_a_number_fits_a_text_column_and_nothing_becomes_null(make_hook: MakeHook, query: Query) -> None:
    step = execute(
        "UPDATE users SET email = :email, role = :role WHERE id = 2", params={"email": "{{ 5 }}", "role": "{{ none }}"}
    )
    assert (await make_hook(update=step).apply(order(Change.UPDATE))).result is Result.UPDATED
    assert await query("SELECT email, role FROM users WHERE id = 2") == [("5", None)]


async def test_text_that_is_no_number_is_refused_by_the_database(make_hook: MakeHook, engine: AsyncEngine) -> None:
    if engine.dialect.name == "sqlite":
        return  # SQLite keeps what it is given.
    step = execute("UPDATE users SET age = :age WHERE id = 2", params={"age": "many"})
    outcome = await make_hook(update=step).apply(order(Change.UPDATE))
    assert (outcome.result, outcome.detail[:21]) == (Result.FAILED, "update[0]: SQLSTATE 2")


async def test_text_that_is_too_long_is_never_cut_off(make_hook: MakeHook, engine: AsyncEngine) -> None:
    if engine.dialect.name == "sqlite":
        return  # SQLite has no lengths.
    modes = []
    if engine.dialect.name == "mysql":
        async with engine.begin() as connection:
            modes = [await connection.scalar(text("SELECT @@GLOBAL.sql_mode"))]
            await connection.execute(text("SET GLOBAL sql_mode = ''"))
    outcome = await make_hook(create=INSERT).apply(order(Change.CREATE, "root" + " " * 17 + "x"))
    for mode in modes:
        async with engine.begin() as connection:
            await connection.execute(text("SET GLOBAL sql_mode = :mode"), {"mode": mode})
    assert (outcome.result, outcome.detail) == (Result.FAILED, "create[0]: SQLSTATE 22001")


async def test_bytes_come_out_as_hex_and_null_as_nothing(make_hook: MakeHook, engine: AsyncEngine) -> None:
    literal = r"'\x00ff'" if engine.dialect.name == "postgresql" else "x'00ff'"
    async with engine.begin() as connection:
        await connection.execute(text(f"UPDATE users SET secret = {literal}, active = false WHERE id = 2"))  # noqa: S608 - ours
    find = {"sql": {"on": "db", "query": "SELECT id, secret, email, born, active FROM users WHERE id = 2"}}
    outcome = await make_hook(lookup=find).apply(order(Change.LOOKUP))
    off = "false" if engine.dialect.name == "postgresql" else "0"
    assert outcome.saved == {"id": "2", "secret": "00ff", "email": "", "born": "", "active": off}


async def test_colons_that_are_no_binds_stay(make_hook: MakeHook) -> None:
    find = {
        "sql": {
            "on": "db",
            "query": "SELECT id, '12:30 :login' AS a FROM users /* :x */ WHERE login = :login -- :y",
            "params": {"login": "bob"},
        }
    }
    assert (await make_hook(lookup=find).apply(order(Change.LOOKUP))).saved == {"id": "2", "a": "12:30 :login"}


async def test_a_later_step_of_a_lookup_adds_to_what_was_found(make_hook: MakeHook, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO grants (user_id, role) VALUES (2, 'a'), (2, 'b')"))
    grants = {
        "sql": {
            "on": "db",
            "query": "SELECT role FROM grants WHERE user_id = :id ORDER BY role",
            "params": {"id": "{{ saved.id }}"},
            "save": {"grants": "{{ rows | map(attribute='role') | join(',') }}"},
        }
    }
    hook = make_hook(lookup=[FIND, grants])
    outcome = await hook.apply(order(Change.LOOKUP, "bob"))
    assert (outcome.result, outcome.saved["grants"]) == (Result.FOUND, "a,b")
    assert (await hook.apply(order(Change.LOOKUP, "root"))).saved["grants"] == ""
    assert (await hook.apply(order(Change.LOOKUP, "ann"))).result is Result.NOT_FOUND


async def test_two_ways_to_search_that_find_two_accounts_are_ambiguous(make_hook: MakeHook) -> None:
    by_id = {
        "sql": {"on": "db", "query": "SELECT id FROM users WHERE id = :id", "params": {"id": "{{ account.id or 0 }}"}}
    }
    hook = make_hook(lookup=[by_id, FIND])
    assert (await hook.apply(order(Change.LOOKUP, "bob", id="2"))).result is Result.FOUND
    assert (await hook.apply(order(Change.LOOKUP, "bob"))).saved["id"] == "2"
    outcome = await hook.apply(order(Change.LOOKUP, "bob", id="1"))
    assert (outcome.result, outcome.saved) == (Result.AMBIGUOUS, {})


async def test_a_lookup_cannot_change_anything(make_hook: MakeHook, query: Query) -> None:
    sneaky = execute("UPDATE users SET role = 'admin'")
    await make_hook(lookup=[FIND, sneaky]).apply(order(Change.LOOKUP, "bob"))
    assert await query("SELECT role FROM users WHERE login = 'bob'") == [("reader",)]


async def test_insert_returning_gives_the_new_id(make_hook: MakeHook, query: Query) -> None:
    step = {
        "sql": {
            "on": "db",
            "query": "INSERT INTO users (login) VALUES (:login) RETURNING id",
            "params": {"login": "{{ account.key }}"},
            "affected": 1,
        }
    }
    outcome = await make_hook(create=step).apply(order(Change.CREATE))
    assert (outcome.result, outcome.saved) == (Result.CREATED, {"id": "3"})
    assert await query("SELECT id FROM users WHERE login = 'ann'") == [(3,)]


async def test_a_value_that_the_answer_lacks_undoes_the_order(make_hook: MakeHook, query: Query) -> None:
    step = {"sql": {**INSERT["sql"], "save": {"id": "{{ row.id }}"}}}
    outcome = await make_hook(create=step).apply(order(Change.CREATE))
    assert outcome.result is Result.FAILED
    assert outcome.detail == "create[0]: the answer has no {{ row.id }}, which is to be saved as id"
    assert await query("SELECT id FROM users WHERE login = 'ann'") == []


async def test_a_query_that_gives_no_rows_at_all_is_told_to_be_an_exec(make_hook: MakeHook) -> None:
    step = {"sql": {"on": "db", "query": "UPDATE users SET role = 'x' WHERE id = 2"}}
    outcome = await make_hook(update=step).apply(order(Change.UPDATE))
    assert (outcome.result, outcome.detail[:36]) == (Result.FAILED, "update[0]: the statement returns no ")


async def test_a_password_is_stored_as_the_application_hashes_it(make_hook: MakeHook, query: Query) -> None:
    step = execute(
        "UPDATE users SET password = :hash WHERE id = 2", params={"hash": "{{ generated.password | bcrypt_2y }}"}
    )
    outcome = await make_hook(update=step).apply(order(Change.UPDATE, generated={"password": "s3cret"}))
    stored = (await query("SELECT password FROM users WHERE id = 2"))[0][0]
    assert outcome.saved == {}
    assert bcrypt.checkpw(b"s3cret", stored.encode())


async def test_more_rows_than_anybody_needs_are_not_read(make_hook: MakeHook) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) SELECT i FROM n"
    outcome = await make_hook(lookup={"sql": {"on": "db", "query": endless}}).apply(order(Change.LOOKUP))
    assert (outcome.result, outcome.detail) == (Result.FAILED, "lookup[0]: more than 1000 rows")


async def test_a_statement_that_takes_too_long_is_given_up_and_the_connection_is_no_longer_used(
    make_hook: MakeHook, engine: AsyncEngine, query: Query
) -> None:
    slow = {
        "sqlite": "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n",
        "postgresql": "SELECT pg_sleep(60)",
        "mysql": "SELECT SLEEP(60) AS c",
    }[engine.dialect.name]
    hook = make_hook(create=[INSERT, {"sql": {"on": "db", "query": slow}}], timeout="300ms")
    with pytest.raises(Unavailable) as caught:
        await hook.apply(order(Change.CREATE))
    assert (caught.value.reason, caught.value.detail) == (Reason.PROVISIONING_DOWN, "db: no answer in time")
    assert (await hook.apply(order(Change.LOOKUP, "bob"))).result is Result.FOUND
    assert await query("SELECT id FROM users WHERE login = 'ann'") == []


async def test_the_sections_of_an_order_read_the_whole_order(make_hook: MakeHook, query: Query) -> None:
    step = execute(
        "UPDATE users SET email = :all WHERE id = 2",
        params={
            "all": "{{ change }}|{{ user.name }}|{{ user.groups | join }}|{{ claims.dept }}|{{ attributes.mail }}|"
            "{{ changed | join }}|{{ role }}|{{ roles_added | join }}|{{ roles_removed | join }}|{{ account.home }}|"
            "{{ now }}"
        },
    )
    person = Identity("corp", "i", "7", "ann", "", "Ann", ("g",), {"dept": "IT"})
    asked = order(
        Change.SET_ROLES,
        identity=person,
        outputs={"home": "/h"},
        attributes={"mail": "m"},
        changed=frozenset({"mail"}),
        roles=("r",),
        added=("a",),
        removed=("z",),
    )
    assert (await make_hook(set_roles=step).apply(asked)).result is Result.UPDATED
    assert await query("SELECT email FROM users WHERE id = 2") == [
        ("set_roles|Ann|g|IT|m|mail|r|a|z|/h|2026-01-01T00:00:00Z",)
    ]


async def test_verify_reads_back(make_hook: MakeHook) -> None:
    assert await make_hook().verify(order(Change.UPDATE)) is None
    hook = make_hook(verify=FIND)
    found = await hook.verify(order(Change.UPDATE, "bob"))
    missing = await hook.verify(order(Change.UPDATE, "ann"))
    assert found is not None
    assert missing is not None
    assert (found.result, missing.result) == (Result.FOUND, Result.NOT_FOUND)


async def test_probing_names_the_database(make_hook: MakeHook, engine: AsyncEngine) -> None:
    line = (await make_hook().probe())["db"]
    assert line.startswith(f"ok: {engine.dialect.name} ")


async def test_a_database_that_is_not_there_is_unavailable(
    postgres_server: PostgresServer, postgres_url: str, mariadb_server: MariadbServer, mariadb_url: str, tmp_path: Path
) -> None:
    postgres_server.stop()
    mariadb_server.stop()
    missing = tmp_path / "missing.sqlite"
    for url in (f"sqlite:///{missing}", postgres_url, mariadb_url):
        hook = StepHook(section(url))
        with pytest.raises(Unavailable) as caught:
            await hook.apply(order(Change.LOOKUP))
        assert caught.value.reason is Reason.PROVISIONING_DOWN
        assert (await hook.probe())["db"].startswith("failed: db: ")
        await hook.close()
    assert not missing.exists()


class CuttingProxy:
    """Stands before PostgreSQL and cuts every connection when the client sends *word*; forwards it first, or not."""

    def __init__(self, port: int, word: bytes, *, forwards: bool) -> None:
        self._port, self._word, self._forwards = port, word, forwards

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.ensure_future(self._pump(server_reader, writer))
        while piece := await reader.read(65536):
            is_word = self._word in piece
            if not is_word or self._forwards:
                server_writer.write(piece)
                await server_writer.drain()
            if is_word:
                back.cancel()
                await asyncio.wait([back])
                # Wait for PostgreSQL's answer, which nobody will ever hear.
                if self._forwards:
                    await server_reader.read(1)
                break
        writer.transport.abort()
        server_writer.close()
        back.cancel()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)


@pytest.mark.parametrize("forwards", [True, False])
async def test_a_connection_lost_while_committing_leaves_the_outcome_unknown(
    postgres_server: PostgresServer, postgres_url: str, forwards: bool
) -> None:
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE users (id SERIAL, login TEXT, email TEXT, role TEXT)"))
    proxy = await asyncio.start_server(CuttingProxy(postgres_server.port, b"COMMIT", forwards=forwards), "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    url = make_url(postgres_url).set(port=port, drivername="postgresql")
    hook = StepHook(section(url.render_as_string(hide_password=False), create=INSERT))
    outcome = await hook.apply(order(Change.CREATE))
    assert (outcome.result, outcome.saved) == (Result.UNKNOWN, {})
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM users")) == int(forwards)
    await hook.close()
    await engine.dispose()
    proxy.close()


async def test_a_connection_lost_before_the_commit_did_nothing(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE users (id SERIAL, login TEXT, email TEXT, role TEXT)"))
    proxy = await asyncio.start_server(CuttingProxy(postgres_server.port, b"INSERT", forwards=False), "127.0.0.1", 0)
    url = make_url(postgres_url).set(port=proxy.sockets[0].getsockname()[1])
    hook = StepHook(section(url.render_as_string(hide_password=False), create=INSERT))
    with pytest.raises(Unavailable):
        await hook.apply(order(Change.CREATE))
    await hook.close()
    await engine.dispose()
    proxy.close()


async def test_a_list_binds_to_an_array_of_postgresql(postgres_url: str) -> None:
    find = {
        "sql": {
            "on": "db",
            "query": "SELECT 1 AS id WHERE 'editor' = ANY(CAST(:roles AS text[])) AND 2 = ANY(CAST(:ids AS int[]))",
            "params": {"roles": "{{ roles }}", "ids": "{{ [1, 2] }}"},
        }
    }
    hook = StepHook(section(postgres_url, lookup=find))
    assert (await hook.apply(order(Change.LOOKUP, roles=("author", "editor")))).result is Result.FOUND
    await hook.close()


async def test_a_unique_key_that_is_checked_at_the_end_is_a_conflict_too(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        unique = "CREATE TABLE users (login TEXT UNIQUE DEFERRABLE INITIALLY DEFERRED, email TEXT, role TEXT)"
        await connection.execute(text(unique))
        await connection.execute(text("INSERT INTO users (login) VALUES ('ann')"))
    hook = StepHook(section(postgres_url, create=INSERT))
    assert (await hook.apply(order(Change.CREATE))).result is Result.CONFLICT
    await hook.close()
    await engine.dispose()


async def test_a_statement_without_a_count_goes_through_unless_a_count_is_asked_for(postgres_url: str) -> None:
    nothing = execute("DO $$ BEGIN PERFORM 1; END $$")
    hook = StepHook(section(postgres_url, update=nothing, deactivate={"sql": {**nothing["sql"], "affected": 0}}))
    assert (await hook.apply(order(Change.UPDATE))).result is Result.UPDATED
    assert (await hook.apply(order(Change.DEACTIVATE))).result is Result.FAILED
    await hook.close()
