"""A provider that lies: the faults and attacks that no real OpenID provider can be made to commit."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from sidecar.config.login import OidcLogin
from sidecar.config.values import Secret
from sidecar.core.claims import IdentityPlan
from sidecar.core.template import Compiler
from sidecar.logins.login import Ask
from sidecar.logins.oidc import OpenIdLogin
from sidecar.logins.token_claims import LOGOUT_EVENT
from sidecar.model import SignedIn

CLIENT = "wiki"
REDIRECT = "https://wiki.example.com/_/callback/corp"
ANY_ALGORITHM = ["none", "HS256", "RS256", "PS256", "ES256", "ES384", "EdDSA"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@functools.cache
def key(kid: str, kind: str = "RSA") -> Key:
    """A private key, the same each time for the same name."""
    made: dict[str, Callable[[], Key]] = {
        "RSA": lambda: RSAKey.generate_key(2048, {"kid": kid}),
        "EC": lambda: ECKey.generate_key("P-256", {"kid": kid}),
        "OKP": lambda: OKPKey.generate_key("Ed25519", {"kid": kid}),
    }
    return made[kind]()


def public_pem(kid: str) -> bytes:
    """The public half of an RSA key, as text that an HMAC could be keyed with."""
    found = key(kid)
    assert isinstance(found, RSAKey)
    return found.as_pem(private=False)


def encode(value: object) -> str:
    """One part of a token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(claims: object, signer: Key | None = None, /, **header: Any) -> str:
    """A token signed with *signer* (the forger's current key when None); *header* fields that are None go away."""
    signer = signer or key("one")
    fields = {"alg": "RS256", "kid": signer.kid, **header}
    fields = {name: value for name, value in fields.items() if value is not None}
    signed = f"{encode(fields)}.{encode(claims)}"
    algorithm = jws.JWSRegistry.algorithms[str(fields["alg"])]
    return f"{signed}.{encode(algorithm.sign(signed.encode(), signer))}"


def hmac_with_public_key(claims: object) -> str:
    """The classic confusion: HS256, keyed with the PEM of the provider's public key."""
    pem = public_pem("one")
    signer = OctKey(pem, pem)
    return sign(claims, signer, kid="one", alg="HS256")


def half_hash(text: str) -> str:
    """at_hash and c_hash for algorithms that end in 256."""
    return encode(hashlib.sha256(text.encode()).digest()[:16])


def plan(**lines: Any) -> IdentityPlan:
    """The identity plan of most configurations."""
    compiled = Compiler().compile
    standard: dict[str, Any] = {
        "username": compiled("{{ claims.preferred_username }}"),
        "email": compiled("{{ claims.email }}"),
        "name": compiled("{{ claims.name }}"),
        "groups": compiled("{{ claims.groups }}"),
        "claims": frozenset({"groups"}),
    }
    return IdentityPlan(**{**standard, **lines})


def section(issuer: str, **fields: Any) -> OidcLogin:
    """The configuration of a login at *issuer*."""
    standard = {"client_id": CLIENT, "client_secret": Secret("s3cret"), "timeout": timedelta(seconds=5)}
    return OidcLogin(type="oidc", issuer=issuer, **{**standard, **fields})


class Forger:
    """A small provider whose every answer a test may replace."""

    def __init__(self) -> None:
        self.issuer = ""
        self.metadata: dict[str, object] = {}
        self.keys: list[dict[str, Any]] = [key("one").as_dict(private=False)]
        self.claims: dict[str, object] = {}
        self.nonce = ""
        self.header: dict[str, Any] = {}
        self.token_answer: dict[str, object] = {}
        self.id_token: str | None = None
        self.userinfo: object = {"sub": "ada"}
        self.handlers: dict[str, Handler] = {}
        self.requests: Counter[str] = Counter()
        self.forms: list[dict[str, str]] = []
        self.headers: list[Mapping[str, str]] = []

    def standard_claims(self, **claims: object) -> dict[str, object]:
        """Claims of a proper ID token, changed by *claims*; those that are None go away."""
        now = int(time.time())
        standard: dict[str, object] = {
            "iss": self.issuer,
            "aud": CLIENT,
            "sub": "ada",
            "iat": now,
            "exp": now + 300,
            "nonce": self.nonce,
            "preferred_username": "ada",
            "name": "Ada",
            "email": "ada@example.com",
            "email_verified": True,
            "groups": ["staff"],
        }
        return {name: value for name, value in {**standard, **claims}.items() if value is not None}

    def farewell(self, jti: str = "j", /, **whom: str) -> dict[str, str]:
        """What a proper back-channel logout sends of *whom* (OpenID Connect Back-Channel Logout 1.0, section 2.5)."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 60, "jti": jti, **whom}
        return {"logout_token": sign({**claims, "events": {LOGOUT_EVENT: {}}}, typ="logout+jwt")}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request by its path."""
        self.requests[request.path] += 1
        if request.path in self.handlers:
            return await self.handlers[request.path](request)
        match request.path:
            case "/.well-known/openid-configuration":
                return web.json_response({**self._endpoints(), **self.metadata})
            case "/jwks":
                return web.json_response({"keys": self.keys})
            case "/token":
                return await self._token(request)
            case "/me":
                return web.json_response(self.userinfo)
        return web.Response(status=404)

    def _endpoints(self) -> dict[str, object]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/auth",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/me",
            "end_session_endpoint": f"{self.issuer}/end",
        }

    async def _token(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(request.headers)
        self.forms.append(dict(parse_qsl(await request.text())))
        token = self.id_token if self.id_token is not None else sign(self.standard_claims(**self.claims), **self.header)
        standard = {"access_token": "at", "token_type": "Bearer", "expires_in": 300, "id_token": token}
        answer = {**standard, **self.token_answer}
        return web.json_response({name: value for name, value in answer.items() if value is not None})


@asynccontextmanager
async def running_forger() -> AsyncIterator[Forger]:
    """Start a forger on a free port."""
    forger = Forger()
    application = web.Application(client_max_size=1 << 24)
    application.router.add_route("*", "/{path:.*}", forger.answer)
    async with TestServer(application) as server:
        forger.issuer = str(server.make_url("")).rstrip("/")
        yield forger


def query(url: str) -> dict[str, str]:
    """The parameters of an address, each once."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    assert len(dict(pairs)) == len(pairs), "a parameter comes twice"
    return dict(pairs)


async def sign_in(login: OpenIdLogin, forger: Forger, **answer: str) -> SignedIn:
    """Begin and finish a sign-in; the forger puts the right nonce into its token unless the test chose one."""
    begun = await login.begin("state-1", Ask())
    forger.nonce = begun.kept["nonce"]
    return await login.finish(begun.kept, answer or {"code": "code-1", "state": "state-1"}, time.time())
