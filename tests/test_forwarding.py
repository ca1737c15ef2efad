"""What the configuration says about the way to the application, from the client's side of a running sidecar."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.services.certificates import make_certificates
from tests.services.process import free_port
from tests.services.upstream import Caller, raw_application
from tests.test_upstream_targets import server_tls
from tests.world import Running, World

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def polite(caller: Caller) -> None:
    while await caller.head():
        await caller.say(OK)


async def asked(running: Running, target: str = "/public/x", *lines: str) -> bytes:
    head = [f"GET {target} HTTP/1.1", f"Host: localhost:{running.port}", *lines, "Connection: close", "", ""]
    return await running.raw("\r\n".join(head).encode())


async def test_the_application_may_be_behind_a_unix_socket(world: World, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with raw_application(polite, path=path) as application:
        running = await world({"app": {"upstream": f"unix:{path}"}})
        assert (await asked(running)).endswith(b"ok")
        assert len(application.callers) == 1


async def test_the_application_may_speak_tls_and_is_verified(world: World, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with raw_application(polite, ssl=server_tls(certificates)) as application:
        upstream = f"https://localhost:{application.port}"
        running = await world({"app": {"upstream": upstream, "tls": {"ca": str(certificates.authority)}}})
        assert (await asked(running)).endswith(b"ok")
        doubtful = await world({"app": {"upstream": upstream}})
        answer = await asked(doubtful)
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"application-unavailable" in answer


async def test_events_are_passed_on_one_by_one_and_end_with_the_session(world: World) -> None:
    go_on = asyncio.Event()

    async def script(caller: Caller) -> None:
        assert b"GET /events" in await caller.head()
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await go_on.wait()
        await caller.say(b"data: 2\n\n")
        await caller.gone()

    async with raw_application(script) as application:
        running = await world({"app": {"upstream": application.url}})
        async with running.browser() as browser:
            await browser.page((await browser.choose(await browser.at_provider("/"), "ada")).headers["Location"])
            async with asyncio.timeout(20), browser.http.get(f"{running.url}/events") as answer:
                assert await answer.content.readuntil(b"\n\n") == b"data: 1\n\n"
                go_on.set()
                assert await answer.content.readuntil(b"\n\n") == b"data: 2\n\n"
                await browser.page("/-/logout")
                # Nothing comes any more, and the stream is not left open.
                with pytest.raises(Exception):  # noqa: B017, PT011 - a stream that is cut short, in any of its words
                    assert await answer.content.readexactly(1)


async def test_who_asked_where_is_said_by_the_sidecar_alone(world: World) -> None:
    running = await world({"server": {"trusted_proxies": ["127.0.0.1"]}})
    await asked(running, "/public/x", "X-Forwarded-For: 2001:db8::7", 'Forwarded: for=6.6.6.6;host="evil.example"')
    [seen] = running.application.seen
    assert seen.values("Forwarded") == [f'for="[2001:db8::7]";host="localhost:{running.port}";proto=http']
    assert seen.values("X-Forwarded-For") == ["2001:db8::7"]
    assert seen.values("X-Real-IP") == ["2001:db8::7"]
    assert seen.values("X-Forwarded-Proto") == ["http"]


async def test_an_application_that_is_down_or_slow_is_a_page_and_a_form_is_not_sent_twice(world: World) -> None:
    posts: list[bytes] = []

    async def silent(caller: Caller) -> None:
        posts.append(await caller.head())
        await caller.gone()

    async with raw_application(silent) as application:
        running = await world({"app": {"upstream": application.url, "answer_timeout": "300ms"}})
        async with running.browser() as browser:
            answer = await browser.page("/public/x", "POST", data=b"a=b")
            assert (answer.status, "application-slow" in await answer.text()) == (504, True)
    assert len(posts) == 1
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        running = await world({"app": {"upstream": f"http://127.0.0.1:{nobody.getsockname()[1]}"}})
        async with running.browser() as browser:
            answer = await browser.page("/public/x")
            assert (answer.status, "reference" in (await answer.text()).lower()) == (502, True)
            assert (await browser.fetch("/public/x")).content_type == "application/json"


async def test_metrics_and_the_details_of_the_probes_are_on_a_listener_of_their_own(world: World) -> None:
    port = free_port()
    running = await world({"server": {"metrics": f"127.0.0.1:{port}"}})
    async with running.browser() as browser:
        await browser.sign_in("ada")
        # For the outside that path is the application's.
        assert (await browser.fetch("/metrics")).status == 200
        assert running.application.seen[-1].target == "/metrics"
        assert "memory" not in await (await browser.fetch("/-/ready")).text()
        beside = f"http://127.0.0.1:{port}"
        text = await (await browser.fetch(f"{beside}/metrics")).text()
        assert "# TYPE sidecar_" in text
        assert "memory" in await (await browser.fetch(f"{beside}/-/ready")).text()
        assert (await browser.fetch(f"{beside}/")).status == 404
        assert len([seen for seen in running.application.seen if seen.target == "/"]) == 1
