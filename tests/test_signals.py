"""Shared signals from a transmitter over real HTTP: what is believed, what follows, and that it follows once."""

from __future__ import annotations

import asyncio
import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from sidecar.core.signals import DEFAULTS
from sidecar.model import Identity
from tests.forger import running_forger
from tests.services.oidc import OidcProvider
from tests.services.redis import RedisServer
from tests.signals_world import CAEP, ENVIRONMENT, RISC, SSF, Sender, a_transmitter, person, rsa, section
from tests.test_journey import users_of, users_table
from tests.test_replicas import answers_with, asked, at, sign_in_for_real, two
from tests.world import Browser, Running, World, until


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    """A transmitter."""
    async with a_transmitter() as made:
        yield made


async def listening(world: World, tmp_path: Path, sender: Sender, **changes: Any) -> Running:
    """A sidecar with accounts that listens to *sender*."""
    return await world(
        {"signals": section(sender, **changes), "directory": f"sqlite:///{tmp_path}/directory.db"},
        environment={"USERS_DB": users_table(tmp_path / "users.db"), **ENVIRONMENT},
        provision=True,
    )


def place(running: Running, name: str = "corp") -> str:
    return f"{running.url}/-/signals/{name}"


def subject_of(running: Running, login: str) -> str:
    """What the provider calls *login*, who has signed in."""
    lines = [line for line in running.audit() if line["event"] == "login-succeeded" and line["person"] == login]
    return str(lines[-1]["subject"])


@contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    """Let the store answer nothing for a while."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


def heard(running: Running, event: str = "signal-received") -> list[dict[str, Any]]:
    return [line for line in running.audit() if line["event"] == event]


async def test_an_event_ends_every_session_of_the_person_and_of_nobody_else(
    world: World, tmp_path: Path, sender: Sender
) -> None:
    running = await listening(world, tmp_path, sender)
    async with running.browser() as one, running.browser() as other, running.browser() as bystander:
        for browser, login in ((one, "ada"), (other, "ada"), (bystander, "grace")):
            assert (await browser.sign_in(login)).status == 200
        ada = person(running.provider.issuer, subject_of(running, "ada"))
        token = sender.signed(sender.claims({CAEP + "session-revoked": {}}, ada))
        assert await sender.push(place(running), token) == (202, None)
        assert [(await browser.fetch("/")).status for browser in (one, other, bystander)] == [401, 401, 200]
        [line] = heard(running)
        assert (line["signal"], line["effect"], line["ended"], line["way"]) == (
            "session-revoked",
            "end_sessions",
            2,
            "push",
        )
        # Sent again, it is received again, and nothing happens.
        one.forget_provider()
        await one.sign_in("ada")
        assert await sender.push(place(running), token) == (202, None)
        assert (await one.fetch("/")).status == 200
        assert len(heard(running)) == 1


async def test_t68_an_account_that_is_disabled_there_is_closed_here_until_it_is_enabled(
    world: World, tmp_path: Path, sender: Sender
) -> None:
    running = await listening(world, tmp_path, sender)
    async with running.browser() as browser:
        await browser.sign_in("ada")
        ada = person(running.provider.issuer, subject_of(running, "ada"))

        async def tell(event: str, moment: int, subject: Any = ada) -> None:
            claims = sender.claims({RISC + event: {"event_timestamp": 1_700_000_000 + moment}}, subject)
            assert (await sender.push(place(running), sender.signed(claims)))[0] == 202

        async def is_in_application(active: int) -> bool:
            return ("ada", "ada@example.com", "admin", active) in users_of(tmp_path / "users.db")

        await tell("account-disabled", 10)
        assert (await browser.fetch("/")).status == 401
        await until(partial(is_in_application, 0))
        browser.forget_provider()
        assert (await browser.sign_in("ada")).status == 403
        # Older than what holds: late, or sent by somebody who kept it.
        await tell("account-enabled", 5)
        assert (await browser.fetch("/")).status == 403
        assert heard(running)[-1]["result"] == "outdated"
        await tell("account-enabled", 20)
        assert (await browser.page("/")).status == 200
        await until(partial(is_in_application, 1))
        await tell("account-disabled", 15)
        assert (await browser.page("/")).status == 200
        # Gone for good is the word of whoever asked for that.
        await tell("account-purged", 30)
        await until(partial(is_in_application, 0))
        assert [line["event"] for line in running.audit()].count("person-disabled") == 2


async def test_what_somebody_else_switched_off_an_event_does_not_switch_on(
    world: World, tmp_path: Path, sender: Sender
) -> None:
    running = await listening(world, tmp_path, sender, subjects=["iss_sub", "email"])
    provisioner = running.sidecar.condition.accounts.provisioner
    directory = running.sidecar.condition.accounts.directory
    assert provisioner is not None
    assert directory is not None
    async with running.browser() as browser:
        await browser.sign_in("ada")
        known = await directory.person_by_account("ada")
        assert known is not None
        await provisioner.disable(known.id, "scim:hr", 1.0)
        by_address = {"format": "email", "email": "ADA@example.com"}
        claims = sender.claims({RISC + "account-enabled": {"event_timestamp": 1_700_000_010}}, by_address)
        assert (await sender.push(place(running), sender.signed(claims)))[0] == 202
        assert heard(running)[-1]["result"] == "person-disabled"
        # Also when the transmitter has had them off, too: it lifts its own word and no other.
        await provisioner.disable(known.id, "signals:corp", 2.0)
        claims = sender.claims({RISC + "account-enabled": {"event_timestamp": 1_700_000_020}}, by_address)
        assert (await sender.push(place(running), sender.signed(claims)))[0] == 202
        assert (heard(running)[-1]["result"], "scim:hr" in heard(running)[-1]["detail"]) == ("person-disabled", True)
        assert (await browser.fetch("/")).status in (401, 403)
        # A prefix of an address is nobody's, and neither is a name that is not taken.
        for nobody in ({"format": "email", "email": "ada"}, {"format": "opaque", "id": "ada"}):
            claims = sender.claims({CAEP + "session-revoked": {}}, nobody)
            assert (await sender.push(place(running), sender.signed(claims)))[0] == 202
            assert heard(running)[-1].get("ended", 0) == 0


async def test_a_late_event_is_late_by_whatever_name_it_calls_them(
    world: World, tmp_path: Path, sender: Sender
) -> None:
    running = await listening(world, tmp_path, sender, subjects=["iss_sub", "email"])
    directory = running.sidecar.condition.accounts.directory
    assert directory is not None
    issuer = running.provider.issuer
    async with running.browser() as browser:
        await browser.sign_in("ada")
        known = await directory.person_by_account("ada")
        assert known is not None
        other = Identity("corp", issuer, "another-subject", "ada", email="ada@example.com")
        await directory.join(known, other)
        names = [{"format": "email", "email": "ada@example.com"}, person(issuer, subject_of(running, "ada"))]
        names.append(person(issuer, other.subject))

        async def tell(event: str, moment: int, subject: Any) -> str:
            claims = sender.claims({RISC + event: {"event_timestamp": 1_700_000_000 + moment}}, subject)
            assert (await sender.push(place(running), sender.signed(claims)))[0] == 202
            return str(heard(running)[-1].get("result", ""))

        for number, name in enumerate(names):
            moment = 10 * (number + 1)
            assert await tell("account-disabled", moment, name) == ""
            assert [await tell("account-enabled", moment - 1, late) for late in names] == ["outdated"] * 3
            assert (await browser.fetch("/")).status in (401, 403)


async def test_a_session_at_the_provider_is_ended_without_the_persons_others(
    world: World, tmp_path: Path, sender: Sender
) -> None:
    running = await listening(world, tmp_path, sender)
    keeper = running.sidecar.front.portal.keeper
    async with running.browser() as one, running.browser() as other:
        for browser in (one, other):
            await browser.sign_in("ada")
        session = await keeper.find(one.cookie(), running.sidecar.front.clock())
        assert session is not None
        assert session.sid
        subject = {
            "format": "complex",
            "user": person(running.provider.issuer, session.identity.subject),
            "session": {"format": "opaque", "id": session.sid},
        }
        # One that is over, or was never here, is no reason to end those of other browsers.
        for named, left in (({"format": "opaque", "id": "gone"}, [200, 200]), (subject["session"], [401, 200])):
            claims = sender.claims({CAEP + "session-revoked": {}}, {**subject, "session": named})
            assert (await sender.push(place(running), sender.signed(claims)))[0] == 202
            assert [(await browser.fetch("/")).status for browser in (one, other)] == left


async def test_an_event_about_a_session_counts_for_those_of_which_the_provider_never_said_which_they_are(
    world: World, sender: Sender
) -> None:
    rules = [
        {"path": "/pay/**", "allow": "signed_in", "require": {"max_age": "1h"}},
        {"path": "/**", "allow": "signed_in"},
    ]
    changes = {"signals": section(sender), "access": rules}
    async with running_forger() as forger, AsyncExitStack() as stack:
        running = await world(changes, environment=ENVIRONMENT, issuer=forger.issuer)
        named, nameless = [await stack.enter_async_context(running.browser()) for _ in range(2)]
        for browser, claims in ((named, {"sid": "one"}), (nameless, {})):
            forger.claims = {**claims, "auth_time": int(time.time())}
            begun = URL((await browser.page("/-/login?to=/pay/x")).headers["Location"])
            forger.nonce = begun.query["nonce"]
            assert (await browser.page(f"/-/callback/corp?state={begun.query['state']}&code=c")).status == 302

        async def told(event: str, details: Any) -> list[tuple[int, int]]:
            session = {"format": "opaque", "id": "gone"}
            subject = {"format": "complex", "user": person(forger.issuer, "ada"), "session": session}
            token = sender.signed(sender.claims({CAEP + event: details}, subject))
            assert (await sender.push(place(running), token))[0] == 202
            return [
                ((await browser.fetch("/pay/x")).status, (await browser.fetch("/")).status)
                for browser in (named, nameless)
            ]

        weaker = await told("assurance-level-change", {"change_direction": "decrease"})
        assert weaker == [(200, 200), (401, 200)]
        assert await told("session-revoked", {}) == [(200, 200), (401, 401)]


async def test_a_lower_assurance_asks_again_only_where_a_rule_asks_for_more(
    world: World, tmp_path: Path, sender: Sender
) -> None:
    rules = [
        {"path": "/pay/**", "allow": "signed_in", "require": {"max_age": "1h"}},
        {"path": "/**", "allow": "signed_in"},
    ]
    changes = {"signals": section(sender), "access": rules}
    running = await world(changes, environment=ENVIRONMENT)
    async with running.browser() as browser:
        await browser.sign_in("ada", "/pay/x")
        assert (await browser.fetch("/pay/x")).status == 200
        ada = person(running.provider.issuer, subject_of(running, "ada"))
        event = {CAEP + "assurance-level-change": {"change_direction": "decrease"}}
        assert (await sender.push(place(running), sender.signed(sender.claims(event, ada))))[0] == 202
        assert heard(running)[-1]["marked"] == 1
        assert (await browser.fetch("/pay/x")).status == 401
        assert (await browser.fetch("/")).status == 200
        browser.forget_provider()
        assert (await browser.sign_in("ada", "/pay/x")).status == 200


async def test_t56_changed_claims_are_read_again_at_once(world: World, tmp_path: Path, sender: Sender) -> None:
    scopes = ["openid", "profile", "email", "groups", "offline_access"]
    changes = {"signals": section(sender), "logins": {"corp": {"scopes": scopes}}}
    running = await world(changes, environment=ENVIRONMENT)
    async with running.browser() as browser:
        await browser.sign_in("ada")
        session = await running.sidecar.front.portal.keeper.find(browser.cookie(), running.sidecar.front.clock())
        assert session is not None
        ada = person(running.provider.issuer, session.identity.subject)
        claims = sender.claims({CAEP + "token-claims-change": {"claims": {"groups": []}}}, ada)
        assert (await sender.push(place(running), sender.signed(claims)))[0] == 202
        for _ in range(3):
            await browser.fetch("/")
        # Asked once, or ended where the provider gave nothing to ask with.
        happened = [line["event"] for line in running.audit() if line["event"].startswith("session-")]
        assert happened in (["session-refreshed"], ["session-ended"])
        assert happened == ["session-refreshed"] if session.refresh_at else ["session-ended"]


def wrong(change: dict[str, Any], **header: Any) -> Callable[[Sender], str]:
    """A token of which something is changed."""

    def made(sender: Sender) -> str:
        return sender.signed(sender.claims({CAEP + "session-revoked": {}}, None, **change), **header)

    return made


def _by_a_stranger(sender: Sender) -> str:
    return sender.signed(sender.claims({CAEP + "session-revoked": {}}), rsa(sender.keys[0].kid or ""))


def _with_an_hmac_of_the_public_key(sender: Sender) -> str:
    signed = sender.signed(sender.claims({CAEP + "session-revoked": {}}))
    head = urlsafe_b64encode(b'{"alg":"HS256","typ":"secevent+jwt","kid":"one"}').rstrip(b"=")
    text = head + b"." + signed.split(".")[1].encode()
    proof = hmac.digest(sender.keys[0].as_pem(private=False), text, "sha256")
    return (text + b"." + urlsafe_b64encode(proof).rstrip(b"=")).decode()


WRONG: list[tuple[str, Callable[[Sender], str], str, str]] = [
    ("no token", lambda _: "nonsense", "invalid_request", "token-invalid"),
    ("a signature of somebody else", _by_a_stranger, "invalid_request", "token-invalid"),
    ("an HMAC", _with_an_hmac_of_the_public_key, "invalid_key", "token-algorithm"),
    ("an unknown key", wrong({}, kid="two"), "invalid_key", "token-key"),
    ("another type", wrong({}, typ="JWT"), "invalid_request", "token-invalid"),
    ("no type", wrong({}, typ=""), "invalid_request", "token-invalid"),
    ("a logout token", wrong({}, typ="logout+jwt"), "invalid_request", "token-invalid"),
    ("another issuer", wrong({"iss": "https://other.example"}), "invalid_issuer", "token-issuer"),
    ("another audience", wrong({"aud": ["https://other.example"]}), "invalid_audience", "token-audience"),
    ("no audience", wrong({"aud": None}), "invalid_audience", "token-audience"),
    ("no jti", wrong({"jti": None}), "invalid_request", "token-claim"),
    ("no iat", wrong({"iat": None}), "invalid_request", "token-time"),
    ("an iat of tomorrow", wrong({"iat": 4_000_000_000}), "invalid_request", "token-time"),
    ("an iat of long ago", wrong({"iat": 1_700_000_000}), "invalid_request", "token-time"),
    ("expired", wrong({"exp": 1_700_000_000}), "invalid_request", "token-expired"),
    ("no events", wrong({"events": {}}), "invalid_request", "signal-invalid"),
    ("a nonce", wrong({"nonce": "n"}), "invalid_request", "token-claim"),
    ("no subject identifier", wrong({"sub_id": {"format": "iss_sub"}}), "invalid_request", "signal-invalid"),
    (
        "people of another issuer",
        wrong({"sub_id": person("https://other.example", "ada")}),
        "invalid_request",
        "signal-invalid",
    ),
    (
        "a state that nobody asked for",
        wrong({"events": {SSF + "verification": {"state": "guessed"}}}),
        "invalid_state",
        "signal-state-unknown",
    ),
]


async def test_t30_what_may_not_be_believed_is_refused_in_the_terms_of_rfc_8935(
    world: World, tmp_path: Path, sender: Sender
) -> None:
    running = await world({"signals": section(sender)}, environment=ENVIRONMENT)
    got, due = {}, {}
    for what, made, err, reason in WRONG:
        status, body = await sender.push(place(running), made(sender))
        got[what] = (status, body["err"], body["description"])
        due[what] = (400, err, reason)
    assert got == due
    assert [line["reason"] for line in heard(running, "signal-refused")] == [reason for *_, reason in WRONG]


async def test_only_the_transmitter_gets_in(world: World, tmp_path: Path, sender: Sender) -> None:
    proxies = {"server": {"trusted_proxies": ["127.0.0.0/8"]}}
    running = await world({"signals": section(sender), **proxies}, environment=ENVIRONMENT)
    good = sender.signed(sender.claims({SSF + "verification": {}}, {"format": "opaque", "id": "s-1"}))
    refused = [
        await sender.push(place(running), good, Authorization="Bearer " + "x" * 30),
        await sender.push(place(running), good, Authorization=""),
        await sender.push(place(running, "other"), good),
    ]
    assert [(status, body["err"]) for status, body in refused] == [(401, "authentication_failed")] * 3
    assert (await sender.push(place(running), good, **{"Content-Type": "application/jwt"}))[0] == 400
    assert (await sender.push(place(running), good, **{"Content-Encoding": "gzip"}))[0] == 400
    assert (await sender.push(place(running), "a" * 70_000))[0] == 413
    async with sender.http.get(
        place(running), headers={"Authorization": f"Bearer {ENVIRONMENT['SIGNALS_TOKEN']}"}
    ) as got:
        assert got.status == 405
    assert (await sender.push(place(running), good))[0] == 202
    bad = {"Authorization": "Bearer no"}
    for known in ("192.0.2.1", "2001:db8::{}"):
        # Whoever has one address of IPv6 has many.
        told = [{"X-Forwarded-For": known.format(number)} for number in range(31)]
        statuses = [(await sender.push(place(running), good, **bad, **one))[0] for one in told]
        assert (statuses[0], statuses[-1]) == (401, 429)
    away = await world({"signals": section(sender, networks="192.0.2.0/24")}, environment=ENVIRONMENT)
    assert (await sender.push(place(away), good))[0] == 403
    # Whoever has no token does not learn which transmitters there are, and is slowed down like anybody.
    tries = [(await sender.push(place(away), good, **bad))[0] for _ in range(31)]
    assert (tries[0], tries[-1]) == (401, 429)


async def test_a_rotated_key_is_found_and_a_withdrawn_one_forgotten(
    world: World, tmp_path: Path, sender: Sender
) -> None:
    running = await world({"signals": section(sender)}, environment=ENVIRONMENT)
    said: dict[str, Any] = {SSF + "verification": {}}
    assert (await sender.push(place(running), sender.signed(sender.claims(said))))[0] == 202
    sender.keys.insert(0, rsa("two"))
    assert (await sender.push(place(running), sender.signed(sender.claims(said))))[0] == 202
    asked_before = sender.asked.count("GET /jwks")
    for number in range(5):
        assert (await sender.push(place(running), sender.signed(sender.claims(said), kid=f"x{number}")))[0] == 400
    assert sender.asked.count("GET /jwks") == asked_before


async def test_a_critical_part_of_a_subject_that_is_not_known_keeps_the_event_from_counting(
    world: World, tmp_path: Path, sender: Sender
) -> None:
    sender.critical = ["device"]
    running = await world({"signals": section(sender)}, environment=ENVIRONMENT)
    async with running.browser() as browser:
        await browser.sign_in("ada")
        ada = person(running.provider.issuer, subject_of(running, "ada"))
        subject = {"format": "complex", "user": ada, "device": {"format": "opaque", "id": "d"}}
        claims = sender.claims({CAEP + "session-revoked": {}}, subject)
        assert (await sender.push(place(running), sender.signed(claims)))[0] == 202
        assert (await browser.fetch("/")).status == 200
        assert "device" in heard(running)[-1]["detail"]


@asynccontextmanager
async def _signed_in(running: Running, provider: OidcProvider) -> AsyncIterator[Browser]:
    async with running.browser() as browser:
        await sign_in_for_real(browser, provider, "ada")
        yield browser


async def test_an_event_ends_sessions_and_websockets_in_two_replicas_by_push_and_by_poll(
    world: World, oidc_provider: OidcProvider, redis_url: str, tmp_path: Path, sender: Sender
) -> None:
    polled = section(sender, poll={"every": "100ms", "endpoint": f"http://localhost:{sender.port}/poll"})
    one, other, users = await two(
        world, oidc_provider, redis_url, tmp_path, f"sqlite:///{tmp_path}/d.db", {"signals": polled}, **ENVIRONMENT
    )
    for way in ("push", "poll"):
        async with _signed_in(one, oidc_provider) as browser, aiohttp.ClientSession() as http:
            assert (await asked(browser, other)).status == 200
            ada = person(oidc_provider.issuer, "ada")
            headers = {"Host": one.url.removeprefix("http://"), "Cookie": f"sidecar={browser.cookie()}"}
            async with http.ws_connect(at(other, "/ws"), headers={**headers, "Origin": one.url}) as socket:
                await socket.send_str("x")
                assert (await socket.receive()).data == "echo x"
                claims = sender.claims({CAEP + "session-revoked": {}}, ada)
                if way == "push":
                    assert (await sender.push(place(one), sender.signed(claims)))[0] == 202
                else:
                    sender.queue[claims["jti"]] = sender.signed(claims)
                closed = await asyncio.wait_for(socket.receive(), 3)
                assert (closed.type, closed.extra) == (aiohttp.WSMsgType.CLOSE, "session ended")
            for running in (one, other):
                await until(partial(answers_with, 401, browser, running), within=3)
    ways = [line["way"] for running in (one, other) for line in heard(running)]
    assert sorted(ways) == ["poll", "push"]
    assert users_of(users)


async def test_polls_are_acknowledged_once_done_by_one_replica_and_backed_off(
    world: World, oidc_provider: OidcProvider, redis_url: str, redis_server: RedisServer, tmp_path: Path, sender: Sender
) -> None:
    polled = section(sender, token=None, poll={"every": "50ms", "endpoint": f"http://localhost:{sender.port}/poll"})
    one, other, _ = await two(
        world, oidc_provider, redis_url, tmp_path, f"sqlite:///{tmp_path}/d.db", {"signals": polled}, **ENVIRONMENT
    )
    good = [sender.claims({CAEP + "session-revoked": {}}, person(oidc_provider.issuer, "ada")) for _ in range(3)]
    sender.broken = 2
    for claims in good:
        sender.queue[claims["jti"]] = sender.signed(claims)
    sender.queue["forged"] = sender.signed(sender.claims({CAEP + "session-revoked": {}}), rsa("one"))

    async def is_empty() -> bool:
        return not sender.queue

    await until(is_empty)
    assert sorted(jti for asked in sender.polls for jti in asked.get("ack", [])) == sorted(one["jti"] for one in good)
    errors = [asked["setErrs"] for asked in sender.polls if "setErrs" in asked]
    assert errors == [{"forged": {"err": "invalid_request", "description": "token-invalid"}}]
    assert len([line for running in (one, other) for line in heard(running)]) == 3
    # Nothing is acknowledged while what would make it durable is down.
    with frozen(redis_server):
        claims = sender.claims({CAEP + "session-revoked": {}}, person(oidc_provider.issuer, "ada"))
        sender.queue[claims["jti"]] = sender.signed(claims)
        await asyncio.sleep(0.3)
        assert claims["jti"] in sender.queue
    await until(is_empty, within=30)


async def test_a_push_is_not_called_received_while_the_store_is_down(
    world: World, redis_url: str, redis_server: RedisServer, tmp_path: Path, sender: Sender
) -> None:
    changes = {"signals": section(sender), "sessions": {"redis": {"env": "REDIS_URL"}, "timeout": "300ms"}}
    running = await world(changes, environment={**ENVIRONMENT, "REDIS_URL": redis_url})
    async with running.browser() as browser:
        await browser.sign_in("ada")
        ada = person(running.provider.issuer, subject_of(running, "ada"))
        token = sender.signed(sender.claims({CAEP + "session-revoked": {}}, ada))
        with frozen(redis_server):
            status, body = await sender.push(place(running), token)
            assert (status, body["description"]) == (503, "store-unavailable")

        async def is_received() -> bool:
            return (await sender.push(place(running), token))[0] == 202

        await until(is_received)
        assert (await browser.fetch("/")).status == 401


async def twice(work: Callable[[], Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(work(), work()))


async def test_a_token_that_comes_twice_at_once_counts_once(world: World, tmp_path: Path, sender: Sender) -> None:
    running = await listening(world, tmp_path, sender)
    async with running.browser() as browser:
        await browser.sign_in("ada")
        ada = person(running.provider.issuer, subject_of(running, "ada"))
        token = sender.signed(sender.claims({RISC + "account-disabled": {}}, ada))
        assert await twice(partial(sender.push, place(running), token)) == [(202, None)] * 2
        assert len(heard(running)) == 1


def test_every_event_that_is_known_has_a_word_in_the_page() -> None:
    page = (Path(__file__).parent.parent / "docs" / "shared-signals.md").read_text()
    assert [name for name in DEFAULTS if f"`{name}`" not in page] == []


async def is_out(browser: Browser) -> bool:
    return (await browser.fetch("/")).status == 401


async def test_a_time_without_end_neither_breaks_a_push_nor_stops_the_polls(
    world: World, tmp_path: Path, sender: Sender
) -> None:
    poll = {"every": "100ms", "endpoint": f"http://localhost:{sender.port}/poll"}
    running = await listening(world, tmp_path, sender, poll=poll)
    endless = sender.claims({RISC + "sessions-revoked": {"event_timestamp": 10**400}}, person("x", "nobody"))
    async with running.browser() as browser:
        await browser.sign_in("ada")
        ada = person(running.provider.issuer, subject_of(running, "ada"))
        endless["sub_id"] = ada
        sender.queue[endless["jti"]] = sender.signed(endless)

        await until(partial(is_out, browser))
        browser.forget_provider()
        await browser.sign_in("ada")
        again = sender.signed({**endless, "jti": "again"})
        assert await sender.push(place(running), again) == (202, None)
        assert await is_out(browser)


async def test_namesakes_of_an_address_hide_nobody(world: World, tmp_path: Path, sender: Sender) -> None:
    running = await listening(world, tmp_path, sender, subjects=["email"])
    directory = running.sidecar.condition.accounts.directory
    assert directory is not None
    async with running.browser() as browser:
        await browser.sign_in("ada")
        # Names that people choose themselves, and that come before hers.
        for number in range(60):
            called = f"a{number}"
            who = Identity("corp", running.provider.issuer, called, called, f"ada@example.com.{number}.example")
            await directory.admit(who, 1.0)
        by_address = {"format": "email", "email": "ada@example.com"}
        token = sender.signed(sender.claims({CAEP + "session-revoked": {}}, by_address))
        assert await sender.push(place(running), token) == (202, None)
        assert (await browser.fetch("/")).status == 401


async def test_a_session_of_another_issuer_is_none_of_ours(world: World, tmp_path: Path, sender: Sender) -> None:
    running = await listening(world, tmp_path, sender)
    for user in ({}, {"user": person(running.provider.issuer, "somebody")}):
        subject = {"format": "complex", "session": person("https://elsewhere.example", "sid"), **user}
        token = sender.signed(sender.claims({CAEP + "session-revoked": {}}, subject))
        status, body = await sender.push(place(running), token)
        assert (status, body["err"]) == (400, "invalid_request")
