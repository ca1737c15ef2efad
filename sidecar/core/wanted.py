"""Work out what a person's account shall be like: its key, its attributes and its managed roles."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sidecar.core.conditions import user_of
from sidecar.core.template import MissingValueError, Template, TemplateError
from sidecar.faults import Refused
from sidecar.model import Account, Change, Identity, Person
from sidecar.reason import Reason

_LONGEST_KEY = 255
_UNSEEN = frozenset(["Cc", "Cf", "Cs"])
_IGNORED = frozenset(["Mn", "Mc", "Me", "Cf"])
# Letters that have no decomposition and yet are plain ones to a collation; the last two are fillers that show nothing.
_STROKES = str.maketrans({"\u0131": "i", "ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ŧ": "t", "\u115f": "", "\u1160": ""})


@dataclass(frozen=True, slots=True)
class AttributeRule:
    """One attribute: ``sync`` says whether it is written when creating, at every sign-in, or never (only required)."""

    value: Template
    required: bool = False
    sync: Literal["create", "login", "never"] = "login"


@dataclass(frozen=True, slots=True)
class AccountRules:
    """The ``provision`` section as far as decisions go.

    ``domains`` are, by login, the e-mail domains that it may speak for; ``able`` the changes that there are steps for.
    """

    key: Template
    protected: frozenset[str] = frozenset()
    may_link: bool = False
    may_join: bool = False
    domains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attributes: Mapping[str, AttributeRule] = field(default_factory=dict)
    mode: Literal["create_only", "additive", "authoritative"] = "authoritative"
    managed: tuple[str, ...] = ()
    default: str | None = None
    able: frozenset[Change] = frozenset()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person's account shall be like.

    ``written`` are the attributes of a new account, ``synced`` those kept true afterwards. ``roles`` are the managed
    roles in the order of the configuration; ``knows_groups`` False means that some may be missing only because the
    provider did not say.
    """

    key: str
    written: Mapping[str, str] = field(default_factory=dict)
    synced: Mapping[str, str] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    knows_groups: bool = True


def folded(text: str) -> str:
    """*text* as account keys are compared: without regard to case and to compatibility forms of Unicode."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def is_protected(rules: AccountRules, key: str) -> bool:
    """True for a protected key in every spelling that the loosest application could take for it."""
    return _base(key) in {_base(name) for name in rules.protected}


def _base(text: str) -> str:
    """*text* as databases compare it that ignore accents, fillers and spaces at the end (``ádmin`` is ``admin``)."""
    parts = unicodedata.normalize("NFKD", folded(text)).translate(_STROKES)
    return "".join(part for part in parts if unicodedata.category(part) not in _IGNORED).rstrip()


def account_key(rules: AccountRules, context: Mapping[str, Any]) -> str:
    """Evaluate the key in its one canonical form. Raises Refused(ACCOUNT_ATTRIBUTE) when there is no usable one."""
    try:
        key = unicodedata.normalize("NFC", rules.key.text(context)).strip()
    except TemplateError as error:
        raise Refused(Reason.ACCOUNT_ATTRIBUTE, 403, f"account.key: {error}") from None
    if not key or len(key) > _LONGEST_KEY or any(unicodedata.category(letter) in _UNSEEN for letter in key):
        raise Refused(Reason.ACCOUNT_ATTRIBUTE, 403, "account.key is empty, too long or has control characters")
    return key


def want(rules: AccountRules, identity: Identity, roles: Iterable[str]) -> Wanted:
    """Work out what the account of *identity* with the effective *roles* shall be like.

    Raises Refused(ACCOUNT_ATTRIBUTE) when the key or a required attribute is missing.
    """
    effective = tuple(roles)
    context = {
        "user": user_of(identity),
        "groups": list(identity.groups or ()),
        "claims": dict(identity.claims),
        "roles": list(effective),
    }
    key = account_key(rules, context)
    values = {name: _attribute(name, rule, context) for name, rule in rules.attributes.items()}
    known = {name: value for name, value in values.items() if value is not None}
    return Wanted(
        key=key,
        written={name: value for name, value in known.items() if rules.attributes[name].sync != "never"},
        synced={name: value for name, value in known.items() if rules.attributes[name].sync == "login"},
        roles=tuple(role for role in rules.managed if role in effective),
        knows_groups=identity.groups is not None,
    )


def _attribute(name: str, rule: AttributeRule, context: Mapping[str, Any]) -> str | None:
    """Text of the attribute; None when the provider did not say, so that it is left as it is."""
    try:
        value = rule.value.text(context)
    except MissingValueError:
        value = None
    except TemplateError as error:
        raise Refused(Reason.ACCOUNT_ATTRIBUTE, 403, f"attributes.{name}: {error}") from None
    if rule.required and not value:
        raise Refused(Reason.ACCOUNT_ATTRIBUTE, 403, f"attributes.{name} is required")
    return value


def target_of(person: Person | None, wanted: Wanted) -> Account:
    """The account to look up: the stored binding first, then the one whose creation was begun, then the key."""
    if person is not None and person.account is not None:
        return person.account
    return Account(person.reserved if person is not None and person.reserved else wanted.key)


def identity_of(person: Person) -> Identity:
    """What is known of a person who is not here: their first identity, under the names that they last had."""
    issuer, subject = "", ""
    if person.identities:
        issuer, rest = _netstring(person.identities[0])
        subject, _ = _netstring(rest)
    return Identity(person.source, issuer, subject, person.username, person.email, person.name)


def issuers_of(person: Person) -> frozenset[str]:
    """Who vouches for this person."""
    return frozenset(_netstring(key)[0] for key in person.identities)


def _netstring(text: str) -> tuple[str, str]:
    length, _, rest = text.partition(":")
    return rest[: int(length)], rest[int(length) :]
