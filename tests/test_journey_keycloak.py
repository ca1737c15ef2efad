"""Keycloak as OpenID provider, in a real browser: sign-in, groups, and sign-out in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Page

from tests.keycloak_world import BASE, enter, rows_of, shown, users_on
from tests.services.keycloak import KeycloakServer
from tests.services.process import ServiceMissingError
from tests.world import Running, World, free_port, merged, until

# Starting Keycloak counts, too.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
async def two(
    request: pytest.FixtureRequest, world: World, keycloak: KeycloakServer, redis_url: str
) -> tuple[Running, Running, str]:
    """Two replicas at one address with Keycloak as provider, and the address of the application's users."""
    port, users = free_port(), await users_on(request, "postgres")
    url = f"http://localhost:{port}"
    secret = keycloak.oidc_client(
        "wiki",
        [f"{url}/-/callback/corp"],
        post_logout_redirect_uris=f"{url}/-/signed-out",
        backchannel_logout_url=f"{url}/-/backchannel/corp",
        backchannel_logout_session_required="true",
    )
    changes: Mapping[str, Any] = merged(
        BASE,
        {
            "server": {"public_url": url},
            "sessions": {"redis": {"env": "REDIS_URL"}},
            "directory": f"sqlite:///{world._folder}/shared.db",
        },
    )
    environment = {"USERS_DB": users, "OIDC_SECRET": secret, "REDIS_URL": redis_url}
    application = await world.application()
    one, other = [
        await world(
            changes,
            application=application,
            environment=environment,
            issuer=keycloak.issuer,
            provision=True,
            port=number,
        )
        for number in (port, 0)
    ]
    return one, other, users


async def status_at(running: Running, page: Page) -> int:
    """What one replica answers to this browser's session."""
    cookies = {cookie["name"]: cookie["value"] for cookie in await page.context.cookies(running.url)}
    async with aiohttp.ClientSession() as http:
        headers = {"Host": running.url.removeprefix("http://"), "Cookie": f"sidecar={cookies.get('sidecar', '')}"}
        answer = await http.get(f"http://127.0.0.1:{running.port}/", headers=headers, allow_redirects=False)
        return answer.status


async def answers_with(status: int, running: Running, page: Page) -> bool:
    """True when this replica now answers so."""
    return await status_at(running, page) == status


async def test_a_first_sign_in_makes_the_account_and_a_changed_group_changes_the_role(
    two: tuple[Running, Running, str], keycloak: KeycloakServer, page: Page
) -> None:
    one, _, users = two
    await page.goto(f"{one.url}/wiki?x=1")
    await enter(page, "ada")
    assert (await shown(page))["path"] == "/wiki?x=1"
    assert await rows_of(users) == [("ada", "ada@example.com", "admin")]

    keycloak.set_groups("ada", ["staff"])
    await page.context.clear_cookies()
    await page.goto(f"{one.url}/")
    await enter(page, "ada")
    await shown(page)
    assert await rows_of(users) == [("ada", "ada@example.com", "reader")]
    assert one.application.seen[-1].values("X-App-Roles") == ["reader"]


async def test_t30_an_administrator_who_ends_the_sessions_at_keycloak_ends_them_at_both_replicas(
    two: tuple[Running, Running, str], keycloak: KeycloakServer, page: Page
) -> None:
    one, other, _ = two
    await page.goto(one.url)
    await enter(page, "ada")
    await shown(page)
    assert [await status_at(running, page) for running in (one, other)] == [200, 200]
    keycloak.end_sessions("ada")
    for running in (one, other):
        await until(partial(answers_with, 401, running, page))
    assert any(line["event"] == "provider-logout" and line["ended"] == 1 for line in one.audit())


async def test_signing_out_here_signs_out_at_keycloak_too(
    two: tuple[Running, Running, str], keycloak: KeycloakServer, page: Page
) -> None:
    one, _, _ = two
    await page.goto(one.url)
    await enter(page, "bob")
    await shown(page)
    assert keycloak.session_count("bob") == 1
    await page.goto(f"{one.url}/-/logout")
    await page.wait_for_url("**/-/signed-out**")
    assert keycloak.session_count("bob") == 0
    # Who comes again has to say again who they are.
    await page.goto(one.url)
    assert await page.is_visible("#kc-login")


def test_a_keycloak_that_was_not_fetched_is_a_failure_that_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.services.keycloak.READY", tmp_path / "nothing")
    with pytest.raises(ServiceMissingError, match="run tools/keycloak"):
        KeycloakServer(free_port()).start()
