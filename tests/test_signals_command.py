"""``sidecar signals`` against a real transmitter, with a sidecar that runs beside."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from tests.signals_world import ENVIRONMENT, Sender, a_transmitter, section
from tests.world import SECRET, Running, World


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    """A transmitter."""
    async with a_transmitter() as made:
        yield made


async def command(running: Running, environment: dict[str, str], *words: str) -> tuple[int, Any, str]:
    """Run it as an operator does: (exit code, JSON or None, errors)."""
    arguments = ["signals", *words, "--json", str(running.folder / "config.yaml")]
    # It has an event loop of its own.
    result = await asyncio.to_thread(CliRunner().invoke, main, arguments, env=environment)
    # What the sidecar beside it logs meanwhile goes the same way.
    found = re.search(r"^\{.*^\}", result.stdout, re.MULTILINE | re.DOTALL)
    return result.exit_code, json.loads(found[0]) if found else None, result.stderr


@pytest.mark.parametrize("way", ["push", "poll"])
async def test_a_stream_is_made_verified_paused_and_removed(
    world: World, redis_url: str, sender: Sender, way: str
) -> None:
    delivery = {"poll": {"every": "100ms"}, "token": None} if way == "poll" else {}
    changes = {"signals": section(sender, **delivery), "sessions": {"redis": {"env": "REDIS_URL"}}}
    given = {**ENVIRONMENT, "REDIS_URL": redis_url}
    running = await world(changes, environment=given)
    around = {**given, "SESSION_SECRET": SECRET, "ISSUER": running.provider.issuer, "OIDC_SECRET": "unused"}

    async def said(*words: str) -> tuple[int, Any, str]:
        return await command(running, around, *words)

    code, _, error = await said("status")
    assert (code, "signals create" in error) == (1, True)
    code, made, error = await said("create")
    assert (code, made) == (0, {"transmitter": "corp", "stream_id": "s-1", "created": True}), error
    code, verified, error = await said("verify", "--wait", "20")
    assert (code, verified) == (0, {"transmitter": "corp", "asked": True, "received": True}), error
    code, status, _ = await said("status")
    assert (code, status["status"], bool(status["last_event"])) == (0, "enabled", True)
    assert (await said("pause"))[1]["status"] == "paused"
    assert (await said("status"))[0] == 1
    assert (await said("resume"))[1]["status"] == "enabled"
    assert (await said("remove"))[1]["removed"] is True
    assert sender.stream is None
    assert (await said("status", "--transmitter", "crop"))[0] == 2
    assert [line["signal"] for line in running.audit() if line["event"] == "signal-received"] == ["verification"]


async def test_a_transmitter_that_refuses_us_is_said(world: World, sender: Sender) -> None:
    running = await world({"signals": section(sender)}, environment={**ENVIRONMENT, "SIGNALS_ACCESS": "wrong"})
    around = {**ENVIRONMENT, "SIGNALS_ACCESS": "wrong", "SESSION_SECRET": SECRET, "OIDC_SECRET": "unused"}
    code, _, error = await command(running, {**around, "ISSUER": running.provider.issuer}, "status")
    assert code == 3
    assert "401" in error
