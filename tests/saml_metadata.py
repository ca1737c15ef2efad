"""Metadata of made-up identity providers, and a real HTTP server that gives it in good and bad ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from lxml import etree

from sidecar.config.saml import SamlLogin
from sidecar.logins.saml.metadata import ProviderDescription
from sidecar.logins.saml.metadata_document import Seal
from sidecar.logins.saml.metadata_place import place_of
from sidecar.logins.saml.parties import KeyPair
from tests.saml_forger import ENTITY, SSO, pair, sign

SLO = "https://idp.partner.example/slo"
_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-"
_HEAD = (
    'xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" '
    'xmlns:mdui="urn:oasis:names:tc:SAML:metadata:ui"'
)


def _key(one: KeyPair, use: str = "signing") -> str:
    lines = "".join(line for line in one.certificate.splitlines() if "-----" not in line)
    shown = f' use="{use}"' if use else ""
    return (
        f"<md:KeyDescriptor{shown}><ds:KeyInfo><ds:X509Data><ds:X509Certificate>{lines}"
        "</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"
    )


def described(
    entity: str = ENTITY,
    *keys: KeyPair,
    sso: str = SSO,
    slo: str = SLO,
    entity_attributes: str = "",
    role_attributes: str = "",
    inside: str = "",
    use: str = "signing",
) -> str:
    """The EntityDescriptor of an identity provider."""
    shown = "".join(_key(one, use) for one in keys or (pair(),))
    ends = "".join(
        f'<md:SingleLogoutService Binding="{_BINDING}{way}" Location="{slo}"/>' for way in ("Redirect", "POST")
    )
    return (
        f'<md:EntityDescriptor {_HEAD} ID="_{abs(hash(entity))}" entityID="{entity}" {entity_attributes}>'
        f'<md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol" {role_attributes}>'
        f"{inside}{shown}{ends if slo else ''}"
        f'<md:SingleSignOnService Binding="{_BINDING}Redirect" Location="{sso}"/></md:IDPSSODescriptor>'
        "</md:EntityDescriptor>"
    )


def federation(*members: str, attributes: str = "") -> str:
    """An EntitiesDescriptor with *members*."""
    return f'<md:EntitiesDescriptor {_HEAD} ID="_federation" {attributes}>{"".join(members)}</md:EntitiesDescriptor>'


def signed(text: str, key: KeyPair, change: Callable[[Any], None] | None = None) -> bytes:
    """Metadata *text* signed with *key*, and changed afterwards."""
    root = etree.fromstring(text)
    sign(root, key)
    if change is not None:
        change(root)
    return bytes(etree.tostring(root, encoding="utf-8"))


@dataclass
class MetadataServer:
    """Gives `body`; `answer` replaces the whole answer. `seen` are the headers of each request."""

    body: bytes = b""
    etag: str = ""
    answer: Callable[[web.BaseRequest], Any] | None = None
    seen: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        self.seen.append(dict(request.headers))
        if self.answer is not None:
            answer: web.StreamResponse = await self.answer(request)
            return answer
        headers = {"ETag": self.etag} if self.etag else {}
        if self.etag and request.headers.get("If-None-Match") == self.etag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=self.body, content_type="application/samlmetadata+xml", headers=headers)


@asynccontextmanager
async def metadata_server(body: bytes | str = b"") -> AsyncIterator[MetadataServer]:
    """Serve *body* on a free port."""
    server = MetadataServer(body.encode() if isinstance(body, str) else body)
    runner = web.ServerRunner(web.Server(server.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/metadata"
    try:
        yield server
    finally:
        await runner.cleanup()


def known(place: str, clock: Callable[[], float], seal: Seal | None = None, **lines: Any) -> ProviderDescription:
    """What is known of the provider whose metadata is at *place*."""
    section = SamlLogin(type="saml", **{"metadata": place, "timeout": "2s", **lines})
    return ProviderDescription("partners", section, place_of("partners", section), seal or Seal(), clock)


async def never(_: web.BaseRequest) -> web.StreamResponse:
    """Never answer."""
    await asyncio.sleep(60)
    raise AssertionError


async def endless(request: web.BaseRequest) -> web.StreamResponse:
    """Answer for ever."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"<!-- more -->" * 5000)
