"""Attack T67 on SAML: a name that a provider gives to one person, passed off as somebody else's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sidecar.config.problem import ConfigError
from tests.saml_forger import PERSISTENT, pair, recipe, request_of
from tests.saml_metadata import described
from tests.saml_world import Begun, SamlWorld, start
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


EMAIL, UNSPECIFIED = (f"urn:oasis:names:tc:SAML:1.1:nameid-format:{kind}" for kind in ("emailAddress", "unspecified"))
BY_NAME = {"username": "{{ claims.name_id }}", "groups": "{{ claims.groups }}"}


@pytest.mark.parametrize(
    ("asked", "given", "reason"),
    [
        ("email", EMAIL, ""),
        ("email", UNSPECIFIED, "token-claim"),
        ("email", "", "token-claim"),
        ("persistent", PERSISTENT, ""),
        ("persistent", EMAIL, "token-claim"),
        ("unspecified", PERSISTENT, ""),
    ],
)
async def test_t67_a_name_of_another_kind_than_was_asked_for_is_nobody_s(
    world: World, monkeypatch: pytest.MonkeyPatch, asked: str, given: str, reason: str
) -> None:
    # Whoever changes the request in their browser gets a user name, which they chose, in the place of an address.
    partners = await start(world, monkeypatch, name_id=asked, identity=BY_NAME)
    if reason:
        made = {"name_id": "chief@partner.example", "name_format": given}
        async with partners.running.browser() as browser:
            begun = await partners.begin(browser)
            assert await partners.refused(partners.recipe(begun, **made), begun, browser) == reason
        assert "the NameID's Format is not" in partners.details()[-1]
    else:
        assert (await came_as(partners, "chief@partner.example", given))[0] == "chief@partner.example"


async def came_as(
    partners: SamlWorld, name: str, kind: str = PERSISTENT, groups: tuple[str, ...] = ("wiki-readers",)
) -> tuple[str, str]:
    """(user name, roles) that the application sees of whoever is called *name*, ("", "") for nobody."""
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        made = partners.recipe(begun, name_id=name, name_format=kind, attributes={"groups": groups})
        await partners.bring(browser, made.text(), begun.relay_state)
        if (await browser.fetch("/")).status != 200:
            return "", ""
    seen = partners.running.application.seen[-1]
    return seen.values("X-App-User")[0], seen.values("X-App-Roles")[0]


@pytest.mark.parametrize("unseen", ["\u00a0", "\u2003", "\u3000", "\u205f", "\u1680"])
async def test_t67_white_space_that_xml_does_not_know_makes_another_name(
    world: World, monkeypatch: pytest.MonkeyPatch, unseen: str
) -> None:
    partners = await start(world, monkeypatch, identity=BY_NAME)
    assert (await came_as(partners, "\n chief\t"))[0] == "chief"
    assert [await came_as(partners, name) for name in (f"chief{unseen}", f"{unseen}chief")] == [("", "")] * 2
    groups = (f"wiki-admins{unseen}", f"{unseen}wiki-editors", "wiki-readers")
    assert await came_as(partners, "chief", groups=groups) == ("chief", "reader")


async def test_t67_a_subject_is_not_somebody_else_s_but_for_white_space(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    partners = await start(world, monkeypatch, identity=BY_NAME, subject="{{ claims.groups[0] }}")
    for one in ("wiki-readers", "wiki-readers\u00a0"):
        await came_as(partners, "chief", groups=(one, "wiki-readers"))
    opened = [line["subject"] for line in partners.running.audit() if line["event"] == "login-succeeded"]
    assert opened == ["wiki-readers", "wiki-readers\u00a0"]


async def test_t67_an_attribute_called_as_a_claim_does_not_stand_in_for_the_one_that_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    partners = await start(world, monkeypatch, identity=BY_NAME, attributes={"groups": "memberOf"})
    assert await came_as(partners, "chief", groups=("wiki-admins",)) == ("", "")
