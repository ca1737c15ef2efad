"""The console's page about insights: what goes on, and alerts, for whoever may look."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.faults import Unavailable
from sidecar.insights.alerts import remember
from sidecar.insights.present import Present
from sidecar.insights.unused import Unused, UnusedCount
from sidecar.reason import Reason
from tests.console_world import a_console
from tests.world import World


async def test_alerts_are_shown_and_names_are_text(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path, {"insights": {}})
    store = console.running.sidecar.lasting.lender.lend()
    browser = await console.operator("alan")
    async with browser:
        assert "Nothing in the last seven days" in await (await browser.page("/insights")).text()
        said = datetime.fromtimestamp(world.clock() - 60, UTC).isoformat(timespec="milliseconds")
        alert = {"time": said, "insight": "silent-token", "token": "<script>x</script>"}
        await remember(store, alert, world.clock())
        text = await (await browser.page("/insights")).text()
        assert said[:19].replace("T", " ") in text
        assert "Silent token" in text
        assert "<script>x" not in text
        assert "Nothing in" in await (await browser.page("/insights?kind=other")).text()


async def test_what_goes_on_is_shown_whether_or_not_it_is_worth_an_alert(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = await a_console(world, tmp_path, {"insights": {}, "tokens": {}})
    store = console.running.sidecar.lasting.lender.lend()
    counts = Present(world.clock)
    for _ in range(3):
        counts.account_made()
    for _ in range(7):
        counts.refused()
    counts.failed("<b>hostile</b>")
    counts.took("create", 6.5, is_slow=True)
    counts.took("create", 0.5, is_slow=False)
    await counts.post(store)
    browser = await console.operator("alan")
    async with browser:
        text = re.sub(r"\s+", " ", await (await browser.page("/insights")).text())
        assert "<b>3</b> made today" in text
        assert "<b>7</b> in the last 10 minutes" in text
        assert "<b>0</b> dormant for 90 days" in text
        assert "<b>0</b> tokens silent for 30 days" in text
        assert "&lt;b&gt;hostile" in text
        assert text.count('<rect class="bad" x="9.1"') == 1
        assert '<td>create</td><td>2</td><td>3.5 s</td><td>6.5 s</td><td class="alarm">1</td>' in text
        # The directory is away: the rest is shown.
        page = console.running.sidecar.console.views["insights"].__self__  # type: ignore[union-attr, attr-defined]
        page.unused._counted = (0.0, page.unused._counted[1])

        async def away(*_: object) -> Unused:
            raise Unavailable(Reason.DIRECTORY_DOWN)

        monkeypatch.setattr(UnusedCount, "_ask", away)
        text = await (await browser.page("/insights")).text()
        assert "dormant for" not in text
        assert "made today" in text


async def test_the_page_is_not_there_without_its_section(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with await console.operator("alan") as browser:
        assert (await browser.page("/insights")).status == 404
