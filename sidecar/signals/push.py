"""Receive events that are pushed (RFC 8935): let the transmitter in, take the token, answer in the RFC's terms."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from aiohttp import web

from sidecar.core.audit import Event
from sidecar.core.limits import client_of
from sidecar.core.signals import UNKNOWN
from sidecar.faults import Refused, Unavailable
from sidecar.logins.tokens import TOKEN_LIMIT
from sidecar.model import Visit
from sidecar.reason import Reason
from sidecar.sessions.store import Store
from sidecar.signals.intake import Intake
from sidecar.signals.transmitter import Transmitter
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.metrics import Metrics

_log = structlog.get_logger("signals")
_WINDOW = 60.0
_WRONG_TOKENS = 30
_PATIENCE = 15.0
_ERRORS: Mapping[Reason, str] = {
    Reason.TOKEN_KEY: "invalid_key",
    Reason.TOKEN_ALGORITHM: "invalid_key",
    Reason.TOKEN_ISSUER: "invalid_issuer",
    Reason.TOKEN_AUDIENCE: "invalid_audience",
    Reason.SIGNAL_SENDER: "authentication_failed",
    Reason.SIGNAL_STATE: "invalid_state",
    Reason.RATE_LIMITED: "access_denied",
}


def error_of(refused: Refused) -> dict[str, str]:
    """The RFC's word for it (RFC 8935, section 2.4), and ours beside."""
    return {"err": _ERRORS.get(refused.reason, "invalid_request"), "description": refused.reason.value}


@dataclass(slots=True, kw_only=True)
class SignalServer:
    """Everything at ``{prefix}/signals/NAME``; nothing of it ever reaches the application."""

    prefix: str
    transmitters: Mapping[str, Transmitter]
    intake: Intake
    store: Store
    audit: AuditLog
    metrics: Metrics

    def owns(self, path: str) -> bool:
        """True when the canonical *path* is one of ours."""
        return path.startswith(f"{self.prefix}/signals/")

    async def handle(self, request: web.BaseRequest, visit: Visit, now: float) -> web.Response:
        """Answer one push; nothing that is refused or down gets past this."""
        transmitter = self.transmitters.get(visit.path[len(self.prefix) + len("/signals/") :])
        try:
            transmitter = await self._admitted(visit, transmitter)
            token = await _token(request)
        except (Refused, Unavailable) as fault:
            self._note(visit, transmitter.name if transmitter is not None else "", fault)
            return _failed(fault, visit)
        try:
            await self.intake.take(transmitter, token, "push", now)
        except (Refused, Unavailable) as fault:
            # A refusal has been noted where the token was looked at.
            if isinstance(fault, Unavailable):
                self._log(visit, fault)
            return _failed(fault, visit)
        return _answer(202, None, visit)

    async def _admitted(self, visit: Visit, transmitter: Transmitter | None) -> Transmitter:
        """Whoever shows the token of the transmitter that the address names, from where it may come."""
        if transmitter is None or not transmitter.is_shown_by(visit):
            if await self.store.count(f"signal-wrong:{client_of(visit.client)}", _WINDOW) > _WRONG_TOKENS:
                raise Refused(Reason.RATE_LIMITED, 429, "too many wrong tokens")
            raise Refused(Reason.SIGNAL_SENDER, 401, "no transmitter of that name, or not its token")
        if not transmitter.is_at_home(visit):
            raise Refused(Reason.SIGNAL_SENDER, 403, f"not from {visit.client}")
        if visit.method != "POST":
            raise Refused(Reason.METHOD_REFUSED, 405, visit.method)
        if await self.store.count(f"signal-rate:{transmitter.name}", _WINDOW) > transmitter.section.rate:
            raise Refused(Reason.RATE_LIMITED, 429, f"more than {transmitter.section.rate} pushes in a minute")
        return transmitter

    def _note(self, visit: Visit, name: str, fault: Refused | Unavailable) -> None:
        self.metrics.signals.labels(name, UNKNOWN, fault.reason.value).inc()
        if isinstance(fault, Unavailable):
            self._log(visit, fault)
        fields = {"transmitter": name, "way": "push", "reason": fault.reason.value, "detail": fault.detail[:200]}
        self.audit.record(Event.SIGNAL_REFUSED, {**fields, "client": visit.client, "reference": visit.reference})

    def _log(self, visit: Visit, fault: Unavailable) -> None:
        _log.warning("unavailable", reason=fault.reason.value, detail=fault.detail, reference=visit.reference)
        self.metrics.faults.labels(fault.reason.value).inc()


async def _token(request: web.BaseRequest) -> str:
    if request.content_type != "application/secevent+jwt":
        raise Refused(Reason.SIGNAL_INVALID, 400, "Content-Type must be application/secevent+jwt")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused(Reason.SIGNAL_INVALID, 400, "compressed bodies are not taken")
    raw = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            async for piece in request.content.iter_any():
                raw += piece
                if len(raw) > TOKEN_LIMIT:
                    raise Refused(Reason.BODY_TOO_LARGE, 413, "body")
        return raw.decode("ascii").strip()
    except (TimeoutError, UnicodeDecodeError):
        raise Refused(Reason.SIGNAL_INVALID, 400, "the token did not arrive whole") from None


def _failed(fault: Refused | Unavailable, visit: Visit) -> web.Response:
    if isinstance(fault, Refused):
        # Whatever is wrong with a token is the sender's mistake (RFC 8935, section 2.3), also where a person gets 403.
        about_token = fault.reason.value.startswith("token-")
        answer = _answer(400 if about_token else fault.status, error_of(fault), visit)
        if fault.reason is Reason.RATE_LIMITED:
            answer.headers["Retry-After"] = str(int(_WINDOW))
    else:
        answer = _answer(503, {"err": "unavailable", "description": fault.reason.value}, visit)
        answer.headers["Retry-After"] = "5"
    return answer


def _answer(status: int, value: Mapping[str, str] | None, visit: Visit) -> web.Response:
    headers = {"Cache-Control": "no-store", "Server": "sidecar", "X-Content-Type-Options": "nosniff"}
    headers |= {"X-Request-Reference": visit.reference}
    if value is None:
        return web.Response(status=status, headers=headers)
    headers["Content-Language"] = "en"
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="signals"'
    return web.json_response(dict(value), status=status, headers=headers)
