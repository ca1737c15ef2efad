"""Attacks on signing in (T19-T22, T27-T31, T50-T57), on a running sidecar."""

from __future__ import annotations

import re
import time

import pytest
from yarl import URL

from tests.forger import running_forger
from tests.sessions_world import signed_in
from tests.test_paths import CORPUS
from tests.world import Running, World


async def test_t19_no_return_target_leads_to_another_site(world: World) -> None:
    running = await world({"limits": {"sign_in": "off"}})
    async with running.browser() as browser:
        await browser.sign_in("ada")
        for text in CORPUS:
            answer = await browser.http.get(
                URL(running.url + "/-/login").with_query({"to": text}), allow_redirects=False, headers=browser.PAGE
            )
            assert answer.status in (302, 400), text
            if answer.status == 302:
                landing = URL(running.url).join(URL(answer.headers["Location"], encoded=True))
                assert (landing.host, landing.port) == ("localhost", running.port), text


async def test_t19_no_return_target_leads_to_another_site_after_a_sign_in_either(world: World) -> None:
    async with running_forger() as forger:
        running = await world({"limits": {"sign_in": "off", "answers": "off"}}, issuer=forger.issuer)
        async with running.browser() as browser:
            for text in CORPUS[::4]:
                browser.http.cookie_jar.clear()
                answer = await browser.page(str(URL("/-/login").with_query(to=text)))
                if answer.status == 400:
                    continue
                begun = URL(answer.headers["Location"]).query
                forger.nonce = begun["nonce"]
                answer = await browser.page(f"/-/callback/corp?state={begun['state']}&code=c")
                assert answer.status == 302, text
                landing = URL(running.url).join(URL(answer.headers["Location"], encoded=True))
                assert (landing.scheme, landing.host, landing.port) == ("http", "localhost", running.port), text


async def test_t20_a_host_that_merely_looks_like_ours_is_another_host(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        for text in (
            f"{running.url}.evil.example/",
            "http://evil-localhost/",
            f"{running.url}@evil.example/",
            running.url,
        ):
            answer = await browser.page(str(URL("/-/login").with_query({"to": text})))
            back = await browser.choose(await browser.follow(answer), "ada")
            landed = await browser.page(back.headers["Location"])
            assert landed.headers["Location"] == "/"
            browser.http.cookie_jar.clear()


async def test_t21_nothing_is_appended_to_the_return_target(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/wiki?x=1"), "ada")
        landed = await browser.page(back.headers["Location"])
        assert landed.headers["Location"] == "/wiki?x=1"


async def test_t22_a_script_that_loads_meanwhile_does_not_replace_the_return_target(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        provider_page = await browser.at_provider("/wiki/page")
        assert (await browser.fetch("/app.js", headers={"Sec-Fetch-Mode": "no-cors"})).status == 401
        back = await browser.choose(provider_page, "ada")
        landed = await browser.page(back.headers["Location"])
        assert landed.headers["Location"] == "/wiki/page"


async def test_several_tabs_at_once_each_come_back_to_their_own_page(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        first = await browser.at_provider("/first")
        second = await browser.at_provider("/second")
        back_second = await browser.choose(second, "ada")
        assert (await browser.page(back_second.headers["Location"])).headers["Location"] == "/second"
        back_first = await browser.choose(first, "ada")
        assert (await browser.page(back_first.headers["Location"])).headers["Location"] == "/first"
        ours = [cookie.key for cookie in browser.http.cookie_jar if cookie.key.startswith("sidecar")]
        assert sorted(ours) == ["sidecar", "sidecar-browser"]


async def test_tabs_whose_first_requests_cross_all_arrive(world: World) -> None:
    """A browser that restores its tabs begins without a cookie, and keeps the last that it is given."""
    running = await world()
    async with running.browser() as first, running.browser() as browser:
        overtaken = await first.at_provider("/first")
        await browser.at_provider("/second")
        back = await first.choose(overtaken, "ada")
        again = await browser.page(back.headers["Location"])
        assert (again.status, again.headers["Location"]) == (302, "/first")
        back = await browser.choose(await browser.at_provider("/first"), "ada")
        assert (await browser.page(back.headers["Location"])).headers["Location"] == "/first"
        assert browser.cookie()


async def test_t27_a_callback_in_another_browser_begins_anew_only_so_often(world: World) -> None:
    running = await world()
    async with running.browser() as attacker, running.browser() as victim:
        back = await attacker.choose(await attacker.at_provider("/"), "mallory")
        await victim.at_provider("/")
        for _ in range(20):
            assert (await victim.page(back.headers["Location"])).status == 302
        answer = await victim.page(back.headers["Location"])
        assert answer.status == 400
        assert "login-cookie-missing" in await answer.text()


async def test_t27_a_callback_works_once(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/"), "ada")
        assert (await browser.page(back.headers["Location"])).status == 302
        again = await browser.page(back.headers["Location"])
        assert again.status == 400
        assert "login-state-unknown" in await again.text()


async def test_t27_a_callback_in_another_browser_opens_nothing_there(world: World) -> None:
    running = await world()
    async with running.browser() as attacker, running.browser() as victim:
        back = await attacker.choose(await attacker.at_provider("/"), "mallory")
        answer = await victim.page(back.headers["Location"])
        assert answer.status == 400
        assert "login-cookie-missing" in await answer.text()
        # With a cookie of its own it begins a sign-in of its own; a tab that was overtaken by another looks the same.
        await victim.at_provider("/")
        answer = await victim.page(back.headers["Location"])
        assert (answer.status, answer.headers["Location"]) == (302, "/")
        assert "Set-Cookie" not in answer.headers
        assert victim.cookie() == ""
        assert running.audit()[-1]["detail"] == "another browser, begun anew"
        # The attempt was not used up by the wrong browser.
        assert (await attacker.page(back.headers["Location"])).status == 302


@pytest.mark.parametrize("extra", ["&code=x", "&state=x", "&iss=x"])
async def test_t27_a_parameter_that_is_there_twice_is_refused(world: World, extra: str) -> None:
    running = await world()
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/"), "ada")
        answer = await browser.page(back.headers["Location"] + extra)
        assert answer.status == 400
        assert "login-answer-invalid" in await answer.text()
        assert browser.cookie() == ""


async def test_t27_a_wrong_state_opens_nothing(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/"), "ada")
        changed = re.sub(r"state=[^&]+", "state=" + "A" * 43, back.headers["Location"])
        assert (await browser.page(changed)).status == 400
        assert browser.cookie() == ""


async def test_t28_a_code_delivered_to_the_callback_of_another_provider_is_refused(world: World) -> None:
    other = {"type": "oidc", "title": "Other", "issuer": {"env": "ISSUER"}, "client_id": "wiki"}
    running = await world({"logins": {"other": {**other, "client_secret": {"env": "OIDC_SECRET"}}}})
    async with running.browser() as browser:
        chooser = await browser.page("/")
        chooser = await browser.follow(chooser)
        assert "Company account" in await chooser.text()
        begun = await browser.follow(await browser.page("/-/login?to=/&with=corp"))
        back = await browser.choose(begun, "ada")
        mixed = back.headers["Location"].replace("/callback/corp", "/callback/other")
        answer = await browser.page(mixed)
        assert answer.status == 400
        assert "login-issuer-mixed" in await answer.text()
        assert browser.cookie() == ""


async def test_t29_a_link_cannot_choose_what_is_asked_of_the_provider(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        answer = await browser.page(
            "/-/login?to=/&scope=admin&prompt=none&max_age=0&acr=x&redirect_uri=http://evil.example"
        )
        query = URL(answer.headers["Location"]).query
    assert query["scope"] == "openid profile email"
    assert "prompt" not in query
    assert "max_age" not in query
    assert "acr_values" not in query
    assert query["redirect_uri"] == f"{running.url}/-/callback/corp"


async def test_an_unknown_login_is_not_found(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        assert (await browser.page("/-/login?with=nobody")).status == 404
        assert (await browser.page("/-/callback/nobody?state=x&code=y")).status == 404


async def test_t50_every_sign_in_gets_a_new_session_and_the_old_one_ends(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        planted = "A" * 43
        browser.http.cookie_jar.update_cookies({"sidecar": planted}, URL(running.url))
        await browser.sign_in("ada")
        first = browser.cookie()
        assert first != planted
        browser.forget_provider()
        await browser.follow(
            await browser.choose(await browser.follow(await browser.page("/-/login?with=corp")), "grace")
        )
        assert browser.cookie() != first
    async with running.browser() as thief:
        assert (await thief.fetch("/", headers={"Cookie": f"sidecar={first}"})).status == 401
        assert (await thief.fetch("/", headers={"Cookie": f"sidecar={planted}"})).status == 401


async def test_t51_an_old_cookie_is_worthless_after_the_idle_and_the_absolute_end(world: World) -> None:
    sessions = {"idle": "10m", "absolute": "1h"}
    running = await world({"sessions": sessions, "logins": {"corp": {"refresh": "false"}}})

    async def status_after(seconds: float, token: str) -> int:
        world.clock.ahead += seconds
        async with running.browser() as thief:
            return (await thief.fetch("/", headers={"Cookie": f"sidecar={token}"})).status

    async with running.browser() as browser:
        await browser.sign_in("ada")
        unused = browser.cookie()
        assert [await status_after(seconds, unused) for seconds in (0, 500, 601)] == [200, 200, 401]
        world.clock.ahead = 0
        browser.http.cookie_jar.clear()
        await browser.sign_in("ada")
        busy = browser.cookie()
        # Used every five minutes: 55 of them later it is there, an hour later it is not.
        assert [await status_after(300, busy) for _ in range(12)] == [200] * 11 + [401]
        assert await status_after(0, unused) == 401


async def test_t52_signing_out_by_a_visit_really_ends_the_session(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("ada")
        token = browser.cookie()
        answer = await browser.page("/-/logout", headers={"Sec-Fetch-Site": "none"})
        assert answer.status == 303
    async with running.browser() as thief:
        assert (await thief.fetch("/", headers={"Cookie": f"sidecar={token}"})).status == 401


async def test_another_site_cannot_sign_anybody_out(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("ada")
        answer = await browser.page("/-/logout", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 200
        answer = await browser.page("/-/logout", "POST", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 403
        assert (await browser.fetch("/")).status == 200


@pytest.mark.parametrize(("domain", "status"), [(None, 401), ("example.com", 200)])
async def test_t53_a_session_of_one_application_is_refused_by_another_unless_they_share_the_cookie(
    world: World, redis_url: str, domain: str | None, status: int
) -> None:
    """Both use one Redis, one prefix and one secret."""
    sessions = {"redis": {"env": "REDIS_URL"}, "cookie": {"domain": domain}}
    first, second = [
        await world(
            {"server": {"public_url": f"https://{name}.example.com"}, "sessions": sessions},
            environment={"REDIS_URL": redis_url},
        )
        for name in ("wiki", "board")
    ]
    token, _ = await first.sidecar.front.gate.keeper.open(signed_in(), time.time())
    cookie = f"__{'Secure' if domain else 'Host'}-sidecar={token}"

    async def status_at(running: Running, host: str) -> int:
        lines = f"Host: {host}.example.com\r\nCookie: {cookie}\r\nConnection: close"
        return int((await running.raw(f"GET / HTTP/1.1\r\n{lines}\r\n\r\n".encode())).split(b" ", 2)[1])

    assert await status_at(first, "wiki") == 200
    assert await status_at(second, "board") == status
    assert len(second.application.seen) == (status == 200)


async def test_t54_ten_thousand_cookies_do_no_harm(world: World) -> None:
    running = await world()
    many = "; ".join(f"sidecar-{n}=x" for n in range(2000))
    repeated = "; ".join("sidecar=" + "A" * 43 for _ in range(500))
    huge = "; ".join(f"sidecar-{n}={'x' * 4000}" for n in range(40))
    counted = "sidecar=1000000000; sidecar-0=x; sidecar-999999999=y; sidecar=; =sidecar; sidecar"
    async with running.browser() as browser:
        for cookies in (many, repeated, huge, counted):
            assert (await browser.fetch("/", headers={"Cookie": cookies})).status in (400, 401, 431)
        assert running.application.seen == []
        assert (await browser.fetch("/public/x")).status == 200
        # Nor do they keep somebody out who is signed in, as long as they fit.
        await browser.sign_in("ada")
        beside = f"{'; '.join(f's-{n}=x' for n in range(150))}; sidecar={'A' * 43}; sidecar={browser.cookie()}"
        assert (await browser.fetch("/", headers={"Cookie": beside})).status == 200


async def test_t55_cookies_are_marked_as_strictly_as_the_address_allows(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/"), "ada")
        answer = await browser.page(back.headers["Location"])
    [cookie] = answer.headers.getall("Set-Cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    secure = await world({"server": {"public_url": "https://wiki.example.com"}})
    raw = await secure.raw(b"GET /-/login HTTP/1.1\r\nHost: wiki.example.com\r\nConnection: close\r\n\r\n")
    [line] = [line for line in raw.decode().split("\r\n") if line.lower().startswith("set-cookie:")]
    assert "__Host-sidecar-browser=" in line
    assert "Secure" in line
    assert "Path=/;" in line
    assert "Domain" not in line


async def test_t57_who_am_i_shows_no_tokens_and_is_not_stored(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("ada")
        answer = await browser.fetch("/-/me")
        text = await answer.text()
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ada@example.com" in text
    assert "token" not in text
    assert not re.search(r"ey[A-Za-z0-9_-]{20,}", text)


def secrets_of(running: Running) -> list[str]:
    """Every secret text of this deployment that must not be in a log."""
    return ["a client secret", "a session secret that is long enough"]


async def test_t59_no_token_code_or_cookie_is_in_the_audit_lines(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/?secret=in-the-query"), "ada")
        location = URL(back.headers["Location"])
        await browser.follow(await browser.page(str(location)))
        token = browser.cookie()
        await browser.page("/-/callback/corp?code=abcdef&state=xyz")
    text = "\n".join(map(str, running.audit()))
    for secret in (token, location.query["code"], location.query["state"], "in-the-query", *secrets_of(running)):
        assert secret not in text
