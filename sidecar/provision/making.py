"""Make one person's account as it shall be, while nobody else works on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sidecar.config.provision import OnError
from sidecar.core.accounts import Verdict, decide, finish, known_roles, may_join, refusal_of
from sidecar.core.audit import Event
from sidecar.core.wanted import AccountRules, target_of
from sidecar.directory import Directory
from sidecar.faults import Refused, Unavailable
from sidecar.model import Account, Change, Outcome, Person, Result
from sidecar.provision.application import SUCCESSES, Application, Job, failure_of, order_of, repetition_key, with_saved
from sidecar.provision.journal import Journal
from sidecar.provision.renaming import Renamer
from sidecar.reason import Reason


@dataclass(frozen=True, slots=True)
class Made:
    """The end of a job: whose account, and which."""

    person_id: str
    account: Account


class Maker:
    """Carries out what ``core.accounts`` decides. Raises Refused and Unavailable of every room below.

    Whoever calls holds the turn of the person and of the account key. None as an answer means that the person's record
    changed meanwhile: read it again and start over.
    """

    def __init__(
        self,
        rules: AccountRules,
        on_error: OnError,
        application: Application,
        directory: Directory,
        journal: Journal,
    ) -> None:
        """Decide by *rules*; *on_error* says which failures let an existing account in."""
        self._rules = rules
        self._on_error = on_error
        self._application = application
        self._directory = directory
        self._journal = journal
        self._renamer = Renamer(rules, application, directory, journal)

    async def make(self, job: Job, known: Person) -> Made | None:
        """Look the account up, decide, and act; ``known.id`` is "" for somebody who was never here."""
        if self._renamer.is_wanted(known, job):
            renamed = await self._renamer.rename(job, known)
            if renamed is None:
                return None
            known = renamed
        found = await self._application.look(job, target_of(known, job.wanted))
        if self._rules.may_join and not known.id and await self._joined(job, found):
            return None
        verdict = await self._judge(job, known, found)
        # Only now: whoever is refused, or meets an application that is down, leaves no trace in the directory.
        known = await self._directory.admit(job.identity, job.now)
        if refusal_of(known) is not None:
            return None
        if Change.CREATE in verdict.changes:
            return await self._create(job, known, verdict)
        if verdict.links:
            bound = await self._bind(job, known, verdict.account)
            return None if bound is None else await self._apply(job, bound, verdict, found)
        return await self._apply(job, known, verdict, found)

    async def _joined(self, job: Job, found: Outcome) -> bool:
        """Let somebody who has the account by another login keep it: True when their record has this identity now."""
        target = target_of(None, job.wanted)
        holders = await self._directory.holders(target.key, found.saved.get("id", ""))
        holder = await self._directory.person(next(iter(holders))) if len(holders) == 1 else None
        if holder is None or holder.account is None or not may_join(self._rules, holder, found, job.identity):
            return False
        await self._directory.join(holder, job.identity)
        self._journal.note(Event.ACCOUNT_LINKED, job.identity, holder.id, holder.account.key)
        return True

    async def _judge(self, job: Job, known: Person, found: Outcome) -> Verdict:
        target = target_of(known, job.wanted)
        holders = await self._directory.holders(target.key, found.saved.get("id", ""))
        verdict = decide(self._rules, known, job.wanted, found, identity=job.identity, holders=holders)
        if verdict.refused is not None:
            raise Refused(verdict.refused, 403, verdict.detail)
        return verdict

    async def _bind(self, job: Job, known: Person, account: Account) -> Person | None:
        if known.reserved:
            bound: Person | None = await self._directory.settle(known, account, job.now)
            event = Event.ACCOUNT_CREATED
        else:
            bound = await self._directory.link(known, account, job.now)
            event = Event.ACCOUNT_LINKED
        if bound is not None:
            self._journal.note(event, job.identity, known.id, account.key)
        return bound

    # Creating

    async def _create(self, job: Job, known: Person, verdict: Verdict) -> Made | None:
        is_repeated = bool(known.reserved)
        if not is_repeated:
            reserved = await self._directory.reserve(known, verdict.account.key, job.now)
            if reserved is None:
                return None
            known = reserved
        try:
            outcome = await self._application.hook.apply(order_of(Change.CREATE, job, verdict, known.attempt))
        except Unavailable:
            # Surely nothing was done this time; of an earlier attempt nobody knows yet.
            if not is_repeated:
                await self._directory.release(known)
            raise
        if outcome.result in SUCCESSES:
            return await self._born(job, known, verdict, outcome)
        return await self._after_failed_create(job, known, verdict, outcome, is_repeated=is_repeated)

    async def _born(self, job: Job, known: Person, verdict: Verdict, outcome: Outcome) -> Made | None:
        """Bind first: from here on the account is this person's, whatever happens."""
        account = with_saved(verdict.account, outcome)
        bound = await self._directory.settle(known, account, job.now)
        self._journal.note(Event.ACCOUNT_CREATED, job.identity, known.id, account.key, roles=sorted(verdict.roles))
        order = replace(order_of(Change.CREATE, job, verdict, known.attempt), account=account)
        await self._application.verify(order)
        seen = await self._seen(job, account, verdict, outcome)
        account = with_saved(account, seen)
        return await self._apply(job, bound, finish(self._rules, job.wanted, verdict, account, seen), seen, verdict)

    async def _seen(self, job: Job, account: Account, verdict: Verdict, outcome: Outcome) -> Outcome:
        """Look at a new account when its id, or whether its roles are right already, is not known yet."""
        asks_for_roles = bool(verdict.roles) and Change.SET_ROLES in self._rules.able
        if account.id and not (asks_for_roles and known_roles(outcome) is None):
            return outcome
        found = await self._application.look(job, account)
        # Some applications show a new account only after a while; it is there all the same.
        return found if found.result is Result.FOUND else outcome

    async def _after_failed_create(
        self, job: Job, known: Person, verdict: Verdict, outcome: Outcome, *, is_repeated: bool
    ) -> Made | None:
        """Find out by looking, once, what the create came to; it is never sent a second time."""
        if _is_surely_not_ours(outcome, is_repeated=is_repeated):
            # Before looking: a reservation that outlives a conflict would make somebody else's account ours.
            await self._directory.release(known)
            found = await self._application.look(job, verdict.account)
        else:
            found = await self._application.look(job, verdict.account)
            if found.result is Result.FOUND and _is_ours(outcome, found, is_repeated=is_repeated):
                ours = await self._judge(job, known, found)
                bound = await self._bind(job, known, ours.account)
                return None if bound is None else await self._apply(job, bound, ours, found)
            if outcome.result is not Result.UNKNOWN:
                await self._directory.release(known)
        if outcome.result is not Result.CONFLICT:
            raise failure_of(Change.CREATE, outcome)
        # Somebody else's account: it may only be linked by the ordinary rules, as at any sign-in.
        other = await self._judge(job, replace(known, reserved="", attempt=""), found)
        if not other.links:
            raise Refused(Reason.ACCOUNT_EXISTS, 403, f"create conflict: {outcome.detail}")
        return None

    # Changing

    async def _apply(
        self, job: Job, bound: Person, verdict: Verdict, found: Outcome, created: Verdict | None = None
    ) -> Made | None:
        account = with_saved(bound.account or verdict.account, found)
        if verdict.changes and created is None:
            # While changes are under way nobody may take the old fingerprint for the truth.
            begun = await self._directory.record(bound, account, fingerprint="", roles=bound.roles, now=job.now)
            if begun is None:
                return None
            bound = begun
        done: set[Change] = set()
        for change in verdict.changes:
            outcome = await self._change(job, bound, replace(verdict, account=account), change)
            if outcome is not None:
                account = with_saved(account, outcome)
                done.add(change)
            if change is Change.REACTIVATE:
                await self._directory.mark_deactivated(bound.id, job.now, deactivated=False)
                account = replace(account, deactivated=False)
        is_true = not (verdict.added or verdict.removed) or Change.SET_ROLES in done
        roles = verdict.roles if is_true or created is not None else verdict.had
        mark = job.mark if done.issuperset(verdict.changes) else ""
        kept = await self._directory.record(bound, account, fingerprint=mark, roles=roles, now=job.now)
        return None if kept is None else Made(bound.id, account)

    async def _change(self, job: Job, bound: Person, verdict: Verdict, change: Change) -> Outcome | None:
        """Make one change; None when it failed and the person may come in nevertheless."""
        key = repetition_key(bound.id, change.value, job.mark, bound.version)
        try:
            outcome = await self._application.change(order_of(change, job, verdict, key))
        except (Refused, Unavailable) as error:
            if not self._lets_in(change, verdict):
                raise
            self._journal.note(
                Event.PROVISIONING_FAILED,
                job.identity,
                bound.id,
                verdict.account.key,
                change=change.value,
                reason=error.reason.value,
                detail=error.detail,
            )
            return None
        self._note(job, bound, verdict, change)
        return outcome

    def _lets_in(self, change: Change, verdict: Verdict) -> bool:
        if change is Change.UPDATE:
            return self._on_error.update == "allow_existing"
        # A role that could not be taken away is a right that stays.
        return change is Change.SET_ROLES and self._on_error.set_roles == "allow_existing" and not verdict.removed

    def _note(self, job: Job, bound: Person, verdict: Verdict, change: Change) -> None:
        key = verdict.account.key
        if change is Change.SET_ROLES:
            self._journal.roles(job.identity, bound.id, key, verdict.had, verdict.roles)
        elif change is Change.UPDATE:
            names = sorted(verdict.changed)
            self._journal.note(Event.ACCOUNT_UPDATED, job.identity, bound.id, key, attributes=names)
        else:
            self._journal.note(Event.ACCOUNT_REACTIVATED, job.identity, bound.id, key)


def _is_surely_not_ours(outcome: Outcome, *, is_repeated: bool) -> bool:
    refused = outcome.result in (Result.CONFLICT, Result.REFUSED)
    # An id among the saved values means that an early step made the account before a later one was turned down.
    return refused and not is_repeated and not outcome.saved.get("id")


def _is_ours(outcome: Outcome, found: Outcome, *, is_repeated: bool) -> bool:
    """True when the account that was absent before our create, and is there after it, can only be its work."""
    if outcome.result in (Result.UNKNOWN, Result.FAILED):
        return True
    same_id = bool(outcome.saved.get("id")) and outcome.saved["id"] == found.saved.get("id")
    # A conflict of a repeated create is with the first attempt, whose end nobody had seen.
    return same_id or (is_repeated and outcome.result is Result.CONFLICT)
