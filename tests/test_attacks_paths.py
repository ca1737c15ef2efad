"""Attacks on path and rule matching (T11-T18), sent as raw bytes to a running sidecar."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import pytest

from tests.world import Running, World


async def status_of(running: Running, target: str, method: str = "GET", *lines: str) -> int:
    """Status of a raw request without a session."""
    head = [f"{method} {target} HTTP/1.1", f"Host: localhost:{running.port}", *lines, "Connection: close", "", ""]
    answer = await running.raw("\r\n".join(head).encode("latin-1"))
    return int(answer.split(b" ", 2)[1])


async def test_t11_a_public_path_in_the_query_opens_nothing(world: World) -> None:
    running = await world()
    for target in ("/admin?x=/public", "/admin?/public/x", "/admin?x=%2fpublic%2f"):
        assert await status_of(running, target) == 401
    assert running.application.seen == []


async def test_t12_an_encoded_fragment_is_judged_as_it_is_forwarded(world: World) -> None:
    changes = {"access": [{"path": "/foo/*/bar", "allow": "anyone"}, {"path": "/**", "allow": "signed_in"}]}
    running = await world(changes)
    assert await status_of(running, "/foo/secret#/bar") == 400
    assert await status_of(running, "/foo/secret%23/bar") == 200
    assert [seen.target for seen in running.application.seen] == ["/foo/secret%23/bar"]


TRAVERSALS = [
    "/public/../admin",
    "/public/%2e%2e/admin",
    "/public/.%2e/admin",
    "/public/..;/admin",
    "/public/..;a=b/admin",
    "//admin",
    "/public//../admin",
    "/public/..%2fadmin",
    "/public/..%5cadmin",
    "/public\\..\\admin",
    "/public/%252e%252e/admin",
    "/public/./x",
    "/public/%2e/x",
    "/public/x%00",
    "/public/%0d%0aX-Admin:1",
]


@pytest.mark.parametrize("target", TRAVERSALS)
async def test_t13_encoded_dots_and_slashes_are_refused(world: World, target: str) -> None:
    running = await world()
    assert await status_of(running, target) == 400
    assert running.application.seen == []


async def test_t13_parameters_cannot_choose_another_rule(world: World) -> None:
    running = await world()
    assert await status_of(running, "/admin;x=1/users") in (400, 401)
    assert await status_of(running, "/public;x=1/page") in (200, 400)
    assert await status_of(running, "/public;/../admin") == 400
    assert all(seen.target.startswith("/public") for seen in running.application.seen)


async def test_t13_no_header_moves_a_request_to_another_path_inside_the_application(world: World) -> None:
    running = await world()
    lines = ["SCRIPT_NAME: /public", "X-Script-Name: /public", "X-Forwarded-Prefix: /public", "PATH_INFO: /admin"]
    assert await status_of(running, "/public/admin", "GET", *lines) == 200
    [seen] = running.application.seen
    assert not [name for name, value in seen.headers if value in ("/public", "/admin")]


async def test_t14_case_and_encoded_letters_follow_the_documented_rule(world: World) -> None:
    changes = {"access": [{"path": "/admin/**", "allow": "nobody"}, {"path": "/**", "allow": "anyone"}]}
    running = await world(changes)
    assert await status_of(running, "/%61dmin/x") == 403
    assert await status_of(running, "/ADMIN/x") == 200
    careful = await world({**changes, "app": {"ignore_case": "true"}})
    assert await status_of(careful, "/ADMIN/x") == 403
    assert await status_of(careful, "/%41dmin/x") == 403


@pytest.mark.parametrize(
    "target", ["/admin./x", "/admin%20/x", "/admin%2e/x", "/admin.;a=b/x", "/admin::$DATA", "/admin%3a%3a$DATA", "/x."]
)
async def test_t14_names_that_windows_shortens_are_refused_where_case_does_not_matter(
    world: World, target: str
) -> None:
    rules = [{"path": "/admin/**", "allow": "nobody"}, {"path": "/**", "allow": "anyone"}]
    running = await world({"access": rules, "app": {"ignore_case": "true"}})
    assert await status_of(running, target) == 400
    assert await status_of(running, "/a.b/..c/x.html") == 200
    assert [seen.target for seen in running.application.seen] == ["/a.b/..c/x.html"]


@pytest.mark.parametrize("target", ["", "admin", "*", "http:///x", "/a b", "/%zz", "/\xff", "?x", "#"])
async def test_t15_malformed_targets_never_pass(world: World, target: str) -> None:
    running = await world()
    assert 400 <= await status_of(running, target) < 500
    assert running.application.seen == []


COOKIES = [
    "x",
    "a" * 43,
    "é" * 43,
    "A" * 42 + "=",
    "../../../etc/passwd",
    "\x7f" * 43,
    "%00" * 14 + "a",
    '"' + "a" * 41 + '"',
]


@pytest.mark.parametrize("cookie", COOKIES)
async def test_t16_malformed_cookies_open_nothing(world: World, cookie: str) -> None:
    running = await world()
    assert await status_of(running, "/", "GET", f"Cookie: sidecar={cookie}", "X-App-User: admin") in (400, 401)
    assert running.application.seen == []


METHODS = ["BREW", "PROPFIND", "LOCK", "get", "X"]


@pytest.mark.parametrize("method", METHODS)
async def test_t18_unusual_methods_get_the_strictest_rule(world: World, method: str) -> None:
    running = await world()
    status = await status_of(running, "/public/x", method)
    # aiohttp's parser in Python writes the method in capitals: then GET is what is judged, and what arrives.
    arrived = [seen.method for seen in running.application.seen]
    assert (status in (400, 401, 403) and not arrived) or (method == "get" and arrived == ["GET"])


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "TRACK"])
async def test_t62_methods_that_talk_to_proxies_are_refused(world: World, method: str) -> None:
    running = await world()
    assert await status_of(running, "/public/x", method) in (400, 405)
    assert running.application.seen == []


async def test_t18_head_follows_get_and_overrides_are_stripped(world: World) -> None:
    changes = {"access": [{"path": "/api/**", "methods": ["GET"], "allow": "anyone"}]}
    running = await world(changes)
    assert await status_of(running, "/api/x", "HEAD") == 200
    assert await status_of(running, "/api/x", "DELETE") == 403
    lines = ["X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE", "X_HTTP_METHOD: DELETE"]
    assert await status_of(running, "/api/x", "GET", *lines) == 200
    assert not any("DELETE" in value for seen in running.application.seen for _, value in seen.headers)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "localhost@evil.example", "", "127.0.0.1, localhost"]
)
async def test_t62_an_unknown_host_is_refused(world: World, host: str) -> None:
    running = await world()
    answer = await running.raw(f"GET /public/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ", 2)[1] in (b"400", b"421")
    assert running.application.seen == []


async def test_t62_two_hosts_or_none_are_refused(world: World) -> None:
    running = await world()
    for lines in ("", f"Host: localhost:{running.port}\r\nHost: localhost\r\n"):
        answer = await running.raw(f"GET /public/x HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
        assert answer.split(b" ", 2)[1] == b"400"
    assert running.application.seen == []


async def test_t62_absolute_form_is_judged_by_its_own_host(world: World) -> None:
    running = await world()
    assert await status_of(running, f"http://localhost:{running.port}/public/x") == 200
    assert await status_of(running, "http://evil.example/public/x") == 421
    assert [seen.target for seen in running.application.seen] == ["/public/x"]


@pytest.mark.parametrize("host", ["localhost:31337", "localhost.", "LOCALHOST:1", "localhost.:31337"])
async def test_t62_the_application_hears_the_public_name_whatever_port_was_asked_for(world: World, host: str) -> None:
    running = await world()
    answer = await running.raw(f"GET /public/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ", 2)[1] == b"200"
    assert await status_of(running, f"http://{host}/public/x") == 200
    for seen in running.application.seen:
        assert seen.values("Host") == [f"localhost:{running.port}"]
        assert seen.values("X-Forwarded-Host") == [f"localhost:{running.port}"]
        assert "31337" not in str(seen.headers)


async def test_t62_a_further_name_keeps_the_public_port(world: World) -> None:
    running = await world({"server": {"public_url": "https://wiki.example.com", "hosts": ["wiki.example.org", "::1"]}})
    for host in ("wiki.example.com:8080", "wiki.example.org:8080", "[::1]:8080"):
        await running.raw(f"GET /public/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    hosts = [seen.values("Host") for seen in running.application.seen]
    assert hosts == [["wiki.example.com"], ["wiki.example.org"], ["[::1]"]]


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("Transfer-Encoding: identity, chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ("Host: localhost", ""),
        ("X-A: a\r\n X-App-User: admin", ""),
    ],
)
async def test_t60_nothing_is_read_after_a_request_whose_end_is_a_matter_of_opinion(
    world: World, line: str, body: str
) -> None:
    running = await world()
    host = f"Host: localhost:{running.port}\r\n"
    after = f"GET /public/smuggled HTTP/1.1\r\n{host}\r\n"
    answer = await running.raw(f"POST /public/x HTTP/1.1\r\n{host}{line}\r\n\r\n{body}{after}".encode())
    assert answer.split(b" ", 2)[1] == b"400"
    assert answer.count(b"HTTP/1.") == 1
    assert running.application.seen == []


@pytest.mark.parametrize("is_pipelined", [True, False])
async def test_t60_the_trailers_of_a_request_are_no_lines_of_the_next(world: World, is_pipelined: bool) -> None:
    running = await world()
    host = f"Host: localhost:{running.port}\r\n"
    trailers = "Cookie: sidecar=planted\r\nAuthorization: Bearer planted\r\nX-Planted: 1\r\n"
    first = f"POST /public/x HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\n{trailers}\r\n"
    second = f"GET /public/next HTTP/1.1\r\n{host}\r\n"
    if is_pipelined:
        await running.raw((first + second).encode())
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(first.encode())
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(second.encode())
            async with asyncio.timeout(5):
                await reader.read()
        writer.close()
    assert "planted" not in str(running.application.seen).lower()
    assert [seen.target for seen in running.application.seen] == ["/public/x"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://localhost"]
)
@pytest.mark.parametrize("path", ["/ws", "/public/ws"])
async def test_t64_a_websocket_from_another_site_is_refused(world: World, origin: str, path: str) -> None:
    running = await world()
    handshake = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines = [*handshake, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Origin: {origin}"]
    async with running.browser() as browser:
        await browser.sign_in("ada")
        cookie = f"Cookie: sidecar={browser.cookie()}"
    running.application.seen.clear()
    head = [f"GET {path} HTTP/1.1", f"Host: localhost:{running.port}", cookie, *lines, "", ""]
    answer = await running.raw("\r\n".join(head).encode())
    assert answer.split(b" ", 2)[1] == b"403"
    assert running.application.seen == []


async def test_t62_a_head_that_is_too_large_as_a_whole_is_refused(world: World) -> None:
    running = await world({"server": {"max_header": "4KiB"}})
    assert await status_of(running, "/public/x", "GET", *[f"X-{n}: {'y' * 1000}" for n in range(6)]) in (400, 431)
    assert running.application.seen == []
    assert await status_of(running, "/public/x", "GET", *[f"X-{n}: {'y' * 1000}" for n in range(3)]) == 200


async def test_t64_a_websocket_ends_with_the_absolute_lifetime_of_its_session(world: World) -> None:
    running = await world({"sessions": {"absolute": "1h"}, "logins": {"corp": {"refresh": "false"}}})
    async with running.browser() as browser:
        await browser.sign_in("ada")
        async with browser.http.ws_connect(f"{running.url}/ws", headers={"Origin": running.url}) as socket:
            world.clock.ahead = 3500
            await socket.send_str("x")
            assert (await socket.receive(10)).data == "echo x"
            world.clock.ahead = 3601
            closed = await socket.receive(10)
            assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 1008, "session ended")
        # And it opens no other: 401, not a redirect.
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await browser.http.ws_connect(f"{running.url}/ws", headers={"Origin": running.url})
        assert refused.value.status == 401


async def test_t64_the_rule_for_the_path_is_checked_at_the_handshake(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("alan")
        running.application.seen.clear()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await browser.http.ws_connect(f"{running.url}/admin/ws", headers={"Origin": running.url})
        assert refused.value.status == 403
    assert running.application.seen == []
