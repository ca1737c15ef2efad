"""Front-channel logout: exactly that provider session ends, and only the provider may frame the answer."""

from __future__ import annotations

from urllib.parse import urlencode

import aiohttp

from tests.world import Browser, Running, World


async def sid_of(running: Running, browser: Browser) -> str:
    session = await running.sidecar.front.portal.keeper.find(browser.cookie(), running.sidecar.front.clock())
    assert session is not None
    return session.sid


async def test_t30_a_frame_of_the_provider_ends_its_session_here_and_no_other(world: World) -> None:
    running = await world({"logins": {"corp": {"front_channel": "true"}}})
    issuer = running.provider.issuer
    async with running.browser() as one, running.browser() as other, aiohttp.ClientSession() as frame:
        for browser in (one, other):
            await browser.sign_in("ada")
        good = {"iss": issuer, "sid": await sid_of(running, one)}

        async def framed(**said: str) -> aiohttp.ClientResponse:
            return await frame.get(f"{running.url}/-/frontchannel/corp?{urlencode(said)}")

        for wrong in ({}, {"sid": good["sid"]}, {"iss": issuer}, {**good, "iss": issuer + "/"}, {**good, "sid": ""}):
            assert (await framed(**wrong)).status == 400
        # Our own cookie says nothing here: any site can make a browser send it.
        assert (await one.page("/-/frontchannel/corp")).status == 400
        assert (await framed(iss=issuer, sid="guessed")).status == 200
        assert [(await browser.fetch("/")).status for browser in (one, other)] == [200, 200]
        answer = await framed(**good)
        assert answer.status == 200
        assert [(await browser.fetch("/")).status for browser in (one, other)] == [401, 200]
        policy = answer.headers["Content-Security-Policy"]
        assert f"frame-ancestors {issuer.removesuffix('/id')};" in policy + ";"
        assert "X-Frame-Options" not in answer.headers
        assert answer.headers["Cache-Control"] == "no-store"
        # The provider's tokens are not touched, for anybody may have sent it.
        assert [
            line["ended"] for line in running.audit() if line["event"] == "provider-logout" and "ended" in line
        ] == [
            0,
            1,
        ]


async def test_nobody_is_signed_out_by_a_frame_unless_that_is_wanted(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("ada")
        said = urlencode({"iss": running.provider.issuer, "sid": await sid_of(running, browser)})
        assert (await browser.fetch(f"/-/frontchannel/corp?{said}")).status == 404
        assert (await browser.fetch("/")).status == 200
