"""Where commands read audit lines from: here the directory's database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sidecar.cli.audit_source import SLACK, is_told
from sidecar.cli.saying import EXIT_UNAVAILABLE, give_up
from sidecar.core.chain import Finding, Verifier
from sidecar.directory.audit import AuditBook, Wanted
from sidecar.directory.database import Database
from sidecar.faults import Unavailable
from sidecar.telemetry.reading import Line, Query, parsed

if TYPE_CHECKING:
    from sidecar.config.models import Config

T = TypeVar("T")
_POLL = 0.5


class DatabaseSource:
    """Audit lines in the directory's database."""

    def __init__(self, config: Config) -> None:
        """Read in the directory of *config*."""
        self._runner = asyncio.Runner()
        try:
            self._database = Database(config.directory.url.reveal(), config.directory.timeout.total_seconds())
        except Unavailable as fault:
            give_up(f"{fault.reason.value}: {fault.detail}", EXIT_UNAVAILABLE)
        self._book = AuditBook(self._database)
        click.get_current_context().call_on_close(self.close)

    def close(self) -> None:
        """Let go of the connections."""
        self._do(self._database.close())
        self._runner.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(work)
        except Unavailable as fault:
            give_up(f"{fault.reason.value}: {fault.detail}", EXIT_UNAVAILABLE)

    def lines(self, wanted: Query) -> Iterator[Line]:
        """See Source.lines."""
        after, query = 0, wanted_of(wanted)
        while page := self._do(self._book.forward(after, query)):
            for entry in page:
                line = parsed(entry.line.encode())
                if line is not None:
                    yield line
            after = page[-1].id

    def newest(self, wanted: Query, most: int, slack: float = SLACK) -> Sequence[Line]:  # noqa: ARG002 - not for indexes
        """See Source.newest; read from the end on."""
        found: list[Line] = []
        before, query = None, wanted_of(wanted)
        while len(found) < most and (page := self._do(self._book.backward(before, query))):
            lines = (parsed(entry.line.encode()) for entry in page)
            found += [line for line in lines if line is not None and is_told(line, wanted)]
            before = page[-1].id
        return found[:most][::-1]

    def follow(self) -> Iterator[Line]:
        """See Source.follow."""
        after = self._do(self._book.newest())
        while True:
            page = self._do(self._book.forward(after))
            for entry in page:
                line = parsed(entry.line.encode())
                if line is not None:
                    yield line
            after = page[-1].id if page else after
            if not page:
                time.sleep(_POLL)

    def verified(self, check: Verifier) -> Iterator[Finding]:
        """See Source.verified; also what a search goes by must be what the line says."""
        after = 0
        while page := self._do(self._book.forward(after)):
            for entry in page:
                yield from check.read(entry.where, entry.line.encode(errors="surrogatepass"))
                if not entry.is_true:
                    yield Finding("problem", entry.where, "its columns do not say what its line says")
            after = page[-1].id


def wanted_of(query: Query) -> Wanted:
    """What the database can look for by itself; the rest is looked at line by line."""
    texts = (query.client, query.reason, query.session, query.person)
    # Others may stand in a line by escapes.
    needles = tuple(text for text in texts if text.isascii() and text.isalnum())
    return Wanted(frozenset(query.event), query.reference, needles, query.since, query.until, tuple(query.some))
