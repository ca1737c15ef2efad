"""``sidecar why``: the whole story behind the reference id of a refusal page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.audit import source_of, told
from sidecar.cli.loading import CONFIG
from sidecar.cli.saying import give_up, say, say_json
from sidecar.core.audit_export import is_bad
from sidecar.core.reasons import EXPLANATIONS
from sidecar.telemetry.reading import Line, Query
from sidecar.telemetry.story import SLACK, around, named_by, reason_in

if TYPE_CHECKING:
    from sidecar.cli.audit_source import Source

# How much of the story is told.
_MOST = 60
_MOST_FOUND = 1000


@click.command()
@click.argument("reference")
@CONFIG
@click.option(
    "--file", type=click.Path(path_type=Path, dir_okay=False), help="Audit file, instead of the configuration's."
)
@click.option("--database", is_flag=True, help="Read in the directory's database, also where there is a file.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def why(reference: str, config: Path, file: Path | None, *, database: bool, as_json: bool) -> None:
    """Say what happened in the request with this REFERENCE, why, what was around it, and what to do.

    Exit code 0: found. 1: no audit line has this reference. 3: the audit lines cannot be read.
    """
    found, near = _story(source_of(config, file, database=database)[0], reference)
    if not found:
        give_up(f"no audit line has the reference {reference}; was it written by another replica, or rotated away?")
    reason = reason_in(found)
    words = EXPLANATIONS.get(reason) if reason is not None else None
    if as_json:
        explained = {} if words is None else {"title": words.title, "happened": words.happened, "advice": words.advice}
        say_json(
            {"reference": reference, "reason": reason and reason.value, **explained, "lines": found, "around": near}
        )
        return
    for line in found:
        say(told(line), "red" if is_bad(line) else "")
    if reason is not None and words is not None:
        say()
        say(f"{words.title}: {words.happened} {words.advice}".strip())
        say(f"More about `{reason.value}`, for operators: docs/reasons.md")
    if near:
        say()
        say("Around it, of the same session or person, or else address:")
        for line in near:
            say(f"  {told(line)}", "red" if is_bad(line) else "")


def _story(source: Source, reference: str) -> tuple[Sequence[Line], Sequence[Line]]:
    """The lines with *reference*, and those around them that share something with them."""
    found = _found(source, reference)
    near = around(found, reference) if found else None
    return found, () if near is None else source.newest(near, _MOST, SLACK)


def _found(source: Source, reference: str) -> Sequence[Line]:
    """The lines with *reference*: looked for where it says that they are, and else everywhere."""
    named = named_by(reference)
    if named is not None and (found := source.newest(named, _MOST_FOUND, SLACK)):
        return found
    return source.newest(Query(reference=reference), _MOST_FOUND)
