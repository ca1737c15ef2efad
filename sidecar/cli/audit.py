"""``sidecar audit``: search, follow, export and verify the audit lines; make a key that signs them."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar import __version__
from sidecar.cli.audit_source import FileSource, Source, is_told
from sidecar.cli.loading import load_or_leave, show
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_UNAVAILABLE, EXIT_USAGE, complain, give_up, say, say_json
from sidecar.config.values import parse_duration
from sidecar.core.audit import Event
from sidecar.core.audit_export import COLUMNS, cef, csv_row, is_bad, json_text, ocsf, on_one_line
from sidecar.core.chain import Finding, Verifier
from sidecar.telemetry.chaining import verifier
from sidecar.telemetry.reading import Line, Query, raw_lines

if TYPE_CHECKING:
    from sidecar.config.models import Config

_EXPLAINED = ("event", "effect", "reason", "method", "path", "person", "username", "account", "client", "reference")
# What people read; a file that was converted has a finding on every line.
_MOST_FINDINGS = 200
_BRIEF = ("event", "person", "client", "path", "reason", "reference", "session", "text")


@click.group()
def audit() -> None:
    """Search, follow, export and verify the audit lines."""


def _source(command: Any) -> Any:
    command = click.option(
        "--file",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="This file and those rotated away from it, instead of the configuration's.",
    )(command)
    command = click.option(
        "--database", is_flag=True, help="Read in the directory's database, also where there is a file."
    )(command)
    return click.argument(
        "config", type=click.Path(path_type=Path, dir_okay=False), envvar="SIDECAR_CONFIG", default="config.yaml"
    )(command)


def _filters(command: Any) -> Any:
    for option in reversed(
        (
            click.option(
                "--event",
                multiple=True,
                type=click.Choice([event.value for event in Event]),
                metavar="EVENT",
                help="Only this event, such as login-failed; may be repeated. docs/audit.md lists them.",
            ),
            click.option("--person", help="Name, subject or id of a person, or their account."),
            click.option("--client", help="Address of the client."),
            click.option("--path", help="Beginning of the path that was asked for."),
            click.option("--reason", help="Reason code."),
            click.option("--reference", help="Reference id of a refusal page."),
            click.option("--session", help="Id of a session."),
            click.option("--text", help="Text anywhere in a value."),
            click.option("--since", help="Not before: 2026-01-31, 2026-01-31T12:00, or so long ago: 90m, 7d."),
            click.option("--until", help="Not after; written likewise."),
        )
    ):
        command = option(command)
    return command


def source_of(
    config: Path, file: Path | None, *, database: bool, needs_settings: bool = False
) -> tuple[Source, Config | None]:
    """Where to read: *file*, or what *config* names; leaves when there is nothing.

    Of a file that *config* names nothing else is read, unless one *needs_settings*: whoever looks for something has not
    the service's secrets, and what is wrong elsewhere may be what is looked for.
    """
    file = file or (None if database or needs_settings else _named_file(config))
    if file is not None:
        return FileSource(file), None
    settings = load_or_leave(config, quiet=True).config
    if settings.audit.file is not None and not database:
        return FileSource(settings.audit.file), settings
    if settings.audit.database is None:
        lacking = "audit.database is not" if database else "neither audit.file nor audit.database is"
        give_up(f"{config}: {lacking} set, so there is nothing to read; name a file: --file PATH", EXIT_USAGE)
    from sidecar.cli.audit_database import DatabaseSource

    return DatabaseSource(settings), settings


def _named_file(config: Path) -> Path | None:
    from sidecar.config.document import read_document
    from sidecar.config.problem import ConfigError

    try:
        data = read_document(config).data
    except ConfigError as error:
        show(error.problems)
        raise SystemExit(EXIT_PROBLEMS) from None
    section = data.get("audit") if isinstance(data, Mapping) else None
    path = section.get("file") if isinstance(section, Mapping) else None
    return config.resolve().parent / path if isinstance(path, str) and path else None


def query_of(asked: dict[str, Any]) -> Query:
    """The query that the options *asked* make."""
    texts: dict[str, Any] = {name: asked[name] or "" for name in _BRIEF if name != "event"}
    since = _instant(asked["since"], "--since", 0.0)
    return Query(
        event=frozenset(asked["event"]), **texts, since=since, until=_instant(asked["until"], "--until", float("inf"))
    )


def _instant(text: str | None, option: str, default: float) -> float:
    if text is None:
        return default
    try:
        return time.time() - parse_duration(text).total_seconds()
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        give_up(f"{option}: {text} is neither a time like 2026-01-31T12:00 nor a duration like 90m", EXIT_USAGE)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@audit.command()
@_source
@_filters
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Print the newest of them only.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines themselves, as JSON lines.")
def search(config: Path, file: Path | None, limit: int, *, database: bool, as_json: bool, **asked: Any) -> None:
    """Print the audit lines that fit all that is asked, the newest last.

    \b
    sidecar audit search --person alice --since 7d config.yaml
    sidecar audit search --event decision --reason no-rule --json

    Exit code 0: there are some. 1: there are none. 3: they cannot be read.
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    wanted = query_of(asked)
    found = source_of(config, file, database=database)[0].newest(wanted, limit)
    for line in found:
        _show(line, as_json=as_json)
    if not found:
        complain("no audit line fits", "yellow")
        raise SystemExit(EXIT_PROBLEMS)


@audit.command()
@_source
@_filters
@click.option("--json", "as_json", is_flag=True, help="Print the lines themselves, as JSON lines.")
def tail(config: Path, file: Path | None, *, database: bool, as_json: bool, **asked: Any) -> None:
    """Print audit lines as they come, until Ctrl-C; through rotations."""
    wanted = query_of(asked)
    source, _ = source_of(config, file, database=database)
    try:
        for line in source.follow():
            if is_told(line, wanted):
                _show(line, as_json=as_json)
                sys.stdout.flush()
    except KeyboardInterrupt:
        return


@audit.command()
@_source
@_filters
@click.option(
    "--format", "style", type=click.Choice(["jsonl", "csv", "cef", "ocsf"]), default="jsonl", show_default=True,
    help="JSON lines, a table, ArcSight's Common Event Format, or the Open Cybersecurity Schema Framework.",
)  # fmt: skip
@click.option("--output", type=click.File("w", encoding="utf-8", lazy=True), default="-", help="File to write.")
def export(config: Path, file: Path | None, style: str, output: Any, *, database: bool, **asked: Any) -> None:
    """Write the audit lines that fit all that is asked for another program, the oldest first."""
    wanted = query_of(asked)
    source, _ = source_of(config, file, database=database)
    lines = (line for line in source.lines(wanted) if is_told(line, wanted))
    if style == "csv":
        table = csv.writer(output)
        table.writerow(COLUMNS)
        table.writerows(csv_row(line) for line in lines)
        return
    for line in lines:
        if style == "cef":
            text = cef(line, __version__)
        else:
            text = json_text(ocsf(line, __version__) if style == "ocsf" else line)
        output.write(f"{text}\n")


@audit.command()
@_source
@click.option(
    "--public-key", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="PEM file of the key that anchors are verified by; the configuration's audit.chain.key by default.",
)  # fmt: skip
@click.option(
    "--anchors", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Copies of the anchors; the configuration's audit.chain.anchors by default.",
)  # fmt: skip
@click.option("--partial", is_flag=True, help="Older files were deleted: what came before need not be here.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def verify(
    config: Path,
    file: Path | None,
    public_key: Path | None,
    anchors: Path | None,
    *,
    database: bool,
    partial: bool,
    as_json: bool,
) -> None:
    """Find every audit line that was changed, moved, put in or taken away.

    Exit code 0: there is none. 1: there are some. 3: the file cannot be read.
    """
    source, settings = source_of(config, file, database=database, needs_settings=True)
    chain = settings.audit.chain if settings is not None else None
    pem = chain.key.reveal() if chain is not None and chain.key is not None else None
    if public_key is not None:
        pem = public_key.read_text()
    if anchors is None and chain is not None:
        anchors = chain.anchors
    try:
        pruned = _pruned(settings) if not isinstance(source, FileSource) else None
        check = Verifier(None if pem is None else verifier(pem), is_partial=partial, pruned_before=pruned)
    except ValueError as error:
        give_up(f"{public_key or 'audit.chain.key'}: {error}", EXIT_USAGE)
    try:
        findings = list(_verified(check, source, anchors))
    except OSError as error:
        give_up(f"{error.filename}: {error.strerror}", EXIT_UNAVAILABLE)
    if pem is None:
        findings.append(Finding("note", "", "anchors are not signed: whoever could write the file could chain it anew"))
    problems = [finding for finding in findings if finding.kind == "problem"]
    if as_json:
        told = [{"kind": one.kind, "where": one.where, "says": one.says} for one in findings]
        counts = {"lines": check.lines, "chains": check.chains, "anchors": check.anchors}
        say_json({"whole": not problems, **counts, "findings": told})
    else:
        for one in findings[:_MOST_FINDINGS]:
            complain(": ".join(filter(None, (one.where, one.says))), "red" if one.kind == "problem" else "yellow")
        if len(findings) > _MOST_FINDINGS:
            complain(f"and {len(findings) - _MOST_FINDINGS} more: --json tells them all")
        verdict = _counted(len(problems), "problem") if problems else "whole"
        found = f"{_counted(check.lines, 'line')} in {_counted(check.chains, 'chain')}"
        say(f"{verdict}: {found} with {_counted(check.anchors, 'anchor')}", "" if problems else "green")
    if problems:
        raise SystemExit(EXIT_PROBLEMS)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _pruned(settings: Config | None) -> float | None:
    """What was written before may have been deleted; None when nothing is."""
    section = settings.audit.database if settings is not None else None
    if section is None or section.retention is None:
        return None
    return time.time() - section.retention.total_seconds()


def _verified(check: Verifier, source: Source, anchors: Path | None) -> Iterator[Finding]:
    yield from source.verified(check)
    copies = [] if anchors is None or not anchors.exists() else [raw for _, raw in raw_lines(anchors)]
    yield from check.finish(copies)


@audit.command()
@click.option("--public", is_flag=True, help="Read a private key from standard input, and print its public key.")
def key(*, public: bool) -> None:
    """Make an Ed25519 key that signs anchors, and print it as PEM; or print what verifies by it.

    \b
    sidecar audit key > audit.key && chmod 600 audit.key
    sidecar audit key --public < audit.key > audit.pub
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    if not public:
        private = Ed25519PrivateKey.generate()
        click.echo(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            nl=False,
        )
        return
    try:
        loaded = serialization.load_pem_private_key(sys.stdin.buffer.read(64 * 1024), None)
    except (ValueError, TypeError):
        give_up("standard input is not the PEM text of a private key", EXIT_USAGE)
    told = loaded.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    click.echo(told, nl=False)


def _show(line: Line, *, as_json: bool) -> None:
    if as_json:
        click.echo(json_text(line))
    else:
        say(told(line), "red" if is_bad(line) else "")


def told(line: Line) -> str:
    """*line* for a reader: the time, what is usual, then whatever else it says."""
    hidden = {"time", "chain", "n", "hash", "signature"}
    first = [str(line[name]) for name in ("event", "effect", "reason", "method", "path") if line.get(name)]
    named = [name for name in _EXPLAINED if name not in {"event", "effect", "reason", "method", "path"}]
    others = [name for name in line if name not in hidden and name not in _EXPLAINED]
    rest = [f"{name}={line[name]}" for name in (*named, *others) if line.get(name)]
    return on_one_line("  ".join((_clock(line), *first, *rest)))


def _clock(line: Line) -> str:
    return str(line.get("time", ""))[: len("2026-01-31T12:00:00.000")].replace("T", " ")
