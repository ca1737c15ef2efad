"""Each layer of reading a SAML answer by itself: several hold the same attack, and none may rest on the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from lxml import etree

from sidecar.faults import Refused
from sidecar.logins.saml import answer, signatures
from sidecar.logins.saml.answer import ASSERTION, RESPONSE, Demand, verified
from sidecar.logins.saml.document import parse
from sidecar.logins.saml.encryption import opened
from sidecar.logins.saml.grammar import CHILDREN, KEY_INFO, tag
from sidecar.logins.saml.screen import screen
from sidecar.logins.saml.second_opinion import agrees
from sidecar.logins.saml.signatures import signed_part
from sidecar.reason import Reason
from tests.saml_forger import NS, pair, recipe
from tests.saml_wrapping import KINDS, NOT_FOR_XMLSEC, VARIANTS, careless, wrapped

ONE, STRANGER = (pair().certificate,), (pair("stranger").certificate,)
OURS = pair("ours")
SIGNS = [("assertion",), ("response",), ("assertion", "response")]


def say_yes(*_: Any) -> bool:
    return True


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own reading without the second opinion."""
    monkeypatch.setattr(answer, "agrees", say_yes)


def detail(call: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.detail


# Bounds, before anything is parsed and after


def test_tags_are_counted_before_parsing() -> None:
    # It is not well-formed either, which a parser would have said.
    assert "too many" in detail(lambda: parse(b"<a>" + b"<b/>" * 9000))
    assert "too many" in detail(lambda: parse(b"<a " + b'xmlns:b="b" ' * 500))


def test_elements_attributes_and_levels_are_counted_after_parsing() -> None:
    assert "too many elements" in detail(lambda: parse(b"<a>" + b"<b/>" * 5000 + b"</a>"))
    assert "too many attributes" in detail(lambda: parse(b"<a %s/>" % b" ".join(b'a%d=""' % n for n in range(30))))
    assert "too deeply" in detail(lambda: parse(b"<a>" * 25 + b"</a>" * 25))
    assert parse(b"<a>" * 23 + b"</a>" * 23) is not None


# The screen


def test_good_answers_pass_the_screen() -> None:
    for signs in SIGNS:
        screen(parse(recipe(signs=signs).raw()), RESPONSE)
    screen(parse(recipe(encrypt=(OURS, None, None)).raw()), RESPONSE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_t35_the_screen_alone_stops_every_wrapping(kind: str, variant: str) -> None:
    raw = wrapped(recipe(signs=(kind,)).build(), kind, variant)
    with pytest.raises(Refused):
        screen(parse(raw), RESPONSE)


PLACES = sorted(
    {*CHILDREN, *KEY_INFO, tag("a:Audience"), tag("a:NameID"), tag("d:SignatureValue"), tag("d:X509Certificate")}
)


@pytest.mark.parametrize("strange", ["{urn:x}y", tag("a:Assertion"), tag("d:Object"), tag("x:EncryptedData"), "plain"])
def test_a_strange_element_is_refused_wherever_it_stands(strange: str) -> None:
    foreign = {tag("p:Extensions"), tag("p:StatusDetail"), tag("a:AttributeValue")}
    seen = set()
    for made in (recipe(signs=("assertion", "response")), recipe(signs=("response",), encrypt=(OURS, None, None))):
        number = len(list(made.build().iter()))
        for place in range(number):
            root = parse(made.raw())
            element = list(root.iter())[place]
            if element.tag in foreign and strange in ("{urn:x}y", "plain"):
                continue
            seen.add(element.tag)
            etree.SubElement(element, strange)
            with pytest.raises(Refused):
                screen(root, RESPONSE)
    assert len(seen) > 30


def test_what_may_stand_once_is_refused_twice() -> None:
    may_repeat = {
        tag(name)
        for name in ("a:Attribute", "a:AttributeValue", "d:X509Certificate", "a:SubjectConfirmation", "d:X509Data")
    } | {tag("a:AudienceRestriction"), tag("a:Audience"), tag("a:AttributeStatement")}
    number = len(list(recipe(signs=("assertion", "response")).build().iter()))
    for place in range(1, number):
        root = parse(recipe(signs=("assertion", "response")).raw())
        element = list(root.iter())[place]
        if element.tag in may_repeat:
            continue
        twin = parse(etree.tostring(element, with_tail=False))
        for one in twin.iter():
            one.attrib.pop("ID", None)
        element.addnext(twin)
        with pytest.raises(Refused):
            screen(root, RESPONSE)


# Signatures


def test_a_stranger_s_signature_is_refused_by_the_verification_alone() -> None:
    element = parse(recipe(signs=("response",)).raw())
    assert "fits no key" in detail(lambda: signed_part(element, STRANGER))
    assert "fits no key" in detail(lambda: signed_part(element, ()))
    assert signed_part(element, (*STRANGER, *ONE)) is not None


def test_t39_a_digest_that_does_not_fit_is_refused_by_the_digest_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "_is_signed_with", say_yes)
    element = parse(recipe(signs=("response",)).raw().replace(b"8f14e45f-ada", b"8f14e45f-bob"))
    assert "digest does not fit" in detail(lambda: signed_part(element, ONE))


def test_what_is_handed_on_holds_nothing_but_what_was_signed() -> None:
    root = parse(recipe().raw())
    element = root.find("saml:Assertion", NS)
    part = signed_part(element, ONE)
    assert part.getroottree().getroot() is part
    assert part.find("ds:Signature", NS) is None
    assert etree.tostring(part, method="c14n", exclusive=True) == etree.tostring(part, method="c14n")
    # Later changes to what came in do not reach it.
    element.find(".//saml:NameID", NS).text = "mallory"
    assert part.find(".//saml:NameID", NS).text == "8f14e45f-ada"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("signs", [(), ("neither",)])
def test_our_own_reading_alone_wants_a_signature(signs: tuple[str, ...]) -> None:
    assert "neither" in detail(lambda: verified(recipe(signs=signs).raw(), Demand(ONE)))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - NOT_FOR_XMLSEC))
def test_t35_without_the_screen_wrapped_answers_still_say_nothing_that_was_not_signed(
    kind: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "screen", lambda *_: None)
    raw = wrapped(recipe(signs=(kind,)).build(), kind, variant)
    assert careless(raw) == "mallory"
    try:
        found = verified(raw, Demand(ONE))
    except Refused:
        return
    assert found.assertion.find("saml:Subject/saml:NameID", NS).text == "8f14e45f-ada"


# Encryption


def test_what_was_decrypted_is_screened_again(alone: None) -> None:
    def add(root: Any) -> None:
        etree.SubElement(root.find("saml:Assertion", NS), tag("a:Advice"))

    made = recipe(before=(add,), encrypt=(OURS, None, None))
    said = detail(lambda: verified(made.raw(), Demand(ONE, (OURS,))))
    assert said.startswith("SAML: the encrypted assertion:")
    assert "Advice" in said


@pytest.mark.parametrize(
    "inside",
    [
        b"</context><a/>",
        b"<a/><b/>",
        b"text",
        b"",
        b"<!DOCTYPE a><a/>",
        b"<a>&b;</a>",
        b"<?xml version='1.0'?><a/>",
        b"<a/>x",
    ],
)
def test_plain_text_that_is_not_one_element_is_refused(inside: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.logins.saml.encryption._decrypted", lambda *_: inside)
    with pytest.raises(Refused):
        opened(parse(b"<holder/>"), (OURS,))


def test_prefixes_known_outside_are_known_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.logins.saml.encryption._decrypted", lambda *_: b"<s:Assertion/>")
    holder = parse(b'<s:Holder xmlns:s="urn:oasis:names:tc:SAML:2.0:assertion" xmlns="urn:y"/>')
    assert opened(holder, (OURS,)).tag == ASSERTION


# The second opinion


@pytest.mark.parametrize("signs", SIGNS)
def test_python3_saml_accepts_what_is_good_and_nothing_else(signs: tuple[str, ...]) -> None:
    raw = recipe(signs=signs).raw()
    assert agrees(raw, ONE, ())
    assert not agrees(raw, STRANGER, ())
    assert not agrees(raw.replace(b"8f14e45f-ada", b"8f14e45f-bob"), ONE, ())
    assert not agrees(b"<a/>", ONE, ())


def test_python3_saml_is_asked_with_each_of_our_keys() -> None:
    raw = recipe(encrypt=(OURS, None, None)).raw()
    assert agrees(raw, ONE, (pair("new"), OURS))
    assert not agrees(raw, ONE, (pair("new"),))


def test_an_answer_that_python3_saml_does_not_accept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "agrees", lambda *_: False)
    assert "python3-saml" in detail(lambda: verified(recipe().raw(), Demand(ONE)))


def test_a_stranger_s_document_never_reaches_python3_saml(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(answer, "agrees", lambda *call: asked.append(call))
    for made in (recipe(key=pair("stranger")), recipe(signs=())):
        detail(lambda made=made: verified(made.raw(), Demand(ONE)))  # type: ignore[misc]
    assert asked == []


# Whatever goes wrong


@pytest.mark.parametrize(
    "error", [ValueError("x"), RecursionError(), MemoryError(), KeyError("x"), etree.LxmlError("x")]
)
def test_whatever_parsers_and_libraries_raise_is_a_refusal(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(answer, "screen", fail)
    with pytest.raises(Refused) as caught:
        verified(recipe().raw(), Demand(ONE))
    assert caught.value.reason is Reason.LOGIN_ANSWER_INVALID


async def test_many_answers_at_once_in_threads_are_told_apart() -> None:
    names = [f"person-{number}" for number in range(24)]
    raws = [recipe(name_id=name, signs=SIGNS[number % 3]).raw() for number, name in enumerate(names)]
    found = await asyncio.gather(*(asyncio.to_thread(verified, raw, Demand(ONE)) for raw in raws))
    assert [one.assertion.find("saml:Subject/saml:NameID", NS).text for one in found] == names
