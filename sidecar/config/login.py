"""Sections about signing in: providers, what an identity is made of, roles."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sidecar.config.section import Section
from sidecar.config.values import (
    Duration,
    FilePath,
    OneOrMany,
    SecretOrTemplate,
    SecretText,
    Size,
    TemplateText,
    Text,
    Texts,
)

# Asymmetric only: an HMAC algorithm would turn a public key into a signing key (RFC 8725, section 3.1).
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class IdentityTemplates(Section):
    """How an identity is read from the provider's claims; each login may override single lines.

    A line whose claim is missing gives an empty value, for ``groups`` "unknown"; ``username`` must not be empty.
    """

    username: TemplateText | None = Field(None, description="required, here or at the login")
    email: TemplateText | None = Field(None, description="kept only when the provider verified it, or trust_email")
    name: TemplateText | None = Field(None, description="what people are called on pages and in headers")
    groups: TemplateText | None = Field(None, description="a list of texts; a missing claim means unknown, not none")


class Introspection(Section):
    """Ask the provider about opaque access tokens (RFC 7662), as the login's client."""

    endpoint: Text | None = Field(None, description="address to ask; the one that the provider publishes when left out")
    cache: Duration = Field(timedelta(seconds=60), description="longest time that a good token is remembered")
    negative: Duration = Field(timedelta(seconds=5), description="how long a bad one is")
    timeout: Duration = Field(timedelta(seconds=3), description="longest wait for the answer")


class Bearer(Section):
    """Accept this provider's JWT access tokens from API callers (RFC 9068)."""

    audience: Texts = Field(min_length=1, description="required: who the token is for")
    issuer: Text | None = Field(None, description="issuer of the tokens when it differs from the login's")
    types: Texts = Field(("at+jwt", "application/at+jwt"), description='accepted typ headers; add "JWT" where needed')
    max_age: Duration = Field(timedelta(hours=1), description="longest lifetime of a JWT that is accepted")
    introspection: Introspection | None = Field(None, description="also accept opaque tokens, and ask what they are")


class GroupsSource(Section):
    """Where the groups are when the provider sends only a reference to them, as Entra does for people in many.

    The address is this one, never the one in the token.
    """

    url: Text = Field(
        description="first page, such as https://graph.microsoft.com/v1.0/me/transitiveMemberOf?$select=id"
    )
    scope: Texts = Field(
        (), description="asked for at the sign-in, beside scopes, so that the access token is good there"
    )
    claim: Text = Field("groups", description="claim that the groups stand for")
    items: Text = Field("value", description="key of the list in the answer")
    field: Text = Field("id", description='key of the group\'s name in an item; "" when items are texts')
    next: Text = Field(
        "@odata.nextLink", description="key of the next page's address, which must be on the same server"
    )
    pages: int = Field(20, ge=1, le=100, description="most pages; more make the groups unknown")
    timeout: Duration = Field(timedelta(seconds=5), description="longest wait for one page")
    ca: FilePath | None = Field(None, description="PEM file of the authorities to trust; the system's when left out")


class OidcLogin(Section):
    """Sign-in at one OpenID provider (OpenID Connect Core 1.0, authorization code with PKCE)."""

    type: Literal["oidc"] = Field(description="OpenID Connect")
    title: Text = Field("", description="what the button says; the name when left out")
    issuer: Text = Field(description="address of the provider, exactly as it calls itself")
    discovery: Text | None = Field(
        None, description="address of the discovery document when it is not the standard one"
    )
    client_id: Text = Field(description="what the provider calls this application")
    client_secret: SecretText | None = Field(None, description="left out for public clients and private_key_jwt")
    client_auth: Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"] | None = Field(
        None, description="client_secret_basic with a secret, private_key_jwt with a key, none otherwise"
    )
    private_key: SecretText | None = Field(None, description="PEM or JWK for private_key_jwt")
    private_key_id: Text | None = Field(None, description="key id (kid) that the provider knows it by")
    scopes: Texts = Field(("openid", "profile", "email"), description="must contain openid")
    algorithms: Annotated[tuple[Algorithm, ...], OneOrMany] = Field(
        ("RS256",), min_length=1, description="accepted signatures of tokens"
    )
    userinfo: Literal["auto", "always", "never"] = Field("auto", description="auto: when a claim is missing")
    parameters: dict[str, Text] = Field(
        default_factory=dict, description="extra parameters of the authorization request"
    )
    domains: Texts = Field((), description="e-mail domains whose people sign in here")
    identity: IdentityTemplates = Field(IdentityTemplates(), description="lines that differ from the general identity")
    trust_email: bool = Field(default=False, description="believe e-mail addresses without email_verified")
    leeway: Duration = Field(timedelta(seconds=30), description="tolerated clock difference")
    timeout: Duration = Field(timedelta(seconds=10), description="longest wait for an answer of the provider")
    max_login_age: Duration | None = Field(None, description="ask for a sign-in at the provider not older than this")
    refresh: bool = Field(default=True, description="keep claims fresh with the refresh token, when there is one")
    sign_out: bool = Field(default=True, description="also sign out at the provider")
    front_channel: bool = Field(
        default=False, description="take the provider's sign-outs through the browser, which nobody signs"
    )
    groups_source: GroupsSource | None = Field(None, description="where to fetch groups that overflow the token")
    bearer: Bearer | None = Field(None, description="also accept access tokens from API callers")
    ca: FilePath | None = Field(None, description="PEM file of the authorities to trust; the system's when left out")

    @model_validator(mode="after")
    def _consistent(self) -> OidcLogin:
        how = self.client_authentication
        if how.startswith("client_secret") and self.client_secret is None:
            message = f"{how} needs client_secret"
            raise ValueError(message)
        if how == "private_key_jwt" and self.private_key is None:
            message = "private_key_jwt needs private_key"
            raise ValueError(message)
        if "openid" not in self.scopes:
            message = "scopes must contain openid"
            raise ValueError(message)
        return self

    @property
    def client_authentication(self) -> str:
        """The token endpoint authentication method in force."""
        if self.client_auth:
            return self.client_auth
        if self.client_secret is not None:
            return "client_secret_basic"
        return "private_key_jwt" if self.private_key is not None else "none"


class Assertion(Section):
    """A signed JWT about the person, in a header, for applications that verify it."""

    header: Text = Field("X-Sidecar-Assertion", description="header that carries it")
    audience: Text = Field(description="who it is for (aud)")
    lifetime: Duration = Field(timedelta(minutes=2), description="how long it is valid")
    max: Size = Field(8192, description="largest header; what does not fit is refused, never cut")
    key: SecretText = Field(description="PEM of an EC P-256, Ed25519 or RSA private key")
    claims: dict[str, TemplateText] = Field(default_factory=dict, description="further claims: name → template")


class RoleLine(Section):
    """Who has a role: every line given must hold, any value within a line is enough."""

    when: TemplateText | None = Field(None, description="a condition on user, groups and claims")
    group: Texts = Field((), description="groups, as the provider names them")
    login: Texts = Field((), description="logins that people must have come through")
    includes: Texts = Field((), description="roles that come with this one")

    @model_validator(mode="after")
    def _says_something(self) -> RoleLine:
        if self.when is None and not (self.group or self.login or self.includes):
            message = "says nobody; write a condition, or group, login or includes"
            raise ValueError(message)
        return self


class Basic(Section):
    """A user name and a password for an application that knows nothing but HTTP's own sign-in (RFC 7617)."""

    username: TemplateText = Field(description="what the application calls the person")
    password: SecretOrTemplate = Field(description="{env: NAME}, {file: PATH}, or a template such as account.password")


class HeaderLine(Section):
    """One header for the application, with its limits; exactly one of value, basic and secret."""

    value: TemplateText | None = Field(None, description="a header without a value is left out")
    basic: Basic | None = Field(None, description="user name and password as a Basic credential")
    secret: SecretText | None = Field(None, description="shared with the application; sent with every request")
    encoding: Literal["utf-8", "ascii", "latin-1", "percent", "rfc2047", "base64"] = Field(
        "utf-8", description="how letters beyond ASCII are written"
    )
    max: Size = Field(8192, description="longest value; a longer one is refused, never cut")

    @model_validator(mode="after")
    def _one_kind(self) -> HeaderLine:
        if sum(part is not None for part in (self.value, self.basic, self.secret)) != 1:
            message = "says what to send in one way of three; write one of value, basic and secret"
            raise ValueError(message)
        return self
