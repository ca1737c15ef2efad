"""The request path compiled: which modules that are, and that tests in the compiled copy truly run them."""

from __future__ import annotations

import ast
import importlib
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import sidecar
from sidecar.cli import main

ROOT = Path(__file__).parent.parent


def modules() -> list[str]:
    """Paths of the modules that are to be compiled."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    return list(wheel["hooks"]["custom"]["modules"])


@pytest.mark.parametrize("path", modules())
def test_all_of_them_are_compiled_or_none(path: str) -> None:
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    assert (ROOT / path).is_file()
    assert str(module.__file__).startswith(str(ROOT / path.removesuffix(".py")))
    assert str(module.__file__).endswith(".so") == sidecar.is_compiled()


def test_no_class_that_is_interpreted_inherits_from_one_that_is_compiled() -> None:
    compiled = {ROOT / path for path in modules()}
    classes = {
        path: [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        for path in (ROOT / "sidecar").rglob("*.py")
    }
    native = {one.name for path in compiled for one in classes[path]}
    heirs = {
        one.name
        for path in classes.keys() - compiled
        for one in classes[path]
        if native & {ast.unparse(base).partition("[")[0] for base in one.bases}
    }
    assert not heirs, "mypyc forbids it, and says so only when one of them is made"


def test_the_copy_that_says_so_is_the_one_that_is_tested() -> None:
    assert (ROOT.parts[-2:] == (".cache", "compiled")) == sidecar.is_compiled()


def test_the_version_says_so() -> None:
    said = CliRunner().invoke(main, ["--version"]).output
    assert (", request path compiled" in said) == sidecar.is_compiled()
