"""What has been opened and has to be closed, and whether it can do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from sidecar.faults import Unavailable
from sidecar.logins.saml.parties import ProviderMetadata
from sidecar.model import Account, Identity
from sidecar.reason import Reason
from sidecar.sessions.store import Store
from sidecar.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from sidecar.directory import Directory
    from sidecar.directory.database import Database
    from sidecar.logins.saml.metadata import ProviderDescription
    from sidecar.people import Changes, Invitations, People
    from sidecar.provision import Provisioner
    from sidecar.provision.backlog import BacklogWatch

_log = structlog.get_logger("condition")
_BETWEEN_PREPARATIONS = 2.0
_NO_ACCOUNT: tuple[None] = (None,)


class Closeable(Protocol):
    """A room that holds connections."""

    async def close(self) -> None:
        """Let go of them."""


P = TypeVar("P", bound=Closeable)


class Parts:
    """What has been opened, to be closed the last first."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._opened: list[Closeable] = []

    def add(self, part: P) -> P:
        """Remember *part*, and give it back."""
        self._opened.append(part)
        return part

    async def close(self) -> None:
        """Close everything, whatever one of them says."""
        while self._opened:
            part = self._opened.pop()
            try:
                await part.close()
            except Unavailable:
                continue
            except Exception:  # noqa: BLE001 - the others have to be closed, too
                _log.exception("could not be closed", part=type(part).__name__)


@dataclass(slots=True)
class Accounts:
    """Accounts in the application, where there are any to keep true; ready once the directory's tables are."""

    database: Database | None = None
    directory: Directory | None = None
    provisioner: Provisioner | None = None
    people: People | None = None
    changes: Changes | None = None
    backlog: BacklogWatch | None = None
    invitations: Invitations | None = None
    _is_prepared: bool = False

    async def prepare(self) -> None:
        """Bring the directory's tables up to date. Raises Unavailable."""
        if self.database is not None:
            from sidecar.directory.migrate import migrate  # noqa: PLC0415 - databases are for those who have one

            await migrate(self.database)
        self._is_prepared = True

    async def readiness(self) -> Mapping[str, str]:
        """What the directory says of itself; raises Unavailable."""
        if self.directory is None:
            return {}
        if not self._is_prepared:
            raise Unavailable(Reason.DIRECTORY_DOWN, "its tables could not be prepared yet")
        return {"directory": await self.directory.ping()}

    async def identities(self, person_id: str) -> Sequence[str]:
        """Keys of the identities of a person, none when nobody knows them; raises Unavailable."""
        known = None if self.directory is None else await self.directory.person(person_id)
        return () if known is None else known.identities

    async def ensure(self, identity: Identity, roles: Sequence[str], now: float) -> Account | None:
        """See gate.Ensure."""
        if self.provisioner is None:
            return None
        if not self._is_prepared:
            raise Unavailable(Reason.DIRECTORY_DOWN, "its tables could not be prepared yet")
        account = await self.provisioner.ensure(identity, roles, now)
        if self.people is not None:
            await self.people.met(identity.key, now)
        return account

    def at_hand(self, identity: Identity, roles: Sequence[str], now: float) -> tuple[Account | None] | None:
        """See gate.AtHand."""
        if self.provisioner is None:
            return _NO_ACCOUNT
        account = self.provisioner.at_hand(identity, roles, now) if self._is_prepared else None
        return None if account is None else (account,)

    def remembered(self, signed_in: Identity, now: float) -> Identity | None:
        """See gate.Remembered. Without sources, people are what their sign-in says."""
        return signed_in if self.people is None else self.people.remembered(signed_in, now)

    async def known(self, signed_in: Identity, now: float) -> Identity:
        """See gate.Known."""
        if self.people is None:
            return signed_in
        if not self._is_prepared:
            raise Unavailable(Reason.DIRECTORY_DOWN, "its tables could not be prepared yet")
        return await self.people.known(signed_in, now)

    async def work(self) -> None:
        """Prepare the tables, as long as it takes, then work off what is owed to the application; for ever."""
        while not self._is_prepared:
            await asyncio.sleep(_BETWEEN_PREPARATIONS)
            try:
                await self.prepare()
                _log.info("the directory is ready")
            except Unavailable as fault:
                _log.error("the directory cannot be used, trying again", error=str(fault))
        if self.provisioner is None:
            await asyncio.Event().wait()
            return
        # When one of them trips, the other ends, too: both begin again together, and never twice.
        async with asyncio.TaskGroup() as group:
            for one in (self.provisioner.outbox, self.backlog):
                if one is not None:
                    group.create_task(one.run())

    def complaints(self) -> Mapping[str, str]:
        """What an operator should look at; nobody is kept out by it."""
        return {} if self.backlog is None else self.backlog.complaints()


class MetadataWatch:
    """Keeps the SAML providers' metadata fresh, and says where that does not succeed."""

    def __init__(self, metadata: Mapping[str, ProviderMetadata], metrics: Metrics) -> None:
        """Watch over *metadata* (login → where it comes from); count in *metrics*."""
        self.work = [one.keep_fresh for one in metadata.values()]
        self._watched: dict[str, ProviderDescription] = {}
        if metadata:
            from sidecar.logins.saml.metadata import ProviderDescription  # noqa: PLC0415 - XML, for who has SAML only

            self._watched = {name: one for name, one in metadata.items() if isinstance(one, ProviderDescription)}
        for name, one in self._watched.items():
            one.tell = partial(self._count, metrics, name)

    @staticmethod
    def _count(metrics: Metrics, name: str, result: str) -> None:
        metrics.metadata.labels(name, result).inc()

    def complaints(self) -> Mapping[str, str]:
        """Login → what is wrong with its newest metadata; only where something is. People may still sign in."""
        return {f"metadata.{name}": one.complaint for name, one in self._watched.items() if one.complaint}


@dataclass(slots=True)
class Condition:
    """Whether the sidecar can do its work: what ``/-/ready`` says. Changes are logged when somebody asks."""

    store: Store
    accounts: Accounts
    application: Callable[[], str]
    warnings: Callable[[], Mapping[str, str]] = dict
    is_stopping: bool = False
    _fault: str | None = None

    async def readiness(self) -> Mapping[str, str]:
        """What the parts say of themselves; raises Unavailable when one that every request needs is down."""
        if self.is_stopping:
            raise Unavailable(Reason.STOPPING)
        try:
            parts = {"store": await self.store.ping(), **await self.accounts.readiness(), **self.complaints()}
            # An application that is down has a page of ours; taken out, we could not even show that.
            parts["application"] = self.application()
        except Unavailable as fault:
            self._note(str(fault))
            raise
        self._note("")
        return parts

    def complaints(self) -> Mapping[str, str]:
        """What an operator should look at, though people can work."""
        return {**self.warnings(), **self.accounts.complaints()}

    async def in_public(self) -> Mapping[str, str]:
        """As ``readiness``, without what strangers need not know: products and versions."""
        await self.readiness()
        return {}

    def _note(self, fault: str) -> None:
        if fault and fault != self._fault:
            _log.warning("not ready", because=fault)
        elif not fault and self._fault:
            _log.info("ready again")
        self._fault = fault
