"""Rules that ask an engine: nobody gets in without its yes, whatever the engine does instead of saying it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.asks import ask_of
from sidecar.config.access import AccessRule
from sidecar.config.engines import EngineSection, OpaEngine, OpenFgaEngine
from sidecar.core.standing import standing_of
from sidecar.engines.engines import Engines, Verdict
from sidecar.engines.opening import open_engine, open_engines
from sidecar.faults import Unavailable
from sidecar.foresight import Question, foresee
from sidecar.model import Effect, Identity, Session, Visit
from sidecar.people import Changes
from sidecar.reason import Reason
from sidecar.sessions.memory import MemoryStore
from sidecar.telemetry.metrics import Metrics
from tests.station import ways_of
from tests.test_cli import ADA, Desk
from tests.world import Application, Running, World, until

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def says(value: Any) -> Answer:
    """An engine whose answer is always this."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(value)

    return answer


@dataclass
class Oracle:
    """An engine that speaks as OPA does, says what it is told to, and remembers what it was asked."""

    application: Application

    @property
    def asked(self) -> list[Any]:
        return [json.loads(seen.body)["input"] for seen in self.application.seen]

    def section(self, **changes: Any) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.application.port}"
        return {"type": "opa", "url": url, "path": "wiki/allow", "timeout": "1s", **changes}


@pytest.fixture
async def oracle(world: World) -> Oracle:
    application = await world.application()
    application.answer = says({"result": True})
    return Oracle(application)


RULES: list[dict[str, Any]] = [
    {"path": "/open", "allow": "anyone"},
    {"path": "/admin/*", "allow": {"role": "admin"}, "engine": {"name": "it", "input": {"about": "admin"}}},
    {"path": "/fresh/*", "allow": "signed_in", "require": {"acr": "no-such"}, "engine": {"name": "it", "input": {}}},
    {
        "path": "/documents/*/**",
        "name": "documents",
        "allow": "signed_in",
        "engine": {
            "name": "it",
            "input": {
                "user": "{{ user.username }}",
                "document": "{{ request.captured[0] }}",
                "method": "{{ request.method }}",
            },
        },
    },
    {"path": "/**", "allow": "signed_in"},
]


async def running_with(world: World, section: dict[str, Any], **changes: Any) -> Running:
    return await world({"access": RULES, "engines": {"it": section}, **changes})


def decisions(running: Running, path: str) -> list[dict[str, Any]]:
    return [line for line in running.audit() if line["event"] == "decision" and line["path"] == path]


async def test_the_engine_is_asked_last_and_only_its_yes_lets_in(world: World, oracle: Oracle) -> None:
    running = await running_with(world, oracle.section())
    async with running.browser() as ada, running.browser() as grace:
        assert (await ada.page("/documents/7")).status == 302
        await ada.sign_in("ada", "/start")
        await grace.sign_in("grace", "/start")
        # Neither strangers, nor whom the rule refuses, nor a sign-in that is too weak, nor pages that need no engine.
        assert (await grace.page("/admin/x")).status == 403
        assert (await ada.page("/fresh/x")).status == 302
        assert (await ada.page("/open")).status == 200
        assert oracle.asked == []
        assert (await ada.page("/documents/7")).status == 200
        assert oracle.asked == [{"user": "ada", "document": "7", "method": "GET"}]
        oracle.application.answer = says({"result": {"allow": False, "policy": "drafts"}})
        reached = len(running.application.seen)
        refused = await ada.page("/documents/8/edit", "POST", data={"a": "b"})
        assert refused.status == 403
        assert "engine-denies" in await refused.text()
        assert (await (await ada.fetch("/documents/9")).json())["error"] == "engine-denies"
        assert len(running.application.seen) == reached
        # What servers could read as another document is not asked for at all.
        asked = len(oracle.asked)
        assert (await ada.page("/documents/7;8")).status == 400
        assert len(oracle.asked) == asked
    (line,) = decisions(running, "/documents/8/edit")
    assert (line["engine"], line["policy"], line["reason"], line["rule"], line["person"], line["effect"]) == (
        "it",
        "drafts",
        "engine-denies",
        "documents",
        "ada",
        "deny",
    )
    assert line["engine_ms"] >= 0
    text = running.sidecar.metrics.render().decode()
    assert 'sidecar_engines_total{engine="it",result="deny"} 2.0' in text
    assert 'sidecar_engine_seconds_count{engine="it"}' in text


async def test_a_request_that_an_engine_rules_on_never_takes_the_fast_way_past_it(world: World, oracle: Oracle) -> None:
    running = await running_with(world, oracle.section())
    ways, taken = ways_of(running.sidecar), list[bool]()
    depart = ways.depart

    def spy(*arguments: Any) -> Any:
        sent = depart(*arguments)
        taken.append(sent is not None)
        return sent

    ways.depart = spy
    async with running.browser() as ada:
        await ada.sign_in("ada", "/start")
        for _ in range(3):
            assert (await ada.fetch("/plain")).status == 200
        assert taken[-1], "an ordinary request takes the fast way"
        assert (await ada.fetch("/documents/1")).status == 200
        assert (await ada.fetch("/documents/1")).status == 200
        assert taken[-2:] == [False, False]
        oracle.application.answer = says({"result": False})
        assert (await ada.fetch("/documents/2")).status == 403
        # Remembered as a no, too.
        assert (await ada.fetch("/documents/2")).status == 403
        assert len(oracle.asked) == 2
    lines = decisions(running, "/documents/1")
    assert [line.get("engine_remembered", False) for line in lines] == [False, True]


async def slow(_: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(2)
    return web.json_response({"result": True})


async def huge(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"result": true, "x": "')
    for _ in range(64):
        await response.write(b"x" * 4096)
    return response


async def hangs_up(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def raw(body: bytes, status: int = 200, **headers: str) -> Answer:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, status=status, headers={"Content-Type": "application/json", **named})

    return answer


YES = b'{"result": true}'
FAULTS: list[tuple[str, Answer]] = [
    ("status 500", raw(YES, 500)),
    ("status 500, internal_error", raw(b'{"code": "internal_error", "result": true}', 500)),
    ("status 302", raw(YES, 302, Location="/elsewhere")),
    ("status 401", raw(YES, 401)),
    ("status 204", raw(b"", 204)),
    ("no JSON object", raw(b"<html>yes</html>")),
    ("no JSON object", raw(b"true")),
    ("no JSON object", raw(b"[true]")),
    ("no JSON object", raw(b'{"result": true')),
    ("no JSON object", raw(b'{"result": false, "result": true}')),
    ("neither true nor false", says({"result": "true"})),
    ("neither true nor false", says({"result": 1})),
    ("neither true nor false", says({"result": [True]})),
    ("neither true nor false", says({"result": {"allow": "true"}})),
    ("neither true nor false", says({"result": {"allow": 1}})),
    ("compressed", raw(gzip.compress(YES), Content_Encoding="gzip")),
    ("no answer in time", slow),
    ("more than 1024 bytes", huge),
    ("Disconnected", hangs_up),
]


async def test_whatever_an_engine_does_but_say_yes_nobody_gets_in(world: World, oracle: Oracle) -> None:
    running = await running_with(world, oracle.section(max_answer="1KiB"))
    async with running.browser() as ada:
        await ada.sign_in("ada", "/start")
        reached = len(running.application.seen)
        for number, (detail, answer) in enumerate(FAULTS):
            oracle.application.answer = answer
            response = await ada.fetch(f"/documents/{number}")
            assert (response.status, (await response.json())["error"]) == (503, "engine-unavailable"), detail
            (line,) = decisions(running, f"/documents/{number}")
            assert line["effect"] == "unavailable"
            assert detail in line["detail"]
        page = await ada.page("/documents/page")
        assert page.status == 503
        assert "engine-unavailable" in await page.text()
        # Nothing at all, and an object that says nothing, are a no.
        for number, nothing in enumerate([{}, {"result": None}, {"result": {}}, {"result": False}]):
            oracle.application.answer = says(nothing)
            assert (await ada.fetch(f"/documents/no-{number}")).status == 403
        assert len(running.application.seen) == reached
        assert not any(seen.target != "/v1/data/wiki/allow" for seen in oracle.application.seen)


@pytest.mark.parametrize("answer", [{}, {"allowed": "true"}, {"allowed": 1}, {"allowed": None}, {"allow": True}])
async def test_an_answer_of_openfga_that_says_neither_is_no_ruling(oracle: Oracle, answer: dict[str, Any]) -> None:
    known = {"type": "openfga", "url": oracle.section()["url"], "store": "S", "model": "M"}
    engine = open_engine("it", OpenFgaEngine.model_validate(known))
    asked = {"tuple": {"user": "user:a", "relation": "viewer", "object": "document:1"}}
    oracle.application.answer = says({"allowed": True})
    assert (await engine.ask(asked)).allowed
    assert json.loads(oracle.application.seen[0].body) == {"tuple_key": asked["tuple"], "authorization_model_id": "M"}
    oracle.application.answer = says(answer)
    with pytest.raises(Unavailable, match="does not say"):
        await engine.ask(asked)
    await engine.close()


async def test_a_connection_that_breaks_is_asked_again_once(oracle: Oracle) -> None:
    async def breaks(request: web.BaseRequest) -> web.StreamResponse:
        oracle.application.answer = says({"result": True})
        return await hangs_up(request)

    oracle.application.answer = breaks
    here = bench(oracle)
    assert (await here.ask()).ruling.allowed
    assert len(oracle.asked) == 2
    await here.engines.close()


async def test_an_engine_that_goes_and_comes_back_needs_no_restart_of_ours(world: World, oracle: Oracle) -> None:
    running = await running_with(world, oracle.section(remember="0s"))
    async with running.browser() as ada:
        await ada.sign_in("ada", "/start")
        assert (await ada.fetch("/documents/1")).status == 200
        await oracle.application.stop()
        assert (await ada.fetch("/documents/1")).status == 503
        await oracle.application.start()
        assert (await ada.fetch("/documents/1")).status == 200
        # Between two requests: what is left is a connection to something that has gone.
        await oracle.application.stop()
        await oracle.application.start()
        assert (await ada.fetch("/documents/1")).status == 200


WHO = Identity("corp", "https://id", "s1", "ada", groups=("staff",))
OTHER = replace(WHO, subject="s2", username="alan")


@dataclass
class Bench:
    """Engines without a sidecar around them, asked by the same function as the gate's."""

    engines: Engines
    changes: Changes | None = None
    input: dict[str, Any] = field(default_factory=lambda: {"user": "{{ user.username }}", "of": "{{ request.path }}"})
    section: dict[str, EngineSection] = field(default_factory=dict)

    async def ask(
        self,
        path: str = "/1",
        who: Identity = WHO,
        session: str = "one",
        now: float = 100.0,
        roles: tuple[str, ...] = (),
    ) -> Verdict:
        rule = AccessRule.model_validate(
            {"path": "/*", "allow": "signed_in", "engine": {"name": "it", "input": self.input}}
        )
        asked = ask_of(rule, self.section)
        assert asked is not None
        opened = Session(session, who, 0.0, 1e9, 0.0, 0.0)
        visit = Visit("GET", path, "h", "10.0.0.1")
        return await self.engines.rule_on(asked, opened, standing_of(opened, "cookie", roles), visit, now)


def bench(oracle: Oracle, changes: Changes | None = None, **more: Any) -> Bench:
    section: dict[str, EngineSection] = {"it": OpaEngine.model_validate(oracle.section(**more))}
    return Bench(open_engines(section, Metrics(), changes), changes, section=section)


async def test_t34_what_an_engine_said_is_good_for_one_session_question_and_state_of_a_person(oracle: Oracle) -> None:
    here = bench(oracle, remember="5s")
    first = await here.ask()
    assert (first.ruling.allowed, first.was_remembered) == (True, False)
    assert (await here.ask(now=104.9)).was_remembered
    for changed in (
        {"now": 105.0},
        {"path": "/2"},
        {"session": "two"},
        # The question is the same; who asks it is not as they were.
        {"who": replace(WHO, groups=("staff", "more"))},
        {"who": replace(WHO, groups=None)},
        {"who": replace(WHO, claims={"department": "new"})},
        {"who": replace(WHO, subject="another")},
        {"roles": ("editor",)},
    ):
        asked = len(oracle.asked)
        await here.ask()
        verdict = await here.ask(**changed)  # type: ignore[arg-type]
        assert not verdict.was_remembered, changed
        assert len(oracle.asked) > asked
        here.engines.forget()
    await here.engines.close()


async def test_nothing_is_remembered_where_that_is_wanted_nor_after_a_fault(oracle: Oracle) -> None:
    here = bench(oracle, remember="0s")
    await here.ask()
    assert not (await here.ask()).was_remembered
    await here.engines.close()
    here = bench(oracle)
    oracle.application.answer = raw(b"", 500)
    with pytest.raises(Unavailable):
        await here.ask()
    oracle.application.answer = says({"result": True})
    assert (await here.ask()).ruling.allowed
    await here.engines.close()


async def test_t56_any_word_of_a_change_makes_an_engine_be_asked_anew(oracle: Oracle) -> None:
    store = MemoryStore(lambda: 100.0)
    changes = Changes(store)
    here = bench(oracle, changes)
    await here.ask()
    assert (await here.ask()).was_remembered
    await changes.announce(["somebody"])
    assert not (await here.ask()).was_remembered

    # Also when the word comes while the engine thinks: what it says then is of before, and whoever asks after the word
    # does not share it.
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def thinking(_: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        await go_on.wait()
        return web.json_response({"result": True})

    oracle.application.answer = thinking
    before = asyncio.create_task(here.ask("/slow"))
    await begun.wait()
    await changes.announce(["somebody"])
    oracle.application.answer = says({"result": False})
    assert not (await here.ask("/slow")).ruling.allowed
    go_on.set()
    assert (await before).ruling.allowed
    assert not (await here.ask("/slow")).ruling.allowed
    await here.engines.close()


class Deaf(MemoryStore):
    """A store whose messages are not sure to come, as while Redis is away."""

    @property
    def is_watching(self) -> bool:
        return False


async def test_nothing_is_remembered_while_changes_are_not_heard(oracle: Oracle) -> None:
    here = bench(oracle, Changes(Deaf(lambda: 100.0)))
    await here.ask()
    assert not (await here.ask()).was_remembered
    await here.engines.close()


async def test_many_at_once_ask_once_and_each_gets_the_own_answer(oracle: Oracle) -> None:
    async def by_name(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        asked = json.loads(await request.read())["input"]
        return web.json_response({"result": asked["user"] == "ada"})

    oracle.application.answer = by_name
    here = bench(oracle, timeout="5s")
    everybody = [here.ask(who=who, session=f"{who.username}{number}") for number in range(40) for who in (WHO, OTHER)]
    verdicts = await asyncio.gather(*everybody)
    assert [verdict.ruling.allowed for verdict in verdicts] == [True, False] * 40
    assert len(oracle.asked) == 2
    # One of them that goes away takes the answer from nobody.
    here.engines.forget()
    leaving, staying = (asyncio.create_task(here.ask(session=name)) for name in ("leaving", "staying"))
    await until(lambda: asyncio.sleep(0, len(oracle.asked) == 3))
    leaving.cancel()
    assert (await staying).ruling.allowed
    assert here.engines._under_way == {}
    await here.engines.close()


async def test_more_questions_than_can_wait_are_turned_away(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.engines.engines._MOST_UNDER_WAY", 1)
    oracle.application.answer = slow
    here = bench(oracle)
    results = await asyncio.gather(here.ask("/1"), here.ask("/2"), return_exceptions=True)
    assert [str(result) for result in results] == [
        "engine-unavailable: it: no answer in time",
        "engine-unavailable: it: too many questions wait for it",
    ]
    await here.engines.close()


async def test_what_is_remembered_is_bounded(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.engines.engines._MOST_REMEMBERED", 2)
    here = bench(oracle)
    for number in range(5):
        await here.ask(f"/{number}")
    assert len(here.engines._entries) == 2
    await here.engines.close()


async def test_the_token_goes_along_and_is_never_logged(world: World, oracle: Oracle) -> None:
    section = oracle.section(token={"env": "ENGINE_TOKEN"})
    running = await world(
        {"access": RULES, "engines": {"it": section}}, environment={"ENGINE_TOKEN": "an engine's own secret"}
    )
    async with running.browser() as ada:
        await ada.sign_in("ada", "/documents/1")
        assert oracle.application.seen[0].values("Authorization") == ["Bearer an engine's own secret"]
        oracle.application.answer = raw(YES, 500)
        await ada.fetch("/documents/2")
    assert "own secret" not in json.dumps(running.audit())
    assert oracle.application.seen[0].values("Cookie") == []


async def test_explain_asks_or_says_what_it_would_ask(world: World, oracle: Oracle) -> None:
    running = await running_with(world, oracle.section())
    question = Question("corp", {**ADA, "sub": "1"}, "GET", "/documents/7")
    config = running.sidecar.config
    offline = await foresee(config, question, lookup=False)
    assert offline.engine is not None
    assert offline.engine.wants == 'it {"input": {"user": "ada", "document": "7", "method": "GET"}}'
    assert (offline.engine.holds, offline.decision.effect, oracle.asked) == (None, Effect.ALLOW, [])
    asked = await foresee(config, question, lookup=False, engines=True)
    assert asked.engine is not None
    assert (asked.engine.has, asked.decision.effect) == ("allows", Effect.ALLOW)
    oracle.application.answer = says({"result": {"allow": False, "policy": "drafts"}})
    denied = await foresee(config, question, lookup=False, engines=True)
    assert denied.engine is not None
    assert (denied.engine.has, denied.decision.reason) == ("denies, by drafts", Reason.ENGINE_DENIES)
    assert denied.explanation.considered[-1].criteria[-1] == denied.engine
    assert denied.headers == ()
    oracle.application.answer = raw(b"", 500)
    down = await foresee(config, question, lookup=False, engines=True)
    assert (down.decision.effect, down.decision.reason) == (Effect.DENY, Reason.ENGINE_DOWN)


def test_the_commands_say_what_an_engine_is_asked(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    text = (tmp_path / "config.yaml").read_text()
    engine = "  engine: {name: it, input: {user: '{{ user.username }}'}}\n"
    text = text.replace("access:\n", f"access:\n- path: /asked\n  allow: signed_in\n{engine}")
    desk.configure(f"{text}engines: {{it: {{type: opa, url: 'http://127.0.0.1:9', path: wiki}}}}\n")
    done = desk("explain", "GET", "/asked", "--as", "claims.json", "--offline")
    assert done.returncode == 0
    assert '? engine: it {"input": {"user": "ada"}} (not asked now)' in done.stdout
    done = desk("explain", "GET", "/asked", "--as", "claims.json")
    assert done.returncode == 1
    assert "deny: engine-unavailable, by rule 1: /asked" in done.stdout
    planned = json.loads(desk("plan", "--user", "claims.json", "--path", "/asked", "--json").stdout)
    assert planned["engine"] == {"asked": 'it {"input": {"user": "ada"}}', "says": "not asked now"}
    said = json.loads(desk("check", "--connect", "--json").stdout)
    assert said["connections"]["engines.it"]["ok"] is False


async def test_a_probe_says_what_is_there(oracle: Oracle) -> None:
    engine = open_engine("it", OpaEngine.model_validate(oracle.section()))
    assert await engine.probe() == "answers, wiki/allow is defined for an empty input"
    oracle.application.answer = raw(b"", 404)
    with pytest.raises(Unavailable, match="status 404"):
        await engine.probe()
    await engine.close()
