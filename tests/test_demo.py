"""``sidecar demo`` as somebody who just installed it meets it: a terminal, and a plain HTTP client."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path

import aiohttp
from yarl import URL

from tests.services.process import free_port


@asynccontextmanager
async def a_demo(folder: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run the demo; gives what it prints until it is ready, and the process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "demo", "--port", str(free_port()), "--folder", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "NO_COLOR": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            said = (await process.stdout.readuntil(b"Ctrl-C ends")).decode()
        yield said, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def sent(http: aiohttp.ClientSession, page: aiohttp.ClientResponse, **chosen: str) -> aiohttp.ClientResponse:
    """Post the first form of *page* with *chosen* in it, as curl would."""
    text = await page.text()
    form = re.search(r"<form[^>]*>.*?</form>", text, re.DOTALL)
    assert form is not None, text
    action = re.search(r'action="([^"]+)"', form[0])
    fields = re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form[0])
    assert action is not None
    data = {unescape(name): unescape(value) for name, value in fields} | chosen
    return await http.post(page.url.join(URL(unescape(action[1]), encoded=True)), data=data)


def a_client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), headers={"Accept": "text/html"})


async def test_a_plain_http_client_signs_in_and_sees_its_headers_and_its_new_row(tmp_path: Path) -> None:
    async with a_demo(tmp_path / "demo") as (said, process):
        address = re.search(r"Open\s+(http://localhost:\d+/)", said)
        assert address is not None, said
        for name in ("Ada Lovelace", "Grace Hopper", "Alan Turing", "Mallory"):
            assert name in said
        straight = re.search(r"Without the sidecar:\s+(http://\S+)", said)
        assert straight is not None
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True), headers={"Accept": "text/html"}
        ) as http:
            assert (await http.get(straight[1])).status in (401, 403)
            answer = await sent(http, await http.get(address[1]), login="grace")
            page = await answer.text()
            assert (answer.status, str(answer.url)) == (200, address[1])
            # The headers that were injected, and the row that was added to the application's own table.
            for text in ("X-Remote-User", "X-Remote-Roles", "grace@example.com", "Grace Hopper", "editor"):
                assert text in page
            answer = await http.get(f"{address[1]}-/logout")
            assert (answer.status, answer.url.path) == (200, "/-/signed-out")
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True), headers={"Accept": "text/html"}
        ) as http:
            answer = await sent(http, await http.get(address[1]), login="mallory")
            assert (answer.status, "role-missing" in await answer.text()) == (403, True)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            rest, _ = await process.communicate()
        assert process.returncode == 0, rest
        assert b"account-created" in rest
