"""The console's page about alerts: what was told, for whoever may look."""

from __future__ import annotations

from pathlib import Path

from sidecar.insights.alerts import SEEN
from tests.console_world import a_console
from tests.world import World


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


async def test_the_page_is_not_there_without_its_section(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with await console.operator("alan") as browser:
        assert (await browser.page("/insights")).status == 404
