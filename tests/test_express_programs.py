"""Programs that show a token take the shortest way once it is known to be good, and get no further there than else."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.api_tokens import written
from sidecar.model import Visit
from tests.forger import Forger, running_forger, sign
from tests.station import ASKED, station_of, ways_of
from tests.test_api_tokens import Caller, Terminal, sign_in, started
from tests.test_attacks_tokens import API
from tests.test_attacks_tokens import CHANGES as BEARERS
from tests.world import Running, World, until


@dataclass
class Desk:
    """A running sidecar, a program that asks it, and which of its requests were sent without a task."""

    running: Running
    caller: Caller
    terminal: Terminal
    taken: list[bool] = field(default_factory=list)

    async def asks(self, token: str, times: int, path: str = "/api/x", **more: str) -> list[tuple[int, str]]:
        """What so many requests are told; ``taken`` is about these alone."""
        self.taken.clear()
        return [await self.caller.ask(token, path, **more) for _ in range(times)]

    def general(self) -> None:
        """From now on nothing departs at once."""
        ways = ways_of(self.running.sidecar)
        ways.depart = ways.again = lambda *_: None


@asynccontextmanager
async def desk(world: World, tmp_path: Path, **changes: Any) -> AsyncIterator[Desk]:
    async with started(world, tmp_path, **changes) as (running, terminal, caller):
        here = Desk(running, caller, terminal)
        _note(running, here.taken)
        await sign_in(running, "ada", "grace")
        yield here


def _note(running: Running, taken: list[bool]) -> None:
    ways = ways_of(running.sidecar)
    depart, again = ways.depart, ways.again

    def departing(*given: Any) -> Any:
        sent = depart(*given)
        taken.append(sent is not None)
        return sent

    def coming_again(*given: Any) -> Any:
        sent = again(*given)
        if sent is not None:
            taken.append(True)
        return sent

    ways.depart, ways.again = departing, coming_again


def lines_of(running: Running) -> list[dict[str, Any]]:
    """Audit lines about programs that read, but for what differs each time."""
    found = [line for line in running.audit() if line["event"] == "decision" and line["path"] == "/api/x"]
    changing = ("time", "reference", "n", "hash", "chain")
    lines = [{name: value for name, value in line.items() if name not in changing} for line in found]
    return [line for line in lines if line["method"] == "GET"]


async def test_a_token_that_was_good_a_moment_ago_is_good_without_a_task(world: World, tmp_path: Path) -> None:
    async with desk(world, tmp_path) as here:
        token = (await here.terminal.issue("--person", "ada"))["token"]
        assert await here.asks(token, 4) == [(200, "")] * 4
        assert here.taken == [False, True, True, True]
        for method in ("POST", "DELETE"):
            assert await here.asks(token, 3, method=method) == [(200, "")] * 3
            assert True in here.taken
        shortest = here.running.application.seen[3:4]
        here.general()
        await here.asks(token, 1)
        general = here.running.application.seen[-1]
        assert shortest[0].headers == general.headers
        assert not general.careless("Authorization")
        lines = lines_of(here.running)
        assert len(lines) == 5
        assert lines == lines[:1] * 5
        assert lines[0]["person"] == "ada"


async def test_rules_and_scopes_hold_for_it(world: World, tmp_path: Path) -> None:
    async with desk(world, tmp_path) as here:
        token = (await here.terminal.issue("--person", "ada", "--scope", "GET /api/**"))["token"]
        await here.asks(token, 3)
        assert here.taken[-1]
        seen = len(here.running.application.seen)
        for path, method in (("/api/x", "POST"), ("/other", "GET"), ("/api/strong/x", "GET")):
            ((status, _),) = await here.asks(token, 1, path, method=method)
            assert status in (401, 403)
            assert True not in here.taken
        assert len(here.running.application.seen) == seen


async def test_a_revoked_token_is_refused_within_a_second(world: World, tmp_path: Path) -> None:
    async with desk(world, tmp_path) as here:
        made = await here.terminal.issue("--person", "ada")
        await here.asks(made["token"], 3)
        assert here.taken[-1]
        await here.terminal.json("revoke", made["id"])

        async def is_refused() -> bool:
            return await here.asks(made["token"], 1) == [(401, "token-revoked")]

        await until(is_refused, 2)
        assert True not in here.taken


async def test_one_token_is_never_taken_for_another(world: World, tmp_path: Path) -> None:
    async with desk(world, tmp_path) as here:
        tokens = {who: (await here.terminal.issue("--person", who))["token"] for who in ("ada", "grace")}
        for _ in range(3):
            for who, token in tokens.items():
                await here.asks(token, 2)
                assert here.taken[-1]
                assert here.running.application.seen[-1].values("X-App-User") == [who]
        changed = tokens["ada"][:-1] + ("0" if tokens["ada"][-1] != "0" else "1")
        assert await here.asks(changed, 2) == [(401, "token-invalid")] * 2
        assert await here.asks(written(bytes(32)), 1) == [(401, "token-invalid")]
        assert True not in here.taken


async def test_a_session_beside_it_is_who_comes_each_way(world: World, tmp_path: Path) -> None:
    async with desk(world, tmp_path) as here, here.running.browser() as browser:
        await browser.sign_in("grace", "/")
        cookie = {"Cookie": f"sidecar={browser.cookie()}"}
        token = (await here.terminal.issue("--person", "ada"))["token"]
        await here.asks(token, 3)
        for is_general in (False, True):
            if is_general:
                here.general()
            await here.asks(token, 3, "/other", **cookie)
            assert here.running.application.seen[-1].values("X-App-User") == ["grace"]
            # Of two, the one that is none says nothing.
            two = {"Cookie": f"sidecar={'A' * 43}; sidecar={browser.cookie()}"}
            await here.asks(token, 3, **two)
            assert here.running.application.seen[-1].values("X-App-User") == ["grace"]
        # A session that is none leaves it to the token.
        ended = {"Cookie": "sidecar=" + "A" * 43}
        assert await here.asks(token, 1, **ended) == [(200, "")]
        assert here.running.application.seen[-1].values("X-App-User") == ["ada"]


async def test_whoever_tried_too_many_bad_tokens_waits_with_good_ones_each_way(world: World, tmp_path: Path) -> None:
    async with desk(world, tmp_path, limits={"bad_tokens": "2/1h"}) as here:
        token = (await here.terminal.issue("--person", "ada"))["token"]
        await here.asks(token, 3)
        assert here.taken[-1]
        for number in (1, 2):
            await here.asks(written(bytes([number]) * 32), 1)
        seen = len(here.running.application.seen)
        assert (await here.asks(token, 1))[0][0] == 429
        assert len(here.running.application.seen) == seen


async def test_its_last_use_is_noted_the_shortest_way_too(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(world, tmp_path) as here:
        token = (await here.terminal.issue("--person", "ada"))["token"]
        noted: list[str] = []

        async def used(token_id: str, *_: float) -> None:
            noted.append(token_id)

        monkeypatch.setattr(here.running.sidecar.front.gate.authenticators[0]._tokens, "used", used)  # type: ignore[attr-defined]
        await here.asks(token, 2)
        monkeypatch.setattr("sidecar.tokens.authenticator._USED_EVERY", 0.0)
        await here.asks(token, 1)
        await asyncio.sleep(0.05)
        assert here.taken == [True]
        assert len(noted) == 2


async def test_basic_takes_it_with_the_owners_name_only(world: World, tmp_path: Path) -> None:
    changes = {"max_lifetime": "60d", "basic": "same_user"}
    async with desk(world, tmp_path, tokens=changes) as here:
        token = (await here.terminal.issue("--person", "ada"))["token"]
        url = here.running.url + "/api/x"

        async def status(user: str) -> int:
            sent = {"Authorization": "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()}
            async with here.caller.http.get(url, headers=sent) as answer:
                return answer.status

        assert [await status("ada") for _ in range(3)] == [200] * 3
        assert here.taken[-1]
        here.taken.clear()
        assert [await status("grace") for _ in range(2)] == [401, 401]
        assert True not in here.taken


async def test_a_certificate_beside_it_takes_the_gate(world: World, tmp_path: Path) -> None:
    async with desk(world, tmp_path) as here:
        token = (await here.terminal.issue("--person", "ada"))["token"]
        await here.asks(token, 3)
        gate, now = here.running.sidecar.front.gate, here.running.sidecar.front.clock()
        visit = Visit("GET", "/api/x", "h", "127.0.0.1", authorization=f"Bearer {token}")
        assert gate._program_at_hand(visit, now) is not None
        assert gate._program_at_hand(visit.but(certificate=b"x"), now) is None


# Tokens of providers


@pytest.fixture
async def forger() -> AsyncIterator[Forger]:
    async with running_forger() as started:
        yield started


async def test_a_jwt_that_was_verified_is_good_until_it_ends(world: World, forger: Forger) -> None:
    running = await world(BEARERS, environment={"ISSUER": forger.issuer})
    taken: list[bool] = []
    _note(running, taken)
    caller = Caller(running)
    now = int(running.sidecar.front.clock())
    access = {"aud": API, "client_id": "script", "jti": "j", "iat": now, "exp": now + 3000}
    token = sign(forger.standard_claims(**access), typ="at+jwt")
    try:
        assert [await caller.ask(token) for _ in range(3)] == [(200, "")] * 3
        assert taken == [False, True, True]
        taken.clear()
        # Who they are by now has to be asked.
        gate = running.sidecar.front.gate
        gate.remembered, remembered = (lambda *_: None), gate.remembered
        assert await caller.ask(token) == (200, "")
        assert taken == [False]
        gate.remembered = remembered
        taken.clear()
        # As it is when it has ended: it is verified again.
        _bearers(running)._known = {key: (0.0, *rest) for key, (_, *rest) in _bearers(running)._known.items()}
        assert await caller.ask(token) == (200, "")
        assert taken == [False]
        taken.clear()
        # Bound to a certificate that nobody shows.
        _bearers(running)._known = {key: (until, session, "x") for key, (until, session, _) in _known(running)}
        assert (await caller.ask(token))[0] == 401
        assert True not in taken
    finally:
        await caller.http.close()


def _bearers(running: Running) -> Any:
    return next(one for one in running.sidecar.front.gate.authenticators if hasattr(one, "_known"))


def _known(running: Running) -> Any:
    return _bearers(running)._known.items()


# What it must not do


async def test_credentials_that_sign_in_the_connection_take_the_gate(world: World) -> None:
    rules = [{"path": "/public/**", "allow": "anyone"}, {"path": "/**", "allow": "signed_in"}]
    async with station_of(world, {"access": rules}) as here:
        for kind in ("NTLM x", "Negotiate x"):
            for target in ("/public/x", "/other"):
                for _ in range(3):
                    await here.ask(here.request(f"GET {target} HTTP/1.1", *ASKED[1:], f"Authorization: {kind}"))
                    assert True not in here.taken + here.again
                    here.forget()


async def test_what_streams_for_a_token_is_not_asked_about_at_the_store_of_sessions(
    world: World, tmp_path: Path
) -> None:
    async with desk(world, tmp_path) as here:
        token = (await here.terminal.issue("--person", "ada"))["token"]
        await here.asks(token, 3)
        regulars = here.running.sidecar.front.express.express._regulars  # type: ignore[attr-defined]
        known = [one for one, _ in (regulars._younger | regulars._elder).values() if one.visit.authorization]
        assert known
        for one in known:
            ending = one.ended()
            assert not ending.is_kept
            assert not ending.is_over
