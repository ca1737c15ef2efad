"""The same tests once more with aiohttp's parsers in Python, and on uvloop: both are what some operators run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_UPSTREAM = [path for path in _TESTS.glob("test_upstream_*.py") if path.name != "test_upstream_variants.py"]
# Parsing stands between an attack on a path or on framing and everything else.
_MODULES = sorted(str(path) for path in [*_UPSTREAM, _TESTS / "test_attacks_paths.py"])
# The table before nginx is the same in every surrounding.
_PROXYING = str(_TESTS / "test_proxying.py")


def run_again(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *options,
        *_MODULES,
        _PROXYING,
    ]
    command += ["-k", "not nginx"]
    return subprocess.run(
        command,
        cwd=_TESTS.parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        pytest.param((), {"AIOHTTP_NO_EXTENSIONS": "1"}, id="parsers in Python"),
        pytest.param(("-p", "tests.services.on_uvloop"), {}, id="uvloop"),
    ],
)
@pytest.mark.timeout(240)
def test_everything_holds_in_the_other_surroundings_too(options: tuple[str, ...], environment: dict[str, str]) -> None:
    again = run_again(*options, **environment)
    assert again.returncode == 0, again.stdout[-8000:]
    assert " passed" in again.stdout
