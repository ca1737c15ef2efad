"""Replicas in front of one application whose people come from a real provider, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Page
from playwright.async_api import TimeoutError as PlaywrightTimeoutError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.services.keycloak import PASSWORD
from tests.services.process import free_port
from tests.test_journey_kinds import TABLES
from tests.world import Running, World, merged

BASE: Mapping[str, Any] = {
    "roles": {"editor": None, "admin": "{{ 'wiki-admins' in groups }}", "reader": "{{ 'staff' in groups }}"},
    "access": [
        {"path": "/admin/**", "allow": {"role": "admin"}},
        {"path": "/**", "allow": {"role": ["admin", "reader"]}},
    ],
    "sessions": {"redis": {"env": "REDIS_URL"}},
}


@dataclass
class Replicas:
    """Two sidecars at one public address, with the application's users, Redis and the directory in common."""

    one: Running
    other: Running
    users: str

    @property
    def url(self) -> str:
        """The public address, at which the first one listens."""
        return self.one.url

    async def rows(self) -> list[tuple[object, ...]]:
        """(login, email, role) of everybody in the application."""
        engine = create_async_engine(self.users)
        async with engine.connect() as connection:
            found = await connection.execute(text("SELECT login, email, role FROM users ORDER BY 1"))
            rows = [tuple(row) for row in found]
        await engine.dispose()
        return rows

    def changes(self) -> list[str]:
        """Everything that was done to accounts so far."""
        changes = {"account-created", "account-updated", "account-linked", "roles-changed", "account-deactivated"}
        return [
            line["event"] for running in (self.one, self.other) for line in running.audit() if line["event"] in changes
        ]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The audit lines of one kind."""
        return [line for running in (self.one, self.other) for line in running.audit() if line["event"] == name]

    async def statuses(self, page: Page) -> list[int]:
        """What each replica answers to this browser's session."""
        cookies = {cookie["name"]: cookie["value"] for cookie in await page.context.cookies(self.url)}
        headers = {"Host": self.url.removeprefix("http://"), "Cookie": f"sidecar={cookies.get('sidecar', '')}"}
        return [await _status(f"http://127.0.0.1:{running.port}/", headers) for running in (self.one, self.other)]

    async def both_answer(self, status: int, page: Page) -> bool:
        """True when both replicas answer so now."""
        return await self.statuses(page) == [status, status]

    async def own_metadata(self, login: str) -> str:
        """What a provider reads of us."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/-/saml/{login}/metadata") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()


async def _status(url: str, headers: Mapping[str, str]) -> int:
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers, allow_redirects=False) as answer:
        return answer.status


async def users_on(request: pytest.FixtureRequest, kind: str) -> str:
    """Make the application's users table on a fresh database of this kind; its address."""
    url: str = request.getfixturevalue(f"{kind}_url")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(TABLES[kind]))
    await engine.dispose()
    return url


async def replicas_of(
    world: World,
    users: str,
    redis_url: str,
    changes: Mapping[str, Any],
    *,
    issuer: str = "",
    secret: str = "",
    port: int = 0,
) -> Replicas:
    """Start two sidecars at `http://localhost:<port>` with these changes, and the OIDC provider *issuer* if any."""
    port = port or free_port()
    directory = Path(world._folder) / "shared.db"
    shared = {"server": {"public_url": f"http://localhost:{port}"}, "directory": f"sqlite:///{directory}"}
    whole = merged(merged(BASE, shared), changes)
    environment = {"USERS_DB": users, "OIDC_SECRET": secret, "REDIS_URL": redis_url}
    application = await world.application()
    running = [
        await world(whole, application=application, environment=environment, issuer=issuer, provision=True, port=number)
        for number in (port, 0)
    ]
    return Replicas(running[0], running[1], users)


async def enter(page: Page, login: str) -> None:
    """Fill in Keycloak's own form; fails with what is shown in place of it."""
    try:
        await page.fill("#username", login, timeout=20_000)
    except PlaywrightTimeoutError:
        pytest.fail(f"{page.url} shows {await page.inner_text('body')}")
    await page.fill("#password", PASSWORD)
    await page.click("#kc-login")


async def shown(page: Page) -> dict[str, Any]:
    """What the application answered, as the browser shows it; fails with what it shows instead."""
    try:
        await page.get_by_text('"application"').wait_for(timeout=20_000)
    except PlaywrightTimeoutError:
        pytest.fail(f"{page.url} shows {await page.inner_text('body')}")
    answer: dict[str, Any] = json.loads(await page.inner_text("body"))
    return answer
