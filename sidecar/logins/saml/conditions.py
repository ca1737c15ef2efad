"""Check exactly who an answer is from, for whom, to which request, and when; each of it must be there.

SAML 2.0 Profiles, sections 4.1.4.2 and 4.1.4.3. Nothing is compared by beginning or by containing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from lxml import etree

from sidecar.faults import Refused
from sidecar.logins.saml.answer import Verified
from sidecar.logins.saml.document import text_of
from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.instants import ahead, past, read_instant
from sidecar.logins.saml.names import ENTITY_FORMAT
from sidecar.logins.saml.vocabulary import BEARER
from sidecar.reason import Reason

# An answer is made when it is sent: more is left for slow people between the two sites.
_OLDEST_ISSUE = 3600.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What the answer to one request must say; ``request`` is "" for an answer that nobody asked for.

    ``name_format`` is "" where the NameID may be of any.
    """

    provider: str
    service: str
    acs_url: str
    request: str
    now: float
    leeway: float
    oldest_login: float | None = None
    classes: frozenset[str] = frozenset()
    name_format: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """What the checks found: times in epoch seconds, ``session_ends`` 0.0 when the provider does not say."""

    auth_time: float
    acr: str
    session_index: str
    session_ends: float
    valid_until: float
    ids: tuple[str, str]


def check(answer: Verified, expected: Expected) -> Statement:
    """Check everything. Raises Refused with the reason in words."""
    _check_envelope(answer.response, expected, is_signed=answer.response_is_signed)
    assertion = answer.assertion
    if assertion.get("Version") != "2.0":
        raise _refused(Reason.TOKEN_CLAIM, "Version is not 2.0")
    _check_issuer(assertion, expected, "assertion")
    _check_issue(assertion, expected)
    until = min(_check_conditions(assertion, expected), _check_confirmation(assertion, expected))
    auth_time, acr, session_index, ends = _authentication(assertion, expected)
    ids = (_present(assertion, "ID"), _present(answer.response, "ID"))
    return Statement(auth_time, acr, session_index, ends, until + expected.leeway, ids)


def points(answer: Verified, expected: Expected) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each check by itself with what it is about: for somebody who wants to know everything that is wrong."""
    response, assertion = answer.response, answer.assertion
    for element, what in ((response, "response"), (assertion, "assertion")):
        if element is assertion or answer.response_is_signed or element.find(tag("a:Issuer")) is not None:
            yield f"issuer of the {what}", partial(_check_issuer, element, expected, what)
        yield f"time of the {what}", partial(_check_issue, element, expected)
    yield "destination", partial(_check_destination, response, expected)
    yield "audience and times of the conditions", partial(_check_conditions, assertion, expected)
    yield "recipient, request and time of the confirmation", partial(_check_confirmation, assertion, expected)
    yield "the sign-in at the provider", partial(_authentication, assertion, expected)
    name = assertion.find(f"{tag('a:Subject')}/{tag('a:NameID')}")
    if name is not None and expected.name_format:
        yield "format of the NameID", partial(check_name_format, str(name.get("Format", "")), expected)


def check_name_format(found: str, expected: Expected) -> None:
    """Core, section 3.4.1.1: the name is of the kind that was asked for, and of no other.

    People can change what their browser asks for, and a name of another kind may be one that they chose themselves.
    """
    if expected.name_format and found != expected.name_format:
        raise _refused(Reason.TOKEN_CLAIM, f"the NameID's Format is not {expected.name_format}", found or None)


def _check_envelope(response: etree._Element, expected: Expected, *, is_signed: bool) -> None:
    # Profiles, section 4.1.4.2: a response that is not signed may leave its issuer out.
    if is_signed or response.find(tag("a:Issuer")) is not None:
        _check_issuer(response, expected, "response")
    _check_issue(response, expected)
    _check_destination(response, expected)
    _check_request(response.get("InResponseTo"), expected, "InResponseTo of the response")


def _check_destination(response: etree._Element, expected: Expected) -> None:
    if response.get("Destination") != expected.acs_url:
        raise _refused(Reason.TOKEN_AUDIENCE, f"Destination is not {expected.acs_url}", response.get("Destination"))


def _check_issuer(element: etree._Element, expected: Expected, what: str) -> None:
    issuer = element.find(tag("a:Issuer"))
    if issuer is None:
        raise _refused(Reason.TOKEN_ISSUER, f"no Issuer of the {what}")
    if text_of(issuer) != expected.provider or issuer.get("Format", ENTITY_FORMAT) != ENTITY_FORMAT:
        raise _refused(Reason.TOKEN_ISSUER, f"Issuer of the {what} is not {expected.provider}", text_of(issuer))


def _check_issue(element: etree._Element, expected: Expected) -> None:
    issued = read_instant(_present(element, "IssueInstant"), "IssueInstant")
    if issued > expected.now + expected.leeway:
        raise _refused(Reason.TOKEN_TIME, ahead("IssueInstant", issued, expected.now))
    if issued < expected.now - _OLDEST_ISSUE - expected.leeway:
        raise _refused(Reason.TOKEN_EXPIRED, past("IssueInstant", issued, expected.now))


def _check_request(found: str | None, expected: Expected, what: str) -> None:
    if expected.request:
        if found != expected.request:
            raise _refused(Reason.TOKEN_NONCE, f"{what} names another request, or none")
    elif found is not None:
        # Somebody's answer to a real request, brought as if nobody had asked.
        raise _refused(Reason.TOKEN_NONCE, f"{what} names a request, and this sign-in began at the provider")


def _check_conditions(assertion: etree._Element, expected: Expected) -> float:
    """Core, section 2.5; every restriction must name us. Returns when the assertion ends."""
    conditions = _only(assertion, "a:Conditions")
    restrictions = conditions.findall(tag("a:AudienceRestriction"))
    if not restrictions:
        raise _refused(Reason.TOKEN_AUDIENCE, "no AudienceRestriction")
    for restriction in restrictions:
        audiences = [text_of(audience) for audience in restriction.findall(tag("a:Audience"))]
        if expected.service not in audiences:
            raise _refused(Reason.TOKEN_AUDIENCE, f"Audience is not {expected.service}", ", ".join(audiences[:3]))
    return _check_window(conditions, expected, "Conditions")


def _check_window(element: etree._Element, expected: Expected, what: str) -> float:
    begins, ends = element.get("NotBefore"), element.get("NotOnOrAfter")
    since = 0.0 if begins is None else read_instant(begins, f"NotBefore of {what}")
    if since > expected.now + expected.leeway:
        raise _refused(Reason.TOKEN_TIME, ahead(f"NotBefore of {what}", since, expected.now))
    if ends is None:
        raise _refused(Reason.TOKEN_TIME, f"no NotOnOrAfter in {what}")
    until = read_instant(ends, f"NotOnOrAfter of {what}")
    if until + expected.leeway <= expected.now:
        raise _refused(Reason.TOKEN_EXPIRED, past(f"NotOnOrAfter of {what}", until, expected.now))
    return until


def _check_confirmation(assertion: etree._Element, expected: Expected) -> float:
    """Profiles, section 4.1.4.3: one bearer confirmation that fits in every respect."""
    subject = _only(assertion, "a:Subject")
    bearers = [one for one in subject.findall(tag("a:SubjectConfirmation")) if one.get("Method") == BEARER]
    problem = _refused(Reason.TOKEN_CLAIM, "no bearer SubjectConfirmation")
    for bearer in bearers:
        try:
            return _confirmed(bearer, expected)
        except Refused as refused:
            problem = refused
    raise problem


def _confirmed(confirmation: etree._Element, expected: Expected) -> float:
    confirmed = _only(confirmation, "a:SubjectConfirmationData")
    if confirmed.get("Recipient") != expected.acs_url:
        raise _refused(Reason.TOKEN_AUDIENCE, f"Recipient is not {expected.acs_url}", confirmed.get("Recipient"))
    _check_request(confirmed.get("InResponseTo"), expected, "InResponseTo of the confirmation")
    return _check_window(confirmed, expected, "SubjectConfirmationData")


def _authentication(assertion: etree._Element, expected: Expected) -> tuple[float, str, str, float]:
    """(time, class, SessionIndex, end of the session) of the one AuthnStatement."""
    statement = _only(assertion, "a:AuthnStatement")
    at = read_instant(_present(statement, "AuthnInstant"), "AuthnInstant")
    if at > expected.now + expected.leeway:
        raise _refused(Reason.TOKEN_TIME, ahead("AuthnInstant", at, expected.now))
    if expected.oldest_login is not None and at < expected.oldest_login - expected.leeway:
        raise _refused(Reason.TOKEN_TIME, "AuthnInstant is older than what was asked for")
    reference = _only(statement, "a:AuthnContext").find(tag("a:AuthnContextClassRef"))
    acr = "" if reference is None else text_of(reference)
    if expected.classes and acr not in expected.classes:
        raise _refused(Reason.TOKEN_CLAIM, "AuthnContextClassRef is none of those asked for", acr)
    ends = statement.get("SessionNotOnOrAfter")
    session_ends = 0.0 if ends is None else read_instant(ends, "SessionNotOnOrAfter")
    if ends is not None and session_ends <= expected.now:
        raise _refused(Reason.TOKEN_EXPIRED, past("SessionNotOnOrAfter", session_ends, expected.now))
    return at, acr, str(statement.get("SessionIndex", "")), session_ends


def _only(parent: etree._Element, name: str) -> etree._Element:
    found = parent.findall(tag(name))
    if len(found) != 1:
        raise _refused(Reason.TOKEN_CLAIM, f"{len(found)} of {name.partition(':')[2]}")
    return found[0]


def _present(element: etree._Element, name: str) -> str:
    value = element.get(name)
    if not value:
        raise _refused(Reason.TOKEN_CLAIM, f"no {name}")
    return str(value)


def _refused(reason: Reason, detail: str, found: str | None = "") -> Refused:
    """*found* is what came instead: it helps the operator, and is neither secret nor long."""
    shown = "" if found == "" else " (missing)" if found is None else f" ({found[:200]!r})"
    return Refused(reason, 403, f"SAML: {detail}{shown}")
