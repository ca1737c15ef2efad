"""A reference leads to its lines at once, wherever they are, also in files that were rotated away or compressed."""

from __future__ import annotations

import gzip
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.cli.audit_source import FileSource
from sidecar.core.references import beginning_of, is_reference, second_in
from sidecar.telemetry.reading import Query
from sidecar.telemetry.trail import look_back
from tests.world import World

BEGIN = 1_800_000_000


def line_of(second: int, **fields: Any) -> bytes:
    time = datetime.fromtimestamp(second, UTC).isoformat(timespec="milliseconds")
    line = {"time": time, "event": "decision", "effect": "deny", "reason": "no-rule", **fields}
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def reference_of(second: int) -> str:
    return f"{beginning_of(second)}{second % 65536:08x}"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A line a second in four files, one of them compressed; every tenth second it is the same person."""
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    for number, name in enumerate(("audit.jsonl.3.gz", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl")):
        seconds = range(BEGIN + number * 3000, BEGIN + (number + 1) * 3000)
        text = b"".join(
            line_of(second, person=f"p{second % 10}", path="/x" * 100, reference=reference_of(second))
            for second in seconds
        )
        path.with_name(name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


def why(file: Path, reference: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["why", reference, "--file", str(file), "--json"])
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.output)
    return told


@pytest.mark.parametrize("after", [0, 1, 2999, 3000, 5999, 6000, 7777, 9000, 11_998, 11_999])
def test_the_story_is_told_from_every_place(file: Path, after: int) -> None:
    second = BEGIN + after
    told = why(file, reference_of(second))
    assert [line["reference"] for line in told["lines"]] == [reference_of(second)]
    last = min(second + 60, BEGIN + 11_999)
    same = [one for one in range(max(BEGIN, second - 600), last + 1) if one % 10 == second % 10 and one != second]
    assert [line["reference"] for line in told["around"]] == [reference_of(one) for one in same[-60:]]


def test_what_was_written_much_later_or_has_another_form_is_looked_for_everywhere(file: Path, tmp_path: Path) -> None:
    here = tmp_path / "audit.jsonl"
    late = reference_of(BEGIN - 5000)
    old = "5f2c9ad01b7e"
    here.write_bytes(
        b"".join(line_of(BEGIN + n, person="ada", reference=reference_of(BEGIN + n)) for n in range(3000))
        + line_of(BEGIN + 3000, person="grace", reference=late)
        + line_of(BEGIN + 3001, person="gräce", reference=old)
        + line_of(BEGIN + 3002, person="gräce", reference="other")
    )
    assert [line["person"] for line in why(here, late)["lines"]] == ["grace"]
    told = why(here, old)
    assert [line["reference"] for line in told["lines"]] == [old]
    # A name that may stand there in another spelling spares no parsing, and is found all the same.
    assert [line["reference"] for line in told["around"]] == ["other"]
    assert CliRunner().invoke(main, ["why", reference_of(1), "--file", str(here)]).exit_code == 1
    assert second_in(old) is None
    assert second_in(late) == BEGIN - 5000
    assert not is_reference("6928F01C5F2C9AD0")


@pytest.mark.parametrize("after", [3000, 4711, 8000, 11_999])
def test_a_look_between_times_reads_a_little_around_them_only(file: Path, after: int) -> None:
    second, wanted = BEGIN + after, reference_of(BEGIN + after)
    looked = look_back(
        file,
        lambda line: line["reference"] == wanted,
        needles=[wanted],
        most=9,
        since=second - 2,
        until=second + 60,
        budget=300_000,
    )
    # The files have some 3.6 MB: neither the newer nor the older ones were read.
    assert [line["reference"] for line in looked.lines] == [wanted]
    assert looked.further is None


def test_files_that_are_too_old_are_not_even_unpacked(file: Path, tmp_path: Path) -> None:
    for one in file.parent.glob("audit.jsonl*"):
        shutil.copy(one, tmp_path)
    packed = tmp_path / "audit.jsonl.3.gz"
    packed.write_bytes(packed.read_bytes()[:-100])
    here = tmp_path / "audit.jsonl"
    assert why(here, reference_of(BEGIN + 9900))["around"]
    done = CliRunner().invoke(main, ["why", reference_of(BEGIN + 100), "--file", str(here)])
    assert done.exit_code == 3
    assert "audit.jsonl.3.gz: is cut short" in done.output


def test_search_finds_the_same_from_the_end_on_as_from_the_beginning(file: Path) -> None:
    source = FileSource(file)
    for wanted in (
        Query(person="p3"),
        Query(since=BEGIN + 2500, until=BEGIN + 6500),
        Query(since=BEGIN + 5990, person="p7"),
        Query(until=BEGIN + 100),
        Query(path="/x/x", reason="no-rule"),
        Query(any_of=frozenset([("person", "p1"), ("person", "p2")]), but=reference_of(BEGIN + 11)),
        Query(person="nobody"),
    ):
        for most in (1, 7, 100_000):
            slowly = [line for line in source.lines(wanted) if wanted.fits(line)][-most:]
            assert list(source.newest(wanted, most)) == slowly, (wanted, most)


async def test_requests_get_references_of_their_second_that_differ(world: World) -> None:
    running = await world()
    async with running.browser() as browser:
        for _ in range(3):
            await browser.page("/nothing")
    lines = [line for line in running.audit() if line["event"] == "decision"]
    seconds = {second_in(line["reference"]) for line in lines}
    moments = {int(datetime.fromisoformat(line["time"]).timestamp()) for line in lines}
    assert seconds <= {moment + late for moment in moments for late in (-1, 0)}
    assert len({line["reference"] for line in lines}) == len(lines) >= 3
