"""Whoever stops waiting for the directory in SQLite leaves nothing behind that cannot end, and nothing half done."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.directory.database import Database
from sidecar.faults import Unavailable

# Some tens of milliseconds of the driver's thread, which nobody can interrupt.
BUSY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT COUNT(*) FROM n"


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/directory.db"


async def prepared(address: str, seconds: float = 5) -> Database:
    database = Database(address, seconds)

    async def make(connection: AsyncConnection) -> None:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS kept (i INTEGER)"))

    await database.write(make)
    return database


async def slowly(connection: AsyncConnection) -> None:
    await connection.execute(text("INSERT INTO kept VALUES (1)"))
    await connection.execute(text(BUSY))


async def kept(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT COUNT(*) FROM kept"))).scalar_one())


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("moment", [0.0, 0.001, 0.005, 0.02])
def test_a_program_ends_although_it_is_told_to_in_the_middle(address: str, moment: float) -> None:
    async def program() -> None:
        database = await prepared(address)
        waiting = [asyncio.create_task(database.write(slowly)) for _ in range(4)]
        await asyncio.sleep(moment)
        # Told twice, as by somebody who is impatient.
        for _ in range(2):
            for one in waiting:
                one.cancel()
            await asyncio.sleep(0)
        # Nobody closes the database: what is left is what the event loop's end has to deal with.

    before = set(threading.enumerate())
    asyncio.run(program())
    # A driver's thread may still find that nobody hears its answer.
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    # Here and not within whatever test comes next: Python 3.13 warns of what was not closed when it is collected.
    gc.collect()


async def test_what_nobody_waits_for_any_more_is_undone(address: str) -> None:
    database = await prepared(address)
    waiting = asyncio.create_task(database.write(slowly))
    await asyncio.sleep(0.005)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert waiting.cancelled()
    # Closing waits for it, and the next one finds nothing of it.
    await database.close()
    again = await prepared(address)
    assert await again.read(kept) == 0
    await again.close()


async def test_a_transaction_that_takes_too_long_is_undone(address: str) -> None:
    await (await prepared(address)).close()
    database = Database(address, 0.02)
    with pytest.raises(Unavailable):
        await database.write(slowly)
    await asyncio.sleep(0.5)
    await database.close()
    again = await prepared(address)
    assert await again.read(kept) == 0
    await again.close()
