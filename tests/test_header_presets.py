"""Presets, Basic credentials and shared secrets: what the application gets, and what nobody else can send."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from sidecar.config.header_presets import PRESETS
from sidecar.core.headers import encode_basic
from sidecar.core.template import Compiler, TemplateError
from sidecar.faults import Refused
from sidecar.reason import Reason
from tests.configurations import loaded, problems, text_of
from tests.world import World

HEADERS = {"X-App-User": None, "X-App-Email": None, "X-App-Name": None, "X-App-Roles": None}


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_without_a_problem_and_in_the_docs(name: str, tmp_path: Path) -> None:
    assert problems(tmp_path, text_of(headers=f"headers: {{preset: {name}}}")) == ()
    page = (Path(__file__).parents[1] / "docs" / "headers.md").read_text()
    assert f"`{name}`" in page
    assert all(f"`{header}`" in page for header, value in PRESETS[name].items() if value)


def test_own_lines_take_the_place_of_a_preset_s(tmp_path: Path) -> None:
    text = "headers:\n  preset: [grafana, remote_user]\n  x_webauth_user: '{{ user.email }}'\n  X-WEBAUTH-EMAIL: null\n"
    headers = loaded(tmp_path, text_of(headers=text)).config.headers
    assert "X-WEBAUTH-USER" not in headers
    assert {"x_webauth_user", "X-Remote-User", "X-WEBAUTH-ROLE"} <= set(headers)
    # Not sent, but still a name that is stripped.
    value = headers["X-WEBAUTH-EMAIL"].value
    assert value is not None
    assert value.source == ""


async def test_t01_t02_the_names_of_a_preset_never_come_from_outside(world: World) -> None:
    running = await world({"headers": {**HEADERS, "preset": ["grafana", "jupyterhub"], "X-WEBAUTH-EMAIL": ""}})
    evil = {"x_webauth_user": "root", "X-Webauth-Email": "r@x", "X-WEBAUTH-ROLE": "Admin", "remote_user": "root"}
    async with running.browser() as browser:
        await browser.sign_in("alan")
        await browser.page("/", headers=evil)
        await browser.page("/public/x", headers=evil)
    private, public = running.application.seen[-2:]
    assert private.careless("X-WEBAUTH-USER") == ["alan"]
    assert private.careless("X-WEBAUTH-ROLE") == ["Viewer"]
    assert private.careless("Remote-User") == ["alan"]
    assert private.careless("X-WEBAUTH-EMAIL") == []
    assert [public.careless(name) for name in ("X-WEBAUTH-USER", "X-WEBAUTH-ROLE", "Remote-User")] == [[], [], []]


async def test_a_basic_credential_is_the_person_s_own_and_takes_the_place_of_the_browser_s(world: World) -> None:
    basic = {"username": "{{ user.username }}", "password": {"env": "OIDC_SECRET"}}
    running = await world({"headers": {"Authorization": {"basic": basic}}})
    async with running.browser() as browser:
        await browser.sign_in("grace")
        await browser.page("/", headers={"Authorization": "Basic cm9vdDpyb290"})
        assert running.application.seen[-1].careless("Authorization") == [
            "Basic " + base64.b64encode(b"grace:a client secret").decode()
        ]
        await browser.page("/public/x", headers={"Authorization": "Basic cm9vdDpyb290"})
        assert running.application.seen[-1].careless("Authorization") == []


async def test_a_shared_secret_comes_with_every_request_and_only_from_here(world: World) -> None:
    running = await world({"headers": {"X-Proxy-Secret": {"env": "OIDC_SECRET"}}})
    async with running.browser() as browser:
        await browser.page("/public/x", headers={"X_Proxy_Secret": "guess"})
        await browser.sign_in("ada")
        await browser.page("/", headers={"X-Proxy-Secret": "guess"})
        await browser.page("/again")
    values = [seen.careless("X-Proxy-Secret") for seen in running.application.seen]
    assert values == [["a client secret"]] * len(values)
    assert len(values) >= 3


def test_t05_a_user_name_cannot_move_the_end_of_itself_in_a_basic_credential() -> None:
    assert encode_basic("A", "ä", "p:w", 100) == "Basic " + base64.b64encode("ä:p:w".encode()).decode()
    for user, password in (("a:b", "p"), ("a\n", "p"), ("a", "p\r")):
        with pytest.raises(Refused) as caught:
            encode_basic("A", user, password, 100)
        assert caught.value.reason is Reason.HEADER_VALUE


def test_lists_can_be_json() -> None:
    compiler = Compiler()
    assert compiler.compile("{{ roles | json }}").text({"roles": ["a", 'b"', "ä"]}) == '["a","b\\"","\\u00e4"]'
    with pytest.raises(TemplateError):
        compiler.compile("{{ claims.gone | json }}").text({"claims": {}})
