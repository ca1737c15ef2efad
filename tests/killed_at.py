"""Play one story of the SCIM path and the outbox again and again, killed one step later each time: a program for tests.

`python -m tests.killed_at PLAN.json`: every step that writes the directory, asks the application, or ends sessions is
counted, with a moment before it and one behind. For each moment a process is forked that dies there by SIGKILL, and
then another one that does what is left. Prints a JSON line for each moment, and stops at the first that never came.
The process that forks has everything imported, and the configuration read: some 400 times that is saved.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sidecar.app import Sidecar, build
from sidecar.config.loader import load
from sidecar.config.models import Config
from sidecar.directory.database import Database
from sidecar.hooks.hook import StepHook
from sidecar.hooks.passwords import FILTERS
from sidecar.scim_api.call import Call
from sidecar.sessions.keeper import SessionKeeper

Step = Callable[..., Awaitable[Any]]
# More moments than any of these stories has.
_MOST = 60
# Seconds until the leases and pauses that a dead process left behind are over.
_LATER = 1000.0
_MUCH_LATER = 20_000.0


class Killer:
    """Counts moments, and ends this process at one of them as the kernel would."""

    def __init__(self, at: int) -> None:
        """Kill at the moment number *at*."""
        self._at = at
        self.moment = 0

    def _pass(self) -> None:
        if self.moment == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.moment += 1

    def around(self, owner: type, name: str) -> None:
        """Put a moment before and one behind the method *name* of *owner*."""
        step: Step = getattr(owner, name)

        async def counted(*args: Any, **kwargs: Any) -> Any:
            self._pass()
            result = await step(*args, **kwargs)
            self._pass()
            return result

        setattr(owner, name, counted)


async def play(config: Config, deeds: list[dict[str, Any]], at: int | None, times: list[float]) -> None:
    """Let the SCIM client do its *deeds*, and work off what is owed at each of *times* (seconds ahead)."""
    ahead = times[0]
    sidecar = await build(config, lambda: time.time() + ahead)
    if at is not None:
        killer = Killer(at)
        for owner, name in ((Database, "write"), (StepHook, "apply"), (SessionKeeper, "end_person")):
            killer.around(owner, name)
    for deed in deeds:
        await do(sidecar, deed)
    for ahead in times:  # noqa: B007 - the clock reads it
        assert sidecar.condition.accounts.provisioner is not None
        while await sidecar.condition.accounts.provisioner.outbox.work_off():
            pass
    await sidecar.parts.close()
    sidecar.audit.close()


async def do(sidecar: Sidecar, deed: dict[str, Any]) -> None:
    """One request of the SCIM client about a person, or about a group ("in"); "member" is who comes or goes there."""
    scim = sidecar.front.scim
    assert scim is not None
    client = scim.clients["okta"]
    path, body = [deed.get("in", "Users")], deed.get("body")

    async def id_of(kind: str, name: str) -> str:
        query = {"filter": f'{"userName" if kind == "Users" else "displayName"} eq "{name}"'}
        found = (await scim._route(Call(client, "GET", [kind], time.time(), query=query))).body
        assert found is not None
        identifier: str = found["Resources"][0]["id"]
        return identifier

    if "of" in deed:
        path.append(await id_of(path[0], deed["of"]))
    if "member" in deed:
        members = [{"value": await id_of("Users", deed["member"])}]
        change = {"op": deed.get("op"), "path": "members", "value": members}
        body = {"Operations": [change]} if "op" in deed else {**deed["body"], "members": members}
    await scim._route(Call(client, deed["method"], path, time.time(), body=body))


def forked(config: Config, deeds: list[dict[str, Any]], at: int | None, times: list[float]) -> bool:
    """Play in a process of its own; False when it was killed."""
    # Of a process with threads, a fork has only one, and whatever locks the others held.
    for thread in set(threading.enumerate()) - {threading.main_thread()}:
        # A database's driver ends its thread a moment after it was closed.
        thread.join(10)
    assert threading.active_count() == 1
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(play(config, deeds, at, times))
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert os.waitstatus_to_exitcode(status) == 0, (deeds, at)
    return True


def asked(database: Path, query: str) -> list[list[Any]]:
    """Rows of a query."""
    # Closed before the next fork: a process must not share a connection with the one that it came from.
    with closing(sqlite3.connect(database)) as connection:
        return [list(row) for row in connection.execute(query)]


def again_from(start: Path, stage: Path) -> None:
    """Make the folder *stage* what *start* is."""
    shutil.rmtree(stage)
    shutil.copytree(start, stage)


def main(plan: dict[str, Any]) -> None:
    """Play the story of *plan* at every moment."""
    stage, start = Path(plan["stage"]), Path(plan["start"])
    config = load(Path(plan["config"]), environment=os.environ, filters=FILTERS).config
    shutil.copytree(stage, start)
    # To the end once, so that what is imported late is imported, too.
    asyncio.run(play(config, [*plan["before"], plan["deed"]], None, [0.0]))
    again_from(start, stage)
    asyncio.run(play(config, plan["before"], None, [0.0]))
    again_from(stage, start)
    # What the parent has is not looked through, and by that copied, in each child.
    gc.freeze()
    for at in range(_MOST):
        again_from(start, stage)
        is_over = forked(config, [plan["deed"]], at, [0.0])
        told = asked(stage / "directory.db", plan["query"])
        # A client that got no answer asks again, unless it finds that it was done.
        again = [] if told == plan["told"] else [plan["deed"]]
        forked(config, again, None, [_LATER, _MUCH_LATER])
        end = {
            "is_over": is_over,
            "rows": asked(
                stage / "users.db", "SELECT login, active, role FROM users WHERE login <> 'root' ORDER BY id"
            ),
            "owed": asked(stage / "directory.db", "SELECT change, state FROM sidecar_outbox WHERE state <> 'done'"),
            "was_asked_again": bool(again),
        }
        sys.stdout.write(json.dumps(end) + "\n")
        if is_over:
            return


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
