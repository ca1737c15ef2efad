"""Attacks T35 to T49: forged answers, genuinely signed where that helps them, posted to the running sidecar."""

from __future__ import annotations

import base64
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import xmlsec
from lxml import etree

from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.parties import KeyPair
from tests.saml_forger import (
    NS,
    Change,
    encrypt,
    forged,
    instant,
    pair,
    provider,
    recipe,
    resign,
    sign,
)
from tests.saml_world import SamlWorld, start
from tests.saml_wrapping import KINDS, NOT_FOR_XMLSEC, VARIANTS, careless, wrapped
from tests.world import World


@pytest.fixture
async def partners(world: World, monkeypatch: pytest.MonkeyPatch) -> SamlWorld:
    """A sidecar with one SAML login, with the defaults that operators get."""
    return await start(world, monkeypatch)


def written(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Key pairs of ours as the configuration names them."""
    lines = []
    for name in names:
        (folder / f"{name}.pem").write_text(pair(name).certificate)
        (folder / f"{name}.key").write_text(pair(name).key)
        lines.append({"certificate": str(folder / f"{name}.pem"), "key": {"file": str(folder / f"{name}.key")}})
    return lines


def text_of(root: Any) -> str:
    return base64.b64encode(etree.tostring(root, encoding="utf-8")).decode()


def at(path: str, change: Callable[[Any], Any]) -> Change:
    """A change of the one element at *path*."""

    def apply(root: Any) -> None:
        [found] = root.findall(path, NS)
        change(found)

    return apply


def gone(path: str) -> Change:
    return at(path, lambda element: element.getparent().remove(element))


def attribute(path: str, name: str, value: str | None) -> Change:
    """Set or remove an attribute of the element at *path* ("." is the response)."""

    def apply(root: Any) -> None:
        element = root if path == "." else root.find(path, NS)
        if value is None:
            del element.attrib[name]
        else:
            element.set(name, value)

    return apply


def content(path: str, text: str) -> Change:
    def apply(element: Any) -> None:
        element.text = text

    return at(path, apply)


async def test_a_good_answer_signs_in(partners: SamlWorld) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser, "/admin/page")
        answer = await partners.bring(browser, partners.recipe(begun).text(), begun.relay_state)
        assert (answer.status, answer.headers["Location"]) == (302, "/admin/page")
        assert (await browser.page("/admin/page")).status == 200
    seen = partners.running.application.seen[-1]
    assert seen.values("X-App-User") == ["ada@partner.example"]
    assert seen.values("X-App-Email") == ["ada@partner.example"]
    assert seen.values("X-App-Roles") == ["admin,reader"]


# T35


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - NOT_FOR_XMLSEC))
def test_the_wrapped_answers_fool_a_careless_reader(kind: str, variant: str) -> None:
    assert careless(wrapped(recipe(signs=(kind,)).build(), kind, variant)) == "mallory"


@pytest.mark.parametrize("kind", KINDS)
async def test_t35_signature_wrapping_is_refused_in_every_variant(partners: SamlWorld, kind: str) -> None:
    reasons = {}
    for variant in VARIANTS:
        async with partners.running.browser() as browser:
            begun = await partners.begin(browser)
            raw = wrapped(partners.recipe(begun, signs=(kind,)).build(), kind, variant)
            reasons[variant] = await partners.refused(base64.b64encode(raw).decode(), begun, browser)
    assert set(reasons.values()) == {"login-answer-invalid"}, reasons
    assert partners.running.application.seen == []


async def test_t35_a_signed_assertion_in_a_response_of_somebody_else_s_making_says_only_what_was_signed(
    partners: SamlWorld,
) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        tampered = partners.recipe(begun, after=(content("saml:Assertion/saml:Subject/saml:NameID", "mallory"),))
        assert await partners.refused(tampered, begun, browser) == "token-invalid"


# T36


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("signs", [("assertion",), ("response",)])
async def test_t36_a_second_assertion_is_refused(partners: SamlWorld, place: str, signs: tuple[str, ...]) -> None:
    def add(root: Any) -> None:
        genuine = root.find("saml:Assertion", NS)
        index = root.index(genuine) + (1 if place == "after" else 0)
        root.insert(index, forged(genuine))

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        # Also where the provider itself signed both: one answer speaks of one person.
        made = partners.recipe(begun, signs=signs, between=(add,))
        assert await partners.refused(made, begun, browser) == "login-answer-invalid"


# T37


@pytest.mark.parametrize("split", ["<!---->", "<?x?>", "<![CDATA[]]>"])
@pytest.mark.parametrize("signs", [("assertion",), ("response",)])
async def test_t37_comments_and_their_like_in_a_name_are_refused(
    partners: SamlWorld, split: str, signs: tuple[str, ...]
) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        raw = partners.recipe(begun, signs=signs, name_id="admin@corp.com.evil.com").raw()
        # Canonicalisation drops comments, so the signature still fits.
        raw = raw.replace(b"admin@corp.com.evil.com", f"admin@corp.com{split}.evil.com".encode())
        assert await partners.refused(base64.b64encode(raw).decode(), begun, browser) == "login-answer-invalid"


async def test_t37_comments_in_an_attribute_are_refused(partners: SamlWorld) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        raw = partners.recipe(begun).raw().replace(b">ada@partner.example<", b">ada@partner.example<!-- -->.evil<")
        assert await partners.refused(base64.b64encode(raw).decode(), begun, browser) == "login-answer-invalid"


# T38


DECLARED = b'<?xml version="1.0" encoding="utf-8"?>'
DOCUMENTS: dict[str, Callable[[bytes], bytes]] = {
    "doctype": lambda raw: b"<!DOCTYPE x>" + raw,
    "entity": lambda raw: b'<!DOCTYPE x [<!ENTITY a "b">]>' + raw,
    "external entity": lambda raw: b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + raw,
    "parameter entity": lambda raw: b'<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1:9/"> %a;]>' + raw,
    "doctype after the declaration": lambda raw: DECLARED + b"<!doctype x>" + raw,
    "utf-16": lambda raw: raw.decode().encode("utf-16"),
    "utf-16 declared": lambda raw: ('<?xml version="1.0" encoding="UTF-16"?>' + raw.decode()).encode("utf-16"),
    "utf-7 declared": lambda raw: b'<?xml version="1.0" encoding="UTF-7"?>' + raw,
    "latin-1 declared": lambda raw: b'<?xml version="1.0" encoding="iso-8859-1"?>' + raw,
    "xml 1.1": lambda raw: b'<?xml version="1.1"?>' + raw,
    "processing instruction": lambda raw: b'<?xml-stylesheet href="http://127.0.0.1:9/"?>' + raw,
    "two documents": lambda raw: raw + raw,
    "nothing": lambda _: b"",
    "no xml": lambda _: b"SAMLResponse",
    "nul": lambda raw: raw + b"\0",
}


@pytest.mark.parametrize("how", DOCUMENTS)
async def test_t38_documents_that_could_be_read_in_two_ways_are_refused(partners: SamlWorld, how: str) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        raw = DOCUMENTS[how](partners.recipe(begun).raw())
        assert await partners.refused(base64.b64encode(raw).decode(), begun, browser) == "login-answer-invalid"


async def test_t38_a_declaration_of_utf_8_is_fine(partners: SamlWorld) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        text = base64.b64encode(DECLARED + b"\n" + partners.recipe(begun).raw()).decode()
        assert (await partners.bring(browser, text, begun.relay_state)).status == 302


@pytest.mark.parametrize("place", ["samlp:Extensions", "samlp:Status/samlp:StatusDetail"])
async def test_t38_xinclude_is_not_followed(partners: SamlWorld, place: str) -> None:
    include = etree.Element("{http://www.w3.org/2001/XInclude}include", href="file:///etc/passwd", parse="text")

    def add(root: Any) -> None:
        root.find("saml:Assertion/saml:Subject", NS).append(copy.deepcopy(include))

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        made = partners.recipe(begun, between=(), before=(add,))
        assert await partners.refused(made, begun, browser) == "login-answer-invalid"
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)

        def add_value(root: Any) -> None:
            root.find(".//saml:AttributeValue", NS).append(copy.deepcopy(include))

        made = partners.recipe(begun, before=(add_value,))
        answer = await partners.bring(browser, made.text(), begun.relay_state)
        # Foreign elements may stand in a value; nothing is put in their place.
        assert answer.status == 302
        assert "root:" not in str(partners.running.application.seen)


# T39


EMPTY_DIGEST = base64.b64encode(
    bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
).decode()


async def test_t39_the_digest_of_nothing_is_refused(partners: SamlWorld) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        change = content("saml:Assertion/ds:Signature/ds:SignedInfo/ds:Reference/ds:DigestValue", EMPTY_DIGEST)
        assert await partners.refused(partners.recipe(begun, after=(change,)), begun, browser) == "token-invalid"


@pytest.mark.parametrize("namespace", ["relative", "../x"])
async def test_t39_a_failing_canonicalisation_is_a_refusal(partners: SamlWorld, namespace: str) -> None:
    """Relative namespace names make canonicalisation fail (Canonical XML, section 1.3)."""

    def add(root: Any) -> None:
        value = root.find(".//saml:AttributeValue", NS)
        value.append(etree.fromstring(f'<x:y xmlns:x="{namespace}"/>'))

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        await partners.refused(partners.recipe(begun, after=(add,)), begun, browser)


# T40


@pytest.mark.parametrize("signs", [("assertion",), ("response",), ("assertion", "response")])
async def test_t40_a_key_that_the_answer_brings_along_counts_nothing(
    partners: SamlWorld, signs: tuple[str, ...]
) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        made = partners.recipe(begun, key=pair("stranger"), signs=signs)
        assert await partners.refused(made, begun, browser) == "token-invalid"


async def test_t40_the_right_certificate_around_a_strange_signature_counts_nothing(partners: SamlWorld) -> None:
    half = KeyPair(pair().certificate, pair("stranger").key)
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        raw = partners.recipe(begun, key=pair("stranger")).raw()
        for name in ("stranger", "one"):
            body = "".join(pair(name).certificate.splitlines()[1:-1])
            raw = (
                raw
                if name == "one"
                else raw.replace(body[:40].encode(), "".join(half.certificate.splitlines()[1:-1])[:40].encode())
            )
        assert await partners.refused(base64.b64encode(raw).decode(), begun, browser) == "token-invalid"


# T41


XSLT = """<xsl:stylesheet xmlns:xsl="http://www.w3.org/1999/XSL/Transform" version="1.0"><xsl:template match="/">
<xsl:value-of select="document('file:///etc/passwd')"/></xsl:template></xsl:stylesheet>"""
TRANSFORMS = {
    "http://www.w3.org/TR/1999/REC-xslt-19991116": XSLT,
    "http://www.w3.org/TR/1999/REC-xpath-19991116": f'<ds:XPath xmlns:ds="{NS["ds"]}">count(//.|//@*)</ds:XPath>',
    "http://www.w3.org/2002/06/xmldsig-filter2": '<f:XPath xmlns:f="http://www.w3.org/2002/06/xmldsig-filter2" '
    'Filter="subtract">//*</f:XPath>',
    "http://www.w3.org/2000/09/xmldsig#base64": "",
    "http://www.w3.org/TR/2001/REC-xml-c14n-20010315": "",
    "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments": "",
    "http://www.w3.org/2001/10/xml-exc-c14n#WithComments": "",
    "http://www.w3.org/2001/04/decrypt#XML": "",
}


@pytest.mark.parametrize("algorithm", TRANSFORMS)
async def test_t41_transforms_outside_the_list_are_refused_before_anything_runs_them(
    partners: SamlWorld, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    monkeypatch.setattr("sidecar.logins.saml.answer.signed_part", lambda *a: calls.append(a))

    def add(root: Any) -> None:
        transforms = root.find(".//ds:Transforms", NS)
        inner = etree.SubElement(transforms, tag("d:Transform"), Algorithm=algorithm)
        if TRANSFORMS[algorithm]:
            inner.append(etree.fromstring(TRANSFORMS[algorithm]))

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        reason = await partners.refused(partners.recipe(begun, after=(add,)), begun, browser)
    assert reason in {"token-algorithm", "login-answer-invalid"}
    assert calls == []


async def test_t41_an_xpath_that_would_compute_for_long_costs_nothing(partners: SamlWorld) -> None:
    def add(root: Any) -> None:
        inner = etree.SubElement(root.find(".//ds:Transforms", NS), tag("d:Transform"))
        inner.set("Algorithm", "http://www.w3.org/TR/1999/REC-xpath-19991116")
        etree.SubElement(inner, tag("d:XPath")).text = "count(//.|//@*|//namespace::*)=" * 50 + "1"

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        text = partners.recipe(begun, after=(add,)).text()
        before = time.process_time()
        await partners.refused(text, begun, browser)
        assert time.process_time() - before < 5  # some seconds of CPU for the attack, milliseconds for us


# T42


@pytest.mark.parametrize(
    "uri", ["", "#", "#other", "http://127.0.0.1:9/x", "file:///etc/passwd", "#xpointer(/)", "#xpointer(id('x'))", None]
)
async def test_t42_a_reference_to_anything_but_its_parent_is_refused(partners: SamlWorld, uri: str | None) -> None:
    change = attribute("saml:Assertion/ds:Signature/ds:SignedInfo/ds:Reference", "URI", uri)
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        made = partners.recipe(begun, after=(change,))
        assert await partners.refused(made, begun, browser) == "login-answer-invalid"


async def test_t42_a_genuine_signature_over_the_whole_document_is_refused(partners: SamlWorld) -> None:
    def sign_all(root: Any) -> None:
        signature = sign(root, pair())
        signature.find(".//ds:Reference", NS).set("URI", "")
        resign(signature, pair())

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        made = partners.recipe(begun, signs=(), after=(sign_all,))
        assert await partners.refused(made, begun, browser) == "login-answer-invalid"


async def test_t42_two_references_are_refused(partners: SamlWorld) -> None:
    def add(root: Any) -> None:
        reference = root.find(".//ds:Reference", NS)
        reference.addnext(copy.deepcopy(reference))
        resign(root.find(".//ds:Signature", NS), pair())

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        made = partners.recipe(begun, after=(add,))
        assert await partners.refused(made, begun, browser) == "login-answer-invalid"


@pytest.mark.parametrize("name", ["ID", "Id", "id", "AssertionID", "xml:id"])
async def test_t42_an_id_that_is_there_twice_is_refused(partners: SamlWorld, name: str) -> None:
    def add(root: Any) -> None:
        own = root.find("saml:Assertion", NS).get("ID")
        key = name.replace("xml:", "{http://www.w3.org/XML/1998/namespace}")
        root.find("samlp:Status", NS).set(key, own)

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        made = partners.recipe(begun, after=(add,))
        assert await partners.refused(made, begun, browser) == "login-answer-invalid"


# T43


def nested(depth: int) -> bytes:
    return b"<a>" * depth + b"</a>" * depth


HUGE: dict[str, tuple[Callable[[str], str], set[str]]] = {
    "300 KiB": (lambda text: base64.b64encode(base64.b64decode(text) + b" " * 300_000).decode(), {"body-too-large"}),
    "a mebibyte of base64": (lambda text: text + "A" * 450_000, {"body-too-large"}),
    "no base64": (lambda text: text[:-5] + "*****", {"login-answer-invalid"}),
    "base64 with blanks": (lambda text: text.replace("A", " A"), {"login-answer-invalid"}),
    "20,000 elements": (
        lambda _: base64.b64encode(b"<a>" + b"<b/>" * 20_000 + b"</a>").decode(),
        {"login-answer-invalid"},
    ),
    "200 levels": (lambda _: base64.b64encode(nested(200)).decode(), {"login-answer-invalid"}),
    "20,000 levels": (lambda _: base64.b64encode(nested(3900)).decode(), {"login-answer-invalid"}),
    "10,000 attributes": (
        lambda _: base64.b64encode(b"<a " + b" ".join(b'a%d=""' % n for n in range(10_000)) + b"/>").decode(),
        {"login-answer-invalid"},
    ),
    "10,000 namespaces": (
        lambda _: base64.b64encode(b"<a " + b" ".join(b'xmlns:a%d="a"' % n for n in range(9_000)) + b"/>").decode(),
        {"login-answer-invalid"},
    ),
}


@pytest.mark.parametrize("how", HUGE)
async def test_t43_answers_beyond_the_bounds_are_refused(partners: SamlWorld, how: str) -> None:
    change, reasons = HUGE[how]
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        assert await partners.refused(change(partners.recipe(begun).text()), begun, browser) in reasons


# T44


BEARER_DATA = "saml:Assertion/saml:Subject/saml:SubjectConfirmation/saml:SubjectConfirmationData"
CONDITIONS = "saml:Assertion/saml:Conditions"
STATEMENT = "saml:Assertion/saml:AuthnStatement"
PAST, FUTURE = -3600, 3600


def conditions(acs: str) -> dict[str, tuple[Change, str]]:
    """Name → (what the provider signs wrongly, the reason on the page)."""
    now = time.time()
    past, future = instant(now + PAST), instant(now + FUTURE)
    strange = "https://evil.example/"
    return {
        "no audience": (gone(f"{CONDITIONS}/saml:AudienceRestriction"), "token-audience"),
        "another audience": (
            content(f"{CONDITIONS}/saml:AudienceRestriction/saml:Audience", strange),
            "token-audience",
        ),
        "a longer audience": (
            content(f"{CONDITIONS}/saml:AudienceRestriction/saml:Audience", f"{acs}x"),
            "token-audience",
        ),
        "no conditions": (gone(CONDITIONS), "token-claim"),
        "conditions without an end": (attribute(CONDITIONS, "NotOnOrAfter", None), "token-time"),
        "conditions that ended": (attribute(CONDITIONS, "NotOnOrAfter", past), "token-expired"),
        "conditions that begin later": (attribute(CONDITIONS, "NotBefore", future), "token-time"),
        "conditions of no time": (attribute(CONDITIONS, "NotOnOrAfter", "tomorrow"), "token-time"),
        "conditions of an endless year": (attribute(CONDITIONS, "NotOnOrAfter", "99999-01-01T00:00:00Z"), "token-time"),
        "no recipient": (attribute(BEARER_DATA, "Recipient", None), "token-audience"),
        "another recipient": (attribute(BEARER_DATA, "Recipient", strange), "token-audience"),
        "a recipient that contains ours": (attribute(BEARER_DATA, "Recipient", f"{strange}?{acs}"), "token-audience"),
        "no destination": (attribute(".", "Destination", None), "token-audience"),
        "an empty destination": (attribute(".", "Destination", ""), "token-audience"),
        "a destination that begins like ours": (attribute(".", "Destination", f"{acs}/x"), "token-audience"),
        "no request in the response": (attribute(".", "InResponseTo", None), "token-nonce"),
        "another request in the response": (attribute(".", "InResponseTo", "_other"), "token-nonce"),
        "no request in the confirmation": (attribute(BEARER_DATA, "InResponseTo", None), "token-nonce"),
        "another request in the confirmation": (attribute(BEARER_DATA, "InResponseTo", "_other"), "token-nonce"),
        "a confirmation without an end": (attribute(BEARER_DATA, "NotOnOrAfter", None), "token-time"),
        "a confirmation that ended": (attribute(BEARER_DATA, "NotOnOrAfter", past), "token-expired"),
        "no confirmation": (gone("saml:Assertion/saml:Subject/saml:SubjectConfirmation"), "token-claim"),
        "no confirmation data": (gone(BEARER_DATA), "token-claim"),
        "another confirmation method": (
            attribute("saml:Assertion/saml:Subject/saml:SubjectConfirmation", "Method", "urn:x:sender-vouches"),
            "token-claim",
        ),
        "another issuer": (content("saml:Assertion/saml:Issuer", strange), "token-issuer"),
        "another issuer of the response": (content("saml:Issuer", strange), "token-issuer"),
        "no issuer": (gone("saml:Assertion/saml:Issuer"), "token-issuer"),
        "an old version": (attribute("saml:Assertion", "Version", "1.1"), "token-claim"),
        "an old version of the response": (attribute(".", "Version", "1.1"), "token-claim"),
        "an answer of yesterday": (attribute("saml:Assertion", "IssueInstant", instant(now - 90_000)), "token-expired"),
        "an answer of tomorrow": (attribute("saml:Assertion", "IssueInstant", future), "token-time"),
        "no statement": (gone(STATEMENT), "token-claim"),
        "a sign-in in the future": (attribute(STATEMENT, "AuthnInstant", future), "token-time"),
        "a session that ended": (attribute(STATEMENT, "SessionNotOnOrAfter", past), "token-expired"),
        "no name": (gone("saml:Assertion/saml:Subject/saml:NameID"), "identity-incomplete"),
        "an empty name": (content("saml:Assertion/saml:Subject/saml:NameID", " "), "token-claim"),
    }


@pytest.mark.parametrize("signs", [("assertion",), ("response",)])
@pytest.mark.parametrize("how", conditions(""))
async def test_t44_each_condition_is_needed_exactly(partners: SamlWorld, how: str, signs: tuple[str, ...]) -> None:
    change, reason = conditions(partners.acs)[how]
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        assert await partners.refused(partners.recipe(begun, signs=signs, before=(change,)), begun, browser) == reason


async def test_t44_a_failed_status_is_said_in_words_to_the_operator(partners: SamlWorld) -> None:
    status = "urn:oasis:names:tc:SAML:2.0:status:"

    def deny(root: Any) -> None:
        code = root.find("samlp:Status/samlp:StatusCode", NS)
        code.set("Value", f"{status}Responder")
        etree.SubElement(code, tag("p:StatusCode"), Value=f"{status}NoAuthnContext")
        etree.SubElement(code.getparent(), tag("p:StatusMessage")).text = "too weak"
        root.remove(root.find("saml:Assertion", NS))

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        assert await partners.refused(partners.recipe(begun, before=(deny,)), begun, browser) == "login-provider-error"
    assert "SAML: Responder: NoAuthnContext: too weak" in partners.details()


async def test_t44_an_answer_is_taken_once(partners: SamlWorld) -> None:
    async with partners.running.browser() as first, partners.running.browser() as second:
        begun = await partners.begin(first)
        text = partners.recipe(begun).text()
        assert (await partners.bring(first, text, begun.relay_state)).status == 302
        again = await partners.bring(first, text, begun.relay_state)
        assert again.status == 400
        assert "login-state-unknown" in await again.text()
        # Nor as the answer to another sign-in.
        assert await partners.refused(text, await partners.begin(second), second) == "token-nonce"


async def test_t44_an_assertion_is_taken_once_also_in_a_response_of_another_id(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    partners = await start(world, monkeypatch, unsolicited=True)
    root = partners.recipe(None).build()
    for turn in range(2):
        root.set("ID", f"_turn-{turn}")
        async with partners.running.browser() as browser:
            answer = await partners.bring(browser, text_of(root), "/wiki")
            assert answer.status == (302 if turn == 0 else 400)
    assert "used before" in partners.details()


async def test_t44_an_answer_that_nobody_asked_for_is_refused(partners: SamlWorld) -> None:
    for relay_state in ("", "/", "x" * 43):
        answer = await partners.post(partners.recipe(None).text(), relay_state)
        assert answer.status == 400
        assert "login-state-unknown" in await answer.text()


async def test_t44_unsolicited_answers_are_taken_only_where_they_name_no_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    partners = await start(world, monkeypatch, unsolicited=True)
    async with partners.running.browser() as browser:
        answer = await partners.bring(browser, partners.recipe(None).text(), "/wiki/page")
        assert (answer.status, answer.headers["Location"]) == (302, "/wiki/page")
    async with partners.running.browser() as victim, partners.running.browser() as thief:
        begun = await partners.begin(victim)
        stolen = partners.recipe(begun).text()
        answer = await partners.bring(thief, stolen, "/")
        assert "token-nonce" in await answer.text()
        assert thief.cookie() == ""


@pytest.mark.parametrize(
    "relay_state", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "/-/logout"]
)
async def test_t44_the_relay_state_of_an_unsolicited_answer_leads_nowhere_else(
    world: World, monkeypatch: pytest.MonkeyPatch, relay_state: str
) -> None:
    partners = await start(world, monkeypatch, unsolicited=True)
    async with partners.running.browser() as browser:
        answer = await partners.bring(browser, partners.recipe(None).text(), relay_state)
        assert (answer.status, answer.headers["Location"]) == (302, "/")


# T45


@pytest.mark.parametrize("kind", ["p:LogoutRequest", "p:LogoutResponse", "a:Assertion", "p:AuthnRequest"])
async def test_t45_another_kind_of_message_signs_nobody_in(partners: SamlWorld, kind: str) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        root = partners.recipe(begun).build()
        if kind == "a:Assertion":
            root = root.find("saml:Assertion", NS)
        else:
            root.tag = tag(kind)
        assert await partners.refused(text_of(root), begun, browser) == "login-answer-invalid"


# T46


async def test_t46_answers_without_any_signature_are_refused(partners: SamlWorld) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        assert await partners.refused(partners.recipe(begun, signs=()), begun, browser) == "token-invalid"


@pytest.mark.parametrize(
    ("wanted", "signs"),
    [("assertion", ("response",)), ("response", ("assertion",)), ("both", ("response",)), ("both", ("assertion",))],
)
async def test_t46_what_must_be_signed_must_be(
    world: World, monkeypatch: pytest.MonkeyPatch, wanted: str, signs: tuple[str, ...]
) -> None:
    partners = await start(world, monkeypatch, signed=wanted)
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        assert await partners.refused(partners.recipe(begun, signs=signs), begun, browser) == "token-invalid"
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        good = partners.recipe(begun, signs=("assertion", "response"))
        assert (await partners.bring(browser, good.text(), begun.relay_state)).status == 302


async def test_t46_sha_1_is_refused_unless_it_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = await start(world, monkeypatch)
    old = {"signature": xmlsec.Transform.RSA_SHA1, "digest": xmlsec.Transform.SHA1}
    for part in ({**old}, {"signature": old["signature"]}, {"digest": old["digest"]}):
        async with strict.running.browser() as browser:
            begun = await strict.begin(browser)
            assert await strict.refused(strict.recipe(begun, **part), begun, browser) == "token-algorithm"
    weak = await start(world, monkeypatch, weak=["sha1"])
    async with weak.running.browser() as browser:
        begun = await weak.begin(browser)
        assert (await weak.bring(browser, weak.recipe(begun, **old).text(), begun.relay_state)).status == 302


async def test_t46_hmac_keyed_with_the_certificate_is_refused(partners: SamlWorld) -> None:
    def confuse(root: Any) -> None:
        signature = root.find(".//ds:Signature", NS)
        method = "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"
        signature.find(".//ds:SignatureMethod", NS).set("Algorithm", method)
        context = xmlsec.SignatureContext()
        context.key = xmlsec.Key.from_binary_data(xmlsec.KeyData.HMAC, pair().certificate.encode())
        xmlsec.tree.add_ids(root, ["ID"])
        context.sign(signature)

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        made = partners.recipe(begun, after=(confuse,))
        assert await partners.refused(made, begun, browser) == "token-algorithm"


@pytest.fixture
async def encrypting(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SamlWorld:
    """A sidecar that has two keys, as during a roll-over, and wants assertions encrypted."""
    return await start(world, monkeypatch, keys=written(tmp_path, "new", "old"), encrypted="required")


@pytest.mark.parametrize("name", ["new", "old"])
@pytest.mark.parametrize("cipher", ["AES128_GCM", "AES192_GCM", "AES256_GCM"])
async def test_encrypted_assertions_open_with_each_of_our_keys(encrypting: SamlWorld, name: str, cipher: str) -> None:
    async with encrypting.running.browser() as browser:
        begun = await encrypting.begin(browser)
        how = (pair(name), getattr(xmlsec.Transform, cipher), None)
        made = encrypting.recipe(begun, encrypt=how)
        assert (await encrypting.bring(browser, made.text(), begun.relay_state)).status == 302


async def test_t46_a_plain_assertion_is_refused_where_it_must_be_encrypted(encrypting: SamlWorld) -> None:
    async with encrypting.running.browser() as browser:
        begun = await encrypting.begin(browser)
        assert await encrypting.refused(encrypting.recipe(begun), begun, browser) == "token-invalid"


def spoil(path: str, text: Callable[[str], str]) -> Change:
    def apply(root: Any) -> None:
        found = root.find(f".//{path}", NS)
        found.text = text("".join(found.text.split()))

    return apply


def flipped(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[-1] ^= 1
    return base64.b64encode(raw).decode()


KEY_VALUE = "xenc:EncryptedKey/xenc:CipherData/xenc:CipherValue"
DATA_VALUE = "xenc:EncryptedData/xenc:CipherData/xenc:CipherValue"
BROKEN: dict[str, dict[str, Any]] = {
    "nothing signed inside": {"signs": ()},
    "signed by a stranger inside": {"key": pair("stranger")},
    "somebody else's key": {"encrypt": (pair("stranger"), None, None)},
    "a key that is cut": {"after": (spoil(KEY_VALUE, lambda text: text[:40]),)},
    "a key that was changed": {"after": (spoil(KEY_VALUE, flipped),)},
    "an empty key": {"after": (spoil(KEY_VALUE, lambda _: ""),)},
    "data that is cut": {"after": (spoil(DATA_VALUE, lambda text: text[:64]),)},
    "data that was changed": {"after": (spoil(DATA_VALUE, flipped),)},
    "empty data": {"after": (spoil(DATA_VALUE, lambda _: ""),)},
    "no base64": {"after": (spoil(DATA_VALUE, lambda _: "****"),)},
    "changed inside": {"between": (content("saml:Assertion/saml:Subject/saml:NameID", "mallory"),)},
    "a wrapped assertion inside": {
        "between": (at("saml:Assertion", lambda one: one.insert(0, forged(one))),),
    },
    "a comment inside": {"between": (at("saml:Assertion", lambda one: one.append(etree.Comment("x"))),)},
}


async def test_t46_whatever_is_wrong_with_the_encryption_looks_the_same(encrypting: SamlWorld) -> None:
    seen = set()
    for how, changes in BROKEN.items():
        async with encrypting.running.browser() as browser:
            begun = await encrypting.begin(browser)
            made = encrypting.recipe(begun, **{"encrypt": (pair("new"), None, None), **changes})
            answer = await encrypting.bring(browser, made.text(), begun.relay_state)
            page = await answer.text()
            reference = page.partition("Reference</dt><dd><code>")[2].partition("<")[0]
            seen.add((answer.status, page.replace(reference, "")))
            assert len(seen) == 1, how
            assert "token-invalid" in page
            assert browser.cookie() == ""


async def test_t36_a_plain_assertion_beside_an_encrypted_one_is_refused(encrypting: SamlWorld) -> None:
    def add(root: Any) -> None:
        plain = copy.deepcopy(recipe().build().find("saml:Assertion", NS))
        root.append(plain)

    for signs in (("assertion",), ("response",)):
        async with encrypting.running.browser() as browser:
            begun = await encrypting.begin(browser)
            made = encrypting.recipe(begun, signs=signs, encrypt=(pair("new"), None, None), after=(add,))
            assert await encrypting.refused(made, begun, browser) == "login-answer-invalid"


async def test_t46_aes_cbc_is_opened_only_in_a_signed_response(encrypting: SamlWorld) -> None:
    how = (pair("new"), xmlsec.Transform.AES256, None)
    async with encrypting.running.browser() as browser:
        begun = await encrypting.begin(browser)
        made = encrypting.recipe(begun, encrypt=how)
        assert await encrypting.refused(made, begun, browser) == "token-algorithm"
    async with encrypting.running.browser() as browser:
        begun = await encrypting.begin(browser)
        made = encrypting.recipe(begun, encrypt=how, signs=("response",))
        assert (await encrypting.bring(browser, made.text(), begun.relay_state)).status == 302


@pytest.mark.parametrize("weak", [[], ["rsa1_5"]])
async def test_t46_rsa_1_5_is_refused_unless_it_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weak: list[str]
) -> None:
    partners = await start(world, monkeypatch, keys=written(tmp_path, "new"), weak=weak)
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        made = partners.recipe(begun, encrypt=(pair("new"), None, xmlsec.Transform.RSA_PKCS1))
        answer = await partners.bring(browser, made.text(), begun.relay_state)
        assert answer.status == (302 if weak else 400)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9/", "file:///etc/passwd", "#_x"])
@pytest.mark.parametrize("part", ["xenc:EncryptedData", "xenc:EncryptedKey"])
async def test_t46_cipher_text_that_is_elsewhere_is_not_fetched(encrypting: SamlWorld, part: str, uri: str) -> None:
    def refer(root: Any) -> None:
        data = root.find(f".//{part}/xenc:CipherData", NS)
        for child in list(data):
            data.remove(child)
        etree.SubElement(data, tag("x:CipherReference"), URI=uri)

    async with encrypting.running.browser() as browser:
        begun = await encrypting.begin(browser)
        made = encrypting.recipe(begun, encrypt=(pair("new"), None, None), after=(refer,))
        assert await encrypting.refused(made, begun, browser) == "login-answer-invalid"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9/", "file:///etc/passwd", "#_x"])
async def test_t46_a_key_that_is_elsewhere_is_not_fetched(encrypting: SamlWorld, uri: str) -> None:
    def refer(root: Any) -> None:
        info = root.find(".//xenc:EncryptedData/ds:KeyInfo", NS)
        etree.SubElement(info, tag("d:RetrievalMethod"), URI=uri)

    async with encrypting.running.browser() as browser:
        begun = await encrypting.begin(browser)
        made = encrypting.recipe(begun, encrypt=(pair("new"), None, None), after=(refer,))
        assert await encrypting.refused(made, begun, browser) == "login-answer-invalid"


async def test_a_key_that_stands_beside_the_data_is_found(encrypting: SamlWorld) -> None:
    def move(root: Any) -> None:
        info = root.find(".//xenc:EncryptedData/ds:KeyInfo", NS)
        key = info.find("xenc:EncryptedKey", NS)
        key.set("Id", "_key")
        root.find(".//saml:EncryptedAssertion", NS).append(key)
        etree.SubElement(
            info, tag("d:RetrievalMethod"), URI="#_key", Type="http://www.w3.org/2001/04/xmlenc#EncryptedKey"
        )

    async with encrypting.running.browser() as browser:
        begun = await encrypting.begin(browser)
        made = encrypting.recipe(begun, encrypt=(pair("new"), None, None), after=(move,))
        assert (await encrypting.bring(browser, made.text(), begun.relay_state)).status == 302


async def test_an_encrypted_name_is_opened(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    partners = await start(world, monkeypatch, keys=written(tmp_path, "new"))

    def hide(root: Any) -> None:
        encrypt(root.find(".//saml:NameID", NS), pair("new"))

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        made = partners.recipe(begun, before=(hide,))
        assert (await partners.bring(browser, made.text(), begun.relay_state)).status == 302
    [signed_in] = [line for line in partners.running.audit() if line["event"] == "login-succeeded"]
    assert signed_in["subject"] == "8f14e45f-ada"


# T47


async def test_t47_nothing_of_an_answer_is_shown_on_a_page(partners: SamlWorld) -> None:
    attack = '"><script>alert(1)</script>'
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        answer = await partners.post(partners.recipe(begun).text(), attack)
        assert "<script" not in await answer.text()
        answer = await partners.bring(browser, attack, begun.relay_state)
        assert "<script" not in await answer.text()
        answer = await partners.post("x", begun.relay_state, target=f"partners{attack}")
        assert "<script" not in await answer.text()


async def test_t47_the_page_that_posts_a_request_escapes_and_is_bound_by_its_policy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = 'https://idp.partner.example/sso?a="><script>&b=1'
    partners = await start(world, monkeypatch, provider(sso={"post": url}), binding="post")
    async with partners.running.browser() as browser:
        answer = await browser.follow(await browser.page("/"))
        page = await answer.text()
    assert 'action="https://idp.partner.example/sso?a=&#34;&gt;&lt;script&gt;&amp;b=1"' in page
    assert page.count("<script>") == 1
    policy = answer.headers["Content-Security-Policy"]
    assert "form-action 'self' https:" in policy
    assert "https://idp.partner.example;" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "http://idp.partner.example/sso", "data:text/html,x", "//x/", ""]
)
async def test_t47_requests_go_only_to_addresses_that_are_safe(
    world: World, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    partners = await start(world, monkeypatch, provider(sso={"redirect": url}))
    async with partners.running.browser() as browser:
        answer = await browser.follow(await browser.page("/"))
        assert answer.status == 503


# T48


async def test_t48_ecp_headers_open_nothing(partners: SamlWorld) -> None:
    headers = {
        "PAOS": 'ver="urn:liberty:paos:2003-08";"urn:oasis:names:tc:SAML:2.0:profiles:SSO:ecp"',
        "Accept": "text/html, application/vnd.paos+xml",
    }
    async with partners.running.browser() as browser:
        assert (await browser.fetch("/", headers=headers)).status == 401
        answer = await browser.page("/", headers=headers)
        assert answer.status == 302
        assert answer.headers["Location"].startswith("/-/login")
    assert partners.running.application.seen == []


# T49


async def test_t49_an_answer_from_another_site_comes_without_cookies_and_finds_its_browser(partners: SamlWorld) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser, "/first")
        answer = await partners.post(partners.recipe(begun).text(), begun.relay_state)
        assert answer.status == 303
        assert "Set-Cookie" not in answer.headers
        landed = await browser.page(answer.headers["Location"])
        assert (landed.status, landed.headers["Location"]) == (302, "/first")


async def test_t49_an_answer_opens_nothing_in_another_browser(partners: SamlWorld) -> None:
    """Login CSRF: the attacker's own good answer, posted by the victim's browser."""
    async with partners.running.browser() as attacker, partners.running.browser() as victim:
        begun = await partners.begin(attacker)
        await partners.begin(victim)
        text = partners.recipe(begun, name_id="mallory").text()
        answer = await partners.bring(victim, text, begun.relay_state)
        # The victim begins a sign-in of its own.
        assert answer.status == 302
        assert "Set-Cookie" not in answer.headers
        assert victim.cookie() == ""
        # It is still good where it was asked for.
        assert (await partners.bring(attacker, text, begun.relay_state)).status == 302


async def test_t49_several_tabs_come_back_to_their_own_pages(partners: SamlWorld) -> None:
    async with partners.running.browser() as browser:
        first, second = await partners.begin(browser, "/first"), await partners.begin(browser, "/second")
        for begun, target in ((second, "/second"), (first, "/first")):
            answer = await partners.bring(browser, partners.recipe(begun).text(), begun.relay_state)
            assert answer.headers["Location"] == target


async def test_t49_the_answer_to_one_tab_is_none_to_another(partners: SamlWorld) -> None:
    async with partners.running.browser() as browser:
        first, second = await partners.begin(browser), await partners.begin(browser)
        answer = await partners.bring(browser, partners.recipe(first).text(), second.relay_state)
        assert "token-nonce" in await answer.text()


async def test_t49_a_token_of_a_posted_answer_works_once(partners: SamlWorld) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        answer = await partners.post(partners.recipe(begun).text(), begun.relay_state)
        assert (await browser.page(answer.headers["Location"])).status == 302
        assert (await browser.page(answer.headers["Location"])).status == 400


async def test_t49_only_forms_with_a_state_of_ours_are_kept_at_all(partners: SamlWorld) -> None:
    async with aiohttp.ClientSession() as http:
        for form in (
            {},
            {"SAMLResponse": "x"},
            {"RelayState": "x" * 43},
            {"SAMLResponse": "x", "RelayState": "A" * 43},
        ):
            async with http.post(partners.acs, data=form, allow_redirects=False) as answer:
                assert answer.status == 400


async def test_a_login_that_asks_by_a_redirect_takes_no_answer_by_one(partners: SamlWorld) -> None:
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        raw = partners.recipe(begun).text()
        answer = await browser.page(f"/-/callback/partners?SAMLResponse={raw[:50]}&RelayState={begun.relay_state}")
        assert answer.status == 400
        assert browser.cookie() == ""
