"""The command explain and the running gate agree, and the command says why."""

from __future__ import annotations

import ipaddress
import json
import random
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.people import DemoPerson
from sidecar.faults import Refused
from sidecar.foresight import Foresight, Question, foresee
from sidecar.model import Effect
from tests.services.certificates import make_certificates
from tests.test_cli import Desk
from tests.world import PEOPLE, Browser, Running, World, until

RULES = {
    "access": [
        {"path": "/**", "deny": {"network": "203.0.0.0/16"}, "name": "out"},
        {"path": "/health", "allow": "anyone"},
        {"path": "/public/**", "allow": "anyone", "deny": {"group": "wiki-readers"}},
        {"path": "/lobby/**", "allow": [{"who": "anyone", "network": "10.0.0.0/8"}, {"role": "editor"}]},
        {"path": "/inside/**", "allow": {"network": ["10.0.0.0/8", "2001:db8::/32"]}},
        {"path": "/finance/**", "allow": {"when": "{{ claims.department == 'Finance' }}"}},
        {"path": "/names/**", "allow": {"when": "{{ claims.preferred_username in ['ada', 'alan'] }}"}},
        {"path": "/admin/*/deep/**", "methods": ["GET"], "allow": {"role": "admin"}, "require": {"max_age": "5m"}},
        {"path": "/admin/**", "allow": {"role": "admin"}, "deny": {"network": "10.0.0.0/8"}},
        {"path": "/strong/**", "allow": "signed_in", "require": {"acr": "urn:demo:strong"}},
        {"path": "/otp/**", "allow": "signed_in", "require": {"amr": "otp"}},
        {"path": "/closed/**", "allow": "nobody"},
        {"path": "/other/**", "host": "other.example", "allow": "signed_in"},
        {"path": "/api/**", "allow": [{"group": "wiki-editors"}, {"login": "corp", "role": "reader"}]},
        {"path": "/dav/**", "methods": ["PROPFIND"], "allow": "anyone"},
        {"path": "/**", "deny": {"group": "wiki-admins", "when": "{{ claims.email == 'ada@example.com' }}"}},
        {"path": "/**", "methods": ["GET", "POST"], "allow": {"role": ["admin", "editor", "reader"]}},
    ],
    "roles": {
        "admin": {"group": "wiki-admins", "includes": ["reader"]},
        "editor": "{{ 'wiki-editors' in groups }}",
        "reader": {"when": "{{ 'wiki-readers' in groups }}", "login": "corp"},
    },
    "server": {"trusted_proxies": ["127.0.0.0/8"], "hosts": ["other.example"]},
    # The clock of the test runs ahead of the provider's, whose tokens would all have expired.
    "logins": {"corp": {"refresh": False}},
    "headers": {"X-Secret": {"secret": {"env": "OIDC_SECRET"}}},
}
PLACES = ["health", "public", "lobby", "inside", "finance", "names", "admin", "strong", "otp", "closed", "other", "api"]
PLACES += ["dav", "", "x"]
TAILS = ["", "/", "/1", "/1/deep", "/1/deep/2", "/a;b"]
METHODS = ["GET", "GET", "GET", "HEAD", "POST", "PUT", "PROPFIND", "LOCK"]
# Each case comes from an address of its own, by which its audit line is found.
CLIENTS = ["10.1.{0}.{1}", "192.1.{0}.{1}", "203.0.{0}.{1}", "2001:db8::{0}:{1}"]
CASES = 2000


def claims_of(person: DemoPerson, at: float) -> dict[str, Any]:
    return {
        "sub": person.subject,
        "preferred_username": person.login,
        "name": person.name,
        "email": person.email,
        "email_verified": person.email_verified,
        "groups": list(person.groups),
        "acr": "urn:demo:simple",
        "auth_time": at,
    }


async def asked(running: Running, browser: Browser, question: Question) -> dict[str, Any]:
    """Ask the running sidecar; what its audit line says of the decision, and what the application saw of headers."""
    before = len(running.application.seen)
    headers = {"X-Forwarded-For": question.client, "Host": question.host}
    answer = await browser.fetch(question.target, question.method, headers=headers)
    seen = running.application.seen[before:]
    assert bool(seen) == (answer.status == 200), answer.status
    return {"status": answer.status, "seen": seen[0] if seen else None}


async def enough(running: Running, before: int) -> bool:
    """True when each case has its audit line; those of ordinary requests are written in batches."""
    return len({line["client"] for line in running.audit()[before:] if line["event"] == "decision"}) >= CASES


async def test_explain_and_the_running_gate_agree_on_thousands_of_requests(world: World) -> None:
    running = await world(RULES)
    chance = random.Random(7)
    browsers: list[tuple[Browser, dict[str, Any] | None]] = [(running.browser(), None)]
    for person in PEOPLE:
        browser = running.browser()
        await browser.sign_in(person.login, "/names/x")
        # Demo sign-ins are of whole seconds.
        browsers.append((browser, claims_of(person, float(int(world.clock())))))
    before = len(running.audit())
    expected: list[tuple[Question, Foresight | None, dict[str, Any]]] = []
    for number in range(CASES):
        # Half of the time the sign-ins are too old for one of the rules.
        world.clock.ahead = 0 if number < CASES // 2 else 400
        browser, claims = chance.choice(browsers)
        place = f"/{chance.choice(PLACES)}{chance.choice(TAILS)}"
        host = chance.choice([running.url.removeprefix("http://"), "other.example"])
        client = str(ipaddress.ip_address(chance.choice(CLIENTS).format(*divmod(number, 250))))
        question = Question("corp", claims, chance.choice(METHODS), place.replace("//", "/"), host, client)
        real = await asked(running, browser, question)
        plain = Question("corp", claims, question.method, question.target, host.partition(":")[0], question.client)
        try:
            said = await foresee(running.sidecar.config, plain, lookup=False, now=world.clock())
        except Refused:
            said = None
        expected.append((question, said, real))
    await until(lambda: enough(running, before))
    lines = {line["client"]: line for line in running.audit()[before:] if line["event"] == "decision"}
    effects = set()
    for question, said, real in expected:
        line = lines[question.client]
        if said is None:
            assert line["reason"] == "path-ambiguous", question
            continue
        decision = said.decision
        assert (line["effect"], line["reason"], line.get("rule", "")) == (
            decision.effect.value,
            decision.reason.value,
            decision.rule,
        ), question
        effects.add((decision.effect, decision.reason))
        if decision.effect is Effect.ALLOW:
            sent = {name: "".join(real["seen"].values(name)) for name in ("X-App-User", "X-App-Roles", "X-Secret")}
            told = dict(said.headers)
            assert told.get("X-App-User", "") == sent["X-App-User"]
            assert told.get("X-App-Roles", "") == sent["X-App-Roles"]
            assert (told["X-Secret"], sent["X-Secret"]) == ("(secret)", "a client secret")
    # Every kind of end was among them.
    assert len(effects) >= 9, effects
    for browser, _ in browsers:
        await browser.http.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_command_says_who_may_and_why(desk: Desk) -> None:
    done = desk("explain", "GET", "/admin/users", "config.yaml", "--as", "claims.json")
    assert done.returncode == 0, done.stderr
    assert "1: /health: not about this request: path is /health, not /admin/users" in done.stdout
    assert "3: /admin/**: decides" in done.stdout
    assert "✓ allow.role: admin (admin)" in done.stdout
    assert "✓ admin: {{ 'wiki-admins' in groups }} holds" in done.stdout
    assert "X-App-User: ada" in done.stdout
    assert not (desk.folder / "directory.db").exists()


def test_the_command_leaves_with_1_when_somebody_may_not_or_must_sign_in(desk: Desk) -> None:
    nobody = desk("explain", "GET", "/admin/users", "config.yaml")
    assert (nobody.returncode, "challenge: not-signed-in" in nobody.stdout) == (1, True)
    assert "? allow.role: admin (nobody is signed in)" in nobody.stdout
    desk.claims(sub="2", preferred_username="grace", groups=["wiki-editors"])
    done = desk("explain", "get", "/admin/users", "config.yaml", "--as", "claims.json", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 1
    assert said["decision"] == {"effect": "deny", "reason": "role-missing", "rule": "3: /admin/**", "needs": {}}
    assert [rule["decided"] for rule in said["rules"]] == [False, False, True]
    assert {role["name"]: role["held"] for role in said["roles"]} == {"admin": False, "editor": True, "reader": False}


def test_the_command_takes_the_host_the_client_and_a_token(desk: Desk) -> None:
    config = (desk.folder / "config.yaml").read_text()
    rule = "access:\n- {path: /api/**, host: localhost, allow: {bearer: corp, network: 10.0.0.0/8}}\n"
    config = config.replace("access:\n", rule).replace("client_id: wiki", "client_id: wiki\n    bearer: {audience: a}")
    desk.configure(config)
    words = ("explain", "GET", "/api/x", "config.yaml", "--as", "claims.json", "--client", "10.1.1.1", "--json")
    assert json.loads(desk(*words).stdout)["decision"]["reason"] == "role-missing"
    assert json.loads(desk(*words, "--token").stdout)["decision"]["reason"] == "rule"
    assert (
        json.loads(desk(*words, "--token", "--client", "192.0.2.1").stdout)["decision"]["reason"]
        == "network-not-allowed"
    )
    other = json.loads(desk(*words, "--token", "--host", "elsewhere.example").stdout)
    assert other["decision"]["rule"] != "1: /api/**"


def test_the_command_takes_tokens_of_every_kind(desk: Desk) -> None:
    config = (desk.folder / "config.yaml").read_text()
    rule = "access:\n- {path: /api/**, allow: {bearer: [tokens, certificates], role: [admin, editor]}, name: api}\n"
    more = "tokens: {}\ncertificates: {proxies: unix, ca: authority.pem, identity: {username: '{{ claims.cn }}'}}\n"
    desk.configure(config.replace("access:\n", rule) + more)
    make_certificates(desk.folder)
    claims = ("--as", "claims.json")

    def said(*words: str) -> tuple[str, list[str]]:
        answer = json.loads(desk("explain", *words, "--json").stdout)
        return answer["decision"]["reason"], [line[1] for line in answer["headers"] if line[0] == "X-App-User"]

    get = ("GET", "/api/x", "config.yaml")
    assert said(*get, *claims, "--token", "personal") == ("rule", ["ada"])
    assert said(*get, *claims, "--token", "personal", "--scope", "api") == ("rule", ["ada"])
    assert said(*get, *claims, "--token", "personal", "--scope", "POST /**") == ("token-scope", [])
    assert said(*get) == ("not-signed-in", [])
    assert said(*get, "--token", "service", "--service", "robot", "--role", "editor") == ("rule", ["robot"])
    assert said(*get, "--token", "service", "--service", "robot") == ("role-missing", [])
    desk.claims(sub="1", cn="build")
    assert said(*get, *claims, "--token", "certificate") == ("role-missing", [])
    plain = desk("explain", *get, "--token", "service", "--service", "robot", "--scope", "/x", "--role", "admin")
    assert "✗ scope: /x (GET /api/x)" in plain.stdout
    assert "given to the service" in plain.stdout
    assert desk("explain", *get, "--token", "service").returncode == 2


def test_the_command_refuses_what_the_gate_refuses(desk: Desk) -> None:
    done = desk("explain", "GET", "/public/../admin", "config.yaml")
    assert (done.returncode, "path-ambiguous" in done.stderr) == (1, True)
    done = desk("explain", "GET", "/public;x/../admin", "config.yaml", "--json")
    assert (done.returncode, json.loads(done.stdout)["refused"]) == (1, "path-ambiguous")
