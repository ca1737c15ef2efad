"""Attacks that no product was reported for, on a running sidecar: they were thought of by reading its source."""

from __future__ import annotations

import asyncio
import re

import aiohttp
import pytest
from yarl import URL

from sidecar.faults import Unavailable
from sidecar.portal import attempts, forms
from sidecar.reason import Reason
from sidecar.sessions.memory import MemoryStore
from tests.forger import running_forger
from tests.world import Running, World

FORM = "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nContent-Type: text/plain"


async def left_form(running: Running, session: str) -> str:
    """Leave a form of one byte as a stranger who names *session* as the session; the token in the form cookie."""
    lines = f"Host: localhost:{running.port}\r\n{FORM}\r\nCookie: sidecar={session}\r\nConnection: close"
    answer = await running.raw(f"POST /page HTTP/1.1\r\n{lines}\r\nContent-Length: 1\r\n\r\na".encode())
    found = re.search(r"sidecar-form=([A-Za-z0-9_-]{43});", answer.decode())
    assert found is not None
    return found[1]


async def test_a_kept_form_named_as_a_session_is_not_kept_again_inside_the_next_one(world: World) -> None:
    running = await world()
    token, sizes = "", []
    for _ in range(8):
        token = await left_form(running, token)
        kept = await running.sidecar.condition.store.get(
            running.sidecar.front.gate.forms._vault.key_of(running.sidecar.front.gate.forms._vault.id_of(token))
        )
        assert kept is not None
        sizes.append(len(kept))
    assert max(sizes) == min(sizes)


async def test_a_session_named_as_a_kept_form_is_no_form(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        await browser.sign_in("ada")
        answer = await browser.page(
            "/x", headers={"Cookie": f"sidecar={browser.cookie()}; sidecar-form={browser.cookie()}"}
        )
        assert answer.status == 200


async def test_long_return_targets_of_strangers_take_no_more_than_their_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_MOST_BYTES", 21_000)
    running = await world()
    async with running.browser() as browser:
        for _ in range(10):
            await browser.fetch("/-/login?to=/" + "x" * 10_000)
        assert await kept(running, "login:") < 21_000 + 10 * 2000
        # Whoever comes now signs in all the same; ordinary addresses are come back to.
        back = await browser.choose(await browser.at_provider("/" + "y" * 5000), "ada")
        assert (await browser.page(back.headers["Location"])).headers["Location"] == "/"
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/wiki?x=1"), "ada")
        assert (await browser.page(back.headers["Location"])).headers["Location"] == "/wiki?x=1"


async def test_forms_of_one_byte_at_long_addresses_take_no_more_than_their_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "_MOST_BYTES", 30_000)
    running = await world()
    lines = f"Host: localhost:{running.port}\r\n{FORM}; x={'y' * 5000}\r\nConnection: close\r\nContent-Length: 1"
    for _ in range(10):
        await running.raw(f"POST /{'x' * 5000} HTTP/1.1\r\n{lines}\r\n\r\na".encode())
    assert 0 < await kept(running, "form:") < 30_000


async def kept(running: Running, kind: str) -> int:
    """Bytes that the store holds of this *kind*."""
    store = running.sidecar.lasting.lender.store
    assert isinstance(store, MemoryStore)
    return sum(len(entry.value) for key, entry in store._entries.items() if key.startswith(kind))


@pytest.mark.parametrize("way", ["the store is down", "the sidecar is stopped"])
async def test_t30_a_logout_that_failed_half_way_is_done_when_the_provider_tries_again(
    world: World, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async with running_forger() as forger:
        running = await world(issuer=forger.issuer)
        async with running.browser() as browser:
            begun = URL((await browser.page("/-/login")).headers["Location"])
            forger.nonce = begun.query["nonce"]
            forger.claims = {"groups": ["wiki-readers"]}
            await browser.page(f"/-/callback/corp?state={begun.query['state']}&code=c")
            assert (await browser.fetch("/")).status == 200
            form = forger.farewell(sub="ada")

            async def down(_key: str) -> frozenset[str]:
                if way == "the store is down":
                    raise Unavailable(Reason.STORE_DOWN)
                running.sidecar.front.cut()
                await asyncio.sleep(10)
                return frozenset()

            with monkeypatch.context() as patched:
                patched.setattr(running.sidecar.condition.store, "members", down)
                if way == "the store is down":
                    assert (await browser.fetch("/-/backchannel/corp", "POST", data=form)).status == 503
                else:
                    with pytest.raises(aiohttp.ClientError):
                        await browser.fetch("/-/backchannel/corp", "POST", data=form)
            assert (await browser.fetch("/")).status == 200
            assert (await browser.fetch("/-/backchannel/corp", "POST", data=form)).status == 200
            assert (await browser.fetch("/")).status == 401
            assert (await browser.fetch("/-/backchannel/corp", "POST", data=form)).status == 400
