"""Say in words what a SAML answer holds, what is right with it and what is wrong; values of people are masked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from lxml import etree

from sidecar.faults import Refused
from sidecar.logins.saml.answer import ASSERTION, RESPONSE, Demand, Verified, guarded, verified
from sidecar.logins.saml.conditions import Expected, points
from sidecar.logins.saml.document import inflate, parse, text_of
from sidecar.logins.saml.encryption import opened
from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.screen import screen

_LIMIT = 1024 * 1024
_TIMES = ("IssueInstant", "NotBefore", "NotOnOrAfter", "AuthnInstant", "SessionNotOnOrAfter")


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that was looked at; ``is_right`` is None where nothing can be said without the configuration."""

    is_right: bool | None
    about: str
    says: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found: points in the order of the checks, and facts (what → values) that are not judged."""

    points: tuple[Point, ...]
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_right(self) -> bool:
        """True when nothing is wrong."""
        return all(point.is_right is not False for point in self.points)


def octets_of(text: bytes) -> bytes:
    """XML in *text*, which may be XML, base64 of it, packed or not, or the form or query that carried it.

    Raises ValueError.
    """
    text = text.strip()
    if text.startswith((b"<", b"\xef\xbb\xbf<")):
        return text
    plain = text.decode("ascii", "replace")
    if "SAMLResponse=" in plain:
        plain = parse_qs(plain.partition("?")[2] or plain).get("SAMLResponse", [""])[0]
    try:
        raw = base64.b64decode("".join(plain.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("neither XML nor base64") from None
    try:
        return raw if raw.lstrip().startswith(b"<") else inflate(raw, _LIMIT)
    except Refused as refused:
        raise ValueError(refused.detail) from None


def inspect(
    raw: bytes, demand: Demand | None = None, expected: Expected | None = None, *, show_values: bool = False
) -> Inspection:
    """Look at the Response in *raw*; with *demand* and *expected* also verify it, point by point."""
    try:
        root = parse(raw)
    except Refused as refused:
        return Inspection((_wrong("well-formed", refused),))
    found = [Point(is_right=True, about="well-formed")]
    facts = dict(_facts(root, show_values=show_values))
    weak = frozenset() if demand is None else demand.weak
    try:
        guarded(lambda: screen(root, RESPONSE, weak))
        found.append(Point(is_right=True, about="shape", says="nothing in an unusual place"))
    except Refused as refused:
        return Inspection((*found, _wrong("shape", refused)), facts)
    if demand is None or expected is None:
        found.append(Point(is_right=None, about="signature", says="give --login and a configuration to verify it"))
        return Inspection(tuple(found), facts)
    answer = _verify(raw, root, demand, found)
    if answer is not None:
        facts |= dict(_facts(answer.assertion, show_values=show_values))
        found.extend(_judge(about, check) for about, check in points(answer, expected))
    return Inspection(tuple(found), facts)


def _verify(raw: bytes, root: etree._Element, demand: Demand, found: list[Point]) -> Verified | None:
    """What to look at further: the signed bytes, or where they are not to be believed, what stands there."""
    try:
        answer = verified(raw, demand)
    except Refused as refused:
        found.append(_wrong("signature", refused))
    else:
        signed = "the response" if answer.response_is_signed else "the assertion"
        says = f"{signed} is signed with a key in the provider's metadata"
        found.append(Point(is_right=True, about="signature", says=says))
        return answer
    assertion, holder = root.find(ASSERTION), root.find(tag("a:EncryptedAssertion"))
    if holder is not None:
        try:
            assertion = guarded(lambda: opened(holder, demand.keys))
        except Refused as refused:
            found.append(_wrong("encryption", refused))
    return None if assertion is None else Verified(root, assertion, response_is_signed=False)


def _judge(about: str, check: object) -> Point:
    assert callable(check)  # noqa: S101 - conditions.points gives nothing else
    try:
        guarded(check)
    except Refused as refused:
        return _wrong(about, refused)
    return Point(is_right=True, about=about)


def _wrong(about: str, refused: Refused) -> Point:
    return Point(is_right=False, about=about, says=f"{refused.reason.value}: {refused.detail.removeprefix('SAML: ')}")


def _facts(root: etree._Element, *, show_values: bool) -> Iterator[tuple[str, str]]:
    """What stands in the message; whoever wrote it, it is only shown."""
    yield "message", etree.QName(root).localname
    for name in ("ID", "Destination", "InResponseTo"):
        if root.get(name):
            yield name, _printable(root.get(name))
    for path, name in (("a:Issuer", "Issuer"), ("a:Audience", "Audience"), ("a:AuthnContextClassRef", "AuthnContext")):
        texts = [_printable(text_of(element)) for element in root.iter(tag(path))]
        if texts:
            yield name, ", ".join(dict.fromkeys(texts))
    codes = [code.get("Value", "").rpartition(":")[2] for code in root.iter(tag("p:StatusCode"))]
    if codes:
        yield "Status", _printable(": ".join(codes))
    yield from _when_and_where(root)
    yield from _people(root, show_values=show_values)
    signed = [_holder(signature) for signature in root.iter(tag("d:Signature"))]
    yield "signed", ", ".join(signed) or "nothing"
    encrypted = [_holder(data) for data in root.iter(tag("x:EncryptedData"))]
    if encrypted:
        yield "encrypted", ", ".join(encrypted)
    methods = [
        element.get("Algorithm", "") for element in root.iter(tag("d:SignatureMethod"), tag("x:EncryptionMethod"))
    ]
    if methods:
        yield "algorithms", _printable(", ".join(dict.fromkeys(methods)))


def _when_and_where(root: etree._Element) -> Iterator[tuple[str, str]]:
    for name in _TIMES:
        times = [element.get(name) for element in root.iter(etree.Element) if element.get(name)]
        if times:
            yield name, _printable(", ".join(dict.fromkeys(times)))
    for data in root.iter(tag("a:SubjectConfirmationData")):
        yield "Recipient", _printable(data.get("Recipient", ""))


def _people(root: etree._Element, *, show_values: bool) -> Iterator[tuple[str, str]]:
    for name_id in root.iter(tag("a:NameID")):
        kind = name_id.get("Format", "no format").rpartition(":")[2]
        yield "NameID", f"{_masked(text_of(name_id), show_values=show_values)} ({_printable(kind)})"
    for statement in root.iter(tag("a:AuthnStatement")):
        if statement.get("SessionIndex"):
            yield "SessionIndex", _masked(statement.get("SessionIndex"), show_values=show_values)
    for attribute in root.iter(tag("a:Attribute")):
        values = [_masked(text_of(value), show_values=show_values) for value in attribute.iter(tag("a:AttributeValue"))]
        friendly = f" ({attribute.get('FriendlyName')})" if attribute.get("FriendlyName") else ""
        yield _printable(f"attribute {attribute.get('Name')}{friendly}"), ", ".join(values) or "no value"


def _holder(element: etree._Element) -> str:
    parent = element.getparent()
    return "" if parent is None else etree.QName(parent).localname


def _masked(text: str, *, show_values: bool) -> str:
    return _printable(text) if show_values else f"({len(text)} characters)"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:300]
