"""Run what was wired: open the listeners, let a new configuration take over, drain, let go of everything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from sidecar import __version__
from sidecar.cancelling import cancelled
from sidecar.condition import Condition, Parts
from sidecar.config.models import Config
from sidecar.core.audit import Event
from sidecar.faults import Unavailable
from sidecar.front import Front
from sidecar.lasting import Lasting, Share
from sidecar.listening import Listener
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.page import MetricsPage
from sidecar.upstream import Upstream

if TYPE_CHECKING:
    from sidecar.console.console import Console

_log = structlog.get_logger("app")
# Former configurations that live on for their streams; when there are more, the oldest's streams are closed.
_MOST_FORMER = 32
_LAST_WORDS = 1.0
Work = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Sidecar:
    """A wired sidecar: start it, and stop it when done; another one may take over without stopping it.

    ``background`` ends when another takes over, ``lives_on`` goes on while something of this one is under way.
    """

    config: Config
    front: Front
    metrics: Metrics
    audit: AuditLog
    upstream: Upstream
    condition: Condition
    background: Sequence[Work]
    parts: Parts
    lasting: Lasting
    audit_share: Share[AuditLog]
    lives_on: Sequence[Work] = ()
    console: Console | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _lasting_tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _listener: Listener | None = None
    _is_cut: bool = False
    # Those that this one took over from and that are not over yet, the oldest first, with what waits for their end.
    _former: dict[int, tuple[Sidecar, asyncio.Task[None]]] = field(default_factory=dict)

    async def start(self) -> None:
        """Open the listeners and begin the background work. Raises OSError when an address is taken.

        A store, directory or provider that is down does not keep it from starting: it is not ready, says so in the
        log, and becomes ready when they are back.
        """
        self._begin()
        self._listener = Listener(self.config.server, self.front, self._page().handle)
        await self._listener.start()
        if self.console is not None:
            await self.console.start()
        self.audit.record(Event.SERVICE_STARTED, {"version": __version__, "listen": self.config.server.listen})
        with contextlib.suppress(Unavailable):
            await self.condition.readiness()

    def _begin(self) -> None:
        self._tasks = [asyncio.create_task(_lasting(work)) for work in self.background]
        self._lasting_tasks = [asyncio.create_task(_lasting(work)) for work in self.lives_on]

    def _page(self) -> MetricsPage:
        return MetricsPage(self.front.portal.site.prefix, self.metrics.render, self.condition.readiness)

    @property
    def addresses(self) -> Sequence[str]:
        """Where it really listens (host:port), once started: useful with port 0."""
        return self._listener.addresses if self._listener is not None else ()

    @property
    def former(self) -> int:
        """How many configurations before this one still have something under way."""
        return len(self._former)

    async def prepare(self, before: Sidecar) -> Callable[[], None]:
        """Open what could fail to open; what is given takes over from *before*, at once and without fail.

        Raises OSError that names the setting. Whoever does not take over says ``abandon``.
        """
        assert before._listener is not None  # noqa: S101 - it was started
        listener = before._listener
        tls = listener.tls_of(self.config.server)
        console = None if self.console is None else await self.console.prepare(before.console)

        def take_over() -> None:
            self._listener, before._listener = listener, None
            listener.serve(self.config.server, self.front, self._page().handle, tls)
            if console is not None:
                console()
            self._begin()
            self._former, before._former = before._former, {}
            task = asyncio.create_task(self._see_off(before, self._former))
            self._former[id(before)] = before, task

        return take_over

    async def abandon(self) -> None:
        """Let go of what was wired and never took over."""
        await self.parts.close()
        await self.audit_share.close()

    async def _see_off(self, before: Sidecar, former: dict[int, tuple[Sidecar, asyncio.Task[None]]]) -> None:
        """Let *before*, one of *former*, finish what is under way, however long that takes, and close it."""
        try:
            await cancelled(before._tasks)
            if before.console is not None:
                await before.console.rest()
            # All of them: those that were cut a moment ago are still there.
            for one, _ in tuple(former.values())[:-_MOST_FORMER]:
                one._cut()  # noqa: SLF001 - of its own kind
            await before.front.quiet()
            # What was answered a moment ago is written by now.
            await asyncio.sleep(_LAST_WORDS)
            await before.close()
        except Exception:  # noqa: BLE001 - whatever it is, nobody else may suffer from it
            _log.exception("a former configuration could not be closed")
        finally:
            former.pop(id(before), None)

    def _cut(self) -> None:
        """Close the streams of this one, which is a former one; once, or what they are told would be cut short, too."""
        if self._is_cut:
            return
        self._is_cut = True
        _log.warning("too many configurations live on for their streams, the oldest streams are closed")
        self.front.cut()

    async def close(self) -> None:
        """Let go of everything of this configuration."""
        await cancelled([*self._tasks, *self._lasting_tasks])
        await self.parts.close()
        await self.audit_share.close()

    async def stop(self, *, is_replaced: bool = False) -> None:
        """Leave, drain, let go of everything.

        For ``server.notice`` all is served as ever, only ``/-/ready`` says 503; then no new connection is accepted, and
        what runs may finish until ``server.drain`` is over. When *is_replaced*, another process serves already, so that
        load balancers need not hear of it.
        """
        self.condition.is_stopping = not is_replaced
        drain = self.config.server.drain.total_seconds()
        notice = 0.0 if is_replaced else min(self.config.server.notice.total_seconds(), drain / 2)
        if self._listener is not None:
            if self._listener.addresses:
                await self._listener.leave(notice)
            for one in self._all():
                one.upstream.drain()
            await self._listener.drain(drain - notice, self._cut_all)
        for former, task in tuple(self._former.values()):
            await cancelled([task])
            await former.close()
        await cancelled([*self._tasks, *self._lasting_tasks])
        await self.parts.close()
        await self.lasting.close()
        self.audit.record(Event.SERVICE_STOPPED, {"version": __version__})
        await self.audit_share.close()

    def _all(self) -> list[Sidecar]:
        return [*(former for former, _ in self._former.values()), self]

    async def _cut_all(self) -> None:
        for one in self._all():
            await one.upstream.close()

    def hurry(self) -> None:
        """Make a ``stop`` that is under way end at once."""
        if self._listener is not None:
            self._listener.hurry()


async def _lasting(work: Work) -> None:
    """Run background work again when a fault ends it: it must never die silently."""
    while True:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, it is logged and the work begins again
            _log.exception("background work failed, beginning again")
        await asyncio.sleep(1)
