"""A SCIM client of a running sidecar: sends what identity providers send, and keeps the answers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.test_journey import users_table
from tests.world import Running, World

TOKEN = "a token of a SCIM client that nobody guesses"
OTHER_TOKEN = "a token of another client, as hard to guess"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
STATE = "urn:sidecar:params:scim:schemas:extension:sidecar:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


def client_section(**changes: Any) -> dict[str, Any]:
    """Configuration of one client, as the tests use it."""
    return {"token": {"env": "SCIM_TOKEN"}, "join": {"corp": "{{ claims.sub }}"}, **changes}


async def with_scim(
    world: World, tmp_path: Path, *, changes: Mapping[str, Any] | None = None, **clients: Any
) -> Running:
    """Start a sidecar with accounts and SCIM *clients* ("okta", tolerant, when none is given)."""
    sections = clients or {"okta": client_section(profile="okta")}
    shared = {"scim": {"clients": sections}, "directory": f"sqlite:///{tmp_path}/directory.db", **(changes or {})}
    environment = {"USERS_DB": users_table(tmp_path / "users.db"), "SCIM_TOKEN": TOKEN, "SCIM_OTHER": OTHER_TOKEN}
    return await world(shared, environment=environment, provision=True)


@dataclass
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass
class ScimClient:
    """Talks to one client's address."""

    running: Running
    name: str = "okta"
    token: str = TOKEN
    http: aiohttp.ClientSession = field(init=False)

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    @property
    def base(self) -> str:
        """The address that an operator enters at the identity provider."""
        return f"{self.running.url}/-/scim/{self.name}/v2"

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request; *headers* with _ in place of -."""
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/scim+json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        async with self.http.request(
            method,
            self.base + path,
            json=body if not isinstance(body, bytes | io.BytesIO) else None,
            headers=sent,
            data=body if isinstance(body, bytes | io.BytesIO) else None,
        ) as answer:
            is_json = "json" in answer.headers.get("Content-Type", "")
            found = await answer.json(content_type=None) if is_json else await answer.text()
            return Answer(answer.status, found, answer.headers.copy())

    async def make(self, name: str, **attributes: Any) -> dict[str, Any]:
        """Make somebody; the resource."""
        body = {"schemas": [USER], "userName": name, **attributes}
        answer = await self("POST", "/Users", body)
        assert answer.status == 201, answer.body
        made: dict[str, Any] = answer.body
        return made

    async def group(self, name: str, *members: str) -> dict[str, Any]:
        """Make a group; the resource."""
        body = {"schemas": [GROUP], "displayName": name, "members": [{"value": one} for one in members]}
        answer = await self("POST", "/Groups", body)
        assert answer.status == 201, answer.body
        made: dict[str, Any] = answer.body
        return made

    async def patch(self, path: str, *operations: Mapping[str, Any], **headers: str) -> Answer:
        """Send a PATCH."""
        return await self("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)}, **headers)

    async def ids(self, query: str, kind: str = "Users") -> list[str]:
        """Ids of those that a query gives."""
        answer = await self("GET", f"/{kind}?{query}")
        assert answer.status == 200, answer.body
        return [one["id"] for one in answer.body["Resources"]]
