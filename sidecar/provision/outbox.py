"""Work off what is owed to the application, as long as it takes: settle, deactivate, delete."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from sidecar.config.provision import Outbox
from sidecar.core.accounts import is_gone
from sidecar.core.audit import Event
from sidecar.core.patience import pause_after
from sidecar.core.wanted import AccountRules, Wanted, folded, identity_of, is_protected
from sidecar.directory import Directory, OutboxItem
from sidecar.faults import Refused, Unavailable
from sidecar.hooks.order import Order
from sidecar.model import Account, Change, Duty, Person, Result
from sidecar.provision.application import Application, Job, generated, with_saved
from sidecar.provision.journal import Journal
from sidecar.reason import Reason
from sidecar.sessions.turn import Turn

_LEASE = 300.0
_POLL = 5.0


class OutboxWorker:
    """Works off what is owed to the application; several replicas share the work by leases in the directory."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that it joins
        self,
        section: Outbox,
        rules: AccountRules,
        application: Application,
        directory: Directory,
        journal: Journal,
        turn: Callable[[str, str], Turn],
        clock: Callable[[], float],
        end_sessions: Callable[[Person], Awaitable[None]],
        settle: Callable[[Person], Awaitable[None]],
    ) -> None:
        """Take *turn(kind, name)* before touching an account; *clock* gives epoch seconds.

        *settle* makes the account of somebody who is active as it shall be.
        """
        self._attempts = section.attempts
        self._first, self._longest = section.pause.total_seconds(), section.longest.total_seconds()
        self._rules = rules
        self._application = application
        self._directory = directory
        self._journal = journal
        self._turn = turn
        self._clock = clock
        self._end_sessions = end_sessions
        self._settle = settle
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look for work now rather than at the next poll."""
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled; a directory that is down is asked again later."""
        while True:
            self._woken.clear()
            try:
                worked = await self.work_off()
            except Unavailable:
                worked = 0
            if not worked:
                try:
                    async with asyncio.timeout(_POLL):
                        await self._woken.wait()
                except TimeoutError:
                    continue

    async def work_off(self) -> int:
        """Try everything that is due once; answer how many items that were. Raises Unavailable(DIRECTORY_DOWN)."""
        items = await self._directory.outbox.due(self._clock(), _LEASE)
        for item in items:
            await self._try(item)
        return len(items)

    async def _try(self, item: OutboxItem) -> None:
        person = await self._directory.person(item.person_id)
        if person is None or person.active is not (item.duty is Duty.SETTLE):
            await self._directory.outbox.done(item)
            return
        try:
            await self._do(person, item)
        except Refused as error:
            for_good = item.duty is Duty.SETTLE or error.reason is Reason.ACCOUNT_PROTECTED
            await self._fail(person, item, error, for_good=for_good)
        except Unavailable as error:
            await self._fail(person, item, error, for_good=False)
        else:
            await self._directory.outbox.done(item)

    async def _do(self, person: Person, item: OutboxItem) -> None:
        if item.duty is Duty.SETTLE:
            await self._settle(person)
            return
        # Again, since whoever switched the person off may have died before.
        await self._end_sessions(person)
        await self._leave(person, item)

    async def _fail(self, person: Person, item: OutboxItem, error: Refused | Unavailable, *, for_good: bool) -> None:
        key = person.account.key if person.account else person.reserved
        self._journal.note(
            Event.PROVISIONING_FAILED,
            identity_of(person),
            person.id,
            key,
            change=item.duty.value,
            reason=error.reason.value,
            detail=error.detail,
            tries=item.tries + 1,
        )
        if for_good or item.tries + 1 >= self._attempts:
            self._journal.note(
                Event.DUTY_PUT_ASIDE,
                identity_of(person),
                person.id,
                key,
                change=item.duty.value,
                reason=error.reason.value,
                tries=item.tries + 1,
                item=item.id,
            )
            await self._directory.outbox.dead(item, str(error))
            return
        pause = pause_after(item.tries + 1, self._first, self._longest, random.random())  # noqa: S311 - no secret
        await self._directory.outbox.retry(item, self._clock() + pause, str(error))

    async def _leave(self, person: Person, item: OutboxItem) -> None:
        """Switch the account off, or delete it, while nobody else works on it."""
        identity = identity_of(person)
        async with self._turn("person", identity.key):
            # A sign-in that was under way has come to its end now, and may have made an account.
            current = await self._directory.person(person.id)
            if current is None or current.active:
                return
            key = current.account.key if current.account else current.reserved
            if not key:
                return
            async with self._turn("account", folded(key)):
                account = current.account or await self._made_meanwhile(current)
                if account is not None:
                    await self._take_away(current, account, item)

    async def _made_meanwhile(self, person: Person) -> Account | None:
        """The account whose creation was begun, bound now if the application has it."""
        job = Job(identity_of(person), Wanted(person.reserved), "", self._clock())
        found = await self._application.look(job, Account(person.reserved))
        if found.result is not Result.FOUND:
            return None
        bound = await self._directory.settle(person, with_saved(Account(person.reserved), found), job.now)
        return bound.account

    async def _take_away(self, person: Person, account: Account, item: OutboxItem) -> None:
        if is_protected(self._rules, account.key):
            raise Refused(Reason.ACCOUNT_PROTECTED, 403, "a protected account is not changed")
        change = self._change_for(item.duty)
        if change is None:
            return
        identity, now = identity_of(person), self._clock()
        found = await self._application.look(Job(identity, Wanted(account.key), "", now), account)
        if not is_gone(account, found):
            # A sign-in that was cut short may have left the binding without the account's id.
            theirs = with_saved(account, found) if found.result is Result.FOUND else account
            once = item.idempotency[:32]
            order = Order(change, identity, theirs, generated=generated(), idempotency=once, now=now)
            await self._carry_out(person, order)
        elif change is Change.DEACTIVATE:
            return
        await self._note(person, account, change, now)

    async def _carry_out(self, person: Person, order: Order) -> None:
        is_switch = order.change is Change.DEACTIVATE
        if is_switch:
            # Before it is done: whoever dies in between must not take it for the doing of the application's people.
            await self._directory.mark_deactivated(person.id, order.now, deactivated=True)
        try:
            await self._application.change(order)
        except Refused:
            if is_switch:
                was_off = person.account is not None and person.account.deactivated
                await self._directory.mark_deactivated(person.id, order.now, deactivated=was_off)
            raise

    def _change_for(self, duty: Duty) -> Change | None:
        """An application that cannot delete is asked to deactivate; None when it can do neither."""
        wanted = (Change.DELETE, Change.DEACTIVATE) if duty is Duty.DELETE else (Change.DEACTIVATE,)
        return next((change for change in wanted if change in self._rules.able), None)

    async def _note(self, person: Person, account: Account, change: Change, now: float) -> None:
        if change is Change.DELETE:
            await self._directory.drop_account(person.id)
            self._journal.note(Event.ACCOUNT_DELETED, identity_of(person), person.id, account.key)
            return
        await self._directory.mark_deactivated(person.id, now, deactivated=True)
        self._journal.note(Event.ACCOUNT_DEACTIVATED, identity_of(person), person.id, account.key)
