"""Say what happened to whose account, in audit lines that carry no attribute's value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sidecar.core.audit import Event
from sidecar.faults import Refused, Unavailable
from sidecar.model import Identity

Record = Callable[[str, Mapping[str, object]], None]


class Journal:
    """Writes audit lines of one application."""

    def __init__(self, record: Record, application: str) -> None:
        """Hand the event's value and its fields to *record*."""
        self._record = record
        self._application = application

    def note(self, event: Event, identity: Identity, person_id: str, account: str, **fields: object) -> None:
        """Note *event* for a person and an account key, either "" when there is none."""
        self._record(
            event.value,
            {
                "application": self._application,
                "person": person_id,
                "provider": identity.provider,
                "issuer": identity.issuer,
                "subject": identity.subject,
                "username": identity.username,
                "account": account,
                **fields,
            },
        )

    def roles(
        self, identity: Identity, person_id: str, account: str, before: Sequence[str], after: Sequence[str]
    ) -> None:
        """Note that the roles changed, by their names."""
        change = {"before": sorted(before), "after": sorted(after)}
        self.note(Event.ROLES_CHANGED, identity, person_id, account, **change)

    def failed(
        self, identity: Identity, person_id: str, account: str, error: Refused | Unavailable, **fields: object
    ) -> None:
        """Note why somebody did not get what was ordered."""
        event = Event.ACCOUNT_REFUSED if isinstance(error, Refused) else Event.PROVISIONING_FAILED
        why = {"reason": error.reason.value, "detail": error.detail}
        self.note(event, identity, person_id, account, **why, **fields)
