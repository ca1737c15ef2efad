"""Secrets in the logs of a whole run (T59): a real process at its most talkative, and everything that it wrote."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from yarl import URL

from tests.services.process import free_port
from tests.world import BASE, SECRET, Browser, Running, World, merged


@asynccontextmanager
async def a_process(world: World, folder: Path) -> AsyncIterator[tuple[Running, Path]]:
    """Run the sidecar as operators do; gives it and the file that its log goes to."""
    port = free_port()
    url = f"http://localhost:{port}"
    application, provider = await world.application(), await world.provider(url)
    own = {
        "server": {"listen": f"127.0.0.1:{port}", "public_url": url},
        "app": {"upstream": f"http://127.0.0.1:{application.port}"},
        "directory": f"sqlite:///{folder}/directory.db",
        "audit": {"file": str(folder / "audit.jsonl")},
        "log": {"level": "debug", "format": "json"},
    }
    file, log = folder / "config.yaml", folder / "log"
    file.write_text(yaml.safe_dump(merged(yaml.load(BASE, Loader=yaml.BaseLoader), own)))  # noqa: S506
    variables = {"ISSUER": provider.issuer, "OIDC_SECRET": "a client secret", "SESSION_SECRET": SECRET}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "run", str(file)),
            stdout=output,
            stderr=output,
            env={**os.environ, **variables},
        )
        running = Running(None, url, port, application, provider, folder / "audit.jsonl", folder)  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(30):
                while not await answers(running):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            yield running, log
        finally:
            process.terminate()
            await process.wait()


async def answers(running: Running) -> bool:
    try:
        return (await running.raw(b"GET /-/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")) != b""
    except ConnectionError:
        return False


async def test_t59_a_whole_run_leaves_no_secret_in_log_and_audit(world: World, tmp_path: Path) -> None:
    async with a_process(world, tmp_path) as (running, log), Browser(running) as browser:
        back = await browser.choose(await browser.at_provider("/?key=in-the-query"), "ada")
        answer = URL(back.headers["Location"])
        await browser.follow(await browser.page(str(answer)))
        token, binding = browser.cookie(), browser.cookie("sidecar-browser")
        await browser.page(str(answer))
        await browser.page(str(answer.update_query(code="another-code")))
        bearer = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJib2IifQ.c2lnbmF0dXJl"
        host = f"Host: localhost:{running.port}\r\nConnection: close\r\n"
        secret = f"Cookie: sidecar={token}; sidecar-form={token}\r\nAuthorization: Bearer {bearer}\r\n"
        for line, more in (
            ("GET / HTTP/1.1", ""),
            ("GET /a b HTTP/1.1", ""),
            ("GET / HTTP/9.9", ""),
            ("GET /x\x01 HTTP/1.1", ""),
            ("POST / HTTP/1.1", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            ("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
            ("GET / HTTP/1.1", "Bad Header\r\n"),
            ("GET / HTTP/1.1", f"Cookie: sidecar={token}\x00\r\n"),
            ("GET / HTTP/1.1", "X: " + "y" * 70_000 + "\r\n"),
            (
                "POST /-/backchannel/corp HTTP/1.1",
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 70\r\n",
            ),
            (f"GET /-/callback/corp?state={answer.query['state']}&code=code-of-nobody HTTP/1.1", ""),
        ):
            await running.raw(f"{line}\r\n{host}{secret}{more}\r\nlogout_token={bearer}".encode("latin-1"))
        await running.application.stop()
        await browser.fetch("/")
    text = log.read_text() + (tmp_path / "audit.jsonl").read_text()
    secrets = [
        token,
        binding,
        answer.query["code"],
        answer.query["state"],
        "another-code",
        "code-of-nobody",
        "in-the-query",
        bearer,
        bearer.split(".")[1],
        SECRET,
        "a client secret",
    ]
    assert [secret for secret in secrets if secret in text] == []
    assert "decision" in text
    assert "malformed request" in text
