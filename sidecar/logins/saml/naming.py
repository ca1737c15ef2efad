"""Give people and their sessions at a SAML provider one unambiguous key each."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass

_QUALIFIED = "saml:"
TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"


@dataclass(frozen=True, slots=True)
class NameId:
    """A NameID (SAML 2.0 Core, section 2.2.3): what a provider calls somebody."""

    value: str
    format: str = ""
    qualifier: str = ""
    sp_qualifier: str = ""


def subject_of(name: NameId, provider: str, service: str) -> str:
    """Text key of *name*, as *provider* (entityID) gives it to *service* (our entityID).

    A qualifier that says what holds without it (Core, section 8.3.7) is left out; every other is part of the key, with
    its length before it, so that no two names share one. A name without qualifiers is its own key.
    """
    qualifier = "" if name.qualifier == provider else name.qualifier
    sp_qualifier = "" if name.sp_qualifier == service else name.sp_qualifier
    if not (qualifier or sp_qualifier or name.value.startswith(_QUALIFIED)):
        return name.value
    return f"{_QUALIFIED}{len(qualifier)}:{qualifier}{len(sp_qualifier)}:{sp_qualifier}{name.value}"


def issuer_of(provider: str) -> str:
    """``Identity.issuer`` of people whom *provider* (entityID) names.

    Some providers, Keycloak for one, call themselves the same in OpenID Connect. There a person's ``sub`` is theirs
    alone, while a NameID may be a name that somebody chose to be just that ``sub``: they must never be one key.
    """
    return f"saml:{provider}"


def session_key(subject: str, session_index: str) -> str:
    """``Session.sid`` of the provider's session *session_index* of the person that ``subject_of`` calls *subject*.

    A SessionIndex alone does not name a session: providers may give the same one to many people (Core, section 3.7.1).
    Without it ("") this is the key of a session that the provider did not number.
    """
    return f"{len(subject)}:{subject}{session_index}"


def write_handle(name: NameId, session_index: str) -> str:
    """Text for ``Grant.saml``: all that a LogoutRequest of ours must repeat."""
    return json.dumps([*astuple(name), session_index], separators=(",", ":"))


def read_handle(text: str) -> tuple[NameId, str]:
    """(name, SessionIndex or "") from what ``write_handle`` wrote."""
    *name, session_index = json.loads(text)
    return NameId(*name), session_index
