"""``sidecar doctor`` looks at providers of sign-ins: what they say, whether they return to us and know us."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc.jwk import RSAKey

from sidecar.doctor.examination import examine
from tests.doctor_world import FAILURE, OK, SKIPPED, WARNING, examined, impostor, one, patient_of, written
from tests.saml_metadata import described, metadata_server
from tests.services.certificates import make_self_signed
from tests.services.keycloak import KeycloakServer
from tests.services.oidc import OidcProvider

RETURN = "https://wiki.example.com/-/callback/corp"
OUTSIDE: Mapping[str, Any] = {
    "server": {"public_url": "https://wiki.example.com"},
    "logins": {"corp": {"client_id": "wiki", "client_secret": {"env": "OIDC_SECRET"}}},
}
CHECKS = ("oidc", "redirect", "client")


async def test_a_good_provider_has_no_remarks(tmp_path: Path, oidc_provider: OidcProvider) -> None:
    oidc_provider.client([RETURN], client_id="wiki", secret="hidden-client-secret")
    found = await examined(tmp_path, OUTSIDE, *CHECKS, ISSUER=oidc_provider.issuer)
    assert [(finding.name, finding.severity) for finding in found] == [
        ("oidc-metadata", OK),
        ("oidc-keys", OK),
        ("oidc-capabilities", OK),
        ("redirect-uri", OK),
        ("client-authentication", OK),
    ], found


async def test_an_address_that_is_not_registered_is_named(tmp_path: Path, oidc_provider: OidcProvider) -> None:
    oidc_provider.client(["https://old.example.com/-/callback/corp"], client_id="wiki", secret="hidden-client-secret")
    finding = one(await examined(tmp_path, OUTSIDE, "redirect-uri", ISSUER=oidc_provider.issuer), "redirect-uri")
    assert finding.severity is FAILURE
    assert RETURN in finding.change
    assert (finding.path, finding.line > 0) == ("server.public_url", True)


async def test_a_wrong_secret_is_found_before_anybody_signs_in(tmp_path: Path, oidc_provider: OidcProvider) -> None:
    oidc_provider.client([RETURN], client_id="wiki", secret="another-one-than-ours")
    finding = one(await examined(tmp_path, OUTSIDE, "client", ISSUER=oidc_provider.issuer), "client-authentication")
    assert finding.severity is FAILURE
    assert "invalid_client" in finding.seen
    assert finding.path == "logins.corp.client_secret"


async def test_a_provider_that_takes_any_secret_is_named(tmp_path: Path) -> None:
    async with impostor() as provider:
        provider.describes()
        provider.answers["/token"] = lambda _: web.json_response({"error": "invalid_grant"}, status=400)
        found = await examined(tmp_path, OUTSIDE, "client-authentication", ISSUER=provider.url)
    finding = one(found, "client-authentication")
    assert (finding.severity, "public" in finding.seen) == (WARNING, True)


async def test_a_client_that_the_provider_does_not_know(tmp_path: Path, oidc_provider: OidcProvider) -> None:
    found = await examined(tmp_path, OUTSIDE, "redirect", "client", ISSUER=oidc_provider.issuer)
    assert one(found, "redirect-uri").path == "logins.corp.client_id"
    assert one(found, "client-authentication").severity is FAILURE


async def test_keycloak_says_the_same(tmp_path: Path, keycloak: KeycloakServer) -> None:
    secret = keycloak.oidc_client("wiki", [RETURN])
    environment = {"ISSUER": keycloak.issuer, "OIDC_SECRET": secret}
    for finding in await examined(tmp_path, OUTSIDE, *CHECKS, **environment):
        assert finding.severity is OK, finding
    elsewhere = {**OUTSIDE, "server": {"public_url": "https://other.example.com"}}
    finding = one(await examined(tmp_path, elsewhere, "redirect", **environment), "redirect-uri")
    assert (finding.severity, "other.example.com" in finding.change) == (FAILURE, True), finding
    finding = one(await examined(tmp_path, OUTSIDE, "client", ISSUER=keycloak.issuer), "client-authentication")
    assert finding.severity is FAILURE, finding


@pytest.mark.parametrize(
    ("changes", "name", "word"),
    [
        ({"issuer": "https://elsewhere.example"}, "oidc-metadata", "elsewhere.example"),
        ({"token_endpoint": "http://id.example.com/token"}, "oidc-metadata", "token_endpoint"),
        ({"jwks_uri": None}, "oidc-metadata", "jwks_uri"),
        ({}, "oidc-keys", "nothing"),
        ({"response_types_supported": ["id_token"]}, "oidc-capabilities", "response_types_supported"),
        ({"code_challenge_methods_supported": ["plain"]}, "oidc-capabilities", "S256"),
        ({"token_endpoint_auth_methods_supported": ["none"]}, "oidc-capabilities", "client_secret_basic"),
        ({"id_token_signing_alg_values_supported": ["HS256"]}, "oidc-capabilities", "HS256"),
    ],
)
async def test_what_is_wrong_in_a_discovery_document_is_named(
    changes: Mapping[str, Any], name: str, word: str, tmp_path: Path
) -> None:
    async with impostor() as provider:
        provider.describes(**changes)
        found = await examined(tmp_path, OUTSIDE, name, ISSUER=provider.url)
    finding = one(found, name)
    assert finding.severity in (WARNING, FAILURE)
    assert word in finding.seen
    assert finding.path.startswith("logins.corp")


async def test_keys_that_do_not_fit_the_accepted_algorithms(tmp_path: Path) -> None:
    key = RSAKey.generate_key(2048, {"kid": "a", "use": "sig"}, private=False).as_dict(private=False)
    changes = {**OUTSIDE, "logins": {"corp": {"algorithms": ["ES256"]}}}
    async with impostor() as provider:
        provider.describes()
        provider.answers["/jwks"] = lambda _: web.json_response({"keys": [key]})
        assert one(await examined(tmp_path, changes, "oidc-keys", ISSUER=provider.url), "oidc-keys").severity is FAILURE
        assert one(await examined(tmp_path, OUTSIDE, "oidc-keys", ISSUER=provider.url), "oidc-keys").severity is OK


async def test_a_provider_that_says_nothing_of_our_address_is_no_good_news(tmp_path: Path) -> None:
    async with impostor() as provider:
        provider.describes()
        # A sign-in page comes whether or not the address is known.
        provider.answers["/auth"] = lambda _: web.Response(text="<h1>Sign in</h1> redirect_uri")
        finding = one(await examined(tmp_path, OUTSIDE, "redirect", ISSUER=provider.url), "redirect-uri")
    assert finding.severity is SKIPPED
    assert RETURN in finding.seen


async def test_a_redirect_to_somewhere_else_with_our_address_in_it_is_no_good_news(tmp_path: Path) -> None:
    async with impostor() as provider:
        provider.describes()

        def elsewhere(request: web.BaseRequest) -> web.Response:
            return web.Response(status=302, headers={"Location": f"/login?next={request.raw_path}"})

        provider.answers["/auth"] = elsewhere
        finding = one(await examined(tmp_path, OUTSIDE, "redirect", ISSUER=provider.url), "redirect-uri")
    assert finding.severity is SKIPPED


def saml_login(folder: Path, metadata: str, **lines: Any) -> Mapping[str, Any]:
    corp = {"type": "saml", "metadata": metadata, "name_id": "persistent", **lines}
    base = {"issuer": None, "client_id": None, "client_secret": None}
    return {"server": {"public_url": "https://wiki.example.com"}, "logins": {"corp": {**base, **corp}}}


async def test_saml_metadata_that_ended_or_is_about_somebody_else(tmp_path: Path) -> None:
    async with metadata_server(described(entity_attributes='validUntil="2020-01-01T00:00:00Z"')) as server:
        found = await examined(tmp_path, saml_login(tmp_path, server.url), "saml")
        assert one(found, "saml-metadata").severity is FAILURE
    async with metadata_server(described()) as server:
        other = saml_login(tmp_path, server.url, idp="https://other.example/idp")
        assert one(await examined(tmp_path, other, "saml"), "saml-metadata").severity is FAILURE
        good = await examined(tmp_path, saml_login(tmp_path, server.url), "saml-metadata")
        assert one(good, "saml-metadata").severity is OK


async def test_saml_certificates_that_end_soon_theirs_and_ours(tmp_path: Path) -> None:
    ours = make_self_signed(tmp_path, "ours", days=3)
    keys = [{"certificate": str(ours.certificate), "key": {"file": str(ours.key)}}]
    async with metadata_server(described()) as server:
        patient = patient_of(written(tmp_path, saml_login(tmp_path, server.url, keys=keys)))
        found = await examine(patient, only=["saml"])
        assert one(found, "saml-keys").severity is WARNING
        assert one(found, "saml-keys").path == "logins.corp.keys[0].certificate"
        patient = patient_of(written(tmp_path, saml_login(tmp_path, server.url)))
        certificate = one(await examine(patient, only=["saml-certificates"]), "saml-certificates")
        year = 365 * 86400.0
        now = patient.clock()
        patient = patient_of(written(tmp_path, saml_login(tmp_path, server.url)))
        patient.clock = lambda: now + 20 * year
        late = one(await examine(patient, only=["saml-certificates"]), "saml-certificates")
    assert (late.severity, "ended" in late.seen) == (WARNING, True), (certificate, late)
