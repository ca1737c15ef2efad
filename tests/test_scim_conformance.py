"""Independent conformance suites pass against a running sidecar."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.scim_world import TOKEN, ScimClient, client_section, with_scim
from tests.world import World

BIN = Path(sys.executable).parent


async def run(*words: str) -> tuple[int, str]:
    """Exit code and everything that a program says."""
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, re.sub(r"\x1b\[[0-9;]*m", "", output.decode())


@pytest.mark.timeout(300)
async def test_scim2_tester_passes_entirely(world: World, tmp_path: Path) -> None:
    running = await with_scim(world, tmp_path, strict=client_section())
    base = ScimClient(running, "strict").base
    # It does not begin without authorities, which the other tests do without.
    tester = ("env", "-u", "SSL_CERT_FILE", str(BIN / "scim2"))
    code, output = await run(*tester, "--url", base, "--header", f"Authorization: Bearer {TOKEN}", "test", "--verbose")
    assert code == 0, output
    assert output.count("SUCCESS") > 100, output
    assert not re.findall(r"^(ERROR|CRITICAL|DEVIATION|SKIPPED).*", output, re.MULTILINE), output


@pytest.mark.timeout(300)
async def test_scim_sanity_passes_in_strict_mode(world: World, tmp_path: Path) -> None:
    # It adds a member that there is not, which only a tolerant client gets away with.
    running = await with_scim(world, tmp_path)
    base = ScimClient(running).base
    code, output = await run(
        str(BIN / "scim-sanity"), "probe", base, "--token", TOKEN, "--strict", "--i-accept-side-effects"
    )
    assert code == 0, output
