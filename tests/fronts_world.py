"""Front proxies before a sidecar's application, and requests through them that are sent as they are written."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.services.fronts import EXAMPLES, Places, front
from tests.test_journey import users_table
from tests.world import Browser, Running, Seen, World, free_port

KINDS = ["nginx", "haproxy", "caddy", "traefik", "envoy"]
PAGE = {**Browser.PAGE}
FETCH = {"Sec-Fetch-Mode": "cors", "Accept": "application/json"}
TOLD = ["X-Remote-User", "X-Remote-Email", "X-Remote-Roles"]
RULES = [
    {"path": "/health", "allow": "anyone"},
    {"path": "/public/**", "allow": "anyone"},
    {"path": "/lan/**", "allow": {"who": "anyone", "network": "203.0.113.0/24"}},
    {"path": "/here/**", "allow": {"who": "anyone", "network": "127.0.0.0/8"}},
    {"path": "/strong/**", "allow": "signed_in", "require": {"acr": "urn:demo:strong"}},
    {"path": "/closed/**", "allow": "nobody"},
    {"path": "/admin/**", "allow": {"role": "admin"}},
    {"path": "/save/**", "methods": ["GET", "POST"], "allow": {"role": ["admin", "editor"]}},
    {"path": "/save/**", "allow": "nobody"},
    {"path": "/**", "allow": {"role": ["admin", "editor"]}},
]


@dataclass
class Site:
    """A sidecar, a front proxy before its application, and browsers of people who signed in through that proxy."""

    kind: str
    running: Running
    front: str
    cookies: dict[str, str]
    browsers: list[Browser] = field(default_factory=list)

    async def ask(self, case: Case) -> Answer:
        """Ask through the front proxy."""
        return await ask(self.front, case, self.cookies.get(case.who, ""))

    async def sign_in(self, person: str) -> None:
        """Sign somebody in through the front proxy."""
        browser = replace(self.running, url=self.front).browser()
        self.browsers.append(browser)
        await browser.sign_in(person, "/page")
        self.cookies[person] = "; ".join(f"{one.key}={one.value}" for one in browser.http.cookie_jar)

    async def seen(self, base: str, case: Case) -> tuple[Answer, list[Seen]]:
        """Ask at *base*: the answer, and what the application saw of it."""
        before = len(self.running.application.seen)
        answer = await ask(base, case, self.cookies.get(case.who, ""))
        return answer, self.running.application.seen[before:]


@dataclass(frozen=True)
class Case:
    """One request: who asks, how, for what."""

    target: str
    who: str = ""
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=lambda: FETCH)
    body: bytes = b""
    host: str | None = None

    def __str__(self) -> str:
        kind = "page" if self.headers.get("Sec-Fetch-Mode") == "navigate" else "fetch"
        return f"{self.method} {self.target} {self.who or 'nobody'} {kind}"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    lines: list[tuple[str, str]]
    text: str

    def values(self, name: str) -> list[str]:
        """Values of all lines of that name."""
        return [value for key, value in self.lines if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        """The only value of that name, "" when there is none."""
        values = self.values(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else ""

    @property
    def reason(self) -> str:
        """Code of a refusal, on a page or in JSON."""
        if self.text and self.one("Content-Type").startswith("application/json"):
            return str(json.loads(self.text).get("error", ""))
        found = re.search(r"<code>([a-z-]+)</code>", self.text)
        return found[1] if found else ""

    @property
    def told(self) -> tuple[object, ...]:
        """What the client is told, whoever carries the request."""
        if self.status == 200 and "onward" not in self.text and "Please sign in first" not in self.text:
            return ("passed",)
        location = urlsplit(self.one("Location"))
        if "Please sign in first" in self.text or (self.status == 401 and "<html" in self.text):
            return ("sign in first",)
        return (self.status, self.reason, location.path, location.query, bool(self.values("WWW-Authenticate")))


async def ask(base: str, case: Case, cookie: str = "") -> Answer:
    """Send the request as it is written: no client tidies its path."""
    where = urlsplit(base)
    lines = [f"{case.method} {case.target} HTTP/1.1", f"Host: {where.netloc if case.host is None else case.host}"]
    # What a case says of the connection is all that is said of it.
    lines += [] if "Connection" in case.headers else ["Connection: close"]
    lines += [f"{name}: {value}" for name, value in case.headers.items()]
    lines += [f"Cookie: {cookie}"] if cookie else []
    lines += [f"Content-Length: {len(case.body)}"] if case.body or case.method in ("POST", "PUT") else []
    reader, writer = await asyncio.open_connection("127.0.0.1", where.port)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + case.body)
        async with asyncio.timeout(15):
            head = b"HTTP/1.1 100"
            while head.startswith(b"HTTP/1.1 100"):
                head = (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n")
            body = await _body(reader, case.method, head)
    finally:
        writer.close()
    first, *rest = head.decode("latin-1").split("\r\n")
    parted = [line.partition(":") for line in rest]
    found = [(name, value.strip()) for name, _, value in parted]
    if ("transfer-encoding", "chunked") in [(name.lower(), value) for name, value in found]:
        body = b"".join(re.split(rb"(?:^|\r\n)[0-9a-fA-F]+\r\n", body))
    return Answer(int(first.split()[1]), found, body.decode(errors="replace"))


async def _body(reader: asyncio.StreamReader, method: str, head: bytes) -> bytes:
    """All of the body: some front proxies keep a connection open for a second after they have refused something."""
    length = re.search(rb"(?im)^content-length: *(\d+) *\r?$", head)
    if method == "HEAD" or length is None:
        return await reader.read()
    return await reader.readexactly(int(length[1]))


def sections(kind: str) -> dict[str, Any]:
    """What the example says to the sidecar about this kind of front proxy."""
    example = yaml.safe_load((EXAMPLES / "config.yaml").read_text())
    return {"headers": example["headers"], "forward_auth": {**example["forward_auth"], "dialect": kind}}


@asynccontextmanager
async def a_site(
    world: World, tmp_path: Path, kind: str, *people: str, changes: Mapping[str, Any] | None = None
) -> AsyncIterator[Site]:
    port = free_port()
    url = f"http://localhost:{port}"
    config = {
        "server": {"public_url": url, "trusted_proxies": ["127.0.0.1"], "hosts": ["other.example"]},
        "access": RULES,
        **sections(kind),
        **(changes or {}),
    }
    users = users_table(tmp_path / f"{kind}.db")
    environment = {"USERS_DB": users}
    running = await world(config, provider=await world.provider(url), provision=True, environment=environment)
    places = Places(port, running.port, running.application.port)
    started = await front(kind, places).start()
    site = Site(kind, running, url, {})
    try:
        for person in people:
            await site.sign_in(person)
        yield site
    finally:
        for browser in site.browsers:
            await browser.http.close()
        await started.stop()
