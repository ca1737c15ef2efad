"""The legacy application's REST interface to its users table, for whoever holds the token."""

from collections.abc import Mapping
from dataclasses import asdict
from json import JSONDecodeError
from secrets import compare_digest

from aiohttp import web

from sidecar.demo.legacy_users import COLUMNS, LegacyTables, Taken, User

ROLES = ("admin", "editor", "reader")


class UserApi:
    """GET, POST, PATCH and DELETE below /api/users."""

    def __init__(self, tables: LegacyTables, token: str) -> None:
        """Guard the API with `token`. Raises ValueError for an empty one, which would let everybody in."""
        if not token:
            message = "the API token must not be empty"
            raise ValueError(message)
        self._tables = tables
        self._expected = f"Bearer {token}".encode()

    def routes(self) -> list[web.RouteDef]:
        """Return the API's routes."""
        return [
            web.get("/api/users", self._list),
            web.post("/api/users", self._create),
            web.patch(r"/api/users/{id:[0-9]{1,15}}", self._change),
            web.delete(r"/api/users/{id:[0-9]{1,15}}", self._remove),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        self._authorise(request)
        login = request.query.get("login")
        if login is None:
            return _users(await self._tables.users())
        found = await self._tables.find(login)
        return _users([] if found is None else [found])

    async def _create(self, request: web.Request) -> web.Response:
        self._authorise(request)
        values = await _values(request, {"login", *COLUMNS})
        login = values.pop("login", None)
        if not isinstance(login, str) or not login:
            raise _refusal(web.HTTPUnprocessableEntity, "login is required")
        try:
            created = await self._tables.add(login, values)
        except Taken as error:
            raise _refusal(web.HTTPConflict, "this login is taken") from error
        return web.json_response(asdict(created), status=201, headers={"Location": f"/api/users/{created.id}"})

    async def _change(self, request: web.Request) -> web.Response:
        self._authorise(request)
        values = await _values(request, set(COLUMNS))
        changed = await self._tables.change(int(request.match_info["id"]), values)
        if changed is None:
            raise _refusal(web.HTTPNotFound, "no such user")
        return web.json_response(asdict(changed))

    async def _remove(self, request: web.Request) -> web.Response:
        self._authorise(request)
        if not await self._tables.remove(int(request.match_info["id"])):
            raise _refusal(web.HTTPNotFound, "no such user")
        return web.Response(status=204)

    def _authorise(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not compare_digest(self._expected, given):
            refusal = _refusal(web.HTTPUnauthorized, "a bearer token is needed")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            raise refusal


def _users(users: list[User]) -> web.Response:
    return web.json_response([asdict(user) for user in users])


async def _values(request: web.Request, allowed: set[str]) -> dict[str, object]:
    try:
        values = await request.json()
    except (JSONDecodeError, UnicodeDecodeError) as error:
        raise _refusal(web.HTTPBadRequest, "the body must be JSON") from error
    if not isinstance(values, dict) or not values.keys() <= allowed:
        raise _refusal(web.HTTPUnprocessableEntity, f"send an object with some of {sorted(allowed)}")
    _check(values)
    return values


def _check(values: Mapping[str, object]) -> None:
    for name, value in values.items():
        # Printable: SQLite cannot store the lone surrogates that JSON may contain.
        is_text = isinstance(value, str) and value.isprintable()
        fits = isinstance(value, bool) if name == "active" else is_text
        if not fits or (name == "role" and value not in ROLES):
            raise _refusal(web.HTTPUnprocessableEntity, f"{name} has a wrong value")


def _refusal(kind: type[web.HTTPClientError], text: str) -> web.HTTPClientError:
    return kind(text=f'{{"error": "{text}"}}', content_type="application/json")
