"""Compile the modules that nearly every request passes, by mypyc: into a wheel, or into a copy of this project.

A build hook of hatchling (HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 pip wheel .), and a command that makes a copy of the project
in .cache/compiled, whose tests and measurements are those of the compiled modules. Which modules they are stands in
pyproject.toml. They run uncompiled just as well, only slower. What was compiled last is kept where COMPILED_KEPT says,
and serves as long as it would come out the same.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
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


def compile_into(target: Path, kept: str = os.environ.get("COMPILED_KEPT", "")) -> list[str]:
    """Put the compiled modules into *target*, in folders as their sources; their paths; raises SystemExit.

    They are taken from the folder *kept*, or left there, where one is named.
    """
    if not kept:
        return _compiled(target)
    place = Path(kept) / _fingerprint()
    if not place.is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        # Whole or not at all: another process may look at the same time.
        unfinished = place.with_suffix(f".{os.getpid()}")
        _compiled(unfinished)
        unfinished.rename(place)
    shutil.copytree(place, target, dirs_exist_ok=True)
    return [str(path.relative_to(place)) for path in place.rglob("*.so")]


def _fingerprint() -> str:
    """A name for all that what is compiled depends on: the sources, how they are compiled, by what and beside what."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hook = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
    packages = [re.split(r"[^\w.-]", one)[0] for one in (*project["project"]["dependencies"], *hook["dependencies"])]
    versions = [f"{one} {importlib.metadata.version(one)}" for one in sorted(packages)]
    parts = [sys.version, str(modules()), *versions, Path(__file__).read_text()]
    for path in sorted((ROOT / "sidecar").rglob("*.py")):
        parts += (str(path.relative_to(ROOT)), path.read_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _compiled(target: Path) -> list[str]:
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
    compile_into(target, str(ROOT / ".cache/compiled-modules"))


if __name__ == "__main__":
    main()
