"""Remember people, what sources say of them, the accounts they have and the changes still owed to the application."""

from sidecar.directory.backlog import Backlog, Debt, Debts
from sidecar.directory.groups import Group, Groups
from sidecar.directory.outbox import Outbox, OutboxItem, Owed
from sidecar.directory.people import Directory
from sidecar.directory.profiles import Profiles, Told

__all__ = [
    "Backlog",
    "Debt",
    "Debts",
    "Directory",
    "Group",
    "Groups",
    "Outbox",
    "OutboxItem",
    "Owed",
    "Profiles",
    "Told",
]
