"""Say what this server can do (RFC 7644, section 4)."""

from __future__ import annotations

from typing import Any

from sidecar.core.scim.fault import not_there
from sidecar.core.scim.schema import KINDS, SCHEMAS, Kind, Schema
from sidecar.scim_api.listing import LARGEST_PAGE, PAGE, list_response

_CORE = "urn:ietf:params:scim:schemas:core:2.0:"
MOST_BULK_OPERATIONS = 1000
LARGEST_BODY = 4 * 1024 * 1024


def service_provider_config(base: str) -> dict[str, Any]:
    """What is possible here, and how much of it."""
    return {
        "schemas": [f"{_CORE}ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {"supported": True, "maxOperations": MOST_BULK_OPERATIONS, "maxPayloadSize": LARGEST_BODY},
        "filter": {"supported": True, "maxResults": LARGEST_PAGE},
        "changePassword": {"supported": False},
        "sort": {"supported": True},
        "etag": {"supported": True},
        "pagination": {
            "cursor": True,
            "index": True,
            "defaultPaginationMethod": "index",
            "defaultPageSize": PAGE,
            "maxPageSize": LARGEST_PAGE,
        },
        "authenticationSchemes": [
            {
                "type": "oauthbearertoken",
                "name": "Bearer token",
                "description": "A token that the operator of this server made, in the Authorization header.",
                "specUri": "https://www.rfc-editor.org/info/rfc6750",
                "primary": True,
            }
        ],
        "meta": {"resourceType": "ServiceProviderConfig", "location": f"{base}/ServiceProviderConfig"},
    }


def schemas(base: str, urn: str = "") -> dict[str, Any]:
    """All schemas, or the one called *urn*."""
    if not urn:
        found = [_schema(one, base) for one in SCHEMAS.values()]
        return list_response(len(found), found)
    for one in SCHEMAS.values():
        if one.urn.lower() == urn.lower():
            return _schema(one, base)
    raise not_there()


def resource_types(base: str, name: str = "") -> dict[str, Any]:
    """All types of resources, or the one called *name*."""
    if not name:
        found = [_resource_type(one, base) for one in KINDS]
        return list_response(len(found), found)
    for one in KINDS:
        if one.name == name:
            return _resource_type(one, base)
    raise not_there()


def _schema(schema: Schema, base: str) -> dict[str, Any]:
    return {
        "schemas": [f"{_CORE}Schema"],
        "id": schema.urn,
        "name": schema.name,
        "description": schema.description,
        "attributes": [one.shown() for one in schema.attributes],
        "meta": {"resourceType": "Schema", "location": f"{base}/Schemas/{schema.urn}"},
    }


def _resource_type(kind: Kind, base: str) -> dict[str, Any]:
    return {
        "schemas": [f"{_CORE}ResourceType"],
        "id": kind.name,
        "name": kind.name,
        "endpoint": f"/{kind.endpoint}",
        "description": kind.core.description,
        "schema": kind.core.urn,
        "schemaExtensions": [
            {"schema": one.urn, "required": False}
            for one in kind.extensions
            if not all(attribute.is_read_only for attribute in one.attributes)
        ],
        "meta": {"resourceType": "ResourceType", "location": f"{base}/ResourceTypes/{kind.name}"},
    }
