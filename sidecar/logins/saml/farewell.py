"""Write and read the messages of single logout (SAML 2.0 Profiles, section 4.4)."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from sidecar.faults import Refused
from sidecar.logins.saml.attributes import name_in
from sidecar.logins.saml.document import text_of
from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.instants import ahead, past, read_instant, write_instant
from sidecar.logins.saml.names import ENTITY_FORMAT, PARTIAL_LOGOUT, SUCCESS
from sidecar.logins.saml.naming import NameId, session_key, subject_of
from sidecar.logins.saml.parties import IdentityProvider, ServiceProvider
from sidecar.logins.saml.request import message
from sidecar.reason import Reason

REQUEST, ANSWER = tag("p:LogoutRequest"), tag("p:LogoutResponse")
_LIFETIME = 300.0
_MOST_SESSIONS = 50


@dataclass(frozen=True, slots=True)
class Terms:
    """What a message about signing out is held to."""

    provider: IdentityProvider
    service: ServiceProvider
    now: float
    leeway: float


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A LogoutRequest that was checked: whose sessions, all of them when ``sids`` is empty; used up until ``until``."""

    message_id: str
    until: float
    alias: str
    sids: tuple[str, ...]


def ask_to_end(terms: Terms, message_id: str, destination: str, name: NameId, session_index: str) -> etree._Element:
    """Our LogoutRequest (Core, section 3.7.1), unsigned as yet."""
    root = message("LogoutRequest", message_id, terms.now, terms.service.entity_id, destination)
    root.set("NotOnOrAfter", write_instant(terms.now + _LIFETIME))
    element = etree.SubElement(root, tag("a:NameID"))
    qualities = {"Format": name.format, "NameQualifier": name.qualifier, "SPNameQualifier": name.sp_qualifier}
    for key, value in qualities.items():
        if value:
            element.set(key, value)
    element.text = name.value
    if session_index:
        etree.SubElement(root, tag("p:SessionIndex")).text = session_index
    return root


def say_ended(terms: Terms, message_id: str, destination: str, in_response_to: str) -> etree._Element:
    """Our LogoutResponse (Core, section 3.7.2), unsigned as yet: what was asked for has been done."""
    root = message("LogoutResponse", message_id, terms.now, terms.service.entity_id, destination)
    root.set("InResponseTo", in_response_to)
    status = etree.SubElement(root, tag("p:Status"))
    etree.SubElement(status, tag("p:StatusCode"), Value=SUCCESS)
    return root


def read_request(root: etree._Element, terms: Terms, weak: frozenset[str]) -> Goodbye:
    """Check the provider's LogoutRequest, whose signature is verified. Raises Refused."""
    issued = _check_envelope(root, terms)
    until = issued + _LIFETIME + terms.leeway
    ends = root.get("NotOnOrAfter")
    if ends is not None:
        ends_at = read_instant(ends, "NotOnOrAfter")
        if ends_at + terms.leeway <= terms.now:
            raise _refused(Reason.TOKEN_EXPIRED, past("NotOnOrAfter", ends_at, terms.now))
        # Bounded: how long it is remembered must not be the sender's to choose.
        until = min(until, ends_at + terms.leeway)
    name = name_in(root, terms.service.keys, weak)
    if name is None:
        raise _refused(Reason.TOKEN_CLAIM, "no NameID")
    alias = subject_of(name, terms.provider.entity_id, terms.service.entity_id)
    indexes = [text_of(element) for element in root.findall(tag("p:SessionIndex"))]
    if len(indexes) > _MOST_SESSIONS:
        raise _refused(Reason.TOKEN_CLAIM, f"more than {_MOST_SESSIONS} SessionIndex")
    if not all(indexes):
        # Read as "no index" it would end more than was asked for.
        raise _refused(Reason.TOKEN_CLAIM, "an empty SessionIndex")
    # A session that the provider never numbered may be any of those that it names.
    named = [*indexes, ""] if indexes else []
    return Goodbye(_present(root, "ID"), until, alias, tuple(session_key(alias, index) for index in named))


def read_answer(root: etree._Element, terms: Terms, in_response_to: str) -> bool:
    """Check the provider's LogoutResponse, whose signature is verified: True when everything ended. Raises Refused.

    False: a partial logout, somewhere else a session goes on.
    """
    _check_envelope(root, terms)
    if root.get("InResponseTo") != in_response_to:
        raise _refused(Reason.TOKEN_NONCE, "InResponseTo names another request, or none")
    codes = [str(code.get("Value", "")) for code in root.iter(tag("p:StatusCode"))]
    if not codes:
        raise _refused(Reason.TOKEN_CLAIM, "no status")
    if codes[0] != SUCCESS and PARTIAL_LOGOUT not in codes:
        said = ": ".join(code.rpartition(":")[2][:60] for code in codes[:2])
        raise Refused(Reason.LOGIN_PROVIDER_ERROR, 403, f"SAML: {said!a}")
    return codes == [SUCCESS]


def _check_envelope(root: etree._Element, terms: Terms) -> float:
    """Exactly this provider, to exactly this address, just now; when it was issued."""
    if root.get("Version") != "2.0":
        raise _refused(Reason.TOKEN_CLAIM, "Version is not 2.0")
    issuer = root.find(tag("a:Issuer"))
    if issuer is None or issuer.get("Format", ENTITY_FORMAT) != ENTITY_FORMAT:
        raise _refused(Reason.TOKEN_ISSUER, "no Issuer")
    if text_of(issuer) != terms.provider.entity_id:
        raise _refused(Reason.TOKEN_ISSUER, f"Issuer is not {terms.provider.entity_id}")
    if root.get("Destination") != terms.service.slo_url:
        raise _refused(Reason.TOKEN_AUDIENCE, f"Destination is not {terms.service.slo_url}")
    issued = read_instant(_present(root, "IssueInstant"), "IssueInstant")
    if issued > terms.now + terms.leeway:
        raise _refused(Reason.TOKEN_TIME, ahead("IssueInstant", issued, terms.now))
    if issued + _LIFETIME + terms.leeway <= terms.now:
        raise _refused(Reason.TOKEN_EXPIRED, past("IssueInstant", issued, terms.now))
    return issued


def _present(root: etree._Element, name: str) -> str:
    value = root.get(name)
    if not value:
        raise _refused(Reason.TOKEN_CLAIM, f"no {name}")
    return str(value)


def _refused(reason: Reason, detail: str) -> Refused:
    return Refused(reason, 403, f"SAML: {detail}")
