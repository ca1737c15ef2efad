"""What each product of docs/saml says of a person, in the shape in which it says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.saml_forger import PERSISTENT

_FORMAT = "urn:oasis:names:tc:SAML:1.1:nameid-format:"
TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
_SOAP = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/"
_MICROSOFT = "http://schemas.microsoft.com/identity/claims/"


@dataclass(frozen=True)
class Sample:
    """An answer: its NameID, its attributes by Name, their FriendlyNames, what is signed, and who that must be."""

    name_id: str
    name_format: str
    attributes: Mapping[str, tuple[str, ...]]
    subject: str
    username: str
    name: str
    groups: tuple[str, ...]
    signs: tuple[str, ...] = ("assertion",)
    friendly: Mapping[str, str] = field(default_factory=dict)


SAMPLES: Mapping[str, Sample] = {
    "entra": Sample(
        name_id="ada@corp.example",
        name_format=f"{_FORMAT}emailAddress",
        attributes={
            f"{_MICROSOFT}tenantid": ("a36c5b3c-0001-4f0e-8f0a-7d1e6b8a0001",),
            f"{_MICROSOFT}objectidentifier": ("b0b7a3f2-0002-4a51-9d58-9b2b0c5d0002",),
            f"{_MICROSOFT}displayname": ("Ada Lovelace",),
            "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups": ("0c1f7d1e-1", "0c1f7d1e-2"),
            f"{_MICROSOFT}identityprovider": ("https://sts.example/a36c5b3c/",),
            "http://schemas.microsoft.com/claims/authnmethodsreferences": ("password", "multipleauthn"),
            f"{_SOAP}givenname": ("Ada",),
            f"{_SOAP}surname": ("Lovelace",),
            f"{_SOAP}emailaddress": ("Ada@Corp.example",),
            f"{_SOAP}name": ("ada@corp.example",),
        },
        subject="b0b7a3f2-0002-4a51-9d58-9b2b0c5d0002",
        username="ada@corp.example",
        name="Ada Lovelace",
        groups=("0c1f7d1e-1", "0c1f7d1e-2"),
    ),
    "okta": Sample(
        name_id="00u1abcdEFGHijkl0h7",
        name_format=f"{_FORMAT}unspecified",
        attributes={
            "login": ("ada@corp.example",),
            "email": ("ada@corp.example",),
            "displayName": ("Ada Lovelace",),
            "firstName": ("Ada",),
            "lastName": ("Lovelace",),
            "groups": ("Everyone", "wiki-admins"),
        },
        subject="00u1abcdEFGHijkl0h7",
        username="ada@corp.example",
        name="Ada Lovelace",
        groups=("Everyone", "wiki-admins"),
        signs=("assertion", "response"),
    ),
    "adfs": Sample(
        name_id="vQ8hS1mPjUqz1cGm0nq8Yw==",
        name_format=PERSISTENT,
        attributes={
            f"{_SOAP}upn": ("ada@corp.example",),
            f"{_SOAP}emailaddress": ("ada@corp.example",),
            f"{_SOAP}name": ("Ada Lovelace",),
            "http://schemas.xmlsoap.org/claims/Group": ("Domain Users", "wiki-admins"),
        },
        subject="vQ8hS1mPjUqz1cGm0nq8Yw==",
        username="ada@corp.example",
        name="Ada Lovelace",
        groups=("Domain Users", "wiki-admins"),
    ),
    "google": Sample(
        name_id="ada@corp.example",
        name_format=PERSISTENT,
        attributes={
            "email": ("ada@corp.example",),
            "firstName": ("Ada",),
            "lastName": ("Lovelace",),
            "groups": ("wiki-admins",),
        },
        subject="ada@corp.example",
        username="ada@corp.example",
        name="Ada Lovelace",
        groups=("wiki-admins",),
        signs=("response",),
    ),
    "keycloak": Sample(
        name_id="G-3f5f0a2e-8a5f-4f3a-9b61-2b51f3a40003",
        name_format=PERSISTENT,
        attributes={
            "username": ("ada",),
            "urn:oid:1.2.840.113549.1.9.1": ("ada@corp.example",),
            "urn:oid:2.5.4.42": ("Ada",),
            "urn:oid:2.5.4.4": ("Lovelace",),
            "groups": ("staff", "wiki-admins"),
            "Role": ("manage-account", "view-profile", "offline_access"),
        },
        # Its built-in mappers name by object identifiers; what people know them by stands beside.
        friendly={
            "urn:oid:1.2.840.113549.1.9.1": "email",
            "urn:oid:2.5.4.42": "givenName",
            "urn:oid:2.5.4.4": "surname",
        },
        subject="G-3f5f0a2e-8a5f-4f3a-9b61-2b51f3a40003",
        username="ada",
        name="Ada Lovelace",
        groups=("staff", "wiki-admins"),
        signs=("assertion", "response"),
    ),
    "shibboleth": Sample(
        name_id="AAdzZWNyZXQxSx5n7oVnCkQKZzmL",
        name_format=TRANSIENT,
        attributes={
            "urn:oid:1.3.6.1.4.1.5923.1.1.1.6": ("ada@corp.example",),
            "urn:oid:0.9.2342.19200300.100.1.3": ("ada@corp.example",),
            "urn:oid:2.16.840.1.113730.3.1.241": ("Ada Lovelace",),
            "urn:oid:1.3.6.1.4.1.5923.1.5.1.1": ("urn:mace:corp.example:wiki-admins", "urn:mace:corp.example:all"),
            "urn:oasis:names:tc:SAML:attribute:pairwise-id": ("VHJ3F4GKX7Q2@corp.example",),
        },
        friendly={
            "urn:oid:1.3.6.1.4.1.5923.1.1.1.6": "eduPersonPrincipalName",
            "urn:oid:0.9.2342.19200300.100.1.3": "mail",
            "urn:oid:2.16.840.1.113730.3.1.241": "displayName",
            "urn:oid:1.3.6.1.4.1.5923.1.5.1.1": "isMemberOf",
            "urn:oasis:names:tc:SAML:attribute:pairwise-id": "pairwise-id",
        },
        subject="VHJ3F4GKX7Q2@corp.example",
        username="ada@corp.example",
        name="Ada Lovelace",
        groups=("urn:mace:corp.example:wiki-admins", "urn:mace:corp.example:all"),
        signs=("response",),
    ),
    "simplesamlphp": Sample(
        name_id="6c5d2ab4a4f0c5f1b3a1a1b6c0e7d9f8a2b3c4d5",
        name_format=PERSISTENT,
        attributes={
            "uid": ("ada",),
            "mail": ("ada@corp.example",),
            "displayName": ("Ada Lovelace",),
            "groups": ("wiki-admins",),
        },
        subject="6c5d2ab4a4f0c5f1b3a1a1b6c0e7d9f8a2b3c4d5",
        username="ada",
        name="Ada Lovelace",
        groups=("wiki-admins",),
        signs=("assertion", "response"),
    ),
}
