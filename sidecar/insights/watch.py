"""Watch what the audit lines say as it happens, and notice what is odd."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import structlog

from sidecar.config.insights import Burst, Insights
from sidecar.core.audit import Event
from sidecar.core.limits import client_of
from sidecar.faults import Unavailable
from sidecar.insights.alerts import Alert, Alerts, key_of
from sidecar.insights.present import Present
from sidecar.sessions.store import Store

_log = structlog.get_logger("insights")
_EVERY = 1.0
_DORMANT_EVERY = 3600.0
_POST_EVERY = 2.0
_DAY = 86400.0
# What waits in memory between two looks; an attack must not fill it.
_MOST_WAITING, _MOST_COUNTED = 5000, 10_000
_MOST_NETWORKS = 64
_REFUSALS = frozenset(
    [Event.LOGIN_FAILED, Event.BREAK_GLASS_FAILED, Event.TOKEN_REFUSED, Event.SCIM_REFUSED, Event.CONSOLE_REFUSED]
)
_FAILURES = frozenset([Event.PROVISIONING_FAILED, Event.ACCOUNT_REFUSED])
_GRANTS = frozenset([Event.ROLES_CHANGED, Event.ACCOUNT_CREATED, Event.TOKEN_CREATED])
_PERSON = ("person", "username", "subject", "provider", "account")

# Takes (not used since, most), and gives how many accounts there are and who some of them are.
Dormant = Callable[[float, int], Awaitable[tuple[int, Sequence[str]]]]


class _Counted(NamedTuple):
    kind: str
    subject: str


class Watch:
    """Notices; ``hear`` is called with every event and never waits, ``work`` does the rest."""

    def __init__(
        self,
        section: Insights,
        store: Store,
        alerts: Alerts,
        clock: Callable[[], float],
        dormant: Dormant | None = None,
    ) -> None:
        """Keep counts in *store*, shared by all replicas; *dormant* asks the directory, None where there is none."""
        self._section = section
        self._store = store
        self._alerts = alerts
        self._clock = clock
        self._dormant = dormant
        self._dormant_at = 0.0
        self._present = Present(clock)
        self._posted_at = 0.0
        self._privileged = frozenset(section.privileged)
        self._waiting: deque[Callable[[], Awaitable[object]]] = deque()
        self._counts: Counter[_Counted] = Counter()
        self._about: dict[_Counted, Mapping[str, object]] = {}
        self.overlooked = 0
        refusals = section.refusals
        slow = section.slow_hooks
        self._bursts: dict[str, Burst | None] = {
            "new-accounts": section.new_accounts,
            "refusals-client": refusals.client,
            "refusals-person": refusals.person,
            "refusals-everybody": refusals.everybody,
            "provisioning-failures": section.failures,
            "slow-hooks": None if slow is None else Burst(count=slow.count, within=slow.within),
        }

    # What is heard

    def hear(self, event: Event, fields: Mapping[str, object]) -> None:
        """Take in that *event* happened."""
        if (event is Event.DECISION and fields.get("effect") == "deny") or event in _REFUSALS:
            self._refused(fields)
        elif event is Event.LOGIN_SUCCEEDED:
            self._signed_in(fields)
        elif event in _FAILURES:
            self._present.failed(str(fields.get("reason", "")))
            self._count("provisioning-failures", str(fields.get("reason", "")), {"reason": fields.get("reason", "")})
        if event is Event.ACCOUNT_CREATED:
            self._present.account_made()
            self._count("new-accounts", "", {})
        if event in _GRANTS and self._privileged:
            self._granted(event, fields)

    def _refused(self, fields: Mapping[str, object]) -> None:
        self._present.refused()
        self._count("refusals-everybody", "", {})
        # Lines about SCIM name the program, and its address besides; IPv6 gives everybody addresses without number.
        if client := str(fields.get("address") or fields.get("client", "")):
            self._count("refusals-client", client_of(client), {"client": client})
        if who := str(fields.get("subject") or fields.get("person") or ""):
            self._count("refusals-person", who, {name: fields.get(name, "") for name in ("person", "subject")})

    def _count(self, kind: str, subject: str, about: Mapping[str, object]) -> None:
        counted = _Counted(kind, subject)
        if self._bursts[kind] is None or self._alerts.is_told(kind, subject):
            return
        if counted not in self._counts and len(self._counts) >= _MOST_COUNTED:
            self.overlooked += 1
            return
        self._counts[counted] += 1
        self._about.setdefault(counted, about)

    def _signed_in(self, fields: Mapping[str, object]) -> None:
        section = self._section.new_network
        if section is None:
            return
        network = network_of(str(fields.get("client", "")), section.ipv4, section.ipv6)
        who = key_of(str(fields.get("issuer", "")), str(fields.get("subject", "")))
        if network:
            about = {name: fields.get(name, "") for name in (*_PERSON, "client", "reference")}
            self._later(lambda: self._came_from(who, network, about))

    def _granted(self, event: Event, fields: Mapping[str, object]) -> None:
        before, after = _names(fields.get("before")), _names(fields.get("after") or fields.get("roles"))
        granted = sorted((after - before) & self._privileged)
        if granted:
            about = {name: fields.get(name, "") for name in (*_PERSON, "token", "by")}
            subject = key_of(str(fields.get("subject", "")), str(fields.get("token", "")), *granted)
            said = {"roles": granted, "granted_by": event.value, **about}
            self._later(lambda: self._alerts.tell(Alert("privileged-grant", subject, said)))

    def token_used(self, token_id: str, silent_for: float, about: Mapping[str, object]) -> None:
        """Take in that an API token was used after *silent_for* seconds."""
        section = self._section.silent_token
        if section is not None and silent_for >= section.after.total_seconds():
            said = {"token": token_id, "days": int(silent_for / _DAY), **about}
            self._later(lambda: self._alerts.tell(Alert("silent-token", token_id, said)))

    def hook_took(self, change: str, seconds: float) -> None:
        """Take in that an order to the application took *seconds*."""
        section = self._section.slow_hooks
        is_slow = section is not None and seconds > section.longer_than.total_seconds()
        self._present.took(change, seconds, is_slow=is_slow)
        if is_slow:
            self._count("slow-hooks", change, {"change": change})

    def _later(self, what: Callable[[], Awaitable[object]]) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self.overlooked += 1
            return
        self._waiting.append(what)

    # What is made of it

    async def work(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.look()
                await self.post()
            except Unavailable as fault:
                _log.warning("insights cannot be worked out", error=str(fault))

    async def look(self) -> None:
        """Make something of all that was heard so far. Raises Unavailable; what was heard is lost then."""
        counts, about = self._counts, self._about
        self._counts, self._about = Counter(), {}
        while self._waiting:
            await self._waiting.popleft()()
        for counted, number in counts.items():
            await self._counted(counted, number, about[counted])
        if self._dormant is not None and self._clock() - self._dormant_at >= _DORMANT_EVERY:
            self._dormant_at = self._clock()
            await self._look_for_dormant()

    async def post(self) -> None:
        """Write down what goes on, for whoever looks. Raises Unavailable; it waits then."""
        if self._clock() - self._posted_at >= _POST_EVERY:
            self._posted_at = self._clock()
            await self._present.post(self._store)

    async def _counted(self, counted: _Counted, number: int, about: Mapping[str, object]) -> None:
        burst = self._bursts[counted.kind]
        assert burst is not None  # noqa: S101 - others are not counted
        within = burst.within.total_seconds()
        total = await self._store.count(f"insight:n:{key_of(*counted)}", within, min(number, burst.count))
        if total >= burst.count:
            await self._alerts.tell(Alert(counted.kind, counted.subject, {"count": total, "within": within, **about}))

    async def _came_from(self, who: str, network: str, about: Mapping[str, object]) -> None:
        section = self._section.new_network
        assert section is not None  # noqa: S101 - else nobody calls this
        key, ttl, mark = f"insight:networks:{who}", section.remember.total_seconds(), key_of(who, network)
        known = await self._store.members(key)
        if mark in known or len(known) < _MOST_NETWORKS:
            await self._store.add(key, mark, ttl)
        # Of somebody who was never seen, every network is new.
        if known and mark not in known:
            await self._alerts.tell(Alert("new-network", f"{who} {network}", {"network": network, **about}))

    async def _look_for_dormant(self) -> None:
        section = self._section.dormant
        if section is None or self._dormant is None:
            return
        count, some = await self._dormant(self._clock() - section.after.total_seconds(), 20)
        if count:
            said = {"count": count, "days": int(section.after.total_seconds() / _DAY), "people": list(some)}
            await self._alerts.tell(Alert("dormant-accounts", "", said), _DAY)


def network_of(client: str, ipv4: int, ipv6: int) -> str:
    """The network that an address counts as; "" for what is no address."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((address, ipv4 if address.version == 4 else ipv6), strict=False))


def _names(value: object) -> frozenset[str]:
    return frozenset(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else frozenset()
