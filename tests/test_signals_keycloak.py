"""Keycloak as a transmitter of shared signals: its own stream, polled and acknowledged, ends sessions here."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from playwright.async_api import Page

from tests.replicas_world import Replicas, enter, replicas_of, shown, users_on
from tests.services.keycloak import PASSWORD, KeycloakServer
from tests.test_signals_command import command
from tests.world import SECRET, World, free_port, until

# Starting Keycloak counts, too.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
async def two(
    request: pytest.FixtureRequest, world: World, keycloak: KeycloakServer, redis_url: str
) -> tuple[Replicas, dict[str, str]]:
    """Two replicas that poll Keycloak's events as the client that people sign in by; what commands need to know."""
    realm = keycloak.admin("GET", "")
    realm["attributes"]["ssf.transmitterEnabled"] = "true"
    keycloak.admin("PUT", "", realm)
    port = free_port()
    url = f"http://localhost:{port}"
    secret = keycloak.oidc_client("wiki", [f"{url}/-/callback/corp"])
    [client] = keycloak.admin("GET", "/clients?clientId=wiki")
    attributes = {
        "ssf.enabled": "true",
        "ssf.streamAudience": url,
        "ssf.defaultSubjects": "ALL",
        "ssf.userSubjectFormat": "iss_sub",
    }
    keycloak.change_client(client["id"], attributes, publicClient=False, secret=secret, serviceAccountsEnabled=True)
    for scope in keycloak.admin("GET", "/client-scopes"):
        if scope["name"].startswith("ssf."):
            keycloak.admin("PUT", f"/clients/{client['id']}/optional-client-scopes/{scope['id']}")
    speaker: dict[str, Any] = {
        "issuer": keycloak.issuer,
        "login": "corp",
        "scopes": ["ssf.read", "ssf.manage"],
        "poll": {"every": "200ms"},
    }
    users = await users_on(request, "postgres")
    changes = {"signals": {"transmitters": {"keycloak": speaker}}}
    replicas = await replicas_of(world, users, redis_url, changes, issuer=keycloak.issuer, secret=secret, port=port)
    known = {"SESSION_SECRET": SECRET, "ISSUER": keycloak.issuer, "REDIS_URL": redis_url}
    return replicas, {**known, "OIDC_SECRET": secret, "USERS_DB": users}


async def test_a_password_that_an_administrator_resets_at_keycloak_ends_the_sessions_at_both_replicas(
    two: tuple[Replicas, dict[str, str]], keycloak: KeycloakServer, page: Page
) -> None:
    replicas, around = two
    code, made, error = await command(replicas.one, around, "create")
    assert code == 0, error
    assert made["created"] is True
    code, verified, error = await command(replicas.one, around, "verify", "--wait", "30")
    assert (code, verified["received"]) == (0, True), error
    await page.goto(replicas.url)
    await enter(page, "ada")
    await shown(page)
    assert await replicas.statuses(page) == [200, 200]
    password = {"type": "password", "value": PASSWORD, "temporary": False}
    keycloak.admin("PUT", f"/users/{keycloak.person('ada')['id']}/reset-password", password)
    await until(partial(replicas.both_answer, 401, page), within=30)
    [line] = [line for line in replicas.events("signal-received") if line["signal"] == "credential-change"]
    assert (line["way"], line["effect"]) == ("poll", "end_sessions")
    code, status, _ = await command(replicas.one, around, "status")
    assert (code, status["status"]) == (0, "enabled")
