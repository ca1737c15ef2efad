"""How long a synchronisation of many people plans, with how much memory: `python -m bench.sync PEOPLE [run]`."""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sidecar.sync import Synchroniser
from sidecar.sync.runs import Wish
from tests.sync_world import Company, person


async def measured(company: Company, name: str, act: Callable[[Synchroniser], Awaitable[Any]]) -> None:
    """Time *act*, without opening and closing."""
    async with company.opened() as syncing:
        began, cpu = time.perf_counter(), time.process_time()
        run = await act(syncing.sources["hr"])
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    items = run.head["items"]
    print(f"{name:<32} {took:7.2f} s  {cpu:7.2f} s CPU  {memory:5.0f} MiB at most  {items:7} items  {run.state}")


async def bench(people: int) -> None:
    """Plan, fill the books, and run again with nothing and with little changed."""
    with tempfile.TemporaryDirectory() as folder:
        company = Company(Path(folder), {"sync": {"hr": {"limits": {"grant_privileged": {"count": people}}}}})
        company.list(person(number, teams="editors" if number % 3 else "") for number in range(people))
        await measured(company, "first plan", lambda one: one.plan(Wish("bench")))
        if len(sys.argv) > 2:
            await measured(company, "first run", lambda one: one.run(Wish("bench")))
            await measured(company, "the same file again", lambda one: one.run(Wish("bench")))
            await measured(company, "everything read, all the same", lambda one: one.run(Wish("bench", full=True)))


if __name__ == "__main__":
    asyncio.run(bench(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
