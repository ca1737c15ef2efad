"""Attacks that no product was reported for, on a running sidecar: they were thought of by reading its source."""

from __future__ import annotations

import re

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
