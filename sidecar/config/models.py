"""The whole configuration, typed and complete; only app.py and the commands read all of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from sidecar.config.access import AccessRule
from sidecar.config.login import Assertion, HeaderLine, IdentityTemplates, OidcLogin
from sidecar.config.provision import Provision
from sidecar.config.section import Section
from sidecar.config.service import App, Audit, Directory, Log, Pages, Server, Sessions
from sidecar.config.values import TemplateText


def _as_line(value: object) -> object:
    return value if isinstance(value, dict | HeaderLine) else {"value": value}


def _as_directory(value: object) -> object:
    if isinstance(value, str) or (isinstance(value, dict) and set(value) <= {"env", "file"}):
        return {"url": value}
    return value


class Config(Section):
    """Everything that an operator can say, checked and with every default filled in."""

    server: Server
    app: App
    logins: dict[str, OidcLogin] = Field(min_length=1)
    identity: IdentityTemplates = IdentityTemplates()
    roles: dict[str, TemplateText] = Field(
        default_factory=dict, description="role → condition on user, groups, claims"
    )
    access: tuple[AccessRule, ...] = Field(min_length=1)
    headers: dict[str, Annotated[HeaderLine, BeforeValidator(_as_line)]] = Field(default_factory=dict)
    assertion: Assertion | None = None
    provision: Provision | None = None
    sessions: Sessions = Sessions()
    directory: Annotated[Directory, BeforeValidator(_as_directory)] = Directory()
    audit: Audit = Audit()
    log: Log = Log()
    pages: Pages = Pages()
