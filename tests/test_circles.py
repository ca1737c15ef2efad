"""Sign-ins that never help end at a page that names the cause, and those that begin elsewhere are moved."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from http.cookies import SimpleCookie

from yarl import URL

from tests.services.redis import RedisServer
from tests.world import Browser, Running, World

HOUSE = "https://wiki.example.com"
AT_HOUSE = {"Host": "wiki.example.com"}


def nothing() -> None:
    """Change nothing."""


async def around(
    browser: Browser, target: str, *, on_page: Callable[[], None] = nothing, on_answer: Callable[[], None] = nothing
) -> tuple[int, str]:
    """Follow redirects on and on, as browsers do; *on_page* before each page, *on_answer* before each callback.

    Gives the number of sign-ins and the page at the end.
    """
    turns = 0
    address = URL(browser.url + target)
    for _ in range(60):
        is_answer = "/-/callback/" in address.path
        turns += is_answer
        (on_answer if is_answer else on_page)()
        answer = await browser.page(str(address))
        if answer.status not in (302, 303):
            return turns, await answer.text()
        address = answer.url.join(URL(answer.headers["Location"], encoded=True))
    raise AssertionError("nothing broke the circle")


async def test_a_session_cookie_that_never_comes_back_is_named(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("ada")

        def lose() -> None:
            browser.http.cookie_jar.clear(lambda cookie: cookie.key == "sidecar")

        turns, page = await around(browser, "/", on_page=lose)
    assert 3 <= turns <= 6
    assert "login-loop-cookie" in page
    assert "did not send back the cookie" in page


async def test_a_session_that_gets_lost_between_servers_is_named(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("ada")

        def forget() -> None:
            browser.http.cookie_jar.update_cookies({"sidecar": secrets.token_urlsafe(32)}, URL(running.url))

        _, page = await around(browser, "/", on_page=forget)
    assert ">login-loop<" in page
    assert "not known here any more" in page


async def test_clocks_that_differ_are_named(world: World, redis_server: RedisServer) -> None:
    redis_server.renew()
    running = await world({"sessions": {"redis": {"env": "REDIS"}}}, environment={"REDIS": redis_server.url})

    def here() -> None:
        world.clock.ahead = 0

    def there() -> None:
        world.clock.ahead = 7200

    async with running.browser() as browser:
        await browser.sign_in("ada")
        # One replica answers the provider, the other one every page; its clock is two hours ahead.
        _, page = await around(browser, "/", on_page=there, on_answer=here)
    assert "login-loop-clock" in page
    assert "clocks" in page


async def test_a_sign_in_that_is_never_recent_enough_is_named(world: World) -> None:
    fresh = {"path": "/fresh", "allow": "signed_in", "require": {"max_age": "4s"}}
    running = await world({"access": [fresh, {"path": "/**", "allow": "signed_in"}]})
    async with running.browser() as browser:
        for _ in range(10):
            # The replica that answers pages is 4.9 seconds ahead of the one that answers the provider.
            world.clock.ahead = 4.9
            begun = await browser.follow(await browser.page("/fresh"))
            if begun.status == 400:
                break
            world.clock.ahead = 0
            back = await browser.choose(begun, "ada")
            assert (await browser.page(back.headers["Location"])).status == 302
            browser.forget_provider()
        page = await begun.text()
    assert "login-loop-weak" in page
    assert "as recently" in page


async def test_going_to_sign_in_again_and_again_by_oneself_is_no_circle(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        for _ in range(7):
            begun = await browser.follow(await browser.page("/-/login?with=corp"))
            assert begun.status == 200
            assert (await browser.follow(await browser.choose(begun, "ada"))).status == 200
            browser.forget_provider()


async def test_signing_in_and_out_again_and_again_is_no_circle(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        for _ in range(7):
            assert (await browser.sign_in("ada")).status == 200
            await browser.page("/-/logout", headers={"Sec-Fetch-Site": "none"})
            browser.forget_provider()


async def test_a_sign_in_under_another_name_is_moved_to_public_url_and_works(world: World) -> None:
    running = await world({"server": {"hosts": ["127.0.0.1"]}})
    elsewhere = f"http://127.0.0.1:{running.port}"
    async with running.browser() as browser:
        answer = await browser.page(f"{elsewhere}/page?x=1")
        moved = await browser.page(f"{elsewhere}{answer.headers['Location']}")
        assert moved.headers["Location"] == f"{running.url}/-/login?to=/page%3Fx%3D1&moved=1"
        back = await browser.choose(await browser.follow(moved), "ada")
        landed = await browser.follow(back)
        assert landed.status == 200
        assert str(landed.url) == f"{running.url}/page?x=1"


async def test_a_proxy_that_changes_the_host_makes_no_circle_of_moves(world: World) -> None:
    running = await world({"server": {"hosts": ["127.0.0.1"]}})
    async with running.browser() as browser:
        answer = await browser.page(f"http://127.0.0.1:{running.port}/-/login?to=/&moved=1")
    assert answer.status == 302
    assert "/authorize" in answer.headers["Location"]


async def behind_tls(world: World, **server: object) -> Running:
    """A sidecar that is https for the outside, behind a proxy."""
    return await world({"server": {"public_url": HOUSE, **server}})


async def test_a_sign_in_over_http_is_moved_to_https(world: World) -> None:
    running = await behind_tls(world, trusted_proxies=["127.0.0.1"])
    async with running.browser() as browser:
        for scheme, expected in (("http", f"{HOUSE}/-/login?to=/&with=corp&moved=1"), ("https", "")):
            headers = {**AT_HOUSE, "X-Forwarded-Proto": scheme}
            answer = await browser.page("/-/login?to=/&with=corp", headers=headers)
            assert (answer.headers["Location"] == expected) is (scheme == "http")


async def test_t07_only_a_trusted_proxy_may_say_that_it_was_http(world: World) -> None:
    running = await behind_tls(world)
    async with running.browser() as browser:
        answer = await browser.page("/-/login?to=/", headers={**AT_HOUSE, "X-Forwarded-Proto": "http"})
    assert "/authorize" in answer.headers["Location"]


async def test_a_cookie_that_was_left_behind_at_another_scheme_is_named(world: World) -> None:
    running = await behind_tls(world)
    async with running.browser() as browser:
        # To plain http, browsers send no Sec-Fetch headers; and they keep no cookie that is meant for https.
        begun = await browser.http.get(
            running.url + "/-/login?to=/", headers={**AT_HOUSE, "Accept": "text/html"}, allow_redirects=False
        )
        state = URL(begun.headers["Location"]).query["state"]
        answer = await browser.page(f"/-/callback/corp?state={state}&code=x", headers=AT_HOUSE)
        page = await answer.text()
        assert answer.status == 400
        assert "login-address" in page
        assert "public_url" in page
        detail = running.audit()[-1]["detail"]
        assert detail == "begun at unknown://wiki.example.com, answered at https://wiki.example.com"


async def test_a_cookie_that_is_just_missing_is_named_so(world: World) -> None:
    running = await behind_tls(world)
    async with running.browser() as browser:
        begun = await browser.page("/-/login?to=/", headers=AT_HOUSE)
        assert next(iter(SimpleCookie(begun.headers["Set-Cookie"]))) == "__Host-sidecar-browser"
        state = URL(begun.headers["Location"]).query["state"]
        answer = await browser.page(f"/-/callback/corp?state={state}&code=x", headers=AT_HOUSE)
        assert "login-cookie-missing" in await answer.text()
