"""The closed catalogue of audit events; docs/audit.md lists the same ones."""

from enum import Enum


class Event(Enum):
    """What an audit line is about; the value stands in the line's ``event``."""

    DECISION = "decision"
    LOGIN_SUCCEEDED = "login-succeeded"
    LOGIN_FAILED = "login-failed"
    SESSION_ENDED = "session-ended"
    SESSION_REFRESHED = "session-refreshed"
    SIGNED_OUT = "signed-out"
    PROVIDER_LOGOUT = "provider-logout"
    PROVIDER_SIGNED_OUT = "provider-signed-out"
    ACCOUNT_CREATED = "account-created"
    ACCOUNT_LINKED = "account-linked"
    ACCOUNT_UPDATED = "account-updated"
    ACCOUNT_REACTIVATED = "account-reactivated"
    ACCOUNT_DEACTIVATED = "account-deactivated"
    ACCOUNT_DELETED = "account-deleted"
    ACCOUNT_REFUSED = "account-refused"
    ROLES_CHANGED = "roles-changed"
    PERSON_DISABLED = "person-disabled"
    PERSON_ENABLED = "person-enabled"
    PROVISIONING_FAILED = "provisioning-failed"
    SCIM_CHANGED = "scim-changed"
    SCIM_REFUSED = "scim-refused"
    SIGNAL_RECEIVED = "signal-received"
    SIGNAL_REFUSED = "signal-refused"
    SERVICE_STARTED = "service-started"
    SERVICE_STOPPED = "service-stopped"
    CONFIGURATION_LOADED = "configuration-loaded"
