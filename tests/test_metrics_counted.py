"""What becomes of requests is counted as what it is: dashboards and alerts read nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.fronts_world import Case, a_site
from tests.world import Running, World


def counted(running: Running) -> Mapping[tuple[str, str], float]:
    """(effect, reason) → requests."""
    text = running.sidecar.metrics.render().decode()
    return {
        (sample.labels["effect"], sample.labels["reason"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "sidecar_requests_total"
    }


async def test_whom_the_rules_turn_away_is_counted_as_refused_and_noted_once(world: World) -> None:
    rules = [{"path": "/admin/**", "allow": {"role": "admin"}}, {"path": "/**", "allow": "signed_in"}]
    running = await world({"access": rules})
    async with running.browser() as alan:
        await alan.sign_in("alan")
        before = counted(running)
        for _ in range(3):
            assert (await alan.page("/admin/users")).status == 403
        after = counted(running)
    assert after["refused", "role-missing"] == 3
    assert {name: number for name, number in after.items() if name[0] == "answered"} == {
        name: number for name, number in before.items() if name[0] == "answered"
    }
    assert [line["rule"] for line in running.audit() if line.get("reason") == "role-missing"] == ["1: /admin/**"] * 3


async def test_so_is_whom_a_front_proxy_is_told_to_turn_away(world: World, tmp_path: Path) -> None:
    async with a_site(world, tmp_path, "nginx", "ada") as site:
        before = counted(site.running).get(("refused", "rule-denies"), 0)
        there, _ = await site.seen(site.front, Case("/closed/x", "ada"))
        assert there.status == 403
        assert counted(site.running)["refused", "rule-denies"] > before
