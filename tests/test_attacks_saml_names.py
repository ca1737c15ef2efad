"""Attack T67 on SAML: a name that a provider gives to one person, passed off as somebody else's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sidecar.config.problem import ConfigError
from tests.saml_forger import pair, recipe, request_of
from tests.saml_metadata import described
from tests.saml_world import Begun, SamlWorld
from tests.world import Running, World

HOME, PARTNER = "https://id.example.com/metadata", "https://idp.partner.example/metadata"


def logins(folder: Path, partner: str, **lines: str) -> Mapping[str, Any]:
    """Two providers, of which *partner* is what the partner's metadata calls itself; each signs with its own key."""
    sections: dict[str, Any] = {"corp": None}
    for name, entity in (("home", HOME), ("partners", partner)):
        file = folder / f"{name}.xml"
        file.write_text(described(entity, pair(name)))
        sections[name] = {"type": "saml", "metadata": str(file), "identity": {"username": "{{ claims.name_id }}"}}
        sections[name] |= {"idp": lines[name]} if name in lines else {}
    return {"logins": sections}


async def entered(running: Running, world: World, login: str, issuer: str) -> tuple[int, list[dict[str, Any]]]:
    """What the provider of *login* gets that signs an answer about ``chief`` in the name of *issuer*."""
    async with running.browser() as browser:
        sent = await browser.page(f"/-/login?to=/&with={login}")
        if sent.status != 302:
            return sent.status, []
        url = sent.headers["Location"]
        begun = Begun(request_of(url).get("ID"), parse_qs(urlsplit(url).query)["RelayState"][0], url)
        place, ours = f"{running.url}/-/callback/{login}", f"{running.url}/-/saml/{login}/metadata"
        made = recipe(acs=place, audience=ours, request=begun.request, issuer=issuer, key=pair(login), name_id="chief",
                      now=world.clock())  # fmt: skip
        saml = SamlWorld(running, world)
        posted = await saml.post(made.text(), begun.relay_state, target=login)
        answer = await browser.page(posted.headers["Location"])
    return answer.status, [line for line in running.audit() if line["event"] == "login-succeeded"]


async def test_t67_a_provider_that_calls_itself_another_does_not_get_its_people(world: World, tmp_path: Path) -> None:
    running = await world(logins(tmp_path, HOME, home=HOME, partners=PARTNER))
    status, opened = await entered(running, world, "home", HOME)
    assert (status, [line["issuer"] for line in opened]) == (302, [f"saml:{HOME}"])
    assert await entered(running, world, "partners", HOME) == (503, [])


async def test_t67_two_providers_serve_only_when_each_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"logins\.partners\.idp: is missing"):
        await world(logins(tmp_path, HOME, home=HOME))
    running = await world(logins(tmp_path, PARTNER, home=HOME, partners=PARTNER))
    assert (await entered(running, world, "partners", PARTNER))[0] == 302
