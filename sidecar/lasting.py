"""Hold what outlives a reload: the store and what is in it, counters, audit chains, and parts that did not change."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from sidecar.condition import Closeable
from sidecar.config.comparing import Change, laid_out
from sidecar.config.models import Config
from sidecar.config.service import Sessions
from sidecar.sessions.lending import Lender
from sidecar.sessions.opening import open_store, server_secrets
from sidecar.telemetry.metrics import Metrics

Clock = Callable[[], float]
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reload came to: which configuration is in force now, what changed, or the ``problems`` that kept it."""

    is_loaded: bool
    digest: str
    changes: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()


class Reload(Protocol):
    """Whoever can have the configuration read again."""

    async def __call__(self, trigger: str, who: str) -> Outcome:
        """Read it, because of *trigger*, for *who* (""  for nobody in particular); never raises for what is wrong."""


@dataclass(slots=True)
class _Entry:
    name: str
    mark: Hashable
    part: Any
    close: Callable[[], Any]
    users: int = 0


@dataclass(slots=True)
class Share(Generic[P]):
    """One user's share of a part; the last one to close it closes the part."""

    part: P
    _entry: _Entry
    _entries: list[_Entry]
    _is_closed: bool = False

    async def close(self) -> None:
        """Let go of it, once."""
        if self._is_closed:
            return
        self._is_closed = True
        self._entry.users -= 1
        if not self._entry.users:
            self._entries.remove(self._entry)
            await self._entry.close()


class Lasting:
    """Made once for a process; every configuration that is in force in turn is built upon it."""

    def __init__(self, config: Config, clock: Clock) -> None:
        """Open the store that *config* names. Raises ValueError for an address that is none."""
        self.clock = clock
        self.metrics = Metrics()
        self.lender = Lender(open_store(config.sessions, clock))
        self._secret = secrets.token_bytes(32)
        self._entries: list[_Entry] = []
        self._kept: dict[str, tuple[Hashable, Any]] = {}
        # What is wrong with the newest state of the configuration, which is therefore not in force.
        self.complaint = ""
        # How to have the configuration read again; None where nobody can.
        self.reload: Reload | None = None

    def secrets(self, section: Sessions) -> tuple[bytes, ...]:
        """As ``server_secrets``; where the memory needs none, the same at every call."""
        is_own = not section.secrets and section.redis is None
        return (self._secret,) if is_own else server_secrets(section)

    def complaints(self) -> Mapping[str, str]:
        """What an operator should look at."""
        return {"configuration": self.complaint} if self.complaint else {}

    def share(self, name: str, mark: Hashable, make: Callable[[], P], close: Callable[[P], Any]) -> Share[P]:
        """The part *name* that others use already if it has the same *mark*, else a new one."""
        entry = next((one for one in self._entries if one.name == name and one.mark == mark), None)
        if entry is None:
            part = make()
            entry = _Entry(name, mark, part, lambda: close(part))
            self._entries.append(entry)
        entry.users += 1
        return Share(entry.part, entry, self._entries)

    def keep(self, name: str, mark: Hashable, make: Callable[[], P]) -> P:
        """What was kept under *name* with the same *mark*, else something new that is kept from now on."""
        found = self._kept.get(name)
        if found is None or found[0] != mark:
            found = self._kept[name] = mark, make()
        kept: P = found[1]
        return kept

    async def close(self) -> None:
        """Close the store."""
        await self.lender.close()


@dataclass(slots=True)
class Marks:
    """Says which parts of a configuration are as they were; contents of files and secrets are compared, too."""

    config: Config
    _all: Mapping[str, Hashable] = field(init=False)

    def __post_init__(self) -> None:
        """Lay the configuration out once."""
        self._all = laid_out(self.config)

    def of(self, *places: str) -> Hashable:
        """The mark of everything at and below *places*."""
        inner = tuple(f"{place}{sign}" for place in places for sign in ".[")
        return tuple((path, value) for path, value in self._all.items() if path in places or path.startswith(inner))


async def close_part(part: Closeable) -> None:
    """Close *part*."""
    await part.close()
