"""Let operators add, change, switch off and look at people, by hand."""

from sidecar.manual.desk import Desk, Shown
from sidecar.manual.register import MANUAL, Register, Taken

__all__ = ["MANUAL", "Desk", "Register", "Shown", "Taken"]
