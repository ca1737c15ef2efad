"""Give an account the key that its person has by now, and the binding with it."""

from __future__ import annotations

from dataclasses import replace

from sidecar.core.accounts import Verdict, is_gone, refusal_of
from sidecar.core.audit import Event
from sidecar.core.wanted import AccountRules, is_protected
from sidecar.directory import Directory
from sidecar.faults import Refused, Unavailable
from sidecar.model import Account, Change, Outcome, Person, Result
from sidecar.provision.application import Application, Job, order_of, repetition_key
from sidecar.provision.journal import Journal
from sidecar.reason import Reason


class Renamer:
    """Renames accounts. Whoever calls holds the turn of the person and of the account's present key.

    A renaming is noted in the directory before it is sent, and looked for under both keys until it was seen how it
    ended: so an account that was renamed by a process that died is found again, and never made a second time.
    """

    def __init__(self, rules: AccountRules, application: Application, directory: Directory, journal: Journal) -> None:
        """Rename where *rules* have steps for it."""
        self._rules = rules
        self._application = application
        self._directory = directory
        self._journal = journal

    def is_wanted(self, known: Person, job: Job) -> bool:
        """True when the bound account shall be known by another key, or a renaming was begun."""
        account = known.account
        if account is None or account.deactivated or refusal_of(known) is not None:
            return False
        return bool(account.renaming) or is_to_be_renamed(self._rules, account, job.wanted.key)

    async def rename(self, job: Job, known: Person) -> Person | None:
        """Rename, or find out how the one that was begun ended; the person as they are then.

        What the application does not want is said in the audit log, and the account stays as it is. None when the
        record changed meanwhile. Raises Unavailable where nobody knows how it ended.
        """
        account = known.account
        if account is None:
            return known
        if account.renaming:
            found = await self._application.look(job, Account(account.renaming))
            if _is_ours(account, found):
                return await self._end(job, known, account.renaming)
            ended = await self._directory.end_renaming(known, None, job.now)
            if ended is None or not self.is_wanted(ended, job):
                return ended
            known = ended
        return await self._begin(job, known, job.wanted.key)

    async def _begin(self, job: Job, known: Person, key: str) -> Person | None:
        reason = await self._objection(job, known, key)
        if reason is not None:
            self._complain(job, known, reason, f"cannot be called {key!r}")
            return known
        begun = await self._directory.begin_renaming(known, key, job.now)
        if begun is None or begun.account is None:
            return begun
        once = repetition_key(begun.id, Change.RENAME.value, key, known.version)
        order = replace(order_of(Change.RENAME, job, Verdict(begun.account), once), new_key=key)
        try:
            await self._application.change(order)
        except (Refused, Unavailable) as error:
            found = await self._application.look(job, Account(key))
            if not _is_ours(begun.account, found):
                self._complain(job, begun, error.reason, error.detail)
                return await self._directory.end_renaming(begun, None, job.now)
        else:
            found = await self._application.look(job, Account(key))
            if not _is_ours(begun.account, found):
                self._complain(job, begun, Reason.ACCOUNT_REFUSED, "it said yes, and the account is not there")
                return await self._directory.end_renaming(begun, None, job.now)
        return await self._end(job, begun, key)

    async def _objection(self, job: Job, known: Person, key: str) -> Reason | None:
        """Why the account may not have *key*: somebody else's account has it, or is about to."""
        if is_protected(self._rules, key):
            return Reason.ACCOUNT_PROTECTED
        if await self._directory.holders(key, "") - {known.id}:
            return Reason.ACCOUNT_BOUND
        found = await self._application.look(job, Account(key))
        if found.result is Result.NOT_FOUND or (known.account is not None and _is_ours(known.account, found)):
            return None
        return Reason.ACCOUNT_EXISTS

    async def _end(self, job: Job, known: Person, key: str) -> Person | None:
        before = known.account.key if known.account is not None else ""
        try:
            ended = await self._directory.end_renaming(known, key, job.now)
        except Refused as refused:
            # Somebody was bound to the key in the moment between: the application's own word decides at the next look.
            self._complain(job, known, refused.reason, refused.detail)
            raise
        if ended is not None:
            self._journal.note(Event.ACCOUNT_RENAMED, job.identity, known.id, key, before=before)
        return ended

    def _complain(self, job: Job, known: Person, reason: Reason, detail: str) -> None:
        key = known.account.key if known.account is not None else ""
        fields = {"change": Change.RENAME.value, "reason": reason.value, "detail": detail}
        self._journal.note(Event.PROVISIONING_FAILED, job.identity, known.id, key, **fields)


def is_to_be_renamed(rules: AccountRules, account: Account, key: str) -> bool:
    """True when the bound *account* shall be known by *key*, and there is a way to tell it from any other one."""
    return Change.RENAME in rules.able and bool(account.id) and account.key != key


def _is_ours(account: Account, found: Outcome) -> bool:
    """True when what was *found* is surely this account: the same immutable id."""
    has_id = bool(account.id) and found.saved.get("id") == account.id
    return found.result is Result.FOUND and has_id and not is_gone(account, found)
