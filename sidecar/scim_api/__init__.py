"""Let programs manage people and groups by SCIM 2.0 (RFC 7644)."""

from sidecar.scim_api.server import ScimServer

__all__ = ["ScimServer"]
