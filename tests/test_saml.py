"""Signing in with SAML, from the request to who somebody is; attacks are in test_attacks_saml.py."""

from __future__ import annotations

import asyncio
import base64
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import xmlsec
from lxml import etree
from playwright.async_api import Page

from sidecar.config.values import Secret
from sidecar.core.template import Compiler
from sidecar.faults import Refused, Unavailable
from sidecar.logins.login import Ask
from sidecar.logins.saml.attributes import claims_of
from sidecar.logins.saml.bench import Bench
from sidecar.logins.saml.document import decode, inflate, parse, text_of
from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.instants import read_instant, write_instant
from sidecar.logins.saml.login import SamlSignIn
from sidecar.logins.saml.naming import NameId, read_handle, session_key, subject_of, write_handle
from sidecar.logins.saml.parties import KeyPair
from sidecar.model import SignedIn
from sidecar.reason import Reason
from tests.saml_forger import (
    ENTITY,
    NS,
    PASSWORD,
    SERVICE,
    SSO,
    FixedMetadata,
    Recipe,
    instant,
    login,
    pair,
    plan,
    provider,
    recipe,
    request_of,
    sign,
)
from tests.saml_world import start
from tests.world import World

MFA = "urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorContract"
TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
OURS = pair("ours")


async def sign_in(made: SamlSignIn, ask: Ask | None = None, /, **changes: Any) -> SignedIn:
    """Begin and finish a sign-in with a good answer, *changes* excepted."""
    begun = await made.begin("state", ask or Ask())
    answer = recipe(request=begun.kept["request"], **changes)
    return await made.finish(begun.kept, {"SAMLResponse": answer.text()}, answer.now)


async def refusal(made: SamlSignIn, ask: Ask | None = None, /, **changes: Any) -> Reason:
    with pytest.raises(Refused) as caught:
        await sign_in(made, ask, **changes)
    return caught.value.reason


def classed(name: str) -> Any:
    def change(root: Any) -> None:
        root.find(".//saml:AuthnContextClassRef", NS).text = name

    return change


def named(**attributes: str) -> Any:
    def change(root: Any) -> None:
        for key, value in attributes.items():
            root.find(".//saml:NameID", NS).set(key, value)

    return change


def authenticated(at: float) -> Any:
    def change(root: Any) -> None:
        root.find(".//saml:AuthnStatement", NS).set("AuthnInstant", instant(at))

    return change


# Requests


async def test_a_request_says_who_asks_and_where_to_answer() -> None:
    begun = await login().begin("the-state", Ask())
    assert begun.url.startswith(f"{SSO}?SAMLRequest=")
    assert parse_qs(urlsplit(begun.url).query)["RelayState"] == ["the-state"]
    root = request_of(begun.url)
    assert root.tag == tag("p:AuthnRequest")
    assert root.get("ID") == begun.kept["request"]
    assert root.get("Destination") == SSO
    assert root.get("AssertionConsumerServiceURL") == login().service.acs_url
    assert root.get("ProtocolBinding").endswith(":HTTP-POST")
    assert root.find("saml:Issuer", NS).text == SERVICE
    assert "ForceAuthn" not in root.attrib
    assert root.find("samlp:NameIDPolicy", NS).get("Format") is None
    assert root.find("samlp:RequestedAuthnContext", NS) is None


async def test_no_two_requests_have_the_same_id() -> None:
    made = login()
    ids = {(await made.begin("s", Ask())).kept["request"] for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"_[0-9a-f]{40}", one) for one in ids)


async def test_a_signed_redirect_verifies_over_the_very_query() -> None:
    query = urlsplit((await login((OURS,)).begin("a state/+", Ask())).url).query
    signed, _, signature = query.partition("&Signature=")
    assert re.fullmatch(r"SAMLRequest=[^&]+&RelayState=[^&]+&SigAlg=[^&]+", signed)
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(OURS.certificate, xmlsec.KeyFormat.CERT_PEM, None)
    octets = base64.b64decode(parse_qs(f"Signature={signature}")["Signature"][0])
    context.verify_binary(signed.encode(), xmlsec.Transform.RSA_SHA256, octets)
    with pytest.raises(xmlsec.Error):
        context.verify_binary(signed.replace("state", "other").encode(), xmlsec.Transform.RSA_SHA256, octets)


async def test_a_posted_request_is_signed_inside_and_behind_the_issuer() -> None:
    begun = await login((OURS,), provider(sso={"post": SSO}), binding="post").begin("state", Ask())
    assert begun.url == SSO
    assert begun.form["RelayState"] == "state"
    root = etree.fromstring(base64.b64decode(begun.form["SAMLRequest"]))
    assert [etree.QName(child).localname for child in root][:2] == ["Issuer", "Signature"]
    xmlsec.tree.add_ids(root, ["ID"])
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(OURS.certificate, xmlsec.KeyFormat.CERT_PEM, None)
    context.verify(root[1])


async def test_requests_are_not_signed_where_that_is_switched_off_or_there_is_no_key() -> None:
    for made in (login(), login((OURS,), sign_requests=False)):
        assert "Signature" not in (await made.begin("state", Ask())).url


async def test_the_other_binding_is_used_where_the_provider_lacks_the_one_asked_for() -> None:
    assert not (await login((), provider(sso={"redirect": SSO}), binding="post").begin("s", Ask())).form
    assert (await login((), provider(sso={"post": SSO})).begin("s", Ask())).form


async def test_an_address_with_a_query_keeps_it() -> None:
    begun = await login((), provider(sso={"redirect": f"{SSO}?tenant=7"})).begin("s", Ask())
    assert begun.url.startswith(f"{SSO}?tenant=7&SAMLRequest=")


async def test_a_provider_without_an_address_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await login((), provider(sso={})).begin("s", Ask())


@pytest.mark.parametrize(
    ("fields", "ask"),
    [
        ({"force_authn": True}, Ask()),
        ({"max_login_age": timedelta(hours=8)}, Ask()),
        ({}, Ask(max_age=900)),
        ({}, Ask(prompt="login")),
    ],
)
async def test_a_new_sign_in_is_asked_for_where_an_old_one_would_not_do(fields: dict[str, Any], ask: Ask) -> None:
    root = request_of((await login(**fields).begin("s", ask)).url)
    assert root.get("ForceAuthn") == "true"


async def test_classes_and_the_format_of_the_name_are_asked_for() -> None:
    made = login(authn_context=[PASSWORD], name_id="email")
    for ask, expected in ((Ask(), [PASSWORD]), (Ask(acr=(MFA,)), [MFA])):
        root = request_of((await made.begin("s", ask)).url)
        context = root.find("samlp:RequestedAuthnContext", NS)
        assert context.get("Comparison") == "exact"
        assert [one.text for one in context] == expected
        assert root.find("samlp:NameIDPolicy", NS).get("Format").endswith(":emailAddress")


# Answers


async def test_a_name_is_nobodys_sub_though_the_provider_calls_itself_the_same_in_both_protocols() -> None:
    by_name = (await sign_in(login())).identity
    by_sub = replace(by_name, provider="corp", issuer=ENTITY)
    assert by_name.subject == by_sub.subject
    assert by_name.key != by_sub.key


async def test_a_good_answer_says_who_somebody_is() -> None:
    now = float(int(time.time()))
    signed = await sign_in(login(), now=now)
    who = signed.identity
    assert (who.provider, who.issuer, who.subject) == ("partners", f"saml:{ENTITY}", "8f14e45f-ada")
    assert (who.username, who.email, who.name) == ("ada@partner.example", "ada@partner.example", "Ada Lovelace")
    assert who.groups == ("wiki-admins", "wiki-readers")
    assert who.claims["name_id"] == "8f14e45f-ada"
    assert who.claims["acr"] == signed.acr == PASSWORD
    assert signed.auth_time == now
    assert signed.sid == session_key("8f14e45f-ada", "_session-7")
    assert signed.alias == "8f14e45f-ada"
    assert read_handle(signed.grant.saml)[1] == "_session-7"
    assert signed.refresh_at == 0.0
    assert {until for _, until in signed.once} == {now + 300 + 30}
    assert len(signed.once) == 2


@pytest.mark.parametrize("signs", [("assertion",), ("response",), ("assertion", "response")])
async def test_whichever_is_signed_is_enough_by_default(signs: tuple[str, ...]) -> None:
    assert (await sign_in(login(), signs=signs)).identity.username == "ada@partner.example"


ALGORITHMS = [
    (xmlsec.Transform.RSA_SHA256, xmlsec.Transform.SHA256),
    (xmlsec.Transform.RSA_SHA384, xmlsec.Transform.SHA384),
    (xmlsec.Transform.RSA_SHA512, xmlsec.Transform.SHA512),
    (xmlsec.Transform.RSA_SHA256, xmlsec.Transform.SHA512),
]


@pytest.mark.parametrize(("method", "digest"), ALGORITHMS)
async def test_the_usual_algorithms_are_accepted(method: Any, digest: Any) -> None:
    assert await sign_in(login(), signature=method, digest=digest)


async def test_during_a_roll_over_each_key_in_the_metadata_counts() -> None:
    both = provider(certificates=(pair("new").certificate, pair().certificate))
    for key in (pair("new"), pair()):
        assert await sign_in(login((), both), key=key)
    made = login((), both)
    assert isinstance(made.metadata, FixedMetadata)
    made.metadata.provider = provider(certificates=(pair("new").certificate,))
    assert await refusal(made) is Reason.TOKEN_INVALID
    made.metadata.provider = provider(certificates=())
    assert await refusal(made) is Reason.TOKEN_INVALID


async def test_names_that_were_declared_far_above_may_be_signed_by_prefix() -> None:
    """InclusiveNamespaces (Exclusive XML Canonicalization, section 2): some providers list xs and xsi."""

    def change(root: Any) -> None:
        assertion = root.find("saml:Assertion", NS)
        signature = sign(assertion, pair())
        transform = list(signature.iter(tag("d:Transform")))[-1]
        xmlsec.template.transform_add_c14n_inclusive_namespaces(transform, ["xs", "samlp"])
        context = xmlsec.SignatureContext()
        context.key = xmlsec.Key.from_memory(pair().key, xmlsec.KeyFormat.PEM, None)
        context.sign(signature)

    signed = await sign_in(login(), signs=(), between=(change,))
    assert signed.identity.username == "ada@partner.example"


async def test_an_answer_is_no_answer_to_another_provider_s_request() -> None:
    made = login()
    begun = await made.begin("state", Ask())
    assert isinstance(made.metadata, FixedMetadata)
    made.metadata.provider = provider(entity_id="https://other.example/")
    with pytest.raises(Refused) as caught:
        await made.finish(begun.kept, {"SAMLResponse": "x"}, time.time())
    assert caught.value.reason is Reason.LOGIN_ISSUER_MIXED


@pytest.mark.parametrize("answer", [{}, {"SAMLResponse": ""}, {"SAMLart": "x"}])
async def test_a_form_without_an_answer_is_refused(answer: Mapping[str, str]) -> None:
    made = login()
    begun = await made.begin("state", Ask())
    with pytest.raises(Refused) as caught:
        await made.finish(begun.kept, answer, time.time())
    assert caught.value.reason is Reason.LOGIN_ANSWER_INVALID


async def test_a_sign_in_that_is_older_than_asked_for_is_refused() -> None:
    now = time.time()
    hour = (authenticated(now - 3600),)
    assert await sign_in(login(), now=now, before=hour)
    assert await refusal(login(), Ask(max_age=900), now=now, before=hour) is Reason.TOKEN_TIME
    assert await refusal(login(max_login_age=timedelta(minutes=5)), now=now, before=hour) is Reason.TOKEN_TIME
    assert await refusal(login(force_authn=True), now=now, before=(authenticated(now - 120),)) is Reason.TOKEN_TIME
    assert await sign_in(login(force_authn=True), now=now, before=(authenticated(now - 5),))


async def test_an_unasked_sign_in_is_held_to_the_same_age_and_class() -> None:
    now = time.time()
    made = login(unsolicited=True, max_login_age=timedelta(minutes=5), authn_context=[PASSWORD])
    for change, is_good in ((authenticated(now), True), (authenticated(now - 3600), False), (classed(MFA), False)):
        text = recipe(request="", now=now, before=(change,)).text()
        if is_good:
            assert await made.finish({}, {"SAMLResponse": text}, now)
        else:
            with pytest.raises(Refused):
                await made.finish({}, {"SAMLResponse": text}, now)


async def test_a_class_that_is_always_asked_for_must_come() -> None:
    made = login(authn_context=[PASSWORD])
    assert await sign_in(made)
    assert await refusal(made, before=(classed(MFA),)) is Reason.TOKEN_CLAIM
    assert (await sign_in(made, Ask(acr=(MFA,)), before=(classed(MFA),))).acr == MFA
    assert (await sign_in(login(), Ask(acr=(MFA,)))).acr == PASSWORD


async def test_the_provider_s_end_of_the_session_is_ours() -> None:
    now = float(int(time.time()))

    def ends(root: Any) -> None:
        root.find(".//saml:AuthnStatement", NS).set("SessionNotOnOrAfter", instant(now + 1800))

    assert (await sign_in(login(), now=now, before=(ends,))).expires == now + 1800
    assert (await sign_in(login(), now=now)).expires == 0.0


async def test_clocks_may_differ_by_the_leeway_and_no_more() -> None:
    made = login(leeway=timedelta(seconds=60))
    begun = await made.begin("state", Ask())
    answer = recipe(request=begun.kept["request"])
    for late, is_good in ((-59, True), (-62, False), (359, True), (361, False)):
        if is_good:
            assert await made.finish(begun.kept, {"SAMLResponse": answer.text()}, answer.now + late)
        else:
            # The times of the answer are in whole seconds, and it is good for 300 of them.
            told = r"6[012] s in the future" if late < 0 else r"6[012] s ago"
            with pytest.raises(Refused, match=rf"{told}.* compare the clocks"):
                await made.finish(begun.kept, {"SAMLResponse": answer.text()}, answer.now + late)


# Names and attributes


async def test_a_transient_name_needs_something_that_lasts() -> None:
    assert await refusal(login(), name_format=TRANSIENT) is Reason.IDENTITY_INCOMPLETE
    subject = Compiler().compile("{{ claims.mail }}")
    signed = await sign_in(login(subject=subject), name_format=TRANSIENT)
    assert signed.identity.subject == "ada@partner.example"
    # Logout messages still use the provider's name.
    assert signed.alias == "8f14e45f-ada"
    missing = Compiler().compile("{{ claims.nothing }}")
    assert await refusal(login(subject=missing)) is Reason.IDENTITY_INCOMPLETE


async def test_a_qualified_name_is_somebody_else() -> None:
    plain = await sign_in(login())
    own = named(NameQualifier=ENTITY, SPNameQualifier=SERVICE)
    assert (await sign_in(login(), before=(own,))).identity.key == plain.identity.key
    keys = {plain.identity.key}
    for change in (named(NameQualifier="x"), named(SPNameQualifier="x"), named(NameQualifier="x", SPNameQualifier="y")):
        keys.add((await sign_in(login(), before=(change,))).identity.key)
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NameId("a", qualifier="b"), NameId("a", sp_qualifier="b")),
        (NameId("a", qualifier="b"), NameId("ba")),
        (NameId("a", qualifier="b"), NameId(subject_of(NameId("a", qualifier="b"), "", ""))),
        (NameId("a", qualifier="bc"), NameId("ca", qualifier="b")),
        (NameId("1:xa", qualifier=""), NameId("a", qualifier="1:x")),
        (NameId("saml:0:0:a"), NameId("a")),
    ],
)
def test_no_two_names_share_a_key(one: NameId, other: NameId) -> None:
    assert subject_of(one, "p", "s") != subject_of(other, "p", "s")


def test_a_session_index_alone_names_no_session() -> None:
    assert session_key("ada", "1") != session_key("bob", "1")
    assert session_key("ada", "") != session_key("ad", "a")
    name = NameId("ada", "f", "q", "s")
    assert read_handle(write_handle(name, "i")) == (name, "i")


def statement(*attributes: str) -> Any:
    return etree.fromstring(
        f'<saml:Assertion xmlns:saml="{NS["saml"]}" xmlns:xsi="{NS["xsi"]}"><saml:AttributeStatement>'
        + "".join(attributes)
        + "</saml:AttributeStatement></saml:Assertion>"
    )


def attribute(name: str, *values: str, friendly: str = "") -> str:
    shown = f' FriendlyName="{friendly}"' if friendly else ""
    inner = "".join(f"<saml:AttributeValue>{value}</saml:AttributeValue>" for value in values)
    return f'<saml:Attribute Name="{name}"{shown}>{inner}</saml:Attribute>'


@pytest.mark.parametrize(
    ("attributes", "mapped", "expected"),
    [
        ([attribute("a", "1")], {}, {"a": "1"}),
        ([attribute("a", "1", "2")], {}, {"a": ["1", "2"]}),
        ([attribute("a")], {}, {"a": []}),
        ([attribute("a", "1"), attribute("a", "2")], {}, {"a": ["1", "2"]}),
        ([attribute("a", " 1 ")], {}, {"a": "1"}),
        ([attribute("urn:a", "1", friendly="a")], {}, {"urn:a": "1", "a": "1"}),
        ([attribute("urn:a", "1", friendly="a")], {"x": "a"}, {"urn:a": "1", "a": "1", "x": "1"}),
        ([attribute("urn:a", "1")], {"x": "urn:a"}, {"urn:a": "1", "x": "1"}),
        ([attribute("urn:a", "1", friendly="a")], {"x": "b"}, {"urn:a": "1", "a": "1"}),
        # The mapping is the operator's word; a Name is stronger than a FriendlyName.
        ([attribute("x", "theirs"), attribute("urn:a", "1")], {"x": "urn:a"}, {"urn:a": "1", "x": "1"}),
        ([attribute("x", "theirs")], {"x": "urn:a"}, {}),
        ([attribute("urn:b", "theirs", friendly="x")], {"x": "urn:a"}, {"urn:b": "theirs"}),
        ([attribute("x", "1"), attribute("y", "2")], {"x": "y", "y": "x"}, {"x": "2", "y": "1"}),
        ([attribute("urn:b", "evil", friendly="a"), attribute("a", "1")], {}, {"urn:b": "evil", "a": "1"}),
        (
            [attribute("urn:a", "1", friendly="f"), attribute("urn:b", "2", friendly="f")],
            {"x": "f"},
            {"urn:a": "1", "urn:b": "2"},
        ),
        # What the sidecar itself says.
        ([attribute(name, "evil") for name in ("sub", "name_id", "acr", "email_verified", "_claim_names")], {}, {}),
        (['<saml:Attribute Name="a"><saml:AttributeValue xsi:nil="true"/></saml:Attribute>'], {}, {"a": []}),
        (
            [
                attribute("a", "<saml:NameID>n</saml:NameID>"),
            ],
            {},
            {"a": "n"},
        ),
    ],
)
def test_attributes_become_claims(attributes: list[str], mapped: dict[str, str], expected: dict[str, Any]) -> None:
    assert claims_of(statement(*attributes), mapped) == expected


async def test_groups_that_did_not_fit_are_unknown_and_not_none() -> None:
    link = {"http://schemas.microsoft.com/claims/groups.link": ("https://graph.example/groups",)}
    windows = "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups"
    lines = plan(groups=Compiler().compile("{{ claims.groups | default([]) }}"))
    mail = {"mail": ("ada@partner.example",)}
    made = login((), None, lines, attributes={"groups": windows})
    assert (await sign_in(made, attributes={**mail, windows: ("a",)})).identity.groups == ("a",)
    assert (await sign_in(made, attributes=mail)).identity.groups == ()
    assert (await sign_in(made, attributes={**mail, **link})).identity.groups is None


@pytest.mark.parametrize(
    ("address", "lines", "expected"),
    [
        ("ada@partner.example", {}, "ada@partner.example"),
        ("ada@PARTNER.example", {}, "ada@partner.example"),
        ("ada@evil.example", {}, ""),
        ("ada@sub.partner.example", {}, ""),
        ("ada@evil.example@partner.example", {}, ""),
        ("ada@evil.example", {"trust_email": True}, "ada@evil.example"),
        ("ada@partner.example", {"email_domains": frozenset()}, ""),
    ],
)
async def test_an_address_counts_where_the_provider_looks_after_its_domain(
    address: str, lines: dict[str, Any], expected: str
) -> None:
    signed = await sign_in(login((), None, plan(**lines)), attributes={"mail": (address,)})
    assert signed.identity.email == expected


# Bounds and times


def test_base64_and_deflate_are_bounded_and_strict() -> None:
    assert decode("YWJj", 3) == b"abc"
    assert decode("YW\r\nJj\n", 3) == b"abc"
    for text, limit in (("YWJj", 2), ("A" * 1000, 10)):
        with pytest.raises(Refused) as caught:
            decode(text, limit)
        assert caught.value.reason is Reason.BODY_TOO_LARGE
    for text in ("YWJ", "Y WJj", "YWJj=", "YÄJj", "YW-_"):
        with pytest.raises(Refused):
            decode(text, 100)


def test_a_bomb_is_not_unpacked() -> None:
    import zlib  # noqa: PLC0415 - of this test alone

    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(b"0" * 50_000_000) + packer.flush()
    with pytest.raises(Refused) as caught:
        inflate(bomb, 1000)
    assert caught.value.reason is Reason.BODY_TOO_LARGE
    small = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = small.compress(b"abc") + small.flush()
    assert inflate(packed, 3) == b"abc"
    for raw in (packed[:-1], packed + b"x", b"", b"\xff\xff"):
        with pytest.raises(Refused):
            inflate(raw, 100)


def test_all_text_of_an_element_is_read() -> None:
    assert text_of(parse(b"<a> one<b>two</b>three </a>")) == "onetwothree"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", 1767323045.0),
        ("2026-01-02T03:04:05.250Z", 1767323045.25),
        ("2026-01-02T04:04:05+01:00", 1767323045.0),
        ("2026-01-02T03:04:05.123456789012Z", 1767323045.123456789012),
    ],
)
def test_times_are_read(text: str, expected: float) -> None:
    assert read_instant(text, "x") == expected


NO_TIMES = """
now|2026-01-02|2026-01-02T03:04:05|2026-13-02T03:04:05Z|20260102T030405Z|2026-01-02T24:00:00Z|2026-01-02T03:04:05z
٢٠٢٦-01-02T03:04:05Z|0000-01-01T00:00:00Z|-2026-01-02T03:04:05Z|2026-01-02T03:04:05Z+
"""


@pytest.mark.parametrize("text", ["", *NO_TIMES[1:-1].replace("\n", "|").split("|")])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        read_instant(text, "x")
    assert caught.value.reason is Reason.TOKEN_TIME


def test_times_are_written_as_they_are_read() -> None:
    assert read_instant(write_instant(1767323045.9), "x") == 1767323045.0


# The bench


async def test_a_full_bench_refuses_and_recovers() -> None:
    bench, gate = Bench(most=3), threading.Event()
    waiting = [asyncio.create_task(bench.work(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as caught:
        await bench.work(lambda: True)
    assert (caught.value.reason, caught.value.status) == (Reason.BUSY, 503)
    gate.set()
    assert await asyncio.gather(*waiting) == [True, True, True]
    assert await bench.work(lambda: 7) == 7
    bench.close()


async def test_work_that_nobody_waits_for_any_more_still_counts() -> None:
    bench, gate = Bench(most=1), threading.Event()
    task = asyncio.create_task(bench.work(gate.wait))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(Unavailable):
        await bench.work(lambda: True)
    gate.set()
    bench.close()


async def test_the_loop_goes_on_while_answers_are_verified() -> None:
    made = login()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    begun = await made.begin("s", Ask())
    text = recipe(request=begun.kept["request"]).text()
    before = ticks
    await made.finish(begun.kept, {"SAMLResponse": text}, time.time())
    assert ticks > before + 1
    ticking.cancel()


# The rest of the seam


async def test_what_saml_does_not_have_is_refused_and_the_metadata_is_let_go() -> None:
    made = login()
    signed = await sign_in(made)
    for call in (made.refresh(None, signed.grant, 0.0), made.logged_out("token", 0.0)):  # type: ignore[arg-type]
        with pytest.raises(Refused):
            await call
    await made.close()
    assert isinstance(made.metadata, FixedMetadata)
    assert made.metadata.closed


async def test_a_probe_says_what_to_register() -> None:
    line = await login().probe()
    assert ENTITY in line
    assert f"register {login().service.acs_url} for {SERVICE}" in line
    with pytest.raises(Unavailable, match="signed requests"):
        await login((), provider(wants_signed_requests=True)).probe()
    assert await login((OURS,), provider(wants_signed_requests=True)).probe()


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ((KeyPair("no certificate", OURS.key),), r"keys\[0\]\.certificate"),
        ((OURS, KeyPair(OURS.certificate, "no key")), r"keys\[1\]\.key"),
        ((KeyPair(OURS.certificate, pair().key),), "does not belong"),
    ],
)
def test_keys_that_cannot_be_used_are_named(keys: tuple[KeyPair, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        login(keys)


def test_nothing_secret_is_in_what_is_printed() -> None:
    assert "PRIVATE" not in repr(login((OURS,)).service)
    assert "PRIVATE" not in repr(Secret(OURS.key))


# In the running sidecar


async def test_a_page_that_asks_for_a_second_factor_sends_back_and_lets_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [
        {"path": "/vault/**", "allow": "signed_in", "require": {"acr": [MFA]}},
        {"path": "/**", "allow": "signed_in"},
    ]
    partners = await start(world, monkeypatch, config={"access": rules})
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser, "/")
        await partners.bring(browser, partners.recipe(begun).text(), begun.relay_state)
        assert (await browser.page("/")).status == 200
        stronger = await partners.begin(browser, "/vault/x")
        assert request_of(stronger.url).find(".//saml:AuthnContextClassRef", NS).text == MFA
        made = partners.recipe(stronger, before=(classed(MFA),))
        answer = await partners.bring(browser, made.text(), stronger.relay_state)
        assert answer.headers["Location"] == "/vault/x"
        assert (await browser.page("/vault/x")).status == 200


async def test_a_session_ends_when_the_provider_says(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    partners = await start(world, monkeypatch)

    def ends(root: Any) -> None:
        root.find(".//saml:AuthnStatement", NS).set("SessionNotOnOrAfter", instant(world.clock() + 60))

    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        await partners.bring(browser, partners.recipe(begun, before=(ends,)).text(), begun.relay_state)
        assert (await browser.fetch("/")).status == 200
        world.clock.ahead += 61
        assert (await browser.fetch("/")).status == 401


async def test_a_flood_of_answers_is_told_to_come_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    partners = await start(world, monkeypatch)
    made = partners.running.sidecar.front.portal.sign_in.logins["partners"]
    assert isinstance(made, SamlSignIn)
    monkeypatch.setattr(made, "_bench", Bench(most=0))
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        answer = await partners.bring(browser, partners.recipe(begun).text(), begun.relay_state)
        assert answer.status == 503
        assert "busy" in await answer.text()
        assert "Retry-After" in answer.headers


async def test_no_assertion_name_or_state_is_in_the_audit_lines_of_a_refusal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    partners = await start(world, monkeypatch)
    async with partners.running.browser() as browser:
        begun = await partners.begin(browser)
        made: Recipe = partners.recipe(begun, signs=())
        await partners.bring(browser, made.text(), begun.relay_state)
    text = str(partners.running.audit())
    for secret in ("8f14e45f-ada", "ada@partner.example", begun.relay_state, begun.request, made.text()[:40]):
        assert secret not in text


async def test_a_posted_request_leaves_by_itself_in_a_browser_and_by_a_button_without_scripts(
    world: World, monkeypatch: pytest.MonkeyPatch, page: Page
) -> None:
    asked: list[str] = []

    async def provide(request: Any) -> Any:
        from aiohttp import web  # noqa: PLC0415 - of this test alone

        if request.path == "/sso":
            asked.append((await request.text())[:12])
        return web.Response(text="the provider", content_type="text/html")

    application = await world.application()
    application.answer = provide
    partners = await start(
        world, monkeypatch, provider(sso={"post": f"http://localhost:{application.port}/sso"}), binding="post"
    )
    await page.goto(f"{partners.running.url}/wiki")
    await page.wait_for_url("**/sso")
    assert await page.inner_text("body") == "the provider"
    assert asked == ["SAMLRequest="]
    browser = page.context.browser
    assert browser is not None
    context = await browser.new_context(java_script_enabled=False)
    plain = await context.new_page()
    await plain.goto(f"{partners.running.url}/wiki")
    await plain.get_by_role("button", name="Continue").click()
    await plain.wait_for_url("**/sso")
    assert len(asked) == 2
    await context.close()


async def test_a_provider_s_page_in_a_real_browser_brings_somebody_back(
    world: World, monkeypatch: pytest.MonkeyPatch, page: Page
) -> None:
    """The provider is 127.0.0.1, another site than localhost: Chromium sends no Lax cookie along with its POST."""
    from aiohttp import web  # noqa: PLC0415 - of this test alone

    idp = await world.application()

    async def provide(request: Any) -> Any:
        begun = request_of(str(request.url))
        made = partners.recipe(None, request=begun.get("ID")).text()
        fields = {"SAMLResponse": made, "RelayState": request.query["RelayState"]}
        inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
        form = f'<form method="post" action="{partners.acs}">{inputs}<button>Go</button></form>'
        return web.Response(text=form, content_type="text/html")

    idp.answer = provide
    where = f"http://127.0.0.1:{idp.port}/sso"
    partners = await start(world, monkeypatch, provider(sso={"redirect": where}))
    await page.goto(f"{partners.running.url}/wiki/page?a=1")
    await page.get_by_role("button", name="Go").click()
    await page.wait_for_url("**/wiki/page?a=1")
    assert partners.running.application.seen[-1].values("X-App-User") == ["ada@partner.example"]
