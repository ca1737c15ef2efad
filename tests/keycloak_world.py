"""Sidecars in front of one application whose people come from a real Keycloak, in a real browser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import Page
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.services.keycloak import PASSWORD
from tests.test_journey_kinds import TABLES

ROLES = {"admin": "{{ 'wiki-admins' in groups }}", "reader": "{{ 'staff' in groups }}"}
BASE = {
    "roles": {"editor": None, **ROLES},
    "access": [
        {"path": "/admin/**", "allow": {"role": "admin"}},
        {"path": "/**", "allow": {"role": ["admin", "reader"]}},
    ],
}


async def users_on(request: pytest.FixtureRequest, kind: str) -> str:
    """Make the application's users table on a fresh database of this kind; its address."""
    url: str = request.getfixturevalue(f"{kind}_url")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(TABLES[kind]))
    await engine.dispose()
    return url


async def rows_of(url: str) -> list[tuple[object, ...]]:
    """(login, email, role) of everybody in the application."""
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        rows = [tuple(row) for row in await connection.execute(text("SELECT login, email, role FROM users ORDER BY 1"))]
    await engine.dispose()
    return rows


async def enter(page: Page, login: str) -> None:
    """Fill in Keycloak's own form."""
    await page.fill("#username", login)
    await page.fill("#password", PASSWORD)
    await page.click("#kc-login")


async def shown(page: Page) -> dict[str, Any]:
    """What the application answered, as the browser shows it."""
    await page.wait_for_function("document.body.innerText.includes('\"application\"')")
    answer: dict[str, Any] = json.loads(await page.inner_text("body"))
    return answer
