"""The console's pages about drift and insights: what was found, for whoever may look."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from sidecar.core.audit import Event
from sidecar.insights.alerts import SEEN
from tests.console_world import a_console
from tests.test_console import HOSTILE
from tests.world import World

DRIFT = {
    "list": {
        "sql": {
            "url": {"env": "USERS_DB"},
            "query": "SELECT * FROM users WHERE id > :after ORDER BY id LIMIT :limit",
            "key": "id",
        }
    },
    "account": {"key": "{{ row.login }}", "active": "{{ row.active == 1 }}", "roles": "{{ row.role }}"},
}


async def test_drift_is_shown_by_kind_and_page_and_names_are_text(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path, {"drift": DRIFT})
    with closing(sqlite3.connect(console.users)) as users, users:
        users.executemany(
            "INSERT INTO users (login, email, role) VALUES (?, 'x@x', 'admin')",
            [(HOSTILE,), *((f"orphan{number:03}",) for number in range(60))],
        )
    browser = await console.operator("alan")
    async with browser:
        text = await (await browser.page("/drift")).text()
        assert "Nobody has looked yet" in text
        assert 'href="/drift"' in text
        drift = next(
            one
            for one in console.running.sidecar.background
            if type(getattr(one, "__self__", None)).__name__ == "DriftSchedule"
        )
        await drift.__self__._watch.look("ada")  # type: ignore[attr-defined]
        text = await (await browser.page("/drift")).text()
        assert re.search(r"\d+ accounts there, \d+ known here", text)
        assert "Orphan (61)" in text
        assert HOSTILE not in text
        assert "&lt;" in text
        more = await (await browser.page("/drift?show=orphan&after=49")).text()
        assert "orphan059" in more
        assert "Next page" not in more
        assert (await browser.page("/drift?show=nothing")).status == 404
        assert (await browser.page("/drift?after=x")).status == 404
        assert "Nothing differs" in await (await browser.page("/drift?show=missing")).text()
    assert any(line["target"].startswith("drift ") for line in console.audited(Event.CONSOLE_READ.value))


async def test_alerts_are_shown_and_names_are_text(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path, {"insights": {}})
    store = console.running.sidecar.lasting.lender.lend()
    browser = await console.operator("alan")
    async with browser:
        assert "Nothing in the last seven days" in await (await browser.page("/insights")).text()
        line = '{"time": "2026-11-26T01:02:03.000+00:00", "insight": "silent-token", "token": "<script>x</script>"}'
        await store.put(f"{SEEN}one", line.encode(), 60)
        text = await (await browser.page("/insights")).text()
        assert "2026-11-26 01:02:03" in text
        assert "Silent token" in text
        assert "<script>x" not in text
        assert "Nothing in" in await (await browser.page("/insights?kind=other")).text()


async def test_neither_page_is_there_without_its_section(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    browser = await console.operator("alan")
    async with browser:
        assert (await browser.page("/drift")).status == 404
        assert (await browser.page("/insights")).status == 404
