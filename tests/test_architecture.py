"""Imports point downward, the pure parts stay pure, and the list of rooms in the docs is true."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sidecar"

# From top to bottom; what stands in one line never imports sideways.
ROOMS = [
    ["__main__"],
    ["cli"],
    ["office", "reloading"],
    ["app"],
    ["running"],
    ["console"],
    ["doctor"],
    ["probing", "foresight", "convert", "syncing"],
    ["telling"],
    ["accounts"],
    ["front", "plans", "listening"],
    ["questions"],
    ["lasting"],
    ["asks"],
    ["express", "serving", "forward_auth", "rechecks"],
    ["trips", "parsed", "queueing"],
    ["gate"],
    ["endings", "admission", "assertion", "arrival", "condition", "doorway", "leaving", "limits"],
    ["drift"],
    ["portal", "scim_api", "signals", "manual", "sync", "insights"],
    ["provision", "engines"],
    ["tokens", "recording"],
    ["people"],
    ["directory"],
    ["upstream", "logins"],
    ["sessions", "hooks"],
    ["pages", "telemetry"],
    ["cancelling"],
    ["config"],
    ["core"],
    ["model", "faults"],
    ["reason"],
    ["demo"],
]
LEVEL = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
# Alembic runs these files by itself; they stand alone.
IMPURE = (
    "asyncio",
    "aiohttp",
    "redis",
    "sqlalchemy",
    "socket",
    "time",
    "random",
    "secrets",
    "os",
    "pathlib",
    "threading",
)
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts)


def room_of(path: Path) -> str:
    """First name below the package: a folder or a module."""
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Full names of everything that a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def identify(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_imports_point_only_downward(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "sidecar" or len(parts) == 1:
            continue
        other = parts[1]
        if other == room or other not in LEVEL:
            continue
        assert LEVEL[other] > LEVEL[room], f"{room} imports {other}, which stands above it or beside it"


@pytest.mark.parametrize("path", [*sorted((PACKAGE / "core").rglob("*.py")), PACKAGE / "model.py"], ids=identify)
def test_the_pure_parts_import_no_io_no_clock_and_no_random(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & set(IMPURE)
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(ast.parse(path.read_text())))


def test_every_room_is_in_the_list() -> None:
    rooms = {room_of(path) for path in MODULES} - {"__init__"}
    assert rooms == set(LEVEL)


def test_every_room_is_in_the_architecture_page() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    missing = [room for room in LEVEL if f"{room}.py" not in page and f"{room}/" not in page]
    assert not missing


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_every_module_opens_with_one_sentence(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text, "a module says in one sentence what it is for"
    assert text.splitlines()[0].rstrip().endswith((".", ":")) or "\n" in text


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_no_module_grows_into_a_hall(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_the_demo_stands_for_foreign_software() -> None:
    for path in (PACKAGE / "demo").rglob("*.py"):
        foreign = {
            name for name in imported(path) if name.startswith("sidecar.") and not name.startswith("sidecar.demo")
        }
        assert not foreign
