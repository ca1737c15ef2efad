"""What well-known SAML products call things, as lines of configuration that a `preset` stands for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_SOAP = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/"
_MICROSOFT = "http://schemas.microsoft.com/identity/claims/"
_WINDOWS = "http://schemas.microsoft.com/ws/2008/06/identity/claims/"
# Claims get the names that OpenID Connect gives them, so that general lines fit logins of both kinds.
_IDENTITY = {
    "username": "{{ claims.preferred_username }}",
    "email": "{{ claims.email }}",
    "name": "{{ claims.name }}",
    "groups": "{{ claims.groups }}",
}
_CLAIM = re.compile(r"\bclaims\.(\w+)")
# Claims of every SAML login.
_ALWAYS = ("sub", "name_id", "name_id_format", "acr")
_FROM_PARTS = {"name": "{{ claims.given_name }} {{ claims.family_name }}"}
_BY_ADDRESS = {"username": "{{ claims.email }}"}


@dataclass(frozen=True, slots=True)
class PresetLines:
    """What a product needs: the attributes it sends, who they make somebody, and other lines of the login."""

    attributes: Mapping[str, str]
    identity: Mapping[str, str] = field(default_factory=lambda: _IDENTITY)
    lines: Mapping[str, Any] = field(default_factory=dict)


PRESETS: Mapping[str, PresetLines] = MappingProxyType(
    {
        # The user name may change hands, the object id never does; both protocols send it.
        "entra": PresetLines(
            {
                "preferred_username": f"{_SOAP}name",
                "email": f"{_SOAP}emailaddress",
                "name": f"{_MICROSOFT}displayname",
                "given_name": f"{_SOAP}givenname",
                "family_name": f"{_SOAP}surname",
                "groups": f"{_WINDOWS}groups",
                # Above 150 groups it sends this address in place of them: the groups are unknown then.
                "groups_link": "http://schemas.microsoft.com/claims/groups.link",
                "roles": f"{_WINDOWS}role",
                "oid": f"{_MICROSOFT}objectidentifier",
                "tid": f"{_MICROSOFT}tenantid",
            },
            lines={"subject": "{{ claims.oid }}"},
        ),
        "okta": PresetLines(
            {
                "preferred_username": "login",
                "email": "email",
                "name": "displayName",
                "given_name": "firstName",
                "family_name": "lastName",
                "groups": "groups",
            },
        ),
        "adfs": PresetLines(
            {
                "preferred_username": f"{_SOAP}upn",
                "email": f"{_SOAP}emailaddress",
                "name": f"{_SOAP}name",
                "given_name": f"{_SOAP}givenname",
                "family_name": f"{_SOAP}surname",
                "groups": "http://schemas.xmlsoap.org/claims/Group",
                "roles": f"{_WINDOWS}role",
            },
        ),
        # It has no single logout; its people are called by their address.
        "google": PresetLines(
            {"email": "email", "given_name": "firstName", "family_name": "lastName", "groups": "groups"},
            identity={**_IDENTITY, **_FROM_PARTS, **_BY_ADDRESS},
            lines={"sign_out": False},
        ),
        "keycloak": PresetLines(
            {
                "preferred_username": "username",
                "email": "email",
                "given_name": "givenName",
                "family_name": "surname",
                "groups": "groups",
                "roles": "Role",
            },
            identity={**_IDENTITY, **_FROM_PARTS},
            lines={"name_id": "persistent"},
        ),
        # What it sends by default is a new NameID each time; the identifiers for ever are attributes.
        "shibboleth": PresetLines(
            {
                "preferred_username": "urn:oid:1.3.6.1.4.1.5923.1.1.1.6",
                "email": "urn:oid:0.9.2342.19200300.100.1.3",
                "name": "urn:oid:2.16.840.1.113730.3.1.241",
                "given_name": "urn:oid:2.5.4.42",
                "family_name": "urn:oid:2.5.4.4",
                "uid": "urn:oid:0.9.2342.19200300.100.1.1",
                "groups": "urn:oid:1.3.6.1.4.1.5923.1.5.1.1",
                "entitlements": "urn:oid:1.3.6.1.4.1.5923.1.1.1.7",
                "affiliations": "urn:oid:1.3.6.1.4.1.5923.1.1.1.9",
                "pairwise_id": "urn:oasis:names:tc:SAML:attribute:pairwise-id",
                "subject_id": "urn:oasis:names:tc:SAML:attribute:subject-id",
            },
            lines={"subject": "{{ claims.pairwise_id | default(claims.subject_id) }}", "name_id": "transient"},
        ),
        "simplesamlphp": PresetLines(
            {
                "preferred_username": "uid",
                "email": "mail",
                "name": "displayName",
                "given_name": "givenName",
                "family_name": "sn",
                "groups": "groups",
            },
            lines={"name_id": "persistent"},
        ),
    }
)


def with_presets(config: Any) -> Any:
    """Give plain *config* data with each preset written out.

    A line of the login itself wins over the preset. So does a line of the general ``identity``, which was meant for
    every login, unless it reads a claim that the product does not send. What is not of the right shape stays as it is,
    for others to refuse.
    """
    if not (isinstance(config, Mapping) and isinstance(config.get("logins"), Mapping)):
        return config
    general = config.get("identity")
    said = general if isinstance(general, Mapping) else {}
    return {**config, "logins": {name: _written_out(login, said) for name, login in config["logins"].items()}}


def _written_out(login: Any, general: Mapping[Any, Any]) -> Any:
    preset = login.get("preset") if isinstance(login, Mapping) and login.get("type") == "saml" else None
    found = PRESETS.get(preset) if isinstance(preset, str) else None
    if found is None:
        return login
    attributes = _under(login.get("attributes", {}), found.attributes)
    sent = {*found.attributes, *(attributes if isinstance(attributes, Mapping) else ()), *_ALWAYS}
    identity = {
        line: text for line, text in found.identity.items() if line not in general or not _fits(general[line], sent)
    }
    return {
        **found.lines,
        **login,
        "attributes": attributes,
        "identity": _under(login.get("identity", {}), identity),
    }


def _fits(line: Any, sent: Collection[Any]) -> bool:
    """True unless the *line* surely reads a claim that is not *sent*."""
    return not isinstance(line, str) or all(claim in sent for claim in _CLAIM.findall(line))


def _under(own: Any, usual: Mapping[str, str]) -> Any:
    return {**usual, **own} if isinstance(own, Mapping) else own
