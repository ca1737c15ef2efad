"""``sidecar why``: the whole story behind the reference id of a refusal page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from sidecar.cli.audit import source_of, told
from sidecar.cli.audit_source import Source
from sidecar.cli.loading import CONFIG
from sidecar.cli.saying import give_up, say, say_json
from sidecar.core.audit_export import is_bad
from sidecar.core.reasons import EXPLANATIONS
from sidecar.core.references import second_in
from sidecar.reason import Reason
from sidecar.telemetry.reading import Line, Query, instant_of

# Seconds before and after that belong to the story, and how much of it is told.
_BEFORE, _AFTER = 600.0, 60.0
_MOST = 60
_MOST_FOUND = 1000
# How far lines of several processes are out of order.
_SLACK = 2.0
_SAME = ("session", "subject", "username", "person", "client")


@click.command()
@click.argument("reference")
@CONFIG
@click.option(
    "--file", type=click.Path(path_type=Path, dir_okay=False), help="Audit file, instead of the configuration's."
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def why(reference: str, config: Path, file: Path | None, *, as_json: bool) -> None:
    """Say what happened in the request with this REFERENCE, why, what was around it, and what to do.

    Exit code 0: found. 1: no audit line has this reference. 3: the audit file cannot be read.
    """
    found, around = _story(source_of(config, file, database=False)[0], reference)
    if not found:
        give_up(f"no audit line has the reference {reference}; was it written by another replica, or rotated away?")
    reason = _reason(found)
    words = EXPLANATIONS.get(reason) if reason is not None else None
    if as_json:
        explained = {} if words is None else {"title": words.title, "happened": words.happened, "advice": words.advice}
        say_json(
            {"reference": reference, "reason": reason and reason.value, **explained, "lines": found, "around": around}
        )
        return
    for line in found:
        say(told(line), "red" if is_bad(line) else "")
    if reason is not None and words is not None:
        say()
        say(f"{words.title}: {words.happened} {words.advice}".strip())
        say(f"More about `{reason.value}`, for operators: docs/reasons.md")
    if around:
        say()
        say("Around it, of the same session, person or address:")
        for line in around:
            say(f"  {told(line)}", "red" if is_bad(line) else "")


def _reason(lines: Sequence[Line]) -> Reason | None:
    for line in lines:
        try:
            return Reason(line.get("reason"))
        except ValueError:
            continue
    return None


def _story(source: Source, reference: str) -> tuple[Sequence[Line], Sequence[Line]]:
    """The lines with *reference*, and those around them that share something with them."""
    found = _found(source, reference)
    if not found:
        return (), ()
    moment = instant_of(found[0])
    keys = frozenset((name, str(line[name])) for line in found for name in _SAME if line.get(name))
    if not keys:
        return found, ()
    since, until = max(0.0, moment - _BEFORE), moment + _AFTER
    near = Query(since=since, until=until, any_of=keys, but=reference)
    return found, source.newest(near, _MOST, _SLACK)


def _found(source: Source, reference: str) -> Sequence[Line]:
    """The lines with *reference*: looked for where it says that they are, and else everywhere."""
    second = second_in(reference)
    if second is not None:
        near = Query(reference=reference, since=second - _SLACK, until=second + _AFTER)
        if found := source.newest(near, _MOST_FOUND, _SLACK):
            return found
    return source.newest(Query(reference=reference), _MOST_FOUND)
