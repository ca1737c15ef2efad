"""The few things that operators can change; the only place where the console changes anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial

from sidecar.condition import Accounts
from sidecar.console.drifts import Drifts
from sidecar.console.operators import Level, Operator
from sidecar.console.page import Asked
from sidecar.console.syncs import Syncs
from sidecar.core.audit import Event
from sidecar.faults import Refused, Unavailable
from sidecar.lasting import Lasting
from sidecar.reason import Reason
from sidecar.sessions.keeper import SessionKeeper
from sidecar.telemetry.audit import AuditLog
from sidecar.tokens import Issuer

# Who switches people off here; the same name switches them on again.
SOURCE = "console"
_LONGEST_TARGET = 1000
_ID = re.compile(r"[0-9a-f]{32}")


class Act(Enum):
    """Everything that can be done; the value stands in forms and audit lines."""

    END_SESSION = "end-session"
    END_SESSIONS = "end-sessions"
    RETRY = "retry"
    CANCEL = "cancel"
    DISABLE = "disable"
    ENABLE = "enable"
    REVOKE_TOKEN = "revoke-token"
    PLAN = "sync-plan"
    APPLY = "sync-apply"
    APPROVE = "sync-approve"
    REJECT = "sync-reject"
    DRIFT_LOOK = "drift-look"
    DRIFT_FIX = "drift-fix"
    DRIFT_APPROVE = "drift-approve"
    DRIFT_REJECT = "drift-reject"
    RELOAD = "reload"


NEEDS: Mapping[Act, Level] = {
    Act.END_SESSION: Level.OPERATE,
    Act.END_SESSIONS: Level.OPERATE,
    Act.RETRY: Level.OPERATE,
    Act.CANCEL: Level.ADMINISTER,
    Act.DISABLE: Level.ADMINISTER,
    Act.ENABLE: Level.ADMINISTER,
    Act.REVOKE_TOKEN: Level.ADMINISTER,
    Act.PLAN: Level.OPERATE,
    Act.APPLY: Level.OPERATE,
    Act.APPROVE: Level.ADMINISTER,
    Act.REJECT: Level.OPERATE,
    Act.DRIFT_LOOK: Level.OPERATE,
    Act.DRIFT_FIX: Level.OPERATE,
    Act.DRIFT_APPROVE: Level.ADMINISTER,
    Act.DRIFT_REJECT: Level.OPERATE,
    Act.RELOAD: Level.ADMINISTER,
}


_SYNC = frozenset([Act.PLAN, Act.APPLY, Act.APPROVE, Act.REJECT])
_DRIFT = frozenset([Act.DRIFT_LOOK, Act.DRIFT_FIX, Act.DRIFT_APPROVE, Act.DRIFT_REJECT])


@dataclass(slots=True, kw_only=True)
class Acts:
    """Does what an operator asks for, if they may, and writes it down whatever comes of it."""

    accounts: Accounts
    keeper: SessionKeeper
    own_keeper: SessionKeeper
    audit: AuditLog
    lasting: Lasting
    issuer: Issuer | None = None
    syncs: Syncs | None = None
    drifts: Drifts | None = None

    async def do(self, asked: Asked) -> None:
        """Do what the form of *asked* says. Raises Refused and Unavailable; each is audited."""
        act, target = _act_of(asked.form), asked.form.get("target", "")
        try:
            _refuse_too_low(asked.operator, act)
            done = await self._done(act, target, asked)
        except Refused as refused:
            event = Event.CONSOLE_REFUSED if refused.reason is Reason.ROLE_MISSING else Event.CONSOLE_ACT
            self._note(event, asked, act, target, {"reason": refused.reason.value, "detail": refused.detail})
            raise
        except Unavailable as fault:
            self._note(Event.CONSOLE_ACT, asked, act, target, {"reason": fault.reason.value, "detail": fault.detail})
            raise
        self._note(Event.CONSOLE_ACT, asked, act, target, {"result": "done", **done})

    def _note(self, event: Event, asked: Asked, act: Act, target: str, fields: Mapping[str, object]) -> None:
        who = operator_fields(asked)
        self.audit.record(event, {**who, "act": act.value, "target": target[:_LONGEST_TARGET], **fields})

    async def _done(self, act: Act, target: str, asked: Asked) -> Mapping[str, object]:
        """Do it; what the audit line says of it besides."""
        operator, now = asked.operator, asked.now
        if not 0 < len(target) <= _LONGEST_TARGET:
            raise Refused(Reason.NOT_FOUND, 404, "no target")
        if act is Act.END_SESSION:
            return {"ended": await self.keeper.end_id(target)}
        if act is Act.END_SESSIONS:
            return await self._end_sessions(target)
        if act is Act.REVOKE_TOKEN:
            return await self._revoke(target, operator, now)
        if act in _SYNC:
            return await self._synchronise(act, target, asked)
        if act in _DRIFT:
            return await self._put_right(act, target, asked)
        if act is Act.RELOAD:
            return await self._reload(operator)
        return await self._about_accounts(act, target, operator, now)

    async def _about_accounts(self, act: Act, target: str, operator: Operator, now: float) -> Mapping[str, object]:
        directory, provisioner = self.accounts.directory, self.accounts.provisioner
        if directory is None or provisioner is None:
            raise Refused(Reason.NOT_FOUND, 404, "no accounts are kept here")
        if act is Act.RETRY:
            person_id = await directory.browsing.retry(target, now)
            provisioner.outbox.wake()
            return {"subject": person_id}
        if act is Act.CANCEL:
            return {"subject": await directory.browsing.cancel(target, now)}
        person = await directory.person(target)
        if person is not None and operator.session.identity.key in person.identities:
            raise Refused(Reason.CONFLICT, 409, "nobody switches themselves off or on")
        change = provisioner.disable if act is Act.DISABLE else provisioner.enable
        return {"username": (await change(target, SOURCE, now)).username}

    async def _revoke(self, target: str, operator: Operator, now: float) -> Mapping[str, object]:
        if self.issuer is None or not _ID.fullmatch(target):
            raise Refused(Reason.NOT_FOUND, 404, "there is no such token")
        token = await self.issuer.revoke(target, f"{SOURCE}:{operator.name}", now)
        return {"name": token.name, "subject": token.subject or token.person_id or ""}

    async def _synchronise(self, act: Act, target: str, asked: Asked) -> Mapping[str, object]:
        if self.syncs is None:
            raise Refused(Reason.NOT_FOUND, 404, "no source is synchronised here")

        note = partial(self._note, Event.CONSOLE_ACT, asked, act, target)
        if act is Act.PLAN:
            return await self.syncs.plan(target, asked.operator, note)
        if act is Act.APPLY:
            return await self.syncs.apply(target, asked.operator, note)
        change = self.syncs.approve if act is Act.APPROVE else self.syncs.reject
        return await change(target, asked.operator)

    async def _put_right(self, act: Act, target: str, asked: Asked) -> Mapping[str, object]:
        if self.drifts is None:
            raise Refused(Reason.NOT_FOUND, 404, "no accounts are compared here")
        note = partial(self._note, Event.CONSOLE_ACT, asked, act, target)
        if act is Act.DRIFT_LOOK:
            return await self.drifts.look(asked.operator, note)
        if act is Act.DRIFT_FIX:
            return await self.drifts.fix(asked.operator, note)
        change = self.drifts.approve if act is Act.DRIFT_APPROVE else self.drifts.reject
        return await change(target, asked.operator)

    async def _reload(self, operator: Operator) -> Mapping[str, object]:
        """Have the configuration read again; what came of it is shown on its page."""
        if self.lasting.reload is None:
            raise Refused(Reason.NOT_FOUND, 404, "nobody can reload here")
        outcome = await self.lasting.reload("console", operator.session.identity.username)
        return {"digest": outcome.digest} if outcome.is_loaded else {"result": "refused"}

    async def _end_sessions(self, target: str) -> Mapping[str, object]:
        """End all sessions of a person (our id), or of an identity (its key), at the console, too."""
        keys: tuple[str, ...] = (target,)
        name = ""
        if self.accounts.directory is not None and target.isalnum():
            person = await self.accounts.directory.person(target)
            if person is None:
                raise Refused(Reason.NOT_FOUND, 404, "there is no such person")
            keys, name = person.identities, person.username
        ended = sum([await keeper.end_person(key) for key in keys for keeper in (self.keeper, self.own_keeper)])
        return {"ended": ended, "username": name}


def _refuse_too_low(operator: Operator, act: Act) -> None:
    needed = NEEDS.get(act, Level.ADMINISTER)
    if not operator.may(needed):
        raise Refused(Reason.ROLE_MISSING, 403, f"{act.value} needs {needed.word}")


def _act_of(form: Mapping[str, str]) -> Act:
    try:
        return Act(form.get("act", ""))
    except ValueError:
        raise Refused(Reason.NOT_FOUND, 404, "there is no such act") from None


def operator_fields(asked: Asked) -> Mapping[str, object]:
    """What audit lines say of the operator and the request."""
    identity = asked.operator.session.identity
    return {
        "person": identity.username,
        "issuer": identity.issuer,
        "provider": identity.provider,
        "session": asked.operator.session.id,
        "level": asked.operator.level.word,
        "path": asked.visit.path,
        "client": asked.visit.client,
        "reference": asked.visit.reference,
    }
