"""An identity provider that signs anything: the material of every SAML attack, with keys that are really trusted."""

from __future__ import annotations

import base64
import copy
import functools
import secrets
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from lxml import etree

from sidecar.config.saml import SamlLogin
from sidecar.core.claims import IdentityPlan
from sidecar.core.template import Compiler
from sidecar.logins.saml.grammar import tag
from sidecar.logins.saml.login import SamlSignIn
from sidecar.logins.saml.parties import IdentityProvider, KeyPair, ServiceProvider

ENTITY = "https://idp.partner.example/metadata"
SSO = "https://idp.partner.example/sso"
SERVICE = "https://wiki.example.com/_/metadata/partners"
ACS = "https://wiki.example.com/_/callback/partners"
NS = {
    "samlp": "urn:oasis:names:tc:SAML:2.0:protocol",
    "saml": "urn:oasis:names:tc:SAML:2.0:assertion",
    "ds": "http://www.w3.org/2000/09/xmldsig#",
    "xenc": "http://www.w3.org/2001/04/xmlenc#",
    "xs": "http://www.w3.org/2001/XMLSchema",
    "xsi": "http://www.w3.org/2001/XMLSchema-instance",
}
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
PASSWORD = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "mail": ("ada@partner.example",),
    "displayName": ("Ada Lovelace",),
    "groups": ("wiki-admins", "wiki-readers"),
}

Change = Callable[[Any], None]


@functools.cache
def pair(name: str = "one") -> KeyPair:
    """A key pair, the same each time for the same name."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


@dataclass
class FixedMetadata:
    """The provider's description, as a test wants it."""

    provider: IdentityProvider
    closed: bool = False

    async def current(self, _now: float) -> IdentityProvider:
        """The description in force."""
        return self.provider

    async def renewed(self, _now: float) -> IdentityProvider | None:
        """Nothing is newer."""
        return None

    async def keep_fresh(self) -> None:
        """Nothing changes."""

    async def probe(self) -> str:
        """Describe it in a line."""
        return f"{self.provider.entity_id}, {len(self.provider.certificates)} certificates"

    async def close(self) -> None:
        """Remember that it was let go of."""
        self.closed = True


def provider(**changes: Any) -> IdentityProvider:
    """The forger's description, as its metadata would give it."""
    standard: dict[str, Any] = {"entity_id": ENTITY, "sso": {"redirect": SSO}, "certificates": (pair().certificate,)}
    return IdentityProvider(**{**standard, **changes})


def plan(**lines: Any) -> IdentityPlan:
    """The identity plan of the forger's people."""
    compiled = Compiler().compile
    standard: dict[str, Any] = {
        "username": compiled("{{ claims.mail }}"),
        "email": compiled("{{ claims.mail }}"),
        "name": compiled("{{ claims.displayName }}"),
        "groups": compiled("{{ claims.groups }}"),
        "claims": None,
        "email_domains": frozenset({"partner.example"}),
    }
    return IdentityPlan(**{**standard, **lines})


def section(**fields: Any) -> SamlLogin:
    """The configuration of a login at the forger."""
    return SamlLogin(type="saml", **{"metadata": ENTITY, **fields})


def login(
    keys: tuple[KeyPair, ...] = (), describe: IdentityProvider | None = None, lines: IdentityPlan | None = None, /,
    **fields: Any,
) -> SamlSignIn:  # fmt: skip
    """A login at the forger, with *fields* in its section."""
    service = ServiceProvider(SERVICE, ACS, f"{ACS}/slo", SERVICE, keys)
    metadata = FixedMetadata(describe or provider())
    return SamlSignIn("partners", section(**fields), service, metadata, lines or plan())


def instant(seconds: float) -> str:
    """Time as SAML writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def request_of(url: str) -> Any:
    """The AuthnRequest in a redirect."""
    [packed] = parse_qs(urlsplit(url).query)["SAMLRequest"]
    return etree.fromstring(zlib.decompress(base64.b64decode(packed), -15))


@dataclass(frozen=True)
class Recipe:
    """How an answer is made; the defaults make a good one. Names of changes say when they are applied."""

    request: str = "_request"
    acs: str = ACS
    audience: str = SERVICE
    issuer: str = ENTITY
    name_id: str = "8f14e45f-ada"
    name_format: str = PERSISTENT
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: ATTRIBUTES)
    session: str = "_session-7"
    now: float = field(default_factory=time.time)
    signs: tuple[str, ...] = ("assertion",)
    key: KeyPair = field(default_factory=pair)
    signature: Any = None
    digest: Any = None
    # (key of ours, cipher, key transport)
    encrypt: tuple[KeyPair, Any, Any] | None = None
    before: tuple[Change, ...] = ()
    between: tuple[Change, ...] = ()
    after: tuple[Change, ...] = ()

    def build(self) -> Any:
        """The answer as a tree."""
        root = etree.fromstring(self._text())
        for change in self.before:
            change(root)
        assertion = root.find("saml:Assertion", NS)
        if "assertion" in self.signs and assertion is not None:
            sign(assertion, self.key, self.signature, self.digest)
        root = fresh(root)
        for change in self.between:
            change(root)
        if self.encrypt is not None:
            encrypt(root.find("saml:Assertion", NS), *self.encrypt)
        if "response" in self.signs:
            sign(root, self.key, self.signature, self.digest)
        root = fresh(root)
        for change in self.after:
            change(root)
        return root

    def raw(self) -> bytes:
        """The answer as octets."""
        return bytes(etree.tostring(self.build(), encoding="utf-8"))

    def text(self) -> str:
        """The answer as it travels."""
        return base64.b64encode(self.raw()).decode()

    def _text(self) -> str:
        asked = f' InResponseTo="{self.request}"' if self.request else ""
        soon, long_ago = instant(self.now + 300), instant(self.now - 60)
        names = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NS.items() if prefix in ("saml", "samlp"))
        lines = "".join(
            f'<saml:Attribute Name="{name}">'
            + "".join(
                f'<saml:AttributeValue xmlns:xs="{NS["xs"]}" xmlns:xsi="{NS["xsi"]}" xsi:type="xs:string">{value}'
                "</saml:AttributeValue>"
                for value in values
            )
            + "</saml:Attribute>"
            for name, values in self.attributes.items()
        )
        return f"""<samlp:Response {names} ID="_{secrets.token_hex(16)}" Version="2.0"
 IssueInstant="{instant(self.now)}" Destination="{self.acs}"{asked}><saml:Issuer>{self.issuer}</saml:Issuer>
<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>
<saml:Assertion ID="_{secrets.token_hex(16)}" Version="2.0" IssueInstant="{instant(self.now)}">
<saml:Issuer>{self.issuer}</saml:Issuer>
<saml:Subject><saml:NameID Format="{self.name_format}">{self.name_id}</saml:NameID>
<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">
<saml:SubjectConfirmationData NotOnOrAfter="{soon}" Recipient="{self.acs}"{asked}/></saml:SubjectConfirmation>
</saml:Subject><saml:Conditions NotBefore="{long_ago}" NotOnOrAfter="{soon}">
<saml:AudienceRestriction><saml:Audience>{self.audience}</saml:Audience></saml:AudienceRestriction></saml:Conditions>
<saml:AuthnStatement AuthnInstant="{instant(self.now)}" SessionIndex="{self.session}"><saml:AuthnContext>
<saml:AuthnContextClassRef>{PASSWORD}</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>
<saml:AttributeStatement>{lines}</saml:AttributeStatement></saml:Assertion></samlp:Response>"""


def fresh(root: Any) -> Any:
    """*root* parsed anew: lxml does not find elements by name that another library made."""
    return etree.fromstring(etree.tostring(root))


def recipe(**changes: Any) -> Recipe:
    """The recipe of a good answer with *changes*."""
    return replace(Recipe(), **changes)


def sign(element: Any, key: KeyPair, method: Any = None, digest: Any = None, *, transforms: Any = None) -> Any:
    """Put a signature of *element* behind its Issuer; the Signature."""
    signature = xmlsec.template.create(
        element, xmlsec.Transform.EXCL_C14N, method or xmlsec.Transform.RSA_SHA256, ns="ds"
    )
    element.insert(1 if element.find("saml:Issuer", NS) is not None else 0, signature)
    reference = xmlsec.template.add_reference(signature, digest or xmlsec.Transform.SHA256, uri=f"#{element.get('ID')}")
    for transform in transforms or (xmlsec.Transform.ENVELOPED, xmlsec.Transform.EXCL_C14N):
        xmlsec.template.add_transform(reference, transform)
    xmlsec.template.add_x509_data(xmlsec.template.ensure_key_info(signature))
    resign(signature, key)
    return signature


def resign(signature: Any, key: KeyPair) -> None:
    """Compute digest and value of *signature* anew, with whatever is in it."""
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(key.key, xmlsec.KeyFormat.PEM, None)
    context.key.load_cert_from_memory(key.certificate, xmlsec.KeyFormat.CERT_PEM)
    xmlsec.tree.add_ids(signature.getroottree().getroot(), ["ID"])
    context.sign(signature)


def encrypt(element: Any, key: KeyPair, cipher: Any = None, transport: Any = None) -> Any:
    """Put an EncryptedAssertion or EncryptedID in place of *element*; the EncryptedData."""
    cipher, transport = cipher or xmlsec.Transform.AES256_GCM, transport or xmlsec.Transform.RSA_OAEP
    holder = etree.Element(tag("a:EncryptedID" if element.tag == tag("a:NameID") else "a:EncryptedAssertion"))
    tail, element.tail = element.tail, None
    element.getparent().replace(element, holder)
    holder.tail = tail
    holder.append(element)
    data = xmlsec.template.encrypted_data_create(holder, cipher, type=xmlsec.EncryptionType.ELEMENT, ns="xenc")
    xmlsec.template.encrypted_data_ensure_cipher_value(data)
    info = xmlsec.template.encrypted_data_ensure_key_info(data, ns="ds")
    wrapped = xmlsec.template.add_encrypted_key(info, transport)
    xmlsec.template.encrypted_data_ensure_cipher_value(wrapped)
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_memory(key.certificate, xmlsec.KeyFormat.CERT_PEM, None))
    context = xmlsec.EncryptionContext(manager)
    bits = int("".join(letter for letter in cipher.name if letter.isdigit())[:3])
    context.key = xmlsec.Key.generate(xmlsec.KeyData.AES, bits, xmlsec.KeyDataType.SESSION)
    return context.encrypt_xml(data, element)


def forged(assertion: Any, who: str = "mallory") -> Any:
    """An unsigned copy of *assertion* that speaks of somebody else, with an id of its own."""
    evil = copy.deepcopy(assertion)
    evil.set("ID", "_evil")
    signature = evil.find("ds:Signature", NS)
    if signature is not None:
        evil.remove(signature)
    evil.find("saml:Subject/saml:NameID", NS).text = who
    for value in evil.iter(tag("a:AttributeValue")):
        value.text = f"{who}@partner.example"
    return evil
