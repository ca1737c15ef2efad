"""Carry one request, or one WebSocket, to the application and stream the answer back.

Times are by the monotonic clock, as the event loop's are; to ask which loop runs costs a system call in Python 3.11.
"""

from sidecar.upstream.departure import Client, Departure, Whole
from sidecar.upstream.ending import Ending
from sidecar.upstream.exchange import Alter
from sidecar.upstream.head import Head, Line, Outgoing, written
from sidecar.upstream.response import RelayedResponse
from sidecar.upstream.tunnel import wants_websocket
from sidecar.upstream.upstream import Upstream

__all__ = [
    "Alter",
    "Client",
    "Departure",
    "Ending",
    "Head",
    "Line",
    "Outgoing",
    "RelayedResponse",
    "Upstream",
    "Whole",
    "wants_websocket",
    "written",
]
