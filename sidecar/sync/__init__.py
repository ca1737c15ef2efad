"""Keep people as a directory, a database or a file says, without ever believing a broken one."""

from sidecar.sync.runs import Synchroniser

__all__ = ["Synchroniser"]
