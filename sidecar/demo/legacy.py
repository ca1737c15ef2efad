"""A small notes application from 2009 that nobody can change; it believes the headers it is sent."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from aiohttp import WSMsgType, web

from sidecar.demo.legacy_api import UserApi
from sidecar.demo.legacy_users import LegacyTables, User
from sidecar.demo.pages import Pages, guard_response, static_routes

_LONGEST_NOTE = 2000
_MOST_TICKS = 60
# Secrets of other parties that a page must not repeat.
_WITHHELD = {"authorization", "cookie", "proxy-authorization"}

Page = Callable[[web.Request, User], Awaitable[web.StreamResponse]]


class LegacyApp:
    """Whoever can reach its port can be anybody in it, so it belongs on loopback, behind a proxy."""

    def __init__(
        self, database: Path, api_token: str, sign_out: str = "/-/logout", *, tick_seconds: float = 1.0
    ) -> None:
        """`database` is created when it is new; `sign_out` is the link of every page's "Sign out".

        Raises ValueError for an empty token or a link that is neither a local path nor http(s).
        """
        if not sign_out.startswith(("/", "http://", "https://")):
            message = "sign_out must be a local path or an http(s) URL"
            raise ValueError(message)
        self._tables = LegacyTables(database)
        self._api = UserApi(self._tables, api_token)
        self._sign_out = sign_out
        self._tick_seconds = tick_seconds
        self._pages = Pages("legacy", {"sign_out": sign_out})

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=64 * 1024)
        app.router.add_routes(
            [
                web.get("/", self._known(self._home)),
                web.get("/notes", self._known(self._notes)),
                web.post("/notes", self._known(self._write)),
                web.get("/admin", self._known(self._admin)),
                web.get("/events", self._known(self._events)),
                web.get("/ws", self._known(self._echo)),
                web.get("/logout", self._leave),
                web.get("/health", self._health),
            ]
        )
        app.router.add_routes(self._api.routes())
        app.router.add_routes(static_routes("legacy", ""))
        app.on_response_prepare.append(guard_response)
        return app

    def _known(self, page: Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Let a request through to `page` only when its user has an active account."""

        async def checked(request: web.Request) -> web.StreamResponse:
            login = _login(request)
            user = None if login is None else await self._tables.find(login)
            if user is None or not user.active:
                return self._refuse(login, user)
            return await page(request, user)

        return checked

    def _refuse(self, login: str | None, user: User | None) -> web.Response:
        return self._pages.show("refused.html", {"login": login, "closed": user is not None}, status=403)

    async def _home(self, request: web.Request, user: User) -> web.Response:
        headers = shown_headers(request)
        told = [header for header in headers if header[0].lower().startswith("x-remote-")]
        others = [header for header in headers if header not in told]
        values = {"users": await self._tables.users(), "told": told, "others": others}
        return self._show("home.html", request, user, values)

    async def _notes(self, request: web.Request, user: User) -> web.Response:
        return self._show("notes.html", request, user, {"notes": await self._tables.notes(), "problem": ""})

    async def _write(self, request: web.Request, user: User) -> web.Response:
        text = str((await request.post()).get("text", "")).strip()
        problem = _objection(user, text)
        if problem:
            values = {"notes": await self._tables.notes(), "problem": problem}
            return self._show("notes.html", request, user, values, status=403 if user.role == "reader" else 422)
        await self._tables.write(user.login, text)
        return web.Response(status=303, headers={"Location": "/notes"})

    async def _admin(self, request: web.Request, user: User) -> web.Response:
        # It asks both: the role that the proxy says, and the one that its own table has.
        if user.role != "admin" or "admin" not in _roles(request):
            return self._show("admins_only.html", request, user, {}, status=403)
        return self._show("admin.html", request, user, {"users": await self._tables.users()})

    def _show(
        self,
        template: str,
        request: web.Request,
        user: User,
        values: Mapping[str, object],
        *,
        status: int = 200,
    ) -> web.Response:
        shared = {"user": user, "roles": _roles(request), "page": request.path}
        # No form-action: a form sent after the session ended is redirected to the identity provider,
        # and Chromium would forbid that redirect.
        return self._pages.show(template, {**shared, **values}, status=status, forms_reach=None)

    async def _events(self, request: web.Request, user: User) -> web.StreamResponse:
        asked = re.fullmatch("[0-9]{1,3}", request.query.get("count", ""))
        count = min(int(asked[0]), _MOST_TICKS) if asked else 10
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for number in range(1, count + 1):
            await response.write(f"id: {number}\nevent: tick\ndata: {number} for {user.id}\n\n".encode())
            if number < count:
                await asyncio.sleep(self._tick_seconds)
        await response.write_eof()
        return response

    async def _echo(self, request: web.Request, _user: User) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=64 * 1024, heartbeat=30)
        if not socket.can_prepare(request).ok:
            raise web.HTTPUpgradeRequired(text="this address speaks WebSocket\n", headers={"Upgrade": "websocket"})
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    async def _leave(self, _request: web.Request) -> web.Response:
        return web.Response(status=303, headers={"Location": self._sign_out})

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})


def shown_headers(request: web.Request) -> list[tuple[str, str]]:
    """Return every header as received, in order and with duplicates; secrets by name only."""
    return [
        (_legible(name), "(sent, but not shown)" if name.lower() in _WITHHELD else _legible(value))
        for name, value in request.headers.items()
    ]


def _login(request: web.Request) -> str | None:
    # Two of them would be two opinions; whoever sent the second one is not to be believed.
    given = request.headers.getall("X-Remote-User", [])
    return _legible(given[0]) if len(given) == 1 and given[0] else None


def _roles(request: web.Request) -> list[str]:
    return [role.strip() for role in request.headers.get("X-Remote-Roles", "").split(",") if role.strip()]


def _legible(value: str) -> str:
    # aiohttp leaves bytes that are not UTF-8 as surrogates, which no page can be encoded with.
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _objection(user: User, text: str) -> str:
    if user.role == "reader":
        return "Readers may not write notes."
    if not text or len(text) > _LONGEST_NOTE:
        return f"A note has between 1 and {_LONGEST_NOTE} characters."
    return ""
