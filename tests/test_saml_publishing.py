"""Our own metadata: at a stable address, valid by the schema, with every key, signed when that is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from onelogin.saml2.utils import OneLogin_Saml2_Utils

from sidecar.config.loader import ConfigError
from sidecar.logins.saml.instants import read_instant
from sidecar.logins.saml.names import md
from tests.saml_farewells import Partners, is_schema_valid, partners_of, written
from tests.saml_forger import pair
from tests.saml_metadata import described, metadata_server
from tests.world import World

SCHEMA = "saml-schema-metadata-2.0.xsd"


async def published(partners: Partners) -> tuple[bytes, Any]:
    """Our metadata as its address gives it."""
    async with partners.running.browser() as browser:
        answer = await browser.fetch("/-/saml/partners/metadata")
        assert answer.status == 200
        assert answer.content_type == "application/samlmetadata+xml"
        raw = await answer.read()
    return raw, etree.fromstring(raw)


async def test_it_says_who_we_are_and_where(world: World, tmp_path: Path) -> None:
    partners = await partners_of(world, tmp_path, name_id="persistent")
    _, root = await published(partners)
    assert is_schema_valid(root, SCHEMA)
    assert root.get("entityID") == f"{partners.running.url}/-/saml/partners/metadata"
    assert 86400 < read_instant(root.get("validUntil"), "") - world.clock() <= 14 * 86400
    descriptor = root.find(md("SPSSODescriptor"))
    assert (descriptor.get("AuthnRequestsSigned"), descriptor.get("WantAssertionsSigned")) == ("true", "true")
    ends = [
        (end.get("Binding").rpartition("-")[2], end.get("Location")) for end in root.iter(md("SingleLogoutService"))
    ]
    assert ends == [("Redirect", partners.slo), ("POST", partners.slo)]
    [consumer] = root.iter(md("AssertionConsumerService"))
    assert consumer.get("Location") == partners.acs
    assert consumer.get("Binding").endswith("HTTP-POST")
    assert root.findtext(f".//{md('NameIDFormat')}").endswith(":persistent")


async def test_while_a_key_is_rolled_over_both_are_there_and_the_new_one_signs(world: World, tmp_path: Path) -> None:
    keys = written(tmp_path, "new", "old")
    partners = await partners_of(world, tmp_path, keys=keys, sign_metadata="true", entity_id="urn:example:wiki")
    raw, root = await published(partners)
    assert is_schema_valid(root, SCHEMA)
    assert root.get("entityID") == "urn:example:wiki"
    shown = [(key.get("use"), "".join(key.itertext()).strip()) for key in root.iter(md("KeyDescriptor"))]
    lines = {name: "".join(pair(name).certificate.splitlines()[1:-1]) for name in ("new", "old")}
    assert shown == [(use, lines[name]) for name in ("new", "old") for use in ("signing", "encryption")]
    tools = OneLogin_Saml2_Utils
    assert tools.validate_metadata_sign(raw, cert=pair("new").certificate, raise_exceptions=True)
    assert not tools.validate_metadata_sign(raw, cert=pair("old").certificate)


async def test_without_a_key_nothing_is_signed_and_no_sign_out_is_offered(world: World, tmp_path: Path) -> None:
    partners = await partners_of(world, tmp_path, keys=[], sign_metadata="false", signed="response")
    _, root = await published(partners)
    assert is_schema_valid(root, SCHEMA)
    descriptor = root.find(md("SPSSODescriptor"))
    assert (descriptor.get("AuthnRequestsSigned"), descriptor.get("WantAssertionsSigned")) == ("false", "false")
    assert not list(root.iter(md("SingleLogoutService"), md("KeyDescriptor")))


async def test_our_own_metadata_needs_nothing_of_the_provider(world: World, tmp_path: Path) -> None:
    async with metadata_server(b"down") as server:
        partners = await partners_of(world, tmp_path, metadata=server.url)
        _, root = await published(partners)
        assert is_schema_valid(root, SCHEMA)


async def test_a_provider_that_is_down_stops_nothing_and_is_told_to_operators(world: World, tmp_path: Path) -> None:
    async with metadata_server(b"down") as server:
        partners = await partners_of(world, tmp_path, metadata=server.url)
        sidecar = partners.running.sidecar
        async with partners.running.browser() as browser:
            assert (await browser.page("/-/login")).status == 503
            assert (await browser.fetch("/-/ready")).status == 200
            assert "not well-formed" in (await sidecar.condition.readiness())["metadata.partners"]
            assert "metadata" not in await (await browser.fetch("/-/ready")).text()
            assert b'sidecar_provider_metadata_total{provider="partners",result="failed"}' in sidecar.metrics.render()
            server.body = described().encode()
            world.clock.ahead = 10
            assert (await browser.page("/-/login")).status == 302
            assert "metadata.partners" not in await sidecar.condition.readiness()
            assert b'sidecar_provider_metadata_total{provider="partners",result="ok"}' in sidecar.metrics.render()


async def test_a_certificate_that_is_not_there_is_told_at_once(world: World, tmp_path: Path) -> None:
    with pytest.raises((ValueError, ConfigError), match=r"logins\.partners\.metadata_certificate"):
        await partners_of(world, tmp_path, metadata_certificate="gone.pem")
