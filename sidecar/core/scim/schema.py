"""The attributes that people and groups have, and how they are found by name (RFC 7643, sections 2, 4 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
STATE = "urn:sidecar:params:scim:schemas:extension:sidecar:2.0:User"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute, with the characteristics of RFC 7643, section 7."""

    name: str
    description: str
    kind: str = "string"
    many: bool = False
    required: bool = False
    exact: bool = False
    mutability: str = "readWrite"
    returned: str = "default"
    uniqueness: str = "none"
    canonical: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    parts: tuple[Attribute, ...] = ()
    _by_name: dict[str, Attribute] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Index the parts."""
        self._by_name.update((part.name.lower(), part) for part in self.parts)

    def part(self, name: str) -> Attribute | None:
        """Sub-attribute of that name, in any case."""
        return self._by_name.get(name.lower())

    @property
    def is_read_only(self) -> bool:
        """True for what only the server writes."""
        return self.mutability == "readOnly"

    def shown(self) -> dict[str, Any]:
        """As ``/Schemas`` shows it."""
        shown: dict[str, Any] = {
            "name": self.name,
            "type": self.kind,
            "multiValued": self.many,
            "description": self.description,
            "required": self.required,
            "mutability": self.mutability,
            "returned": self.returned,
        }
        if self.kind != "complex":
            shown |= {"caseExact": self.exact, "uniqueness": self.uniqueness}
        if self.canonical:
            shown["canonicalValues"] = list(self.canonical)
        if self.references:
            shown["referenceTypes"] = list(self.references)
        if self.parts:
            shown["subAttributes"] = [part.shown() for part in self.parts]
        return shown


@dataclass(frozen=True, slots=True)
class Schema:
    """One schema: its URN, name and attributes."""

    urn: str
    name: str
    description: str
    attributes: tuple[Attribute, ...]
    _by_name: dict[str, Attribute] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Index the attributes."""
        self._by_name.update((one.name.lower(), one) for one in self.attributes)

    def attribute(self, name: str) -> Attribute | None:
        """Attribute of that name, in any case."""
        return self._by_name.get(name.lower())


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of resource: where it lives, and which schemas it has.

    Those of the ``extensions`` that only the server writes are shown when asked for by name.
    """

    name: str
    endpoint: str
    core: Schema
    extensions: tuple[Schema, ...] = ()

    def schema(self, urn: str) -> Schema | None:
        """The schema with this URN, in any case."""
        return next((one for one in (self.core, *self.extensions) if one.urn.lower() == urn.lower()), None)


def _typed(name: str, description: str, types: tuple[str, ...] = (), value: Attribute | None = None) -> Attribute:
    """A list of values that have a type, one of them the first choice (RFC 7643, section 2.4)."""
    parts = (
        value or Attribute("value", "The value itself."),
        Attribute("display", "What people call it."),
        Attribute("type", "What it is for.", canonical=types),
        Attribute("primary", "Whether it is the first choice.", "boolean"),
    )
    return Attribute(name, description, "complex", many=True, parts=parts)


def _reference(name: str, description: str, *to: str, mutability: str = "readWrite") -> Attribute:
    return Attribute(name, description, "reference", exact=True, references=to, mutability=mutability)


# Common to all resources (RFC 7643, section 3.1); not part of any schema that is shown.
EXTERNAL_ID = Attribute("externalId", "What the client calls the resource.", exact=True)
_META = Attribute(
    "meta",
    "About the resource.",
    "complex",
    mutability="readOnly",
    parts=(
        Attribute("resourceType", "Its type.", exact=True, mutability="readOnly"),
        Attribute("created", "When it was made.", "dateTime", mutability="readOnly"),
        Attribute("lastModified", "When it was last changed.", "dateTime", mutability="readOnly"),
        Attribute("location", "Its address.", "reference", exact=True, mutability="readOnly"),
        Attribute("version", "Its entity tag.", exact=True, mutability="readOnly"),
    ),
)
COMMON: Mapping[str, Attribute] = {
    "id": Attribute("id", "What the server calls the resource.", exact=True, mutability="readOnly"),
    "externalid": EXTERNAL_ID,
    "meta": _META,
    "schemas": Attribute("schemas", "Its schemas.", "reference", many=True, exact=True, mutability="readOnly"),
}

_USER = Schema(
    USER,
    "User",
    "Somebody who may have an account.",
    (
        Attribute("userName", "What they are called when they sign in.", required=True, uniqueness="server"),
        Attribute(
            "name",
            "The parts of their name.",
            "complex",
            parts=(
                Attribute("formatted", "All of it, as it is written."),
                Attribute("familyName", "The family's."),
                Attribute("givenName", "Their own."),
                Attribute("middleName", "Further ones."),
                Attribute("honorificPrefix", "What stands before it."),
                Attribute("honorificSuffix", "What stands behind it."),
            ),
        ),
        Attribute("displayName", "What they are called on pages."),
        Attribute("nickName", "What friends call them."),
        _reference("profileUrl", "A page about them.", "external"),
        Attribute("title", "Their post."),
        Attribute("userType", "What kind of member they are."),
        Attribute("preferredLanguage", "The language that they read best."),
        Attribute("locale", "How dates and numbers are written for them."),
        Attribute("timezone", "Where their clock is."),
        Attribute("active", "Whether they may come in.", "boolean"),
        _typed("emails", "Their addresses.", ("work", "home", "other")),
        _typed("phoneNumbers", "Their numbers.", ("work", "home", "mobile", "fax", "pager", "other")),
        _typed("ims", "Where they chat."),
        _typed("photos", "What they look like.", ("photo", "thumbnail"), _reference("value", "Where.", "external")),
        Attribute(
            "addresses",
            "Where they are.",
            "complex",
            many=True,
            parts=(
                Attribute("formatted", "All of it, as it is written."),
                Attribute("streetAddress", "Street and house."),
                Attribute("locality", "Town."),
                Attribute("region", "State or region."),
                Attribute("postalCode", "Postal code."),
                Attribute("country", "Country."),
                Attribute("type", "What it is for.", canonical=("work", "home", "other")),
                Attribute("primary", "Whether it is the first choice.", "boolean"),
            ),
        ),
        Attribute(
            "groups",
            "The groups that they are in.",
            "complex",
            many=True,
            mutability="readOnly",
            parts=(
                Attribute("value", "The group's id.", mutability="readOnly"),
                _reference("$ref", "The group's address.", "Group", mutability="readOnly"),
                Attribute("display", "The group's name.", mutability="readOnly"),
                Attribute("type", "How they are in it.", canonical=("direct", "indirect"), mutability="readOnly"),
            ),
        ),
        _typed("entitlements", "What they are entitled to."),
        _typed("roles", "What they are."),
        _typed("x509Certificates", "Their certificates.", (), Attribute("value", "DER, base64.", "binary", exact=True)),
    ),
)

_ENTERPRISE = Schema(
    ENTERPRISE,
    "EnterpriseUser",
    "Their place in the organisation.",
    (
        Attribute("employeeNumber", "Their number there."),
        Attribute("costCenter", "Who pays."),
        Attribute("organization", "The organisation."),
        Attribute("division", "The division."),
        Attribute("department", "The department."),
        Attribute(
            "manager",
            "Whom they report to.",
            "complex",
            parts=(
                Attribute("value", "The id of that person."),
                _reference("$ref", "The address of that person.", "User"),
                Attribute("displayName", "What that person is called.", mutability="readOnly"),
            ),
        ),
    ),
)

_STATE = Schema(
    STATE,
    "ProvisioningState",
    "How far the account in the application has come.",
    (
        Attribute(
            "state",
            "none, pending, retrying, failed, provisioned or deactivated.",
            canonical=("none", "pending", "retrying", "failed", "provisioned", "deactivated"),
            mutability="readOnly",
            returned="request",
        ),
        Attribute("lastError", "The code of what went wrong last.", mutability="readOnly", returned="request"),
        Attribute("at", "Since when.", "dateTime", mutability="readOnly", returned="request"),
    ),
)

_GROUP = Schema(
    GROUP,
    "Group",
    "People who belong together.",
    (
        Attribute("displayName", "The group's name.", required=True, uniqueness="server"),
        Attribute(
            "members",
            "Who is in it.",
            "complex",
            many=True,
            parts=(
                Attribute("value", "The id of a person, or of a group.", mutability="immutable"),
                _reference("$ref", "The address of that one.", "User", "Group", mutability="immutable"),
                Attribute("type", "User or Group.", canonical=("User", "Group"), mutability="immutable"),
            ),
        ),
    ),
)

USERS = Kind("User", "Users", _USER, (_ENTERPRISE, _STATE))
GROUPS = Kind("Group", "Groups", _GROUP)
KINDS = (USERS, GROUPS)
SCHEMAS: Mapping[str, Schema] = {one.urn: one for one in (_USER, _GROUP, _ENTERPRISE, _STATE)}
