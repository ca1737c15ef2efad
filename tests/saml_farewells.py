"""Messages of single logout, forged and genuine, and what carries them."""

from __future__ import annotations

import base64
import secrets
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import unescape
from pathlib import Path
from re import findall
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import aiohttp
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate
from lxml import etree
from onelogin.saml2 import utils
from yarl import URL

from sidecar.logins.saml.parties import KeyPair
from sidecar.logins.saml.signing import sign_octets
from tests.saml_forger import ENTITY, NS, PERSISTENT, encrypt, instant, pair, sign
from tests.saml_metadata import described
from tests.saml_world import CROSS_SITE, IDENTITY, SamlWorld
from tests.world import Browser, Running, World

SCHEMAS = Path(utils.__file__).parent / "schemas"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
PROTOCOL = "{urn:oasis:names:tc:SAML:2.0:protocol}"


@dataclass(frozen=True)
class Farewell:
    """How a message of the provider is made; `to` is our address for it."""

    to: str
    now: float
    kind: str = "LogoutRequest"
    name_id: str = "8f14e45f-ada"
    sessions: Sequence[str] = ()
    issuer: str = ENTITY
    key: KeyPair | None = field(default_factory=pair)
    attributes: Mapping[str, str | None] = field(default_factory=dict)
    hidden: KeyPair | None = None
    status: Sequence[str] = ("Success",)
    before: Callable[[Any], None] | None = None
    after: Callable[[Any], None] | None = None

    def tree(self) -> Any:
        """The message, unsigned."""
        root = etree.Element(f"{PROTOCOL}{self.kind}", nsmap={"samlp": NS["samlp"], "saml": NS["saml"]})
        standard = {
            "ID": f"_{secrets.token_hex(16)}",
            "Version": "2.0",
            "IssueInstant": instant(self.now),
            "Destination": self.to,
        }
        for name, value in {**standard, **self.attributes}.items():
            if value is not None:
                root.set(name, value)
        etree.SubElement(root, f"{{{NS['saml']}}}Issuer").text = self.issuer
        if self.kind == "LogoutRequest":
            name = etree.SubElement(root, f"{{{NS['saml']}}}NameID", Format=PERSISTENT)
            name.text = self.name_id
            if self.hidden is not None:
                encrypt(name, self.hidden)
            for session in self.sessions:
                etree.SubElement(root, f"{PROTOCOL}SessionIndex").text = session
        else:
            parent = etree.SubElement(root, f"{PROTOCOL}Status")
            for code in self.status:
                value = f"urn:oasis:names:tc:SAML:2.0:status:{code}"
                parent = etree.SubElement(parent, f"{PROTOCOL}StatusCode", Value=value)
        if self.before is not None:
            self.before(root)
        return root

    @property
    def parameter(self) -> str:
        """SAMLRequest or SAMLResponse."""
        return "SAMLRequest" if self.kind == "LogoutRequest" else "SAMLResponse"

    def form(self, relay_state: str = "") -> dict[str, str]:
        """The message by a form, signed inside."""
        root = self.tree()
        if self.key is not None:
            sign(root, self.key)
        if self.after is not None:
            self.after(root)
        fields = {self.parameter: base64.b64encode(etree.tostring(root, encoding="utf-8")).decode()}
        return {**fields, "RelayState": relay_state} if relay_state else fields

    def query(self, relay_state: str = "", *, lower: bool = False) -> str:
        """The message by a redirect, signed beside; some write `%2f` instead of `%2F`."""
        root = self.tree()
        if self.after is not None:
            self.after(root)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(etree.tostring(root, encoding="utf-8")) + packer.flush()
        parts = [f"{self.parameter}={quote(base64.b64encode(packed), safe='')}"]
        if relay_state:
            parts.append(f"RelayState={quote(relay_state, safe='')}")
        if self.key is None:
            return "&".join(parts)
        parts.append(f"SigAlg={quote(RSA_SHA256, safe='')}")
        text = "&".join(parts)
        if lower:
            for code in ("2F", "2B", "3D", "3A", "23"):
                text = text.replace(f"%{code}", f"%{code.lower()}")
        return f"{text}&Signature={quote(sign_octets(text.encode(), self.key), safe='')}"


@dataclass
class Partners(SamlWorld):
    """A sidecar whose provider takes part in single logout."""

    @property
    def slo(self) -> str:
        """Where messages about signing out go."""
        return f"{self.running.url}/-/saml/partners/logout"

    def farewell(self, **changes: Any) -> Farewell:
        """A good LogoutRequest with *changes*."""
        return replace(Farewell(self.slo, self.world.clock()), **changes)

    async def sign_in(self, browser: Browser, **changes: Any) -> None:
        """Sign in, by an answer with *changes*."""
        begun = await self.begin(browser)
        answer = await self.bring(browser, self.recipe(begun, **changes).text(), begun.relay_state)
        assert answer.status == 302, await answer.text()

    async def is_in(self, browser: Browser) -> bool:
        """Whether the session of *browser* is alive."""
        return (await browser.fetch("/")).status == 200

    async def send(self, message: Farewell, way: str, relay_state: str = "") -> aiohttp.ClientResponse:
        """Send a message as a browser brings it from the provider's site, with no cookie of ours."""
        headers = {**Browser.PAGE, **CROSS_SITE}
        async with aiohttp.ClientSession() as http:
            if way == "post":
                answer = await http.post(
                    self.slo, data=message.form(relay_state), headers=headers, allow_redirects=False
                )
            else:
                url = URL(f"{self.slo}?{message.query(relay_state)}", encoded=True)
                answer = await http.get(url, headers=headers, allow_redirects=False)
            await answer.read()
            return answer

    def events(self, name: str) -> list[dict[str, Any]]:
        """Audit lines of one event."""
        return [line for line in self.running.audit() if line["event"] == name]


def written(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Key pairs of ours as the configuration names them."""
    lines = []
    for name in names:
        (folder / f"{name}.pem").write_text(pair(name).certificate)
        (folder / f"{name}.key").write_text(pair(name).key)
        lines.append({"certificate": str(folder / f"{name}.pem"), "key": {"file": str(folder / f"{name}.key")}})
    return lines


def section(folder: Path, content: str = "", **lines: Any) -> dict[str, Any]:
    """The login ``partners`` with metadata in a file and a key of ours."""
    file = folder / "idp.xml"
    file.write_text(content or described())
    standard = {"domains": ["partner.example"], "identity": IDENTITY, "keys": written(folder, "ours")}
    return {"type": "saml", "metadata": str(file), **standard, **lines}


async def partners_of(world: World, folder: Path, content: str = "", **lines: Any) -> Partners:
    """Start a sidecar with the login ``partners``."""
    running: Running = await world({"logins": {"corp": None, "partners": section(folder, content, **lines)}})
    return Partners(running, world)


def redirected(url: str) -> tuple[Any, dict[str, str]]:
    """(message, parameters) of a redirect of ours, whose signature is verified."""
    query = urlsplit(url).query
    fields = dict(parse_qsl(query))
    octets, _, _ = query.partition("&Signature=")
    key = load_pem_x509_certificate(pair("ours").certificate.encode()).public_key()
    assert isinstance(key, RSAPublicKey)
    key.verify(base64.b64decode(fields["Signature"]), octets.encode(), PKCS1v15(), SHA256())
    text = fields.get("SAMLRequest") or fields["SAMLResponse"]
    return etree.fromstring(zlib.decompress(base64.b64decode(text), -15)), fields


def posted(page: str) -> tuple[Any, dict[str, str], str]:
    """(message, fields, address) of a page of ours that posts; its signature is verified."""
    fields = {
        unescape(name): unescape(value)
        for name, value in findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
    }
    [action] = findall(r'action="([^"]+)"', page)
    raw = base64.b64decode(fields.get("SAMLRequest") or fields["SAMLResponse"])
    certificate = pair("ours").certificate
    tools = utils.OneLogin_Saml2_Utils
    assert tools.validate_sign(raw, cert=certificate, xpath="/*/ds:Signature", raise_exceptions=True)
    return etree.fromstring(raw), fields, unescape(action)


def is_schema_valid(root: Any, schema: str) -> bool:
    """Whether *root* fits one of the schemas that python3-saml ships."""
    return bool(etree.XMLSchema(etree.parse(SCHEMAS / schema)).validate(etree.fromstring(etree.tostring(root))))
