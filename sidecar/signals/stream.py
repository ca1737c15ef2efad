"""Manage our stream at a transmitter: make it, look at it, verify it, pause it (Shared Signals Framework 1.0, 8.1)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from sidecar.core.signals import REQUESTED
from sidecar.faults import Unavailable
from sidecar.logins.strict_json import parse_object
from sidecar.reason import Reason
from sidecar.signals.transmitter import Transmitter

PUSH = "urn:ietf:rfc:8935"
POLL = "urn:ietf:rfc:8936"
_MOST_STREAMS = 100


class Streams:
    """Every coroutine raises Unavailable with what the transmitter answered."""

    def __init__(self, transmitter: Transmitter) -> None:
        """Speak to *transmitter* with the token that it gave us."""
        self._transmitter = transmitter

    async def ours(self, *, polled: bool) -> dict[str, Any] | None:
        """Our stream: for our audience, delivered in that way; None when there is none."""
        found = await self._asked("GET", await self._place("configuration_endpoint"), None)
        streams = found.get("streams", [found])
        if not isinstance(streams, list) or len(streams) > _MOST_STREAMS:
            raise self._bad("the list of streams is none, or too long")
        for stream in streams:
            if isinstance(stream, dict) and self._is_ours(stream, POLL if polled else PUSH):
                return stream
        return None

    def _is_ours(self, stream: Mapping[str, Any], method: str) -> bool:
        audience = stream.get("aud", [])
        named = {audience} if isinstance(audience, str) else set(audience) if isinstance(audience, list) else set()
        delivery = stream.get("delivery")
        return (
            isinstance(stream.get("stream_id"), str)
            and isinstance(delivery, dict)
            and delivery.get("method") == method
            and bool(named & set(self._transmitter.audience))
        )

    async def create(self, address: str) -> dict[str, Any]:
        """Make a stream: pushed to *address* where the transmitter has a token for that, polled otherwise."""
        section = self._transmitter.section
        delivery: dict[str, str] = {"method": POLL}
        if section.poll is None:
            delivery = {"method": PUSH, "endpoint_url": address}
            delivery["authorization_header"] = f"Bearer {section.token[0].reveal()}"
        wanted = {"delivery": delivery, "events_requested": list(REQUESTED), "description": "sidecar"}
        return await self._asked("POST", await self._place("configuration_endpoint"), wanted, HTTPStatus.CREATED)

    async def remove(self, stream_id: str) -> None:
        """Remove the stream."""
        place = await self._place("configuration_endpoint")
        await self._asked("DELETE", f"{place}?{urlencode({'stream_id': stream_id})}", None, HTTPStatus.NO_CONTENT)

    async def status(self, stream_id: str) -> dict[str, Any]:
        """Its status: enabled, paused or disabled, and why."""
        place = await self._place("status_endpoint")
        return await self._asked("GET", f"{place}?{urlencode({'stream_id': stream_id})}", None)

    async def switch(self, stream_id: str, status: str) -> dict[str, Any]:
        """Set its status; the transmitter keeps events of a paused stream for later."""
        place = await self._place("status_endpoint")
        return await self._asked("POST", place, {"stream_id": stream_id, "status": status})

    async def verify(self, stream_id: str, state: str) -> None:
        """Ask for a verification event that carries *state*."""
        place = await self._place("verification_endpoint")
        await self._asked("POST", place, {"stream_id": stream_id, "state": state}, HTTPStatus.NO_CONTENT)

    async def _place(self, name: str) -> str:
        place = getattr(await self._transmitter.discovery.metadata(), name)
        if not place:
            raise self._bad(f"it has no {name}: its streams are managed elsewhere")
        return str(place)

    async def _asked(
        self, method: str, place: str, value: Mapping[str, Any] | None, due: HTTPStatus = HTTPStatus.OK
    ) -> dict[str, Any]:
        answer = await self._transmitter.asked(method, place, value)
        if answer.status != due:
            raise self._bad(f"{method} {place.partition('?')[0][:200]!a} is answered {answer.status}")
        if due is HTTPStatus.NO_CONTENT:
            return {}
        if answer.body.lstrip()[:1] != b"[":
            return answer.json_object()
        try:
            return parse_object(b'{"streams":' + answer.body + b"}")
        except ValueError:
            raise self._bad("the list of streams cannot be read") from None

    def _bad(self, detail: str) -> Unavailable:
        return Unavailable(Reason.PROVIDER_DOWN, f"{self._transmitter.name}: {detail}")
