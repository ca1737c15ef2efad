"""Remember people, the accounts they have and the changes still owed to the application, in SQL."""

from sidecar.directory.outbox import Outbox, OutboxItem, Owed
from sidecar.directory.people import Directory

__all__ = ["Directory", "Outbox", "OutboxItem", "Owed"]
