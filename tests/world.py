"""A whole small world for tests: a running sidecar, an application that remembers, and people who sign in.

`World` is made by the `world` fixture (tests/conftest.py): `await world(changes…)` starts a sidecar with a
configuration and gives a `Running`. The identity provider is the demo's own unless a test brings another.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from html import unescape
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from sidecar.app import Sidecar, build
from sidecar.config.loader import load
from sidecar.core.audit import Event
from sidecar.demo.people import DemoPerson
from sidecar.demo.provider import DemoProvider
from sidecar.demo.register import DemoClient
from sidecar.hooks.passwords import FILTERS
from tests.services.process import free_port

SECRET = "a session secret that is long enough for anybody"
PEOPLE = (
    DemoPerson("ada", "Ada Lovelace", "ada@example.com", ("wiki-admins", "wiki-readers")),
    DemoPerson("grace", "Grace Hopper", "grace@example.com", ("wiki-editors",)),
    DemoPerson("alan", "Alan Turing", "alan@example.com", ("wiki-readers",)),
    DemoPerson("mallory", "Mallory", "mallory@evil.example", ()),
)


class _NoRoom:
    """Where audit lines cannot be written: a disk that is full."""

    def write(self, lines: bytes) -> int:
        raise OSError(errno.ENOSPC, f"no room for {len(lines)} bytes")

    def place(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is open."""


async def until(holds: Callable[[], Any], within: float = 10.0) -> None:
    """Wait until the coroutine that *holds* makes gives True; TimeoutError after *within* seconds."""
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110 - what is waited for is another process's doing
            await asyncio.sleep(0.02)


@dataclass
class Clock:
    """The real time, and as much as a test sets it ahead (seconds)."""

    ahead: float = 0.0

    def __call__(self) -> float:
        """Epoch seconds."""
        return time.time() + self.ahead


@dataclass
class Seen:
    """One request as the application saw it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Values of all lines of this very name, whatever the case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def careless(self, name: str) -> list[str]:
        """Values of all lines that CGI, WSGI or PHP would read as *name*."""
        wanted = re.sub(r"[^a-z0-9]", "_", name.lower())
        return [value for key, value in self.headers if re.sub(r"[^a-z0-9]", "_", key.lower()) == wanted]


@dataclass
class Application:
    """An application that answers with what reached it, and remembers."""

    seen: list[Seen] = field(default_factory=list)
    port: int = 0
    answer: Callable[[web.BaseRequest], Any] | None = None
    _runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        server = web.Server(self._handle, auto_decompress=False, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = [
            (name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in request.raw_headers
        ]
        self.seen.append(Seen(request.method, request.raw_path, headers, body))
        if self.answer is not None:
            answer: web.StreamResponse = await self.answer(request)
            return answer
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._echo(request)
        return web.json_response({"application": True, "path": request.raw_path})

    async def _echo(self, request: web.BaseRequest) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)  # type: ignore[arg-type]
        async for message in ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str("echo " + message.data)
        return ws


@dataclass
class Running:
    """A sidecar that runs."""

    sidecar: Sidecar
    url: str
    port: int
    application: Application
    provider: DemoProvider
    audit_file: Path
    folder: Path

    def browser(self) -> Browser:
        """Give a fresh browser without cookies."""
        return Browser(self)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes as they are and give everything that comes back until the connection closes or is idle."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = b""
        try:
            while True:
                piece = await asyncio.wait_for(reader.read(65536), 2)
                if not piece:
                    break
                answer += piece
        except TimeoutError:
            pass
        finally:
            writer.close()
        return answer

    @asynccontextmanager
    async def full_disk(self) -> AsyncIterator[None]:
        """Have the audit lines written where there is no room, until the end."""
        log = self.sidecar.audit
        (outlet,) = log._outlets
        roomy, outlet._sink = outlet._sink, _NoRoom()
        try:
            while not log.is_failing:
                log.record(Event.DECISION, {})
                await asyncio.sleep(0.01)
            yield
        finally:
            outlet._sink = roomy

    def audit(self) -> list[dict[str, Any]]:
        """All audit lines so far, without what chains them."""
        self.sidecar.audit.flush()
        if not self.audit_file.exists():
            return []
        # Whoever reads while somebody writes may see the beginning of a line.
        whole = self.audit_file.read_text().rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines()]
        chained = ("chain", "n", "hash")
        return [
            {name: value for name, value in line.items() if name not in chained}
            for line in lines
            if line["event"] != "audit-anchor"
        ]


class Browser:
    """A plain HTTP client with cookies that behaves like a browser where it matters."""

    PAGE: Mapping[str, str] = {
        "Accept": "text/html,*/*",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Site": "same-origin",
    }

    def __init__(self, running: Running) -> None:
        """Begin without cookies."""
        self._running = running
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    @property
    def url(self) -> str:
        """Address of the sidecar that it uses."""
        return self._running.url

    def _url(self, target: str) -> URL:
        return URL(target if target.startswith("http") else self._running.url + target, encoded=True)

    async def page(self, target: str, method: str = "GET", **options: Any) -> aiohttp.ClientResponse:
        """Ask for a page, as when somebody follows a link; redirects are not followed."""
        headers = {**self.PAGE, **options.pop("headers", {})}
        response = await self.http.request(method, self._url(target), headers=headers, allow_redirects=False, **options)
        await response.read()
        return response

    async def fetch(self, target: str, method: str = "GET", **options: Any) -> aiohttp.ClientResponse:
        """Ask as a script would."""
        headers = {"Sec-Fetch-Mode": "cors", "Accept": "application/json", **options.pop("headers", {})}
        response = await self.http.request(method, self._url(target), headers=headers, allow_redirects=False, **options)
        await response.read()
        return response

    async def follow(self, response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
        """Follow redirects and self-refreshing pages until there are none, but not into a sign-in page's form."""
        for _ in range(20):
            onward = await self._onward(response)
            if onward is None:
                return response
            response = await self.page(str(response.url.join(URL(onward, encoded=True))))
        raise AssertionError("too many redirects")

    @staticmethod
    async def _onward(response: aiohttp.ClientResponse) -> str | None:
        if response.status in (301, 302, 303, 307, 308):
            return response.headers["Location"]
        refresh = re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', await response.text())
        return unescape(refresh[1]) if refresh else None

    async def at_provider(self, target: str = "/") -> aiohttp.ClientResponse:
        """Begin a sign-in at *target*; the provider's sign-in page."""
        return await self.follow(await self.page(target))

    async def follow_to_provider(self, target: str = "/") -> str:
        """Begin a sign-in at *target*; the address of the provider that the sidecar sends to, not asked for."""
        response = await self.page(target)
        while (onward := await self._onward(response)) is not None:
            url = response.url.join(URL(onward, encoded=True))
            if url.authority != response.url.authority:
                return str(url)
            response = await self.page(str(url))
        raise AssertionError("the sidecar sent nobody to the provider")

    async def choose(self, sign_in_page: aiohttp.ClientResponse, login: str) -> aiohttp.ClientResponse:
        """Choose who to be on the provider's page; the redirect back to the sidecar, not followed."""
        text = await sign_in_page.text()
        action = unescape(re.search(r'<form[^>]*action="([^"]+)"', text)[1])  # type: ignore[index]
        fields = {
            unescape(name): unescape(value)
            for name, value in re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', text)
        }
        response = await self.http.post(
            sign_in_page.url.join(URL(action, encoded=True)), data={**fields, "login": login}, allow_redirects=False
        )
        while "/-/callback/" not in response.headers.get("Location", "/-/callback/"):
            response = await self.page(str(response.url.join(URL(response.headers["Location"], encoded=True))))
        return response

    async def sign_in(self, login: str, target: str = "/") -> aiohttp.ClientResponse:
        """Sign in as *login* and come back to *target*: the last answer."""
        back = await self.choose(await self.at_provider(target), login)
        return await self.follow(back)

    def forget_provider(self) -> None:
        """Drop the provider's cookies, so that it asks again who somebody is."""
        self.http.cookie_jar.clear(lambda cookie: not cookie.key.startswith("sidecar"))

    def cookie(self, name: str = "sidecar") -> str:
        """Value of one of our cookies, "" when there is none."""
        found = [cookie.value for cookie in self.http.cookie_jar if cookie.key == name]
        return found[0] if found else ""


USERS = """CREATE TABLE users (id INTEGER PRIMARY KEY, login TEXT, email TEXT, role TEXT, active INTEGER DEFAULT 1)"""

PROVISION = """
account: {key: "{{ user.username }}", protected: [root]}
attributes: {email: {from: "{{ user.email }}"}}
roles: {mode: authoritative, managed: [admin, editor, reader], default: reader}
connections: {db: {sql: {env: USERS_DB}}}
lookup:
  sql: {on: db, query: "SELECT id, role, active FROM users WHERE login = :login",
        params: {login: "{{ account.key }}"}}
create:
  - sql: {on: db, exec: "INSERT INTO users (login, email, role) VALUES (:login, :email, :role)",
          params: {login: "{{ account.key }}", email: "{{ attributes.email }}", role: "{{ role }}"}, affected: 1}
  - sql: {on: db, query: "SELECT id FROM users WHERE login = :login", params: {login: "{{ account.key }}"}}
update:
  sql: {on: db, exec: "UPDATE users SET email = :email WHERE login = :login",
        params: {login: "{{ account.key }}", email: "{{ attributes.email }}"}, affected: 1}
set_roles:
  sql: {on: db, exec: "UPDATE users SET role = :role WHERE login = :login",
        params: {login: "{{ account.key }}", role: "{{ role }}"}, affected: 1}
deactivate:
  sql: {on: db, exec: "UPDATE users SET active = 0 WHERE login = :login",
        params: {login: "{{ account.key }}"}, affected: 1}
reactivate:
  sql: {on: db, exec: "UPDATE users SET active = 1 WHERE login = :login",
        params: {login: "{{ account.key }}"}, affected: 1}
"""

BASE = """
server: {listen: "127.0.0.1:0", public_url: "", drain: 2s, notice: 0s}
app: {upstream: ""}
logins:
  corp: {type: oidc, title: Company account, issuer: {env: ISSUER}, client_id: wiki, client_secret: {env: OIDC_SECRET}}
identity:
  username: "{{ claims.preferred_username }}"
  email: "{{ claims.email }}"
  name: "{{ claims.name }}"
  groups: "{{ claims.groups }}"
roles:
  admin: "{{ 'wiki-admins' in groups }}"
  editor: "{{ 'wiki-editors' in groups }}"
  reader: "{{ 'wiki-readers' in groups }}"
access:
  - {path: /health, allow: anyone}
  - {path: /public/**, allow: anyone}
  - {path: /admin/**, allow: {role: admin}}
  - {path: /**, allow: {role: [admin, editor, reader]}}
headers:
  X-App-User: "{{ user.username }}"
  X-App-Email: "{{ user.email }}"
  X-App-Name: "{{ user.name }}"
  X-App-Roles: "{{ roles | join(',') }}"
sessions: {secrets: [{env: SESSION_SECRET}]}
"""


# In C where there is one, which is far quicker.
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_read_once = cache(partial(yaml.load, Loader=yaml.BaseLoader))


def parsed(text: str) -> Any:
    """What *text* in YAML says, all values as text; read once, and a copy each time."""
    return copy.deepcopy(_read_once(text))


def merged(base: Any, changes: Any) -> Any:
    """*base* with *changes* laid over it, mapping by mapping; None removes a key."""
    if not (isinstance(base, dict) and isinstance(changes, dict)) or set(changes) & {"env", "file"}:
        return changes
    result = {key: merged(base[key], changes[key]) if key in changes else base[key] for key in base}
    result |= {key: value for key, value in changes.items() if key not in base}
    return {key: value for key, value in result.items() if value is not None}


class World:
    """Starts what a test needs, and stops it."""

    def __init__(self, folder: Path) -> None:
        """Keep files in *folder*."""
        self._folder = folder
        self._closers: list[Callable[[], Any]] = []
        self._number = 0
        self.clock = Clock()

    async def __call__(
        self,
        changes: Mapping[str, Any] | None = None,
        *,
        application: Application | None = None,
        provider: DemoProvider | None = None,
        environment: Mapping[str, str] | None = None,
        issuer: str = "",
        provision: bool = False,
        port: int = 0,
    ) -> Running:
        """Start a sidecar whose configuration is BASE with *changes* over it, in front of *application*."""
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        port = port or free_port()
        url = f"http://localhost:{port}"
        application = application or await self.application()
        provider = provider or await self.provider(url)
        config = merged(parsed(BASE), {"server": {"listen": f"127.0.0.1:{port}"}})
        config = merged(
            config,
            {
                "server": {"public_url": url},
                "app": {"upstream": f"http://127.0.0.1:{application.port}"},
                "directory": f"sqlite:///{folder}/directory.db",
                "audit": {"file": str(folder / "audit.jsonl")},
            },
        )
        if provision:
            config["provision"] = parsed(PROVISION)
        config = merged(config, changes or {})
        file = folder / "config.yaml"
        file.write_text(yaml.dump(config, Dumper=DUMPER, sort_keys=False))
        variables = {
            **os.environ,
            "ISSUER": issuer or provider.issuer,
            "OIDC_SECRET": "a client secret",
            "SESSION_SECRET": SECRET,
            **(environment or {}),
        }
        loaded = load(file, environment=variables, filters=FILTERS)
        sidecar = await build(loaded.config, self.clock)
        await sidecar.start()
        self._closers.append(sidecar.stop)
        return Running(sidecar, url, port, application, provider, folder / "audit.jsonl", folder)

    async def application(self) -> Application:
        """Start an application."""
        application = Application()
        await application.start()
        self._closers.append(application.stop)
        return application

    async def provider(self, *urls: str, port: int = 0) -> DemoProvider:
        """Start the demo's identity provider, with the client ``wiki`` for the sidecars at *urls*."""
        client = DemoClient(
            secret="a client secret",
            redirect_uris=tuple(f"{url}/-/callback/{name}" for url in urls for name in ("corp", "other")),
            post_logout_redirect_uris=tuple(f"{url}/-/signed-out" for url in urls),
        )
        port = port or free_port()
        provider = DemoProvider(f"http://localhost:{port}/id", {"wiki": client}, PEOPLE)
        runner = web.AppRunner(provider.app(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self._closers.append(runner.cleanup)
        return provider

    def closing(self, before: Callable[[], Any], after: Callable[[], Any]) -> None:
        """Call *after* in the place of *before* at the end."""
        self._closers[self._closers.index(before)] = after

    async def close(self) -> None:
        """Stop everything, the last first."""
        while self._closers:
            await self._closers.pop()()


@asynccontextmanager
async def a_world(folder: Path) -> AsyncIterator[World]:
    """World for one test."""
    world = World(folder)
    try:
        yield world
    finally:
        await world.close()
