"""Say what the runs of a synchronisation came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sidecar.cli.saying import EXIT_PROBLEMS, say
from sidecar.core.sync.plan import QUIET, Item, Kind, shown

if TYPE_CHECKING:
    from sidecar.directory.sync import SourceState
    from sidecar.directory.sync_runs import PlannedItem, RunRecord
    from sidecar.sync import Synchroniser

EXIT_QUARANTINED = 4
_CODES = {"quarantined": EXIT_QUARANTINED, "incomplete": EXIT_PROBLEMS, "failed": EXIT_PROBLEMS}
_STYLES = {"done": "green", "planned": "green", "approved": "green", "quarantined": "yellow"}
_WORDS = {
    "create": "to create",
    "update": "to change",
    "reactivate": "to switch on again",
    "deactivate": "to switch off",
    "delete": "to delete",
    "wait": "missing, left alone for now",
    "skip": "left alone",
    "invalid": "not readable",
    "remove_roles": "of them lose a role",
    "grant_privileged": "of them get a privileged role",
    "rename": "of them are renamed",
}
_LONGEST = 60


def exit_code(run: RunRecord) -> int:
    """What a command about this run leaves with."""
    return _CODES.get(run.state, EXIT_PROBLEMS if run.head.get("dead") else 0)


async def as_data(one: Synchroniser, run: RunRecord, *, items: bool = False) -> dict[str, Any]:
    """Plain data of a run."""
    head = run.head
    data: dict[str, Any] = {
        "source": run.source.removeprefix("sync:"),
        "run": run.id,
        "plan": run.hash,
        "state": run.state,
        "asked_by": run.asked_by,
        "approved_by": run.approved_by,
        "at": moment(run.created),
    }
    names = ("reading", "is_complete", "why", "people", "unchanged", "counts", "breaches", "dead", "left")
    data |= {name: head[name] for name in names if name in head}
    if items:
        data["items"] = [_item_data(item, row) async for row, item in one.items(run)]
    return data


def _item_data(item: Item, row: PlannedItem) -> dict[str, Any]:
    changes = {name: {"before": before, "after": after} for name, (before, after) in _changes(item).items()}
    data: dict[str, Any] = {"change": item.kind.value, "id": item.external, "person": item.person_id}
    data |= {"username": _called(item), "reason": item.reason, "changes": changes, "state": row.state}
    if item.roles:
        data["roles"] = {name: list(roles) for name, roles in item.roles.items()}
    return {**data, "error": row.error} if row.error else data


def _changes(item: Item) -> Mapping[str, tuple[Any, Any]]:
    return {} if item.after is None else shown(item.before, item.after)


def _called(item: Item) -> str:
    who = item.after or item.before
    return who.username if who is not None else ""


def tell(run: RunRecord) -> None:
    """Print a run in a few lines."""
    head = run.head
    counts: Mapping[str, int] = head.get("counts", {})
    name = run.source.removeprefix("sync:")
    plan = f", plan {run.hash[:12]}" if run.hash else ""
    say(f"{name}: {run.state}{plan}", _STYLES.get(run.state, "red" if run.state in _CODES else "bold"))
    if head.get("why"):
        say(f"  {head['why']}", "red")
    if "reading" in head:
        if head["reading"] == "same":
            say("  the source is as it was")
        else:
            what = "people read" if head["reading"] == "full" else "people have changed since the last run"
            say(f"  {head['people']:>6} {what}, {head['unchanged']} of them as before")
    for kind, word in _WORDS.items():
        if counts.get(kind):
            say(f"  {counts[kind]:>6} {word}")
    for breach in head.get("breaches", ()):
        say(f"  beyond the limit for {breach}", "yellow")
    if head.get("dead"):
        say(f"  {head['dead']:>6} could not be done", "red")


async def tell_items(one: Synchroniser, run: RunRecord, *, show_all: bool) -> None:
    """Print the items of a run, a line for each person and one for each thing that changes."""
    async for row, item in one.items(run):
        if item.kind in QUIET and item.kind is not Kind.INVALID and not show_all:
            continue
        style = {"deactivate": "red", "delete": "red", "create": "green", "invalid": "yellow"}.get(item.kind.value, "")
        state = "" if row.state == "due" else f" [{row.state}]"
        say(f"{item.kind.value:<10} {item.external} {_called(item)}: {item.reason}{state}", style)
        for name, (before, after) in _changes(item).items():
            if item.kind is not Kind.CREATE:
                say(f"             {name}: {_short(before)} → {_short(after)}")
        lost, got = (set(item.roles.get(name, ())) for name in ("before", "after"))
        if lost != got:
            say(f"             roles: {_short(sorted(lost))} → {_short(sorted(got))}")
        if row.error:
            say(f"             {row.error}", "red")


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else "nothing" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def standing(state: SourceState) -> dict[str, Any]:
    """Plain data of how a source stands."""
    times = {name: moment(getattr(state, name)) for name in ("last_run", "last_good", "last_full", "due")}
    return {"people": state.people, **times, "is_busy": bool(state.lease)}


def tell_state(one: Synchroniser, standing: Mapping[str, Any], runs: Sequence[RunRecord]) -> None:
    """Print how a source stands."""
    say(one.rules.name, "bold")
    people = "never read in full" if standing["people"] is None else f"{standing['people']} people"
    say(f"  {people}; last good run: {standing['last_good'] or 'none'}; next: {standing['due'] or 'by hand'}")
    for run in runs[:5]:
        changed = sum(number for kind, number in run.head.get("counts", {}).items() if kind in _CHANGING)
        style = _STYLES.get(run.state, "red" if run.state in _CODES else "")
        say(
            f"  {moment(run.created)}  {run.state:<12} {run.hash[:12]:<12}  {changed} changes  by {run.asked_by}", style
        )


_CHANGING = frozenset(["create", "update", "reactivate", "deactivate", "delete"])


def moment(seconds: float) -> str:
    """A time for people, "" for none."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if seconds else ""
