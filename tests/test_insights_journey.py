"""A sidecar that runs notices, keeps its audit lines in the database, and its console searches there."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING

from sidecar.directory.audit import AuditBook, Wanted
from sidecar.directory.database import Database
from tests.console_world import a_console
from tests.test_audit_webhook import Receiver, hasty, receiver, until  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World

SECRET = "leak-webhook-secret-that-is-long-enough"


async def test_who_becomes_an_administrator_is_told_and_found_in_the_database(
    world: World,
    tmp_path: Path,
    receiver: Receiver,  # noqa: F811 - pytest's way
) -> None:
    hook = {
        "url": f"http://127.0.0.1:{receiver.port}/", "secret": {"env": "HOOK"}, "spool": str(tmp_path / "spool"),
        "insecure": "true",
    }  # fmt: skip
    changes = {
        "audit": {"file": None, "database": {"retention": "30d"}},
        "insights": {"privileged": ["admin"], "webhook": hook},
    }
    # The receiver checks how old a signature is, so the clock is the real one's.
    console = await a_console(world, tmp_path, changes, environment={"HOOK": SECRET})
    async with console.running.browser() as browser:
        await browser.sign_in("ada")
        denied = await browser.page("/", headers={"X-Forwarded-For": "x"})
        assert denied.status == 200
    book = AuditBook(Database(f"sqlite:///{console.running.folder}/directory.db", 15))
    found = []

    async def is_told() -> bool:
        found[:] = await book.backward(None, Wanted(events=frozenset(["insight-raised"])))
        return bool(found)

    for _ in range(100):
        if await is_told():
            break
        await asyncio.sleep(0.1)
    alert = json.loads(found[0].line)
    assert (alert["insight"], alert["username"]) == ("privileged-grant", "ada")
    async with await console.operator("ada") as operator:
        page = await (await operator.page("/audit?event=insight-raised")).text()
        assert "privileged-grant" in page
        page = await (await operator.page("/audit?person=ada&event=login-succeeded")).text()
        assert "login-succeeded" in page
        assert "Nothing fits" in await (await operator.page("/audit?person=nobody")).text()
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "insights", "--json", str(console.running.folder / "config.yaml"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "HOOK": SECRET, "ISSUER": "http://127.0.0.1:1", "OIDC_SECRET": "s", "SESSION_SECRET": SECRET,
             "USERS_DB": "sqlite:///x.db"},
    )  # fmt: skip
    said, _ = await command.communicate()
    assert command.returncode == 0
    unused = {"count": 0, "days": 90, "people": []}
    assert json.loads(said) == {"present": None, "alerts": None, "dormant": unused, "silent_tokens": None}
    await book._database.close()
    await until(lambda: bool(receiver.messages))
    assert receiver.messages[0]["lines"][0]["insight"] == "privileged-grant"
