"""Keycloak as OpenID provider, in a real browser: sign-in, groups, and sign-out in both directions."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.replicas_world import Replicas, enter, replicas_of, shown, users_on
from tests.services.keycloak import KeycloakServer
from tests.services.process import ServiceMissingError, free_port
from tests.world import World, until

# Starting Keycloak counts, too.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
async def two(request: pytest.FixtureRequest, world: World, keycloak: KeycloakServer, redis_url: str) -> Replicas:
    """Two replicas with Keycloak as provider, and an application on PostgreSQL."""
    port = free_port()
    url = f"http://localhost:{port}"
    secret = keycloak.oidc_client(
        "wiki",
        [f"{url}/-/callback/corp"],
        post_logout_redirect_uris=f"{url}/-/signed-out",
        backchannel_logout_url=f"{url}/-/backchannel/corp",
        backchannel_logout_session_required="true",
    )
    users = await users_on(request, "postgres")
    return await replicas_of(world, users, redis_url, {}, issuer=keycloak.issuer, secret=secret, port=port)


async def test_a_first_sign_in_makes_the_account_and_a_changed_group_changes_the_role(
    two: Replicas, keycloak: KeycloakServer, page: Page
) -> None:
    await page.goto(f"{two.url}/wiki?x=1")
    await enter(page, "ada")
    assert (await shown(page))["path"] == "/wiki?x=1"
    assert await two.rows() == [("ada", "ada@example.com", "admin")]

    keycloak.set_groups("ada", ["staff"])
    await page.context.clear_cookies()
    await page.goto(f"{two.url}/")
    await enter(page, "ada")
    await shown(page)
    assert await two.rows() == [("ada", "ada@example.com", "reader")]
    assert two.one.application.seen[-1].values("X-App-Roles") == ["reader"]


async def test_t30_an_administrator_who_ends_the_sessions_at_keycloak_ends_them_at_both_replicas(
    two: Replicas, keycloak: KeycloakServer, page: Page
) -> None:
    await page.goto(two.url)
    await enter(page, "ada")
    await shown(page)
    assert await two.statuses(page) == [200, 200]
    keycloak.end_sessions("ada")
    await until(partial(two.both_answer, 401, page))
    assert [line["ended"] for line in two.events("provider-logout")] == [1]


async def test_signing_out_here_signs_out_at_keycloak_too(two: Replicas, keycloak: KeycloakServer, page: Page) -> None:
    await page.goto(two.url)
    await enter(page, "bob")
    await shown(page)
    assert keycloak.session_count("bob") == 1
    await page.goto(f"{two.url}/-/logout")
    await page.wait_for_url("**/-/signed-out**")
    assert keycloak.session_count("bob") == 0
    # Who comes again has to say again who they are.
    await page.goto(two.url)
    assert await page.is_visible("#kc-login")


@pytest.mark.parametrize(("types", "status"), [({"types": ["JWT"]}, 200), ({}, 401)])
async def test_a_program_with_an_access_token_gets_in_as_the_page_about_products_says(
    world: World, keycloak: KeycloakServer, types: dict[str, object], status: int
) -> None:
    secret = keycloak.oidc_client("jobs", ["http://localhost/"])
    key = keycloak.admin("GET", "/clients?clientId=jobs")[0]["id"]
    config = {"included.custom.audience": "wiki-api", "access.token.claim": "true"}
    audience = {"name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper"}
    keycloak.change_client(key, serviceAccountsEnabled=True, protocolMappers=[{**audience, "config": config}])
    bearer = {"audience": "wiki-api", **types}
    rules = [{"path": "/**", "allow": {"bearer": "corp"}}]
    running = await world({"logins": {"corp": {"bearer": bearer}}, "access": rules}, issuer=keycloak.issuer)
    form = {"grant_type": "client_credentials", "client_id": "jobs", "client_secret": secret}
    async with running.browser() as program:
        answer = await program.http.post(f"{keycloak.issuer}/protocol/openid-connect/token", data=form)
        token = (await answer.json())["access_token"]
        assert (await program.fetch("/x", headers={"Authorization": f"Bearer {token}"})).status == status


def test_a_keycloak_that_was_not_fetched_is_a_failure_that_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.services.keycloak.READY", tmp_path / "nothing")
    with pytest.raises(ServiceMissingError, match="run tools/keycloak"):
        KeycloakServer(free_port()).start()
