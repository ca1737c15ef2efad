"""A running sidecar with a console, and browsers of its operators."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp

from tests.test_journey import users_table
from tests.world import Browser, Running, World, free_port, merged

# ada may administer, grace may operate, alan may look, mallory is nobody.
OPERATORS = {"view": {"group": "wiki-readers"}, "operate": {"role": "editor"}, "administer": {"role": "admin"}}


@dataclass
class Consoled:
    """A sidecar that runs, its console's address, and the application's users."""

    running: Running
    url: str
    users: Path

    def browser(self) -> Browser:
        """A browser without cookies that is pointed at the console."""
        return Browser(Running(**{**vars(self.running), "url": self.url}))

    async def operator(self, login: str, provider: str = "") -> Browser:
        """A browser in which *login* is signed in at the console, at *provider* where there are several."""
        browser = self.browser()
        answer = await browser.sign_in(login, f"/-/login?to=/&with={provider}" if provider else "/")
        assert answer.status in (200, 403), answer.status
        return browser

    def clock(self) -> float:
        """The time by the sidecar's clock."""
        return self.running.sidecar.front.clock()

    def audited(self, event: str) -> list[dict[str, Any]]:
        """The audit lines of *event*."""
        return [line for line in self.running.audit() if line["event"] == event]


async def a_console(world: World, folder: Path, changes: dict[str, Any] | None = None, **options: Any) -> Consoled:
    """Start a sidecar with accounts and a console for OPERATORS."""
    port, console = free_port(), free_port()
    url = f"http://localhost:{console}"
    provider = await world.provider(f"http://localhost:{port}", url)
    section = {"listen": f"127.0.0.1:{console}", "public_url": url, "operators": OPERATORS}
    users = folder / "users.db"
    running = await world(
        merged({"console": section}, changes or {}),
        provision=True,
        provider=provider,
        port=port,
        environment={"USERS_DB": users_table(users), **options.pop("environment", {})},
        **options,
    )
    return Consoled(running, url, users)


async def seal_of(browser: Browser) -> str:
    """The hidden field of the forms in a session."""
    text = await (await browser.page("/access")).text()
    found = re.search(r'name="seal" value="([0-9a-f]+)"', text)
    assert found, text
    return unescape(found[1])


async def act(browser: Browser, act: str, target: str, **changes: Any) -> aiohttp.ClientResponse:
    """Post the form of an act as the page would."""
    data = {"seal": await seal_of(browser), "act": act, "target": target, "back": "/", **changes.pop("data", {})}
    return await browser.page("/act", "POST", data=data, **changes)
