"""A small, honest transmitter of shared signals over real HTTP: it signs, pushes, answers polls and keeps streams.

`async with a_transmitter() as sender:` gives one on a free port; `section(sender)` is what the sidecar is told of it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from joserfc import jws
from joserfc.jwk import KeySet, RSAKey

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
PUSH_TOKEN = "a token that the transmitter shows when it pushes"
ACCESS = "a token that we show at the transmitter itself"


def rsa(kid: str) -> RSAKey:
    """A fresh key."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


@dataclass
class Sender:
    """One transmitter. `audience` is whom its events are for; `queue` what polls have not acknowledged yet."""

    audience: str = ""
    port: int = 0
    keys: list[RSAKey] = field(default_factory=lambda: [rsa("one")])
    critical: list[str] = field(default_factory=list)
    queue: dict[str, str] = field(default_factory=dict)
    polls: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    stream: dict[str, Any] | None = None
    status: str = "enabled"
    broken: int = 0
    http: aiohttp.ClientSession = field(init=False)

    @property
    def issuer(self) -> str:
        """Its issuer, with a path, so that the well-known address is put together in earnest."""
        return f"http://localhost:{self.port}/tenant"

    def claims(self, events: Mapping[str, Any], subject: Any = None, /, **changes: Any) -> dict[str, Any]:
        """Claims of an event token; None takes a claim away."""
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "iat": int(time.time()),
            "jti": uuid.uuid4().hex,
            "events": dict(events),
            "sub_id": subject,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def signed(self, claims: Mapping[str, Any], key: RSAKey | None = None, **header: Any) -> str:
        """The token, signed with its newest key."""
        key = key or self.keys[0]
        names = {"alg": "RS256", "typ": "secevent+jwt", "kid": key.kid, **header}
        text = json.dumps(dict(claims))
        return jws.serialize_compact(names, text.encode(), key, algorithms=[names["alg"]])

    async def push(self, url: str, token: str, **headers: str) -> tuple[int, Any]:
        """Push as RFC 8935 says; (status, body)."""
        sent = {
            "Content-Type": "application/secevent+jwt",
            "Accept": "application/json",
            "Authorization": f"Bearer {PUSH_TOKEN}",
            **headers,
        }
        async with self.http.post(url, data=token.encode(), headers=sent) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        base = f"http://localhost:{self.port}"
        self.asked.append(f"{request.method} {request.path}")
        if request.path == "/.well-known/ssf-configuration/tenant":
            endpoints = {name: f"{base}/{name}" for name in ("configuration", "status", "verification")}
            return web.json_response(
                {
                    "spec_version": "1_0",
                    "issuer": self.issuer,
                    "jwks_uri": f"{base}/jwks",
                    **{f"{name}_endpoint": address for name, address in endpoints.items()},
                    "critical_subject_members": self.critical,
                }
            )
        if request.path == "/jwks":
            return web.json_response(KeySet(list(self.keys)).as_dict(private=False))
        if request.headers.get("Authorization") != f"Bearer {ACCESS}":
            return web.json_response({"error": "invalid_token"}, status=401)
        pages = {
            "/poll": self._poll,
            "/configuration": self._configuration,
            "/status": self._status,
            "/verification": self._verification,
        }
        return await pages[request.path](request)

    async def _poll(self, request: web.BaseRequest) -> web.Response:
        asked = await request.json()
        self.polls.append(asked)
        if self.broken:
            self.broken -= 1
            return web.Response(status=503)
        for jti in [*asked.get("ack", []), *asked.get("setErrs", {})]:
            self.queue.pop(jti, None)
        sets = dict(list(self.queue.items())[: asked["maxEvents"]])
        return web.json_response({"sets": sets, "moreAvailable": len(sets) < len(self.queue)})

    async def _configuration(self, request: web.BaseRequest) -> web.Response:
        if request.method == "POST":
            asked = await request.json()
            delivery = asked["delivery"]
            if delivery["method"].endswith("8936"):
                delivery = {**delivery, "endpoint_url": f"http://localhost:{self.port}/poll"}
            stream = {"stream_id": "s-1", "iss": self.issuer, "aud": [self.audience], **asked, "delivery": delivery}
            self.stream = {**stream, "events_delivered": asked["events_requested"]}
            return web.json_response(self.stream, status=201)
        if request.method == "DELETE":
            self.stream = None
            return web.Response(status=204)
        # Somebody else's stream stands beside ours.
        other = {"stream_id": "s-0", "aud": ["https://elsewhere.example"], "delivery": {"method": "urn:ietf:rfc:8935"}}
        return web.json_response([other, *([self.stream] if self.stream else [])])

    async def _status(self, request: web.BaseRequest) -> web.Response:
        if request.method == "POST":
            self.status = (await request.json())["status"]
        return web.json_response({"stream_id": "s-1", "status": self.status})

    async def _verification(self, request: web.BaseRequest) -> web.Response:
        asked = await request.json()
        events = {SSF + "verification": {"state": asked["state"]}}
        claims = self.claims(events, {"format": "opaque", "id": asked["stream_id"]})
        assert self.stream is not None
        delivery = self.stream["delivery"]
        if delivery["method"].endswith("8936"):
            self.queue[claims["jti"]] = self.signed(claims)
        else:
            shown = delivery["authorization_header"]
            await self.push(delivery["endpoint_url"], self.signed(claims), Authorization=shown)
        return web.Response(status=204)


@asynccontextmanager
async def a_transmitter() -> AsyncIterator[Sender]:
    """Start one."""
    sender = Sender()
    runner = web.ServerRunner(web.Server(sender._handle, access_log=None), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sender.port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as sender.http:
        yield sender
    await runner.cleanup()


def section(sender: Sender, **changes: Any) -> dict[str, Any]:
    """What the sidecar is told of *sender*, which pushes."""
    own = {
        "issuer": sender.issuer,
        "login": "corp",
        "audience": "https://wiki.example.com",
        "token": {"env": "SIGNALS_TOKEN"},
        "access": {"env": "SIGNALS_ACCESS"},
        **changes,
    }
    sender.audience = "https://wiki.example.com"
    return {"transmitters": {"corp": {key: value for key, value in own.items() if value is not None}}}


ENVIRONMENT = {"SIGNALS_TOKEN": PUSH_TOKEN, "SIGNALS_ACCESS": ACCESS}


def person(issuer: str, subject: str) -> dict[str, str]:
    """Somebody, as their provider calls them."""
    return {"format": "iss_sub", "iss": issuer, "sub": subject}
