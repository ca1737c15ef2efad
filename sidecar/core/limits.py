"""Count what each client does, and say who has done too much of it lately."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from sidecar.core.rates import Rate

_MOST = 20_000
# RFC 6177: a site has at least a /64, so whoever has one address has all of them.
_SITE_BITS = 64


class Meter:
    """Counts one kind of thing by client (generic cell rate algorithm: one number for each client is remembered).

    The clients seen last are remembered; one who has been forgotten begins anew.
    """

    def __init__(self, rate: Rate, most: int = _MOST) -> None:
        """Allow *rate* to each of *most* clients."""
        self._rate = rate
        self._most = most
        self._due: OrderedDict[str, float] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """Seconds until *client* may do it again, 0.0 when at once. Counts nothing."""
        if not self._rate.number or not client:
            return 0.0
        return max(0.0, self._due_of(client_of(client), now) - now - self._rate.seconds + self._rate.interval)

    def _due_of(self, name: str, now: float) -> float:
        due = self._due.get(name, now)
        # Nobody is ever due later than that, unless the clock was set back: whoever was counted before begins anew,
        # and is not kept out for as long as it went back.
        return now if due > now + self._rate.seconds else max(due, now)

    def take(self, client: str, now: float) -> float:
        """Count one; seconds to wait when that is one too many, which is not counted then."""
        wait = self.wait(client, now)
        if wait or not self._rate.number or not client:
            return wait
        name = client_of(client)
        self._due[name] = self._due_of(name, now) + self._rate.interval
        self._due.move_to_end(name)
        if len(self._due) > self._most:
            self._due.popitem(last=False)
        return 0.0


def client_of(address: str) -> str:
    """Whom an address stands for: itself, or for IPv6 the network of the site."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> _SITE_BITS << _SITE_BITS, _SITE_BITS)))
