"""The same tests once more with aiohttp's parsers in Python, as some run it; `make test-compiled` has uvloop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_UPSTREAM = sorted(_TESTS.glob("test_upstream_*.py"))
_UPSTREAM.remove(Path(__file__))
# A whole sidecar: what its parser lets in is where smuggling begins.
_SIDECAR = [_TESTS / "test_proxying.py", _TESTS / "test_attacks_paths.py"]
_SECONDS = 300


def run_again(modules: Sequence[Path], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # The table's column of nginx is the same in every surrounding.
    chosen = ["-p", "no:cacheprovider", "-p", "no:xdist", "-k", "not nginx"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *chosen, *map(str, modules)],
        cwd=_TESTS.parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


@pytest.mark.timeout(_SECONDS + 10)
@pytest.mark.parametrize("modules", [_UPSTREAM, _SIDECAR], ids=["upstream", "sidecar"])
def test_everything_holds_with_parsers_in_python_too(modules: list[Path]) -> None:
    again = run_again(modules, {"AIOHTTP_NO_EXTENSIONS": "1"})
    assert again.returncode == 0, again.stdout[-8000:]
    assert " passed" in again.stdout
