"""Work out what a signed-in person is to this configuration: standing and header values, once per session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.core.conditions import facts_of, user_of
from sidecar.core.headers import Line, encode_basic, encode_value
from sidecar.core.policy import Standing
from sidecar.core.scopes import scope_of
from sidecar.core.template import MissingValueError, Template, TemplateError
from sidecar.faults import Refused
from sidecar.model import Account, Session
from sidecar.reason import Reason


@dataclass(frozen=True, slots=True)
class HeaderTemplate:
    """One header to inject. With ``password`` it is a Basic credential (RFC 7617), and ``value`` the user name in it.

    A password that is text stands in the configuration as a secret; one that is a template is made for each person.
    """

    name: str
    value: Template
    encoding: str = "utf-8"
    limit: int = 8192
    password: Template | str | None = None


def standing_of(session: Session, via: str, roles: tuple[str, ...]) -> Standing:
    """What rules see of the caller behind *session*, who came in *via* (see Standing) and has *roles*."""
    identity = session.identity
    return Standing(
        login=session.provider,
        via=via,
        roles=frozenset(roles),
        groups=None if identity.groups is None else frozenset(identity.groups),
        auth_time=session.auth_time,
        acr=session.acr,
        amr=frozenset(session.amr),
        facts=facts_of(identity, roles),
        scope=scope_of(session.scope) if session.scope else None,
    )


def header_context(session: Session, roles: Sequence[str], account: Account | None) -> dict[str, Any]:
    """The names that header and assertion templates may use."""
    identity = session.identity
    known = account or Account(key="")
    return {
        "user": user_of(identity),
        "groups": list(identity.groups or ()),
        "claims": dict(identity.claims),
        "roles": list(roles),
        "account": {"key": known.key, "id": known.id, **known.outputs},
        "session": {
            "id": session.id,
            "provider": identity.provider,
            "acr": session.acr,
            "amr": list(session.amr),
            "issuer": identity.issuer,
        },
    }


def header_lines(templates: Sequence[HeaderTemplate], context: Mapping[str, Any]) -> tuple[Line, ...]:
    """Evaluate the headers for one person. A header whose value is missing or empty is left out.

    Raises Refused(HEADER_VALUE) for values that cannot stand in a header.
    """
    lines = []
    for header in templates:
        try:
            text = _value(header, context)
        except MissingValueError:
            continue
        except TemplateError as error:
            raise Refused(Reason.HEADER_VALUE, 403, f"{header.name}: {error}") from None
        if text:
            lines.append((header.name, text))
    return tuple(lines)


def _value(header: HeaderTemplate, context: Mapping[str, Any]) -> str:
    """Value of one header, "" when there is none."""
    text = header.value.text(context)
    if header.password is None:
        return encode_value(header.name, text, header.encoding, header.limit) if text else ""
    password = header.password if isinstance(header.password, str) else header.password.text(context)
    return encode_basic(header.name, text, password, header.limit) if text and password else ""
