"""The directory's tables are made once, whoever starts when, and never by a program that is too old for them."""

from __future__ import annotations

import asyncio
import importlib.util
import stat
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine

from sidecar.directory import Directory, audit, migrate, tables, upgrading
from sidecar.directory.address import address_of
from sidecar.faults import Unavailable
from sidecar.model import Identity
from sidecar.reason import Reason

ALICE = Identity("corp", "https://id.example.com", "a1", "alice")

START = """
import asyncio, sys
from sidecar.directory import Directory
async def start():
    directory = await Directory.open(sys.argv[1], "wiki", 30)
    print(await directory.ping())
    await directory.close()
asyncio.run(start())
"""

VERSIONS = Path(tables.__file__).parent / "migrations" / "versions"
NEWEST = max(path.name for path in VERSIONS.glob("[0-9]*.py"))[:4]


@pytest.fixture(autouse=True)
def by_the_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here each file's tables are made by the migrations."""
    real = upgrading.upgrade.__self__._real  # type: ignore[attr-defined]
    monkeypatch.setattr(upgrading, "upgrade", real)


async def revisions(url: str) -> list[str]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        found = list((await connection.execute(text("SELECT version_num FROM sidecar_version"))).scalars())
    await engine.dispose()
    return found


async def test_five_replicas_that_start_at_once_make_the_tables_once(database_url: str) -> None:
    starts = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", START, database_url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(5)
    ]
    for process in starts:
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
    assert await revisions(database_url) == [NEWEST]


async def test_five_directories_in_one_process_open_at_once(database_url: str) -> None:
    opened = await asyncio.gather(*[Directory.open(database_url, "wiki", 30) for _ in range(5)])
    person = await opened[0].admit(ALICE, 1)
    assert await opened[4].person(person.id) == person
    for directory in opened:
        await directory.close()


async def test_a_start_that_was_killed_half_way_is_completed_by_the_next_one(database_url: str) -> None:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        # What MySQL keeps when the first start dies after its first statement.
        await connection.run_sync(tables.person.create)
        await connection.execute(text("CREATE TABLE sidecar_version (version_num VARCHAR(32) NOT NULL)"))
    await engine.dispose()
    directory = await Directory.open(database_url, "wiki", 15)
    assert await directory.admit(ALICE, 1)
    await directory.close()
    assert await revisions(database_url) == [NEWEST]


async def test_a_start_that_fails_half_way_leaves_nothing_that_stops_the_next_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = upgrading.command.upgrade

    def killed(*arguments: object) -> None:
        real(*arguments)
        message = "killed"
        raise OSError(message)

    monkeypatch.setattr(upgrading.command, "upgrade", killed)
    with pytest.raises(Unavailable):
        await Directory.open(database_url, "wiki", 15)
    monkeypatch.undo()
    directory = await Directory.open(database_url, "wiki", 15)
    assert await directory.admit(ALICE, 1)
    await directory.close()


async def test_a_directory_of_a_newer_program_is_refused_with_a_clear_message(database_url: str) -> None:
    directory = await Directory.open(database_url, "wiki", 15)
    async with directory._database.engine.execution_options(sqlite_begin="IMMEDIATE").begin() as connection:
        await connection.execute(text("UPDATE sidecar_version SET version_num = '9999'"))
    await directory.close()
    with pytest.raises(Unavailable) as refusal:
        await Directory.open(database_url, "wiki", 15)
    assert refusal.value.reason is Reason.DIRECTORY_DOWN
    assert "newer version of this program (schema 9999)" in refusal.value.detail


async def test_the_migrations_make_exactly_the_tables_that_the_program_uses(database_url: str) -> None:
    directory = await Directory.open(database_url, "wiki", 15)
    made = MetaData()
    async with directory._database.engine.connect() as connection:
        await connection.run_sync(made.reflect)
        indexes = await connection.run_sync(lambda c: {i["name"] for i in inspect(c).get_indexes("sidecar_outbox")})
    await directory.close()
    assert {audit.audit.name, audit.turn.name} <= set(tables.metadata.tables)
    assert set(made.tables) == {*tables.metadata.tables, "sidecar_version"}
    for name, table in tables.metadata.tables.items():
        columns = {column.name: column.nullable for column in made.tables[name].columns}
        assert columns == {column.name: column.nullable for column in table.columns}, name
    assert "sidecar_outbox_due" in indexes


async def test_the_tables_live_beside_those_of_an_application_in_its_own_database(database_url: str) -> None:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        for name in ("person", "account", "identity", "outbox", "alembic_version"):
            await connection.execute(text(f"CREATE TABLE {name} (theirs INT)"))
    await engine.dispose()
    directory = await Directory.open(database_url, "wiki", 15)
    assert await directory.admit(ALICE, 1)
    await directory.close()


async def test_a_sqlite_directory_is_readable_by_its_owner_only_and_does_not_block_readers(tmp_path: Path) -> None:
    directory = await Directory.open(f"sqlite:///{tmp_path}/d%20.db", "wiki", 5)
    async with directory._database.engine.connect() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
        assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar_one() == 1
    await directory.close()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}  # noqa: ASYNC240


def test_the_names_of_the_files_say_which_schemas_there_are_as_alembic_knows_them() -> None:
    scripts = ScriptDirectory(str(VERSIONS.parent))
    assert migrate.versions()[::-1] == [script.revision for script in scripts.walk_revisions()]


def test_the_migrations_are_part_of_the_package() -> None:
    found = importlib.util.find_spec("sidecar.directory")
    assert found is not None
    assert found.origin is not None
    assert (Path(found.origin).parent / "migrations" / "env.py").exists()


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("sqlite:///a/b.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:////a/b.db", "sqlite+aiosqlite"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg"),
        ("postgres://u:p@h/d?sslmode=require", "postgresql+asyncpg"),
        ("mysql://u:p@h/d", "mysql+aiomysql"),
        ("mariadb://u:p@h/d", "mysql+aiomysql"),
    ],
)
def test_an_address_needs_no_driver_in_it(given: str, driver: str) -> None:
    assert address_of(given, 5).url.drivername == driver


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nonsense", "not a URL"),
        ("redis://h", "redis"),
        ("sqlite://", "needs a file"),
        ("postgresql://u:secret@h/d?sslrootcert=/no/such/file", "/no/such/file cannot be used: No such file"),
    ],
)
def test_an_address_that_cannot_be_used_is_said_without_its_password(given: str, message: str) -> None:
    with pytest.raises(Unavailable) as refusal:
        address_of(given, 5)
    assert message in refusal.value.detail
    assert "secret" not in refusal.value.detail


async def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"the folder .*missing.* does not exist"):
        await Directory.open(f"sqlite:///{tmp_path}/missing/d.db", "wiki", 5)


async def test_wrong_credentials_are_said_by_their_code_only(postgres_url: str) -> None:
    with pytest.raises(Unavailable) as refusal:
        await Directory.open(postgres_url.replace("not-so-secret", "very-secret"), "wiki", 5)
    assert "28P01" in refusal.value.detail
    assert "very-secret" not in refusal.value.detail
