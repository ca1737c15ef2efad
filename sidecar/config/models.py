"""The whole configuration, typed and complete; only app.py and the commands read all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from sidecar.config.access import AccessRule
from sidecar.config.audit import Audit
from sidecar.config.break_glass import BreakGlass
from sidecar.config.callers import Certificates, Tokens
from sidecar.config.console import Console
from sidecar.config.drift import Drift
from sidecar.config.engines import EngineSection
from sidecar.config.forward_auth import ForwardAuth
from sidecar.config.header_presets import PRESETS, expanded
from sidecar.config.insights import Insights
from sidecar.config.login import Assertion, HeaderLine, IdentityTemplates, OidcLogin, RoleLine
from sidecar.config.people import ByHand
from sidecar.config.provision import Provision
from sidecar.config.saml import SamlLogin
from sidecar.config.scim import Scim
from sidecar.config.section import Section
from sidecar.config.service import App, Directory, Limits, Log, Pages, Reload, Server, Sessions
from sidecar.config.shorthand import Presets
from sidecar.config.signals import Signals
from sidecar.config.sync import Sync
from sidecar.config.tracing import Tracing
from sidecar.config.values import TEXT_SCHEMA, Shorthand

LoginSection = Annotated[OidcLogin | SamlLogin, Field(discriminator="type")]
_LINE_SCHEMA = {"type": ["string", "number", "boolean"], "description": "text with {{ expressions }}"}


def _as_line(value: Any) -> Any:
    if isinstance(value, dict | HeaderLine):
        is_reference = isinstance(value, dict) and len(value) == 1 and set(value) <= {"env", "file"}
        return {"secret": value} if is_reference else value
    return {"value": value}


def _as_role(value: Any) -> Any:
    return value if isinstance(value, dict | RoleLine) else {"when": value}


def _as_directory(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, dict) and set(value) <= {"env", "file"}):
        return {"url": value}
    return value


class Config(Section):
    """Everything that an operator can say, checked and with every default filled in."""

    server: Server = Field(description="where the sidecar listens, and its address for the outside")
    app: App = Field(description="the application that stands behind")
    logins: dict[str, LoginSection] = Field(min_length=1, description="name → a provider where people sign in")
    identity: IdentityTemplates = Field(IdentityTemplates(), description="who somebody is, read from claims")
    roles: dict[str, Annotated[RoleLine, Shorthand(_as_role, _LINE_SCHEMA)]] = Field(
        default_factory=dict, description="role → condition on user, groups, claims; the strongest first"
    )
    access: tuple[AccessRule, ...] = Field(min_length=1, description="who may go where; the first that fits decides")
    engines: dict[str, EngineSection] = Field(
        default_factory=dict, description="name → an engine of fine-grained policy, for rules to ask"
    )
    headers: Annotated[
        dict[str, Annotated[HeaderLine, Shorthand(_as_line, _LINE_SCHEMA)]], Presets(expanded, PRESETS)
    ] = Field(default_factory=dict, description="name → what the application is told; `preset` → names it knows")
    assertion: Assertion | None = Field(None, description="a signed statement about the person, as a header")
    provision: Provision | None = Field(None, description="the account inside the application")
    forward_auth: ForwardAuth | None = Field(None, description="decide for a front proxy that carries requests itself")
    scim: Scim | None = Field(None, description="programs that manage people and groups here")
    people: ByHand | None = Field(None, description="people whom operators add by hand; left out, they add nobody")
    sync: dict[str, Sync] = Field(default_factory=dict, description="name → a source of people that is read regularly")
    drift: Drift | None = Field(None, description="compare the application's accounts with those known here")
    tokens: Tokens | None = Field(None, description="API tokens that the sidecar issues")
    certificates: Certificates | None = Field(None, description="callers whose certificate a front proxy passes on")
    signals: Signals | None = Field(None, description="who tells of ended sessions and disabled accounts")
    break_glass: BreakGlass | None = Field(None, description="local accounts for emergencies; none when left out")
    sessions: Sessions = Field(Sessions(), description="where sessions live, and how long")
    directory: Annotated[Directory, Shorthand(_as_directory, TEXT_SCHEMA)] = Field(
        Directory(), description="where the sidecar remembers who has which account"
    )
    limits: Limits = Field(Limits(), description="what each client may do in a while")
    audit: Audit = Field(Audit(), description="one line for every decision")
    insights: Insights | None = Field(None, description="alerts about what is odd; none when left out")
    log: Log = Field(Log(), description="the operator's log")
    tracing: Tracing | None = Field(None, description="OpenTelemetry traces; none when left out")
    console: Console | None = Field(None, description="the operators' web pages; none when left out")
    reload: Reload = Field(Reload(), description="taking a changed configuration over while serving")
    pages: Pages = Field(Pages(), description="the few pages that people see")

    @property
    def oidc_logins(self) -> Mapping[str, OidcLogin]:
        """Those logins that speak OpenID Connect."""
        return {name: login for name, login in self.logins.items() if isinstance(login, OidcLogin)}

    @property
    def saml_logins(self) -> Mapping[str, SamlLogin]:
        """Those logins that speak SAML."""
        return {name: login for name, login in self.logins.items() if isinstance(login, SamlLogin)}
