"""REST steps against a real server that behaves as applications do, and worse."""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.config.provision import Provision
from sidecar.config.values import Secret, Surroundings
from sidecar.core.template import Compiler
from sidecar.faults import Unavailable
from sidecar.hooks.hook import StepHook
from sidecar.hooks.order import Order
from sidecar.hooks.passwords import FILTERS
from sidecar.hooks.rest import is_link_local
from sidecar.model import Account, Change, Identity, Outcome, Result
from sidecar.reason import Reason
from tests.services.certificates import make_certificates

Answers = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """One request as the application received it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Application:
    """A server whose answers a test writes down, one after another; the last one is repeated."""

    answers: list[Answers] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen(request.method, request.raw_path, request.headers, await request.read()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)

    def json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        async def answer(_request: web.Request) -> web.Response:
            return web.json_response(value, status=status, headers=headers)

        self.answers.append(answer)

    def raw(self, body: bytes, kind: str = "text/html", status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_request: web.Request) -> web.Response:
            return web.Response(body=body, status=status, headers={"Content-Type": kind, **named})

        self.answers.append(answer)


@pytest.fixture
async def application() -> AsyncIterator[Application]:
    application = Application()
    server = web.Server(application.handle)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    application.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield application
    await runner.cleanup()


MakeHook = Callable[..., StepHook]


@pytest.fixture
async def make_hook(application: Application) -> AsyncIterator[MakeHook]:
    hooks: list[StepHook] = []

    def make(api: Mapping[str, Any] | None = None, **steps: Any) -> StepHook:
        hooks.append(StepHook(section(application.url + "/api", api, **steps)))
        return hooks[-1]

    yield make
    for hook in hooks:
        await hook.close()


def section(base_url: str, api: Mapping[str, Any] | None = None, **steps: Any) -> Provision:
    plain = {
        "account": {"key": "{{ user.username }}"},
        "connections": {"api": {"rest": {"base_url": base_url, "timeout": "5s", **(api or {})}}},
        "lookup": FIND,
        **steps,
    }
    environment = {"TOKEN": "s3rvice-t0ken", "PASSWORD": "s3rvice-passw0rd"}
    return Provision.model_validate(plain, context=Surroundings(Path("/"), environment, Compiler(FILTERS)))


def call(path: str = "/users", method: str = "POST", **rest: Any) -> dict[str, Any]:
    outer = {name: rest.pop(name) for name in ("when", "foreach") if name in rest}
    return {"rest": {"on": "api", "method": method, "path": path, **rest}, **outer}


FIND = call("/users", "GET", query={"login": "{{ account.key }}"}, save={"id": "{{ body[0].id }}"})
CREATE = call(json={"login": "{{ account.key }}"}, save={"id": "{{ body.id }}"})


def order(change: Change, key: str = "ann", **rest: Any) -> Order:
    claims = rest.pop("claims", {})
    person = Identity("corp", "https://id.example.com", "7", "ann", "ann@example.com", "Ann", ("staff",), claims)
    return Order(change, person, Account(key, rest.pop("id", "")), **{"idempotency": "k1", **rest})


async def test_a_list_of_one_is_found_none_is_nobody_two_are_ambiguous(
    application: Application, make_hook: MakeHook
) -> None:
    for body in ([{"id": 7}], [], [{"id": 7}, {"id": 8}]):
        application.json(body)
    hook = make_hook()
    outcomes = [await hook.apply(order(Change.LOOKUP)) for _ in range(3)]
    assert [outcome.result for outcome in outcomes] == [Result.FOUND, Result.NOT_FOUND, Result.AMBIGUOUS]
    assert outcomes[0].saved == {"id": "7"}
    assert outcomes[2].saved == {}
    assert application.seen[0].path == "/api/users?login=ann"


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, {"id": 1}, Result.FOUND),
        (404, {}, Result.NOT_FOUND),
        (200, None, Result.FAILED),
        (204, None, Result.FAILED),
        (400, {}, Result.FAILED),
        (401, {}, Result.FAILED),
        (500, {}, Result.FAILED),
        (302, {}, Result.FAILED),
    ],
)
async def test_what_answers_to_a_lookup_mean(
    application: Application, make_hook: MakeHook, status: int, body: Any, result: Result
) -> None:
    application.json(body, status)
    hook = make_hook(lookup=call("/users/{{ account.key }}", "GET"))
    assert (await hook.apply(order(Change.LOOKUP))).result is result


async def test_a_sign_in_page_with_status_200_finds_nobody(application: Application, make_hook: MakeHook) -> None:
    application.raw(b"<form action=/login>")
    outcome = await make_hook(lookup=call("/users/7", "GET")).apply(order(Change.LOOKUP))
    assert outcome.result is Result.FAILED


@pytest.mark.parametrize(
    ("status", "change", "result"),
    [
        (201, Change.CREATE, Result.CREATED),
        (200, Change.UPDATE, Result.UPDATED),
        (204, Change.DEACTIVATE, Result.UPDATED),
        (409, Change.CREATE, Result.CONFLICT),
        (422, Change.CREATE, Result.REFUSED),
        (401, Change.CREATE, Result.FAILED),
        (429, Change.CREATE, Result.FAILED),
        (404, Change.CREATE, Result.FAILED),
        (404, Change.DEACTIVATE, Result.NOT_FOUND),
        (500, Change.CREATE, Result.FAILED),
        (302, Change.CREATE, Result.FAILED),
        (504, Change.CREATE, Result.UNKNOWN),
    ],
)
async def test_what_answers_to_writes_mean(
    application: Application, make_hook: MakeHook, status: int, change: Change, result: Result
) -> None:
    application.json({"message": "hash: $2y$secret"}, status)
    step = call(json={"login": "x"})
    outcome = await make_hook(create=step, update=step, deactivate=step).apply(order(change))
    assert outcome.result is result
    assert len(application.seen) == 1
    assert outcome.detail in ("", f"{change.value}[0]: answered {status}")


async def test_outcomes_of_the_configuration_are_tried_in_their_order(
    application: Application, make_hook: MakeHook
) -> None:
    step = call(
        json={},
        outcomes={
            "conflict": {"status": "4xx", "when": "{{ body.code == 'taken' }}"},
            "refused": {"status": [400, 422]},
            "created": {"status": 201},
        },
    )
    hook = make_hook(create=step)
    answers: list[tuple[Any, int, Result]] = [
        ({"code": "taken"}, 400, Result.CONFLICT),
        ({"other": 1}, 400, Result.REFUSED),
        ({}, 201, Result.CREATED),
        ({}, 403, Result.FAILED),
        # The configuration says what a creation looks like, and this is none.
        ({}, 200, Result.FAILED),
    ]
    for body, status, _ in answers:
        application.json(body, status)
    assert [(await hook.apply(order(Change.CREATE))).result for _ in answers] == [result for _, _, result in answers]


async def test_a_search_that_finds_somebody_similar_finds_nobody(application: Application, make_hook: MakeHook) -> None:
    exact = {
        "found": {"when": "{{ body | length == 1 and body[0].login == account.key }}"},
        "not_found": {"status": 200},
    }
    hook = make_hook(lookup=call("/users", "GET", outcomes=exact))
    application.json([{"login": "anna"}])
    assert (await hook.apply(order(Change.LOOKUP))).result is Result.NOT_FOUND
    del exact["not_found"]
    hook = make_hook(lookup=call("/users", "GET", outcomes=exact))
    assert (await hook.apply(order(Change.LOOKUP))).result is Result.FAILED


async def test_json_keeps_the_types_of_expressions(application: Application, make_hook: MakeHook) -> None:
    application.json({"id": 5}, 201)
    tree = {
        "text": "{{ account.key }}",
        "mixed": "id-{{ 5 }}",
        "number": "{{ 5 }}",
        "yes": "{{ true }}",
        "roles": "{{ roles }}",
        "nested": [{"deep": "{{ user.groups }}"}, 1, None, "plain"],
        "1e5": "{{ claims.n }}",
    }
    hook = make_hook(create=call(json=tree, save={"id": "{{ body.id }}", "at": "{{ headers['content-type'] }}"}))
    outcome = await hook.apply(order(Change.CREATE, roles=("a", "b"), claims={"n": "1e5"}))
    assert outcome.saved == {"id": "5", "at": "application/json; charset=utf-8"}
    assert application.seen[0].headers["Content-Type"] == "application/json"
    assert application.seen[0].body == (
        b'{"text": "ann", "mixed": "id-5", "number": 5, "yes": true, "roles": ["a", "b"], '
        b'"nested": [{"deep": ["staff"]}, 1, null, "plain"], "1e5": "1e5"}'
    )


async def test_claims_with_syntax_in_them_are_encoded_where_they_go(
    application: Application, make_hook: MakeHook
) -> None:
    nasty = "a\"}, {{ 7*7 }} & x=1; '; DROP"
    application.json({}, 200)
    form = call("/f", form={"n": "{{ account.key }}"}, query={"q": "{{ account.key }}", "many": "{{ roles }}"})
    await make_hook(update=[call(json={"n": "{{ account.key }}"}), form]).apply(
        order(Change.UPDATE, nasty, roles=("a&b", "c"))
    )
    as_json, as_form = application.seen
    assert as_json.body == b'{"n": "a\\"}, {{ 7*7 }} & x=1; \'; DROP"}'
    assert as_form.body == b"n=a%22%7D%2C+%7B%7B+7%2A7+%7D%7D+%26+x%3D1%3B+%27%3B+DROP"
    assert as_form.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert as_form.path.endswith("%20%26%20x%3D1%3B%20%27%3B%20DROP&many=a%26b&many=c")


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b", "/api/users/a%2Fb/x"),
        ("a?b#c", "/api/users/a%3Fb%23c/x"),
        ("100%2f", "/api/users/100%252f/x"),
        ("@evil.example", "/api/users/%40evil.example/x"),
        ("//evil.example", "/api/users/%2F%2Fevil.example/x"),
        ("ü ", "/api/users/%C3%BC%20/x"),
        ("...", "/api/users/.../x"),
    ],
)
async def test_a_value_stays_one_segment_of_the_path(
    application: Application, make_hook: MakeHook, key: str, path: str
) -> None:
    application.json({})
    await make_hook(update=call("/users/{{ account.key }}/x", "PUT")).apply(order(Change.UPDATE, key))
    assert application.seen[0].path == path


@pytest.mark.parametrize(
    "key", ["", ".", "..", "../admin", "x/../../admin", "..\\admin", "a\nb", "a\0", "\ud800", "x" * 2000]
)
async def test_a_value_that_could_lead_elsewhere_is_never_sent(
    application: Application, make_hook: MakeHook, key: str
) -> None:
    outcome = await make_hook(update=call("/users/{{ account.key }}", "PUT")).apply(order(Change.UPDATE, key))
    assert (outcome.result, application.seen) == (Result.FAILED, [])


async def test_dots_of_the_configuration_and_of_a_value_do_not_add_up(
    application: Application, make_hook: MakeHook
) -> None:
    hook = make_hook(update=call("/users/.{{ account.key }}{{ role }}", "PUT"))
    for key, role in ((".", ""), (".", "x"), ("", "."), ("x", ".")):
        outcome = await hook.apply(order(Change.UPDATE, key, roles=(role,)))
        assert (outcome.result, application.seen) == (Result.FAILED, [])


@pytest.mark.parametrize("value", ["a\r\nX-Admin: 1", "a\nb", "a\0b"])
async def test_a_claim_cannot_add_a_header(application: Application, make_hook: MakeHook, value: str) -> None:
    hook = make_hook(update=call(headers={"X-Name": "{{ claims.n }}"}))
    outcome = await hook.apply(order(Change.UPDATE, claims={"n": value}))
    assert (outcome.result, application.seen) == (Result.FAILED, [])
    assert value not in outcome.detail


async def test_t65_a_redirect_to_another_host_is_not_followed(application: Application, make_hook: MakeHook) -> None:
    elsewhere = Application()
    elsewhere.json([{"id": 1}])
    runner = web.ServerRunner(web.Server(elsewhere.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    location = f"http://127.0.0.1:{runner.addresses[0][1]}/users"
    application.json({}, 307, {"Location": location})
    outcome = await make_hook({"bearer": {"env": "TOKEN"}}).apply(order(Change.LOOKUP))
    assert (outcome.result, elsewhere.seen) == (Result.FAILED, [])
    await runner.cleanup()


async def test_cookies_of_the_application_are_not_kept(application: Application, make_hook: MakeHook) -> None:
    application.json([{"id": 1}], headers={"Set-Cookie": "sid=of-ann; Path=/"})
    hook = make_hook()
    await hook.apply(order(Change.LOOKUP))
    await hook.apply(order(Change.LOOKUP, "bob"))
    for seen in application.seen:
        assert "Cookie" not in seen.headers
        assert "Authorization" not in seen.headers


async def test_the_service_account_is_the_only_one_who_is_authorised(
    application: Application, make_hook: MakeHook
) -> None:
    application.json([{"id": 1}])
    ways: list[tuple[dict[str, Any], str]] = [
        ({"bearer": {"env": "TOKEN"}}, "Bearer s3rvice-t0ken"),
        (
            {"basic": {"username": "svc", "password": {"env": "PASSWORD"}}},
            "Basic " + base64.b64encode(b"svc:s3rvice-passw0rd").decode(),
        ),
        ({"headers": {"Authorization": {"env": "TOKEN"}}}, "s3rvice-t0ken"),
    ]
    for api, expected in ways:
        await make_hook(api).apply(order(Change.LOOKUP))
        assert application.seen[-1].headers["Authorization"] == expected


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'["' + b"x" * 5000 + b'"]', {}),
        (gzip.compress(b'["' + b"x" * 10_000_000 + b'"]'), {"Content_Encoding": "gzip"}),
        (zlib.compress(b'["' + b"x" * 10_000_000 + b'"]'), {"Content_Encoding": "deflate"}),
        (b"not gzip", {"Content_Encoding": "gzip"}),
        (b"[]", {"Content_Encoding": "br"}),
    ],
)
async def test_an_answer_that_is_too_large_or_badly_packed_is_not_read(
    application: Application, make_hook: MakeHook, body: bytes, headers: dict[str, str]
) -> None:
    application.raw(body, "application/json", **headers)
    hook = make_hook({"max_answer": 4096}, create=CREATE)
    if len(body) < 4096 or headers:
        hook = make_hook({"max_answer": 64 * 1024}, create=CREATE)
    assert (await hook.apply(order(Change.LOOKUP))).result is Result.FAILED
    # Whether the application did it, such an answer does not tell.
    assert (await hook.apply(order(Change.CREATE))).result is Result.UNKNOWN


async def test_an_answer_in_gzip_is_read(application: Application, make_hook: MakeHook) -> None:
    application.raw(gzip.compress(b'[{"id": 9}]'), "application/json", Content_Encoding="gzip")
    assert (await make_hook().apply(order(Change.LOOKUP))).saved == {"id": "9"}
    assert application.seen[0].headers["Accept-Encoding"] == "identity"


@dataclass
class BareServer:
    """A TCP server that answers whatever a test says, byte by byte."""

    port: int
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    requests: int = 0


@pytest.fixture
async def bare() -> AsyncIterator[Callable[..., Awaitable[BareServer]]]:
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[None]] = set()

    async def start(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> BareServer:
        bare_server = BareServer(0, talk)

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await reader.readuntil(b"\r\n\r\n")
                bare_server.requests += 1
                await talk(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        bare_server.port = server.sockets[0].getsockname()[1]
        return bare_server

    yield start
    for server in servers:
        server.close()
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


async def nonsense(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await writer.drain()


@pytest.mark.parametrize("talk", [hang, hang_up, drip, nonsense])
async def test_a_write_without_an_answer_is_unknown_and_never_repeated(
    bare: Callable[..., Awaitable[BareServer]], talk: Any
) -> None:
    server = await bare(talk)
    hook = StepHook(section(f"http://127.0.0.1:{server.port}", {"timeout": "300ms"}, create=CREATE))
    outcome = await hook.apply(order(Change.CREATE))
    assert (outcome.result, server.requests) == (Result.UNKNOWN, 1)
    with pytest.raises(Unavailable) as caught:
        await hook.apply(order(Change.LOOKUP))
    assert caught.value.reason is Reason.PROVISIONING_DOWN
    await hook.close()


async def test_t63_an_endless_answer_is_cut_off_by_its_size(bare: Callable[..., Awaitable[BareServer]]) -> None:
    server = await bare(flood)
    hook = StepHook(section(f"http://127.0.0.1:{server.port}", {"timeout": "30s"}))
    outcome = await hook.apply(order(Change.LOOKUP))
    assert (outcome.result, outcome.detail) == (Result.FAILED, "lookup[0]: the answer is larger than 1048576 bytes")
    await hook.close()


async def test_a_read_whose_connection_breaks_is_tried_once_more(bare: Callable[..., Awaitable[BareServer]]) -> None:
    async def second_time_lucky(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.requests > 1:
            body = b'[{"id": 3}]'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()

    server = await bare(second_time_lucky)
    hook = StepHook(section(f"http://127.0.0.1:{server.port}"))
    assert (await hook.apply(order(Change.LOOKUP))).saved == {"id": "3"}
    await hook.close()


async def test_when_nobody_listens_nothing_was_done() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        hook = StepHook(section(f"http://127.0.0.1:{taken.getsockname()[1]}", create=CREATE))
        with pytest.raises(Unavailable) as caught:
            await hook.apply(order(Change.CREATE))
        assert caught.value.detail == "api: ConnectionRefusedError"
        assert await hook.probe() == {"api": "failed: api: ConnectionRefusedError"}
    await hook.close()


async def test_when_a_later_step_finds_nobody_listening_the_outcome_is_unknown(
    application: Application,
) -> None:
    application.json({"id": 1}, 201)
    plain = section(application.url, create=CREATE).connections["api"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = {"rest": {"base_url": f"http://127.0.0.1:{taken.getsockname()[1]}"}}
        steps = [CREATE, {"rest": {**call()["rest"], "on": "dead"}}]
        hook = StepHook(section(application.url, create=steps, connections={"api": plain, "dead": dead}))
        outcome = await hook.apply(order(Change.CREATE))
    assert (outcome.result, outcome.saved) == (Result.UNKNOWN, {"id": "1"})
    await hook.close()


async def test_a_busy_application_is_asked_again_when_it_says_when(
    application: Application, make_hook: MakeHook
) -> None:
    application.json({}, 503, {"Retry-After": "0"})
    application.json([{"id": 4}])
    assert (await make_hook().apply(order(Change.LOOKUP))).saved == {"id": "4"}


async def test_nobody_waits_longer_for_a_busy_application_than_the_time_out(
    application: Application, make_hook: MakeHook
) -> None:
    application.json({}, 429, {"Retry-After": "3600"})
    assert (await make_hook().apply(order(Change.LOOKUP))).result is Result.FAILED
    assert len(application.seen) == 1


async def test_a_busy_application_never_gets_a_write_twice(application: Application, make_hook: MakeHook) -> None:
    application.json({}, 503, {"Retry-After": "0"})
    assert (await make_hook(create=CREATE).apply(order(Change.CREATE))).result is Result.FAILED
    assert len(application.seen) == 1


LOGIN = {
    "login": {
        "path": "/auth",
        "json": {"user": "{{ username }}", "secret": "{{ password }}"},
        "username": "svc",
        "password": {"env": "PASSWORD"},
        "token": "{{ body.token }}",
    }
}


@dataclass
class TokenApi:
    """Gives tokens, and believes only the newest one."""

    logins: int = 0
    refused: int = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/api/auth":
            self.logins += 1
            assert await request.json() == {"user": "svc", "secret": "s3rvice-passw0rd"}
            return web.json_response({"token": f"t{self.logins}"})
        if request.headers.get("Authorization") != f"Bearer t{self.logins}":
            self.refused += 1
            return web.json_response({}, status=401)
        return web.json_response({"id": 1}, status=201)


async def test_a_token_is_fetched_once_for_many_and_again_when_it_is_refused(
    application: Application, make_hook: MakeHook
) -> None:
    api = TokenApi()
    application.answers.append(api)
    hook = make_hook(LOGIN, create=CREATE)
    orders = [order(Change.CREATE) for _ in range(5)]
    assert {one.result for one in await asyncio.gather(*map(hook.apply, orders))} == {Result.CREATED}
    assert (api.logins, api.refused) == (1, 0)
    api.logins = 7
    assert {one.result for one in await asyncio.gather(*map(hook.apply, orders))} == {Result.CREATED}
    assert api.logins == 8


async def test_a_token_that_is_refused_twice_is_not_asked_for_a_third_time(
    application: Application, make_hook: MakeHook
) -> None:
    api = TokenApi()

    async def stubborn(request: web.Request) -> web.StreamResponse:
        return await api(request) if request.path == "/api/auth" else web.json_response({}, status=401)

    application.answers.append(stubborn)
    assert (await make_hook(LOGIN, create=CREATE).apply(order(Change.CREATE))).result is Result.FAILED
    assert (api.logins, len(application.seen)) == (2, 4)


@pytest.mark.parametrize(
    ("status", "body"), [(401, {}), (200, {}), (200, {"token": ""}), (200, {"token": "a\nb"}), (500, {})]
)
async def test_when_signing_in_fails_nothing_is_sent(
    application: Application, make_hook: MakeHook, status: int, body: dict[str, str]
) -> None:
    application.json(body, status)
    hook = make_hook(LOGIN, create=CREATE)
    with pytest.raises(Unavailable) as caught:
        await hook.apply(order(Change.CREATE))
    assert [seen.path for seen in application.seen] == ["/api/auth"]
    assert "s3rvice" not in str(caught.value)


async def test_the_idempotency_key_is_the_same_for_a_repetition_and_another_for_each_call(
    application: Application, make_hook: MakeHook
) -> None:
    application.json({}, 201)
    step = call("/roles/{{ item }}", idempotency_header="Idempotency-Key", foreach="{{ roles }}")
    hook = make_hook(create=step)
    for _ in range(2):
        await hook.apply(order(Change.CREATE, roles=("a", "b")))
    keys = [seen.headers["Idempotency-Key"] for seen in application.seen]
    assert keys == ["k1-create-0-0", "k1-create-0-1", "k1-create-0-0", "k1-create-0-1"]


async def test_a_loop_over_roles_sends_one_call_for_each_that_the_condition_lets_through(
    application: Application, make_hook: MakeHook
) -> None:
    application.json({})
    step = call("/roles/{{ item }}", "PUT", foreach="{{ roles_added }}", when="{{ item != 'reader' }}")
    await make_hook(set_roles=step).apply(order(Change.SET_ROLES, added=("a", "reader", "b")))
    assert [seen.path for seen in application.seen] == ["/api/roles/a", "/api/roles/b"]


async def test_a_loop_ends_at_the_first_call_that_fails(application: Application, make_hook: MakeHook) -> None:
    application.json({}, 400)
    hook = make_hook(set_roles=call("/roles/{{ item }}", "PUT", foreach="{{ roles }}"))
    assert (await hook.apply(order(Change.SET_ROLES, roles=("a", "b")))).result is Result.REFUSED
    assert len(application.seen) == 1


async def test_a_loop_over_more_than_a_thousand_items_or_over_no_list_is_refused(
    application: Application, make_hook: MakeHook
) -> None:
    hook = make_hook(set_roles=call("/x", foreach="{{ claims.items_ }}"))
    for items in (["x"] * 1001, "text", 5):
        outcome = await hook.apply(order(Change.SET_ROLES, claims={"items_": items}))
        assert (outcome.result, application.seen) == (Result.FAILED, [])


async def test_later_steps_read_what_earlier_ones_saved(application: Application, make_hook: MakeHook) -> None:
    application.json({"items": [{"id": 31}]}, 201)
    application.json({}, 204)
    steps = [
        call(json={}, save={"id": "{{ body.items[0].id }}"}),
        call("/users/{{ saved.id }}/roles", "PUT", json={"role": "{{ role }}"}),
    ]
    outcome = await make_hook(create=steps).apply(order(Change.CREATE, roles=("editor",)))
    assert (outcome.result, outcome.saved) == (Result.CREATED, {"id": "31"})
    assert (application.seen[1].path, application.seen[1].body) == ("/api/users/31/roles", b'{"role": "editor"}')


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "the answer has no {{ body.id }}, which is to be saved as id"),
        ({"id": None}, "the answer has an empty id"),
        ({"id": ""}, "the answer has an empty id"),
        ({"id": "x" * 9000}, "id is longer than 8192 characters"),
        ({"id": {"no": "text"}}, "cannot save id: a Fields cannot stand in text; use a filter such as join(',')"),
        ({"id": "\ud800"}, "id holds characters that cannot be stored"),
    ],
)
async def test_a_value_that_cannot_be_saved_after_a_write_leaves_the_end_unknown_and_says_why(
    application: Application, make_hook: MakeHook, body: Any, detail: str
) -> None:
    application.json(body, 201)
    outcome = await make_hook(create=CREATE).apply(order(Change.CREATE))
    assert (outcome.result, outcome.detail) == (Result.UNKNOWN, f"create[0]: {detail}")


@pytest.mark.parametrize("change", [Change.CREATE, Change.DEACTIVATE, Change.REACTIVATE, Change.DELETE])
@pytest.mark.parametrize("idle", [{"when": "{{ false }}"}, {"foreach": "{{ roles_removed }}"}])
async def test_a_change_without_a_step_that_ran_has_not_been_made(
    make_hook: MakeHook, change: Change, idle: dict[str, str]
) -> None:
    hook = make_hook(**{change.value: call(**idle)})
    assert (await hook.apply(order(change))).result is Result.FAILED


@pytest.mark.parametrize("change", [Change.UPDATE, Change.SET_ROLES])
async def test_an_update_may_have_nothing_to_do(make_hook: MakeHook, change: Change) -> None:
    hook = make_hook(**{change.value: call(when="{{ false }}")})
    assert (await hook.apply(order(change))).result is Result.UPDATED


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("169.254.169.254", True),
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("fd00:ec2::254", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("fd00::1", False),
        ("::1", False),
    ],
)
def test_link_local_addresses_are_known_in_every_spelling(address: str, expected: bool) -> None:
    assert is_link_local(address) is expected


@pytest.mark.parametrize("host", ["169.254.169.254", "0xa9fea9fe", "[::ffff:169.254.169.254]"])
async def test_t65_cloud_metadata_is_out_of_reach(host: str) -> None:
    # The second is no literal: it goes through the resolver, as a name with that address would.
    hook = StepHook(section(f"http://{host}:1"))
    with pytest.raises(Unavailable) as caught:
        await hook.apply(order(Change.LOOKUP))
    assert caught.value.detail == "api: a link-local address; allow_link_local permits it"
    await hook.close()


async def test_tls_is_verified_against_the_authority_of_the_configuration(tmp_path: Path) -> None:
    import ssl  # noqa: PLC0415 - the only test that needs it

    certificates = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    application = Application()
    application.json([{"id": 1}])
    runner = web.ServerRunner(web.Server(application.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://localhost:{runner.addresses[0][1]}"
    trusting = StepHook(section(url, {"ca": str(certificates.authority)}))
    assert (await trusting.apply(order(Change.LOOKUP))).result is Result.FOUND
    stranger = StepHook(section(url))
    with pytest.raises(Unavailable):
        await stranger.apply(order(Change.LOOKUP))
    careless = StepHook(section(url, {"verify": False}))
    assert (await careless.apply(order(Change.LOOKUP))).result is Result.FOUND
    for hook in (trusting, stranger, careless):
        await hook.close()
    await runner.cleanup()


async def test_probing_says_whether_the_api_answers_and_signs_in(application: Application, make_hook: MakeHook) -> None:
    application.answers.append(TokenApi())
    assert await make_hook(LOGIN).probe() == {"api": "ok: answers (status 401), signed in"}


async def test_secrets_are_in_no_message(application: Application, make_hook: MakeHook) -> None:
    application.json({"echo": "s3rvice-t0ken"}, 500)
    hook = make_hook({"bearer": {"env": "TOKEN"}}, create=call(json={"p": "{{ generated.password }}"}))
    asked = order(Change.CREATE, generated={"password": "geheim"})
    outcome: Outcome = await hook.apply(asked)
    for text in (repr(outcome), repr(asked), repr(Secret("s3rvice-t0ken"))):
        assert "geheim" not in text
        assert "s3rvice" not in text
