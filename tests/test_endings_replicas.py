"""Whoever ends sessions ends them in both of two replicas, with the WebSockets that are open there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.endings_world import pair, seconds_after
from tests.services.oidc import OidcProvider
from tests.world import World


@pytest.mark.parametrize("way", ["sidecar sessions end", "back-channel logout", "SCIM active=false"])
async def test_t30_t72_whatever_ends_sessions_ends_them_in_both_replicas_at_once(
    world: World, oidc_provider: OidcProvider, redis_url: str, tmp_path: Path, way: str
) -> None:
    here = await pair(world, oidc_provider, redis_url, tmp_path)
    sockets, doors = await seconds_after(here, oidc_provider, way)
    # What it takes on an idle machine is measured by bench/endings.py; how busy this one is shall not decide.
    assert max(sockets, doors) < 5
