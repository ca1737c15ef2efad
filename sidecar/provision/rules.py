"""Read the ``provision`` section once: the rules to decide by, and digests that tell when something changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from sidecar.config.provision import Provision
from sidecar.config.values import Secret
from sidecar.core.template import Template
from sidecar.core.wanted import AccountRules, AttributeRule, Wanted, folded
from sidecar.hooks.order import Hook
from sidecar.model import Change

# A new password of the service account, or more patience, changes nothing about anybody's account.
_WITHOUT_MEANING = frozenset(["connections", "on_error", "wait", "outbox", "delete", "deactivate", "reactivate"])


def rules_of(section: Provision, hook: Hook, domains: Mapping[str, tuple[str, ...]]) -> AccountRules:
    """Rules of *section*; *domains* are the e-mail domains that each login may speak for."""
    attributes = {
        name: AttributeRule(attribute.value, attribute.required, attribute.sync)
        for name, attribute in section.attributes.items()
    }
    return AccountRules(
        key=section.account.key,
        protected=frozenset(folded(key) for key in section.account.protected),
        may_link=section.account.existing == "link_verified",
        may_join=section.account.other_login == "join_verified",
        domains=domains,
        attributes=attributes,
        mode=section.roles.mode,
        managed=section.roles.managed,
        default=section.roles.default,
        able=frozenset(change for change in Change if hook.has(change)),
    )


def section_digest(section: Provision) -> str:
    """Digest of everything in *section* that shapes accounts; without secrets."""
    plain = {
        name: _plain(getattr(section, name)) for name in type(section).model_fields if name not in _WITHOUT_MEANING
    }
    return _digest(plain)


def fingerprint_of(wanted: Wanted, digest: str) -> str:
    """Digest of what an account was last made to be, by which rules: while it stays the same there is nothing to do."""
    return _digest(
        {
            "key": wanted.key,
            "attributes": dict(wanted.synced),
            "roles": wanted.roles,
            "knows_groups": wanted.knows_groups,
            "section": digest,
        }
    )


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Template):
        return value.source
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Secret):
        return None
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
