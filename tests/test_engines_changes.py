"""What an engine said is forgotten when SCIM changes somebody, on sessions that are open."""

from __future__ import annotations

from pathlib import Path

from tests.scim_world import ScimClient, client_section, with_scim
from tests.test_engines import RULES, Oracle, says
from tests.world import World


async def test_t56_a_change_by_scim_makes_the_engine_be_asked_anew(world: World, tmp_path: Path) -> None:
    application = await world.application()
    application.answer = says({"result": True})
    oracle = Oracle(application)
    changes = {"access": RULES, "engines": {"it": oracle.section(remember="1h")}}
    by_name = {"on": "userName", "join": {"corp": "{{ claims.preferred_username | lower }}"}}
    running = await with_scim(world, tmp_path, changes=changes, okta=client_section(profile="okta", **by_name))
    async with ScimClient(running) as scim, running.browser() as browser:
        made = await scim.make("alan")
        await browser.sign_in("alan", "/documents/1")
        application.answer = says({"result": False})
        assert (await browser.fetch("/documents/1")).status == 200
        assert len(oracle.asked) == 1
        # Not even something that the question names.
        change = {"op": "replace", "path": "displayName", "value": "Prof"}
        assert (await scim.patch(f"/Users/{made['id']}", change)).status == 200
        assert (await browser.fetch("/documents/1")).status == 403
        application.answer = says({"result": True})
        assert (await browser.fetch("/documents/1")).status == 403
        await scim.group("wiki-writers", made["id"])
        assert (await browser.fetch("/documents/1")).status == 200
        assert [asked["user"] for asked in oracle.asked] == ["alan"] * 3
