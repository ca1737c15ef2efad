"""The section of a sign-in at a SAML identity provider."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from sidecar.config.login import IdentityTemplates
from sidecar.config.section import Section
from sidecar.config.values import Duration, FilePath, SecretText, Size, TemplateText, Text, Texts

Preset = Literal["entra", "okta", "adfs", "google", "keycloak", "shibboleth", "simplesamlphp"]
NameIdFormat = Literal["persistent", "transient", "email", "unspecified"]
# What nobody should use any more, and some must: named one by one, never by a general switch.
Weak = Literal["sha1", "rsa1_5", "aes_cbc"]


class SamlKey(Section):
    """One key pair of ours. The first of several signs; all are published, and all decrypt."""

    certificate: FilePath = Field(description="PEM file of the certificate, as the metadata shows it")
    key: SecretText = Field(description="PEM of its private key, RSA of 2048 bits or more")


class SamlLogin(Section):
    """Sign-in at one SAML identity provider (SAML 2.0 Web Browser SSO profile, begun here)."""

    type: Literal["saml"] = Field(description="SAML 2.0")
    title: Text = Field("", description="what the button says; the name when left out")
    preset: Preset | None = Field(None, description="claim names and quirks of a product; single lines override them")
    metadata: Text = Field(description="the provider's metadata: an https address, or a file")
    metadata_certificate: FilePath | None = Field(
        None, description="PEM file of the certificate that signs the metadata; then no other is believed"
    )
    metadata_fingerprint: Text | None = Field(
        None, description="SHA-256 of that certificate in hexadecimal, in place of the file"
    )
    metadata_refresh: Duration = Field(timedelta(hours=1), description="how often it is fetched again")
    idp: Text | None = Field(
        None, description="entityID of the provider; needed where the metadata or the SAML logins know several"
    )
    entity_id: Text | None = Field(None, description="what we call ourselves; the address of our metadata by default")
    keys: tuple[SamlKey, ...] = Field((), description="our key pairs, newest first")
    sign_requests: bool | None = Field(None, description="by default when there is a key")
    sign_metadata: bool = Field(default=False, description="sign our own metadata")
    binding: Literal["redirect", "post"] = Field("redirect", description="how requests are sent")
    name_id: NameIdFormat | None = Field(None, description="format of the NameID that is asked for")
    subject: TemplateText | None = Field(
        None, description="what names the person for ever; the NameID by default, which must not be transient then"
    )
    attributes: dict[str, Text] = Field(
        default_factory=dict, description="name in claims → Name or FriendlyName of the attribute"
    )
    domains: Texts = Field((), description="e-mail domains whose people sign in here")
    identity: IdentityTemplates = Field(IdentityTemplates(), description="lines that differ from the general identity")
    trust_email: bool = Field(
        default=False, description="believe e-mail addresses outside `domains`; those inside are believed anyway"
    )
    signed: Literal["either", "assertion", "response", "both"] = Field("either", description="what must be signed")
    encrypted: Literal["optional", "required"] = Field("optional", description="must assertions be encrypted")
    weak: tuple[Weak, ...] = Field((), description="outdated algorithms that are accepted all the same")
    authn_context: Texts = Field((), description="RequestedAuthnContext: classes that are always asked for")
    force_authn: bool = Field(default=False, description="always ask for a new sign-in at the provider")
    max_login_age: Duration | None = Field(None, description="ask for a sign-in at the provider not older than this")
    unsolicited: bool = Field(default=False, description="accept sign-ins that begin at the provider")
    leeway: Duration = Field(timedelta(seconds=30), description="tolerated clock difference")
    timeout: Duration = Field(timedelta(seconds=10), description="longest wait for the metadata")
    max_answer: Size = Field(256 * 1024, description="longest answer, before and after it is unpacked")
    sign_out: bool = Field(default=True, description="also sign out at the provider")
    ca: FilePath | None = Field(None, description="PEM file of the authorities to trust; the system's when left out")
