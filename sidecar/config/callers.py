"""Sections about programs that call: API tokens of ours, certificates that a front proxy passes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sidecar.config.login import IdentityTemplates
from sidecar.config.section import Section
from sidecar.config.values import Duration, FilePath, Network, OneOrMany, TemplateText, Text, Texts
from sidecar.model import Identity

# Names that rules use beside those of logins.
TOKENS = "tokens"
CERTIFICATES = "certificates"
# Who vouches for such callers: no provider can say this of itself, as it is no address.
SERVICE_ISSUER = "sidecar:service"
CERTIFICATE_ISSUER = "sidecar:certificate"


def service_identity(name: str) -> Identity:
    """Who the service of that *name* is: nobody's provider says anything of it."""
    return Identity(TOKENS, SERVICE_ISSUER, name, name, groups=())


class Tokens(Section):
    """API tokens that the sidecar issues by `sidecar tokens`; rules let them in with `bearer: tokens`."""

    lifetime: Duration = Field(timedelta(days=30), description="how long a token is good when nothing else is said")
    max_lifetime: Duration = Field(
        timedelta(days=90), description="longest; also of those that were issued for longer before"
    )
    basic: Literal["never", "any_user", "same_user"] = Field(
        "never", description="take a token as the password of Basic; same_user: the user name must be the owner's"
    )
    forward_basic: bool = Field(
        default=False,
        description="pass Basic credentials on to the application, as long as no token of ours is in them",
    )


class CertificateCaller(Section):
    """Who comes with a certificate like this; every line given must hold, any value within a line is enough."""

    cn: Texts = Field((), description="common names of the subject")
    san: Texts = Field((), description="DNS names, addresses or URIs among the subject's alternative names")
    fingerprint: Texts = Field((), description="SHA-256 of the certificate, in hexadecimal")
    claims: dict[str, Any] = Field(default_factory=dict, description="what is known of them, for identity and rules")

    @field_validator("fingerprint")
    @classmethod
    def _plain(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        plain = tuple(one.replace(":", "").lower() for one in given)
        if any(len(one) != 64 or set(one) - set("0123456789abcdef") for one in plain):
            message = "a fingerprint is the SHA-256 of the certificate: 64 hexadecimal digits"
            raise ValueError(message)
        return plain

    @model_validator(mode="after")
    def _says_something(self) -> CertificateCaller:
        if not (self.cn or self.san or self.fingerprint):
            message = "fits every certificate; write cn, san or fingerprint"
            raise ValueError(message)
        return self


class Certificates(Section):
    """Callers whose TLS client certificate a front proxy passes on; rules let them in with `bearer: certificates`."""

    proxies: Annotated[tuple[Network | Literal["unix"], ...], OneOrMany] = Field(
        min_length=1, description="peers that are believed, by network; unix: whoever comes by the Unix socket"
    )
    header: Text = Field("Client-Cert", description="header that the certificate comes in; from nobody else")
    format: Literal["rfc9440", "nginx", "envoy", "traefik"] = Field(
        "rfc9440", description="how it is written; nginx: $ssl_client_escaped_cert, envoy: X-Forwarded-Client-Cert"
    )
    ca: FilePath = Field(description="PEM file of the authorities that callers' certificates must come from")
    callers: dict[str, CertificateCaller] = Field(
        default_factory=dict, description="subject → whose certificate it is; anybody of the authorities when left out"
    )
    subject: TemplateText | None = Field(
        None, description="without callers: who somebody is, from claims; the fingerprint when left out"
    )
    identity: IdentityTemplates = Field(IdentityTemplates(), description="who they are, from claims")
