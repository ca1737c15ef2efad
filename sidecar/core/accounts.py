"""Decide what an account inside the application needs: nothing, a link, a creation, changes, or a refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sidecar.core.wanted import AccountRules, Wanted, folded, is_protected, issuers_of, target_of
from sidecar.model import Account, Change, Identity, Outcome, Person, Result
from sidecar.reason import Reason

_NO = frozenset(["false", "0", "no", "f", "n", "off"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What has to happen: refuse, or bind the ``account`` if it ``links``, then make the ``changes`` in their order.

    ``had`` are the roles that the account is known to have, ``roles`` those it shall have (unmanaged ones first, so
    that an application with a single role keeps one that is not ours).
    """

    account: Account
    refused: Reason | None = None
    detail: str = ""
    links: bool = False
    changes: tuple[Change, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    changed: frozenset[str] = frozenset()
    had: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def refusal_of(person: Person | None) -> Reason | None:
    """Why this person may not have an account at all, None when they may."""
    if person is not None and (not person.active or person.tombstone is not None):
        return Reason.PERSON_DISABLED
    return None


def decide(
    rules: AccountRules, person: Person, wanted: Wanted, found: Outcome, *, identity: Identity, holders: frozenset[str]
) -> Verdict:
    """Decide by the rules of docs/provisioning.md.

    *found* is the outcome of the lookup of ``target_of``: FOUND, NOT_FOUND or AMBIGUOUS. *holders* are the ids of the
    people to whom that account is bound or reserved. ``person.id`` is "" for somebody the directory does not know.
    """
    target = target_of(person, wanted)
    refused = refusal_of(person)
    if refused is None and _is_protected(rules, target, found):
        refused = Reason.ACCOUNT_PROTECTED
    elif refused is None and holders - {person.id}:
        refused = Reason.ACCOUNT_BOUND
    elif refused is None and found.result is Result.AMBIGUOUS:
        refused = Reason.ACCOUNT_AMBIGUOUS
    if refused is not None:
        return Verdict(target, refused)
    if found.result is Result.NOT_FOUND:
        return _absent(rules, person, wanted, target)
    if person.account is None:
        return _unbound(rules, person, wanted, found, identity)
    return _bound(rules, person, wanted, found, person.account)


def _is_protected(rules: AccountRules, target: Account, found: Outcome) -> bool:
    # The application may compare more loosely still, so what it found counts too.
    return is_protected(rules, target.key) or is_protected(rules, found.saved.get("key", ""))


def _absent(rules: AccountRules, person: Person, wanted: Wanted, target: Account) -> Verdict:
    if person.account is not None and person.account.linked:
        return Verdict(target, Reason.ACCOUNT_GONE, "the linked account is not there any more")
    if Change.CREATE not in rules.able:
        return Verdict(target, Reason.ACCOUNT_GONE, "there is no account, and there are no create steps")
    roles = wanted.roles or _default(rules)
    return Verdict(
        Account(target.key),
        changes=(Change.CREATE,),
        attributes=wanted.written,
        changed=frozenset(wanted.written),
        roles=roles,
        added=roles,
    )


def _unbound(rules: AccountRules, person: Person, wanted: Wanted, found: Outcome, identity: Identity) -> Verdict:
    target = target_of(person, wanted)
    theirs = Account(target.key, found.saved.get("id", ""), dict(found.saved), linked=not person.reserved)
    if person.reserved:
        if _shows_other_values(wanted.written, found):
            return Verdict(target, Reason.ACCOUNT_EXISTS, "it is not like the one whose creation was begun")
    elif not (rules.may_link and _proves_ownership(rules, target, found, identity)):
        return Verdict(target, Reason.ACCOUNT_EXISTS)
    verdict = _bound(rules, person, wanted, found, theirs)
    return verdict if verdict.refused else replace(verdict, links=True)


def _shows_other_values(written: Mapping[str, str], found: Outcome) -> bool:
    shown = [name for name in written if name in found.saved]
    return any(folded(written[name].strip()) != folded(found.saved[name].strip()) for name in shown)


def _proves_ownership(rules: AccountRules, target: Account, found: Outcome, identity: Identity) -> bool:
    """True when this login may speak for the verified address and the account itself carries that address.

    Without the last condition a user name that people choose themselves at the provider would open any account.
    """
    domain = identity.email.rpartition("@")[2].lower()
    if not domain or domain not in {name.lower() for name in rules.domains.get(identity.provider, ())}:
        return False
    return folded(identity.email) in {folded(target.key), folded(found.saved.get("email", "").strip())}


def may_join(rules: AccountRules, holder: Person, found: Outcome, identity: Identity) -> bool:
    """True when *identity* is the person who holds the account that was *found*, come by another login.

    Both logins must have verified the same address. A second identity of an issuer that vouches for the holder already
    is somebody else: a user name or an address that was given away again.
    """
    if not rules.may_join or holder.account is None or refusal_of(holder) is not None:
        return False
    if (
        found.result is not Result.FOUND
        or _is_protected(rules, holder.account, found)
        or is_gone(holder.account, found)
    ):
        return False
    if identity.issuer in issuers_of(holder) or not identity.email or folded(identity.email) != folded(holder.email):
        return False
    return _proves_ownership(rules, holder.account, found, identity)


def is_gone(account: Account, found: Outcome) -> bool:
    """True when the bound *account* is not there any more, or another one stands under its key."""
    there = found.saved.get("id", "")
    return found.result is Result.NOT_FOUND or bool(account.id and there and there != account.id)


def _bound(rules: AccountRules, person: Person, wanted: Wanted, found: Outcome, account: Account) -> Verdict:
    if is_gone(account, found):
        return Verdict(account, Reason.ACCOUNT_GONE, "another account stands under the same key now")
    changes: list[Change] = []
    if account.deactivated:
        if Change.REACTIVATE not in rules.able:
            return Verdict(account, Reason.ACCOUNT_REFUSED, "it was deactivated, and there are no reactivate steps")
        changes.append(Change.REACTIVATE)
    elif found.saved.get("active", "").strip().lower() in _NO:
        return Verdict(account, Reason.ACCOUNT_REFUSED, "the application's own administrators switched it off")
    changed = frozenset(name for name, value in wanted.synced.items() if found.saved.get(name) != value)
    if changed and Change.UPDATE in rules.able:
        changes.append(Change.UPDATE)
    had = known_roles(found)
    if had is None and person.fingerprint:
        had = person.roles
    roles, added, removed = role_changes(rules, wanted, had)
    if (added or removed) and Change.SET_ROLES in rules.able:
        changes.append(Change.SET_ROLES)
    return Verdict(
        account=account,
        changes=tuple(changes),
        attributes=wanted.synced,
        changed=changed,
        had=had or (),
        roles=roles,
        added=added,
        removed=removed,
    )


def finish(rules: AccountRules, wanted: Wanted, created: Verdict, account: Account, found: Outcome) -> Verdict:
    """Decide what a just created *account* still needs: the roles that *found*, a look at it, does not show."""
    had = known_roles(found) or ()
    # Also create_only gives a new account its roles.
    at_birth = replace(rules, mode="authoritative") if rules.mode == "create_only" else rules
    roles, added, removed = role_changes(at_birth, wanted, had)
    is_needed = bool(added or removed) and Change.SET_ROLES in rules.able
    return Verdict(
        account=account,
        changes=(Change.SET_ROLES,) if is_needed else (),
        attributes=created.attributes,
        had=had,
        roles=roles,
        added=added,
        removed=removed,
    )


def _default(rules: AccountRules) -> tuple[str, ...]:
    return (rules.default,) if rules.default else ()


def known_roles(found: Outcome) -> tuple[str, ...] | None:
    """The roles that the application said the account has: ``roles`` (a JSON list, or commas) or ``role``.

    None when the lookup saves neither.
    """
    if "roles" not in found.saved:
        role = found.saved.get("role")
        return None if role is None else tuple(filter(None, [role.strip()]))
    text = found.saved["roles"].strip()
    try:
        parsed = json.loads(text) if text.startswith("[") else text.split(",")
    except ValueError:
        parsed = text.split(",")
    return tuple(dict.fromkeys(name for part in parsed if (name := str(part).strip())))


def role_changes(
    rules: AccountRules, wanted: Wanted, had: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(roles to have, added, removed) of an account that exists; *had* None when nobody knows its roles.

    Roles outside ``managed`` are never removed. Unknown groups and every mode but authoritative only ever add.
    """
    if rules.mode == "create_only":
        return (had or ()), (), ()
    may_remove = rules.mode == "authoritative" and wanted.knows_groups
    present = had or ()
    # Unknown roles may be any of the managed ones, and failing to take one away would leave a right behind.
    removable = [role for role in rules.managed if had is None or role in present] if may_remove else []
    target = set(wanted.roles)
    if not target and (may_remove or had == ()):
        target = set(_default(rules))
    removed = tuple(role for role in removable if role not in target)
    unmanaged = [role for role in present if role not in rules.managed]
    kept = {role for role in present if role in rules.managed and role not in removed}
    managed = [role for role in rules.managed if role in target | kept]
    extra = sorted(target - set(rules.managed) - set(unmanaged))
    roles = (*unmanaged, *managed, *extra)
    return roles, tuple(role for role in roles if role not in present), removed
