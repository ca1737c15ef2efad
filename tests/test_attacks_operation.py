"""What somebody could do to the ways in which the sidecar is operated: reload, commands, files, reports."""

from __future__ import annotations

import json

from tests.test_reloading import reloadable
from tests.world import World, until


async def test_t59_the_change_that_silences_the_audit_is_itself_in_the_audit_that_it_silences(world: World) -> None:
    one = await reloadable(world)
    outcome = await one.change({"audit": {"events": {"file": ["decision"]}}})
    assert outcome.is_loaded
    await until(lambda: _told(one))
    (line,) = one.events("configuration-loaded")
    assert any("audit.events" in change for change in line["changes"])


async def test_t59_audit_lines_that_move_away_say_where_they_went(world: World, tmp_path) -> None:
    one = await reloadable(world)
    other = tmp_path / "other.jsonl"
    assert (await one.change({"audit": {"file": str(other)}})).is_loaded
    await until(lambda: _told(one))
    assert one.events("configuration-loaded")
    one.reloading.sidecar.audit.flush()
    assert any(json.loads(line)["event"] == "configuration-loaded" for line in other.read_text().splitlines())


async def _told(one) -> bool:
    return bool(one.events("configuration-loaded"))
