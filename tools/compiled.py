"""Compile the modules that nearly every request passes, by mypyc: into a wheel, or into a copy of this project.

A build hook of hatchling (HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 pip wheel .), and a command that makes a copy of the project
in .cache/compiled, whose tests and measurements are those of the compiled modules. Which modules they are stands in
pyproject.toml. They run uncompiled just as well, only slower.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # As a command it takes no hatchling.
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent.parent
# Made here, or fetched, and of no use to a copy; what begins with a point is looked at one by one.
_LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "*.so", "node_modules", "site", "dist", "build", "test-results", "results.md"
)
_HIDDEN = frozenset([".venv", ".git", ".cache", ".demo", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"])
# Links instead of copies, also where there is nothing yet: what tests fetch once, and what is measured.
_SHARED = (".cache", "tests/services/node/node_modules", "bench/results.md")
# What the compiler is told about types is what the check is told, in a form that stands alone.
_TYPES = """[mypy]
strict = true
plugins = pydantic.mypy
cache_dir = /dev/null
[mypy-ldap.*,lxml.*,onelogin.*,xmlsec.*]
ignore_missing_imports = true
follow_imports = skip
follow_imports_for_stubs = true
"""
_SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup
types, *modules = sys.argv[1:]
extensions = mypycify(["--config-file", types, *modules], opt_level="s", debug_level="0", group_name="sidecar")
setup(name="sidecar", packages=[], ext_modules=extensions, script_args=["--quiet", "build_ext", "--inplace"])
"""


def modules() -> list[str]:
    """Paths of the modules that are compiled."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    return list(wheel["hooks"]["custom"]["modules"])


def compile_into(target: Path) -> list[str]:
    """Put the compiled modules into *target*, in folders as their sources; their paths; raises SystemExit."""
    with tempfile.TemporaryDirectory() as place:
        types = Path(place) / "types.ini"
        types.write_text(_TYPES)
        # No project file may be there: setuptools would read it, and it is not its.
        work = Path(place) / "source"
        shutil.copytree(ROOT / "sidecar", work / "sidecar", ignore=_LEFT_OUT)
        command = [sys.executable, "-c", _SETUP, str(types), *modules()]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            message = f"{done.stdout[-4000:]}{done.stderr[-4000:]}\nmypyc could not compile the request path"
            raise SystemExit(message)
        shutil.rmtree(work / "build")
        found = [path.relative_to(work) for path in work.rglob("*.so")]
        for path in found:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(work / path, target / path)
    return [str(path) for path in found]


class CompiledModules(BuildHookInterface):  # type: ignore[misc]
    """Puts the compiled modules into the wheel, beside their sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Compile, and say that the wheel is for this platform only."""
        self._place = tempfile.TemporaryDirectory()
        for path in compile_into(Path(self._place.name)):
            build_data["force_include"][f"{self._place.name}/{path}"] = path
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - as above
        """Forget the place where it was done."""
        self._place.cleanup()


def main() -> None:
    """Make the copy."""
    target = ROOT / ".cache/compiled"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name in _HIDDEN:
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name, ignore=_LEFT_OUT)
        else:
            shutil.copy(path, target / path.name)
    for name in _SHARED:
        (target / name).symlink_to(ROOT / name)
    compile_into(target)


if __name__ == "__main__":
    main()
