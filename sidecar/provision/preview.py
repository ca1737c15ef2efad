"""Say what provisioning would do for a person, without doing it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sidecar.core.accounts import Verdict, decide
from sidecar.core.wanted import AccountRules, target_of
from sidecar.directory import Directory
from sidecar.hooks.order import PlannedCall
from sidecar.model import Change, Outcome, Person, Result
from sidecar.provision.application import Application, Job, lookup_of, order_of
from sidecar.provision.renaming import is_to_be_renamed


@dataclass(frozen=True, slots=True)
class ProvisionPlan:
    """What would happen.

    ``is_settled``: nothing at all, by the fingerprint. ``found`` is what the lookup said, or was assumed to say when
    ``is_assumed``: not_found for somebody without an account, found for somebody with one. ``calls`` follow ``lookup``.
    """

    verdict: Verdict
    found: Result
    is_assumed: bool
    is_settled: bool
    lookup: tuple[PlannedCall, ...] = ()
    calls: tuple[PlannedCall, ...] = ()


async def preview(
    rules: AccountRules, application: Application, directory: Directory, job: Job, *, probe: bool
) -> ProvisionPlan:
    """Plan the *job*; *probe* really looks the account up. Raises Unavailable."""
    person = await directory.person_by_identity(job.identity.key)
    known = person or Person("", (job.identity.key,), job.identity.provider)
    target = target_of(known, job.wanted)
    if probe:
        found = await application.look(job, target)
    else:
        found = Outcome(Result.FOUND if known.account is not None else Result.NOT_FOUND)
    holders = await directory.holders(target.key, found.saved.get("id", ""))
    verdict = decide(rules, known, job.wanted, found, identity=job.identity, holders=holders)
    is_settled = known.account is not None and known.fingerprint == job.mark and not known.account.deactivated
    changes = () if is_settled or verdict.refused is not None else _followed(rules, verdict)
    is_renamed = changes != () and known.account is not None and is_to_be_renamed(rules, known.account, job.wanted.key)
    order = replace(order_of(Change.RENAME, job, verdict), new_key=job.wanted.key)
    renaming = application.hook.plan(order) if is_renamed else ()
    return ProvisionPlan(
        verdict=verdict,
        found=found.result,
        is_assumed=not probe,
        is_settled=is_settled and verdict.refused is None,
        lookup=application.hook.plan(lookup_of(job, target)),
        calls=renaming
        + tuple(call for change in changes for call in application.hook.plan(order_of(change, job, verdict))),
    )


def _followed(rules: AccountRules, verdict: Verdict) -> tuple[Change, ...]:
    """The changes of *verdict*, and the roles that a new account gets after its creation."""
    if Change.CREATE in verdict.changes and verdict.roles and Change.SET_ROLES in rules.able:
        return (*verdict.changes, Change.SET_ROLES)
    return verdict.changes
