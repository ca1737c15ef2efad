"""A provider's metadata over HTTP and from files: bounded, signed, refreshed, and never replaced by something worse."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from sidecar.faults import Unavailable
from sidecar.logins.saml import metadata_document
from sidecar.logins.saml.metadata import ProviderDescription, certificate_remarks
from sidecar.logins.saml.metadata_document import Seal
from sidecar.reason import Reason
from tests.saml_forger import ENTITY, SSO, instant, pair, sign
from tests.saml_metadata import SLO, described, endless, federation, known, metadata_server, never, signed
from tests.world import Clock

OTHER = "https://other.example/idp"
SEAL = Seal(certificate=pair("federation").certificate)


def fingerprint(name: str) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pair(name).certificate)).hexdigest()


async def said(metadata: ProviderDescription, clock: Clock) -> str:
    """Why the metadata cannot be used."""
    with pytest.raises(Unavailable) as caught:
        await metadata.current(clock())
    assert caught.value.reason is Reason.PROVIDER_DOWN
    await metadata.close()
    return caught.value.detail


async def test_what_is_described_is_read() -> None:
    clock = Clock()
    inside = (
        '<md:Extensions><mdui:UIInfo><mdui:DisplayName xml:lang="de">Partner de</mdui:DisplayName>'
        '<mdui:DisplayName xml:lang="en">Partner</mdui:DisplayName></mdui:UIInfo></md:Extensions>'
    )
    text = described(inside=inside, role_attributes='WantAuthnRequestsSigned="true"')
    async with metadata_server(text) as server:
        metadata = known(server.url, clock)
        provider = await metadata.current(clock())
        await metadata.close()
    assert provider.entity_id == ENTITY
    assert provider.sso == {"redirect": SSO}
    assert provider.slo == {"redirect": SLO, "post": SLO}
    assert provider.certificates == (pair().certificate,)
    assert provider.wants_signed_requests
    assert provider.title == "Partner"
    assert provider.valid_until is None


async def test_the_same_octets_are_not_sent_again() -> None:
    clock = Clock()
    async with metadata_server(described()) as server:
        server.etag = '"one"'
        metadata = known(server.url, clock)
        await metadata.current(clock())
        await metadata._flight.join()
        assert server.seen[1]["If-None-Match"] == '"one"'
        assert (await metadata.current(clock())).entity_id == ENTITY
        assert metadata.complaint == ""
        await metadata.close()


async def test_a_new_certificate_is_known_without_a_restart_and_strangers_cannot_make_us_ask_all_day() -> None:
    clock = Clock()
    async with metadata_server(described()) as server:
        metadata = known(server.url, clock)
        await metadata.current(clock())
        assert await metadata.renewed(clock()) is None
        server.body = described(ENTITY, pair("two"), pair()).encode()
        assert await metadata.renewed(clock()) is None
        assert len(server.seen) == 2
        clock.ahead = 31
        newer = await metadata.renewed(clock())
        assert newer is not None
        assert newer.certificates == (pair("two").certificate, pair().certificate)
        assert (await metadata.current(clock())) == newer
        assert len(server.seen) == 3
        await metadata.close()


BAD_COPIES: list[tuple[Any, str]] = [
    (b"<html>down for maintenance</html>", "no EntityDescriptor"),
    (b"<broken", "not well-formed"),
    (described(OTHER, pair("evil")).encode(), "no identity provider https://idp.partner.example"),
    (described(sso="javascript:alert(1)").encode(), "no https address"),
    (described(entity_attributes='validUntil="2020-01-01T00:00:00Z"').encode(), "expired"),
    (b"\xff\xfe<", "not UTF-8"),
]


@pytest.mark.parametrize(("bad", "why"), BAD_COPIES, ids=[why for _, why in BAD_COPIES])
async def test_a_bad_new_copy_never_replaces_a_good_old_one(bad: bytes, why: str) -> None:
    clock = Clock()
    async with metadata_server(described()) as server:
        metadata = known(server.url, clock, idp=ENTITY)
        good = await metadata.current(clock())
        server.body = bad
        with pytest.raises(Unavailable):
            await metadata._flight.join()
        assert await metadata.current(clock()) == good
        assert why in metadata.complaint
        server.body = described().encode()
        await metadata._flight.join()
        assert metadata.complaint == ""
        await metadata.close()


async def test_an_expired_copy_is_not_used_even_when_nothing_newer_can_be_had() -> None:
    clock = Clock()
    soon = instant(clock() + 100)
    async with metadata_server(federation(described(), attributes=f'validUntil="{soon}"')) as server:
        server.etag = '"same"'
        metadata = known(server.url, clock)
        assert (await metadata.current(clock())).valid_until == pytest.approx(clock() + 100, abs=2)
        clock.ahead = 101
        assert "expired" in await said(metadata, clock)


@pytest.mark.parametrize("level", ["group", "entity", "role"])
async def test_valid_until_counts_at_every_level(level: str) -> None:
    clock = Clock()
    past = f'validUntil="{instant(clock() - 5)}"'
    later = f'validUntil="{instant(clock() + 500)}"'
    member = described(
        entity_attributes=past if level == "entity" else later, role_attributes=past if level == "role" else later
    )
    text = federation(federation(member), attributes=past if level == "group" else later)
    async with metadata_server(text) as server:
        assert "expired" in await said(known(server.url, clock), clock)


async def test_cache_duration_and_valid_until_make_it_look_sooner() -> None:
    clock = Clock()
    lines = f'cacheDuration="PT10M" validUntil="{instant(clock() + 600)}"'
    async with metadata_server(described(entity_attributes=lines)) as server:
        metadata = known(server.url, clock, metadata_refresh="6h")
        assert metadata.lifetime() == 6 * 3600
        await metadata.current(clock())
        assert metadata.lifetime() == pytest.approx(300, abs=2)
        server.body = described(entity_attributes='cacheDuration="P0Y0M0DT0H2M0.0S"').encode()
        await metadata._flight.join()
        assert metadata.lifetime() == 120
        await metadata.close()


async def test_a_federation_needs_the_name_of_one_member() -> None:
    clock = Clock()
    text = federation(described(), federation(described(OTHER, pair("two"), slo="")))
    async with metadata_server(text) as server:
        assert "name one (idp)" in await said(known(server.url, clock), clock)
        one = known(server.url, clock, idp=OTHER)
        provider = await one.current(clock())
        await one.close()
        assert (provider.entity_id, provider.certificates, provider.slo) == (OTHER, (pair("two").certificate,), {})
        server.body = federation(described(), described()).encode()
        assert "twice" in await said(known(server.url, clock, idp=ENTITY), clock)


async def test_a_descriptor_inside_an_extension_describes_nobody() -> None:
    clock = Clock()
    hidden = f"<md:Extensions>{described(OTHER)}</md:Extensions>"
    async with metadata_server(federation(hidden)) as server:
        assert "no identity provider" in await said(known(server.url, clock), clock)


async def test_a_key_without_a_use_signs_and_one_for_encryption_does_not() -> None:
    clock = Clock()
    async with metadata_server(described(use="")) as server:
        metadata = known(server.url, clock)
        assert (await metadata.current(clock())).certificates == (pair().certificate,)
        await metadata.close()
        server.body = described(use="encryption").encode()
        assert "0 usable signing certificates" in await said(known(server.url, clock), clock)


async def test_a_signed_copy_is_believed_by_certificate_and_by_fingerprint() -> None:
    clock = Clock()
    text = federation(described(), "<!-- members -->", described(OTHER))
    colons = ":".join(fingerprint("federation")[at : at + 2] for at in range(0, 64, 2)).upper()
    async with metadata_server(signed(text, pair("federation"))) as server:
        for seal in (SEAL, Seal(fingerprint=fingerprint("federation")), Seal(fingerprint=colons)):
            metadata = known(server.url, clock, seal, idp=ENTITY)
            assert (await metadata.current(clock())).entity_id == ENTITY
            await metadata.close()


def another_key(root: Any) -> None:
    root.find(".//{*}SingleSignOnService").set("Location", "https://evil.example/sso")


def wrapped(root: Any) -> None:
    """Put the signed document into a new one that says something else (and has the signature, too)."""
    evil = etree.fromstring(described(OTHER, pair("evil")))
    original = etree.fromstring(etree.tostring(root))
    signature = root.find("{*}Signature")
    for child in list(root):
        root.remove(child)
    root.append(signature)
    extensions = etree.SubElement(root, "{urn:oasis:names:tc:SAML:2.0:metadata}Extensions")
    extensions.append(original)
    root.append(evil)


def not_the_root(root: Any) -> None:
    """Leave the signature of a member only."""
    signature = root.find("{*}Signature")
    root.remove(signature)
    member = root.find("{*}EntityDescriptor")
    sign(member, pair("federation"))


def to_elsewhere(root: Any) -> None:
    root.find(".//{*}Reference").set("URI", "file:///etc/passwd")


def with_xslt(root: Any) -> None:
    root.find(".//{*}Transform").set("Algorithm", "http://www.w3.org/TR/1999/REC-xslt-19991116")


def with_sha1(root: Any) -> None:
    root.find(".//{*}SignatureMethod").set("Algorithm", "http://www.w3.org/2000/09/xmldsig#rsa-sha1")


FORGERIES: list[tuple[Any, str]] = [
    (another_key, "fits no key"),
    (wrapped, "there twice"),
    (not_the_root, "not signed"),
    (to_elsewhere, "something else than its parent"),
    (with_xslt, "transforms"),
    (with_sha1, "not accepted"),
]


@pytest.mark.parametrize(("change", "why"), FORGERIES, ids=[change.__name__ for change, _ in FORGERIES])
async def test_t42_metadata_whose_signature_is_not_the_roots_own_is_refused(change: Any, why: str) -> None:
    clock = Clock()
    text = federation(described(), described(OTHER))
    async with metadata_server(signed(text, pair("federation"), change)) as server:
        assert why in await said(known(server.url, clock, SEAL, idp=ENTITY), clock)


async def test_t40_metadata_signed_with_a_key_of_its_own_is_refused() -> None:
    clock = Clock()
    async with metadata_server(signed(described(), pair("evil"))) as server:
        assert "fits no key" in await said(known(server.url, clock, SEAL), clock)
        by_print = Seal(fingerprint=fingerprint("federation"))
        assert "another certificate" in await said(known(server.url, clock, by_print), clock)
        server.body = described().encode()
        assert "not signed" in await said(known(server.url, clock, SEAL), clock)


DOCUMENT_TYPES = [
    b'<!DOCTYPE x [<!ENTITY e "boom">]>',
    b'<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd">',
]


@pytest.mark.parametrize("head", DOCUMENT_TYPES, ids=["entity", "external"])
async def test_t38_metadata_with_a_document_type_is_refused(head: bytes) -> None:
    clock = Clock()
    async with metadata_server(head + described().encode()) as server:
        assert "a document type" in await said(known(server.url, clock), clock)


async def test_t43_metadata_is_bounded_in_elements_and_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    async with metadata_server(federation(described(), "<a/>" * 400_001)) as server:
        assert "too many elements" in await said(known(server.url, clock), clock)
        server.body = federation(described(), "<a>" * 300 + "</a>" * 300).encode()
        assert "not well-formed" in await said(known(server.url, clock), clock)
    monkeypatch.setattr(metadata_document, "LARGEST", 100)
    with pytest.raises(Unavailable, match="more than 100 bytes"):
        metadata_document.parse_metadata(described().encode())


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "http://idp.partner.example/sso", "data:text/html,x", "//x"]
)
async def test_t47_an_address_that_no_browser_may_be_sent_to_makes_the_copy_bad(address: str) -> None:
    clock = Clock()
    for text in (described(sso=address), described(slo=address)):
        async with metadata_server(text) as server:
            assert "no https address" in await said(known(server.url, clock), clock)


async def test_t63_metadata_that_never_ends_or_never_comes_is_given_up() -> None:
    clock = Clock()
    async with metadata_server() as server:
        server.answer = endless
        assert "more than 10485760 bytes" in await said(known(server.url, clock, timeout="30s"), clock)
        server.answer = never
        assert "no answer in time" in await said(known(server.url, clock, timeout="200ms"), clock)


async def test_metadata_over_plain_http_from_elsewhere_is_not_fetched() -> None:
    clock = Clock()
    assert "not https" in await said(known("http://idp.partner.example/metadata", clock), clock)


async def test_a_provider_that_is_down_at_the_start_is_asked_again_later() -> None:
    clock = Clock()
    async with metadata_server(b"") as server:
        metadata = known(server.url, clock)
        with pytest.raises(Unavailable):
            await metadata.current(clock())
        # Everybody who comes now is told at once, and the provider is left alone.
        with pytest.raises(Unavailable):
            await metadata.current(clock())
        assert len(server.seen) == 1
        server.body = described().encode()
        clock.ahead = 6
        assert (await metadata.current(clock())).entity_id == ENTITY
        await metadata.close()


async def test_a_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "idp.xml"
    file.write_text(described())
    metadata = known(str(file), clock)
    assert (await metadata.current(clock())).certificates == (pair().certificate,)
    assert metadata.lifetime() == 5
    replacement = tmp_path / "new.xml"
    replacement.write_text(described(ENTITY, pair("two")))
    replacement.replace(file)
    await metadata._flight.join()
    assert (await metadata.current(clock())).certificates == (pair("two").certificate,)
    file.unlink()
    with pytest.raises(Unavailable, match="No such file"):
        await metadata._flight.join()
    assert (await metadata.current(clock())).certificates == (pair("two").certificate,)
    await metadata.close()


async def test_a_new_copy_about_another_provider_is_not_used() -> None:
    clock = Clock()
    async with metadata_server(described()) as server:
        metadata = known(server.url, clock)
        assert (await metadata.current(clock())).entity_id == ENTITY
        server.body = described(OTHER).encode()
        with pytest.raises(Unavailable, match=r"about another provider: 'https://other\.example/idp'"):
            await metadata._flight.join()
        assert (await metadata.current(clock())).entity_id == ENTITY
        await metadata.close()


async def test_probing_says_what_an_operator_should_know() -> None:
    clock = Clock()
    async with metadata_server(described(slo="")) as server:
        metadata = known(server.url, clock)
        line = await metadata.probe()
        clock.ahead = 400 * 86400
        provider = await metadata.current(clock())
        await metadata.close()
    assert line.startswith(f"{ENTITY}: 1 signing certificates, takes requests by redirect")
    assert "its signature is not checked" in line
    assert "it has no sign-out" in line
    assert "ends" in line
    assert certificate_remarks(provider, clock())[0].startswith("certificate 1 ended")
