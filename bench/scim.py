"""Measure the SCIM server with many people and groups: `python -m bench.scim --people 100000 --groups 10000`.

It fills a directory (SQLite and then PostgreSQL, unless one is named by --on or --url), starts a sidecar in front of
nothing, and prints for each kind of request the median and the slowest, and the CPU of client and server together, in
milliseconds. What is owed to the application waits meanwhile. Not part of the tests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from sqlalchemy import insert, text

from sidecar.app import build
from sidecar.config.loader import load
from sidecar.core.wanted import folded
from sidecar.directory.database import Database
from sidecar.directory.migrate import migrate
from sidecar.directory.tables import digest, group, identity, join, member, person, profile, scim_email, scim_user
from sidecar.hooks.passwords import FILTERS
from sidecar.model import identity_key
from tests.services.databases import Databases
from tests.services.postgres import PostgresServer
from tests.services.process import start_on_free_port

SOURCE = "scim:bench"
TOKEN = "a token for measuring only, thirty-two letters"
ROUNDS = 60
PORT = 18473
BASE = f"http://localhost:{PORT}/-/scim/bench/v2"
CONFIG = f"""
server: {{listen: "127.0.0.1:{PORT}", public_url: "http://localhost:{PORT}", drain: 1s, notice: 0s}}
app: {{upstream: "http://127.0.0.1:9"}}
logins: {{corp: {{type: oidc, issuer: "http://localhost:9", client_id: x}}}}
identity: {{username: "{{{{ claims.sub }}}}", groups: "{{{{ claims.groups }}}}"}}
access: [{{path: /**, allow: signed_in}}]
provision:
  account: {{key: "{{{{ user.username }}}}"}}
  connections: {{api: {{rest: {{base_url: "http://127.0.0.1:9"}}}}}}
  lookup: {{rest: {{on: api, path: "/users/{{{{ account.key }}}}"}}}}
scim:
  clients:
    bench: {{token: {{env: TOKEN}}, profile: okta, rate: 1000000, join: {{corp: "{{{{ claims.sub }}}}"}}}}
audit: {{stdout: false}}
"""


def person_rows(number: int) -> dict[Any, dict[str, Any]]:
    """All rows of one person."""
    person_id, user_id, name = f"{number:032x}", f"{number + (1 << 100):032x}", f"user{number}@example.com"
    key = identity_key(SOURCE, user_id)
    document = {
        "userName": name,
        "externalId": f"e{number}",
        "active": True,
        "displayName": f"User {number}",
        "name": {"givenName": "User", "familyName": str(number)},
        "emails": [{"value": name, "type": "work", "primary": True}],
    }
    who = {"username": name, "email": name, "name": document["displayName"]}
    search = {"search_username": name, "search_email": name}
    times = {"created": float(number), "updated": float(number)}
    return {
        person: {"id": person_id, "source": SOURCE, "active": True, "disabled_by": "", "last_seen": 0.0,
                 "tombstone": None, "version": 1, **times, **who, **search},
        identity: {"key_hash": digest(key), "issuer": SOURCE, "subject": user_id, "person_id": person_id},
        profile: {"source": SOURCE, "external_hash": digest(key), "person_id": person_id, "issuer": SOURCE,
                  "subject": user_id, "groups": None, "claims": json.dumps(document), "is_login": False,
                  "updated": 0.0, **who},
        join: {"source": SOURCE, "value_hash": digest(f"e{number}"), "person_id": person_id, "side": ""},
        scim_user: {"id": user_id, "source": SOURCE, "person_id": person_id, "name_hash": digest(folded(name)),
                    "search_name": name, "external_hash": digest(f"e{number}"), "active": True,
                    "document": json.dumps(document), "version": 1, **times},
        scim_email: {"user_id": user_id, "value_hash": digest(folded(name))},
    }  # fmt: skip


async def fill(database: Database, people: int, groups: int) -> None:
    """Write everything, a thousand rows at a time; each group has ten members."""
    for start in range(0, people, 1000):
        found = [person_rows(number) for number in range(start, min(start + 1000, people))]
        await database.write(lambda connection, found=found: _write(connection, found))  # type: ignore[misc]
    rows = [
        {"id": f"{number:032x}", "source": SOURCE, "name": f"Group {number}", "name_hash": digest(f"group {number}"),
         "search_name": f"group {number}", "external": "", "external_hash": None, "created": float(number),
         "updated": float(number), "version": 1}
        for number in range(groups)
    ]  # fmt: skip
    members = [
        {"group_id": f"{number:032x}", "person_id": f"{(number * 10 + one) % people:032x}"}
        for number in range(groups)
        for one in range(10)
    ]
    for table, many in ((group, rows), (member, members)):
        for start in range(0, len(many), 1000):
            some = many[start : start + 1000]
            await database.write(lambda connection, table=table, some=some: connection.execute(insert(table), some))  # type: ignore[misc]


async def _write(connection: Any, found: list[dict[Any, dict[str, Any]]]) -> None:
    for table in (person, identity, profile, join, scim_user, scim_email):
        await connection.execute(insert(table), [rows[table] for rows in found])


async def measure(what: str, ask: Callable[[int], Awaitable[Any]], rounds: int = ROUNDS) -> None:
    """Print the median and the slowest of *rounds* requests."""
    times = []
    used = time.process_time()
    for number in range(rounds):
        began = time.perf_counter()
        await ask(number)
        times.append((time.perf_counter() - began) * 1000)
    cpu = (time.process_time() - used) * 1000 / rounds
    print(f"{what:42} CPU {cpu:8.1f} ms   median {statistics.median(times):8.1f} ms   slowest {max(times):8.1f} ms")


async def ask_everything(http: aiohttp.ClientSession, people: int) -> None:
    """Every kind of request."""

    async def send(method: str, path: str, body: Any = None) -> Any:
        async with http.request(method, BASE + path, json=body) as answer:
            found = await answer.read()
            if answer.status >= 400:
                raise RuntimeError(found.decode())
            # Reading a long answer is the client's own work.
            return json.loads(found) if method == "POST" else None

    def user(number: int) -> str:
        return f"{number * 997 % people + (1 << 100):032x}"

    def patch(*operations: dict[str, Any]) -> dict[str, Any]:
        return {"Operations": list(operations)}

    await measure("list 100 people", lambda number: send("GET", f"/Users?count=100&startIndex={number * 100 + 1}"))
    await measure("list 100 people, the last", lambda _: send("GET", f"/Users?count=100&startIndex={people - 99}"))
    await measure("userName eq", lambda number: send("GET", f'/Users?filter=userName eq "user{number}@example.com"'))
    await measure("externalId eq", lambda number: send("GET", f'/Users?filter=externalId eq "e{number}"'))
    await measure("emails.value eq", lambda n: send("GET", f'/Users?filter=emails[value eq "user{n}@example.com"]'))
    await measure("userName sw, 10 of them", lambda n: send("GET", f'/Users?count=10&filter=userName sw "user{n}"'))
    await measure("one person", lambda number: send("GET", f"/Users/{user(number)}"))
    title = [patch({"op": "replace", "path": "title", "value": str(number)}) for number in range(ROUNDS)]
    await measure("PATCH a person", lambda number: send("PATCH", f"/Users/{user(number)}", title[number]))
    off = patch({"op": "replace", "value": {"active": False}})
    await measure("PATCH active false", lambda number: send("PATCH", f"/Users/{user(number + 500)}", off))
    await measure("make a person", lambda _: send("POST", "/Users", {"userName": uuid.uuid4().hex}))
    await measure("list 100 groups with members", lambda n: send("GET", f"/Groups?count=100&startIndex={n * 10 + 1}"))
    await measure("displayName eq (group)", lambda n: send("GET", f'/Groups?filter=displayName eq "group {n}"'))
    one = [patch({"op": "add", "path": "members", "value": [{"value": user(n + 100)}]}) for n in range(ROUNDS)]
    await measure("PATCH a group, one member", lambda n: send("PATCH", f"/Groups/{n:032x}", one[n]))
    everybody = [{"value": f"{number + (1 << 100):032x}"} for number in range(min(5000, people))]
    large = (await send("POST", "/Groups", {"displayName": uuid.uuid4().hex}))["id"]
    add = patch({"op": "add", "path": "members", "value": everybody})
    remove = patch({"op": "remove", "path": "members", "value": everybody})
    without = f"/Groups/{large}?excludedAttributes=members"
    await measure(
        "PATCH a group, 5,000 members come and go", lambda n: send("PATCH", without, remove if n % 2 else add), 6
    )
    await send("PATCH", without, add)
    alone = [{"value": user(number + 5100)} for number in range(ROUNDS)]

    def coming(number: int, path: str = without) -> Awaitable[Any]:
        return send("PATCH", path, patch({"op": "add", "path": "members", "value": [alone[number]]}))

    def going(number: int) -> Awaitable[Any]:
        return send("PATCH", without, patch({"op": "remove", "path": f'members[value eq "{alone[number]["value"]}"]'}))

    await measure("group of 5,000: one member comes", coming)
    await measure("group of 5,000: one member goes", going)
    await measure("the same, all members in the answer", lambda n: coming(n, f"/Groups/{large}"), 20)


async def main(people: int, groups: int, url: str) -> None:
    """Fill, start, measure."""
    with tempfile.TemporaryDirectory() as folder:
        url = url or f"sqlite:///{folder}/directory.db"
        database = Database(url, 60)
        await migrate(database)
        began = time.perf_counter()
        await fill(database, people, groups)
        await _tended(database)
        await database.close()
        took = time.perf_counter() - began
        print(f"\n{people} people and {groups} groups in {url.partition(':')[0]}, filled in {took:.0f} s; {_load()}")
        file = Path(folder) / "config.yaml"
        config = {
            **yaml.load(CONFIG, Loader=yaml.BaseLoader),  # noqa: S506 - text only
            "directory": url,
            "audit": {"file": f"{folder}/audit.jsonl"},
        }
        file.write_text(yaml.safe_dump(config))
        sidecar = await build(load(file, environment={"TOKEN": TOKEN}, filters=FILTERS).config)
        # The work that follows is another matter: it would wait for an application that there is not.
        sidecar.background = [work for work in sidecar.background if "Accounts" not in work.__qualname__]
        await sidecar.start()
        try:
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
                await ask_everything(http, people)
        finally:
            await sidecar.stop()
        print(_load())


async def _tended(database: Database) -> None:
    """Do what the autovacuum of a server does, which those of tests lack."""
    if database.address.kind == "postgresql":
        async with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("VACUUM ANALYZE"))


def _load() -> str:
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def _measured_on(kind: str, people: int, groups: int) -> None:
    if kind == "sqlite":
        asyncio.run(main(people, groups, ""))
        return
    server = start_on_free_port(PostgresServer)
    databases = Databases(server)
    try:
        asyncio.run(main(people, groups, databases()))
    finally:
        databases.discard()
        server.discard()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.scim", description="Measure the SCIM server.")
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--groups", type=int, default=10_000)
    parser.add_argument("--on", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--url", default="", help="an empty directory of your own, in place of those")
    chosen = parser.parse_args()
    if chosen.url:
        asyncio.run(main(chosen.people, chosen.groups, chosen.url))
    else:
        for one in ("sqlite", "postgresql") if chosen.on == "both" else (chosen.on,):
            _measured_on(one, chosen.people, chosen.groups)
