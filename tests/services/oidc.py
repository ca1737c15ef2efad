"""A real OpenID provider (npm oidc-provider) whose clients, people, keys and faults a test can change at run time."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.services.process import (
    HOST,
    Server,
    ServiceFailedError,
    ServiceMissingError,
    find_program,
    start_on_free_port,
)
from tests.services.provider_pages import EndedAtProviderError, walk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import aiohttp
    from yarl import URL

NODE = Path(__file__).parent / "node"

# Everybody who can sign in at a new or reset provider, with any password. The login is the subject, too.
ACCOUNTS: dict[str, dict[str, object]] = {
    "ada": {
        "name": "Ada Lovelace",
        "preferred_username": "ada",
        "email": "ada@example.com",
        "email_verified": True,
        "groups": ["wiki-admins", "staff"],
    },
    "bob": {
        "name": "Bob Mörk",
        "preferred_username": "bob",
        "email": "bob@example.com",
        "email_verified": True,
        "groups": ["staff"],
    },
    "eve": {
        "name": "Eve Outsider",
        "preferred_username": "eve",
        "email": "eve@elsewhere.example",
        "email_verified": False,
        "groups": [],
    },
}

SETTINGS: dict[str, object] = {
    "accounts": ACCOUNTS,
    "access_token_ttl": 300,
    "id_token_ttl": 300,
    "refresh_token_ttl": 3600,
    "rotate_refresh_tokens": True,
    "claims_in_id_token": True,
    "pkce_required": True,
    "default_resource": None,
    "resources": {},
}


@dataclass(frozen=True, slots=True)
class Client:
    """A relying party as it was registered; `secret` is empty for private_key_jwt and none."""

    id: str
    secret: str
    metadata: Mapping[str, object]


class OidcProvider:
    """One running provider; `issuer` is `http://localhost:<port>`, another site than `127.0.0.1` for cookies."""

    def __init__(self, port: int, *, host: str = "localhost") -> None:
        self.port = port
        self.issuer = f"http://{host}:{port}"
        arguments = json.dumps({"host": host, "port": port, "settings": SETTINGS})
        command = [find_program("node"), str(NODE / "server.js"), arguments]
        self._server = Server("oidc-provider", command, answers=self._answers)

    def _answers(self) -> bool:
        with suppress(OSError):
            self._control("requests")
            return True
        return False

    def _control(self, what: str, **values: object) -> Any:
        connection = HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request("POST", f"/control/{what}", json.dumps(values))
            response = connection.getresponse()
            body = response.read().decode()
        finally:
            connection.close()
        if response.status != 200:
            message = f"the provider refused {what}: {body}"
            raise ServiceFailedError(message)
        return json.loads(body)

    def client(
        self,
        redirect_uris: str | Sequence[str],
        *,
        client_id: str | None = None,
        auth_method: str = "client_secret_basic",
        secret: str | None = None,
        jwks: Mapping[str, object] | None = None,
        post_logout_redirect_uris: Sequence[str] = (),
        backchannel_logout_uri: str | None = None,
        grant_types: Sequence[str] = ("authorization_code", "refresh_token"),
        **metadata: object,
    ) -> Client:
        """Register a client (again, to change it); raises ServiceFailedError when the provider would not have it.

        `auth_method` is client_secret_basic, client_secret_post, client_secret_jwt, private_key_jwt (with `jwks`, the
        public keys) or none. `metadata` are further fields of OpenID Connect Registration 1.0, section 2.
        """
        uris = [redirect_uris] if isinstance(redirect_uris, str) else list(redirect_uris)
        has_secret = auth_method.startswith("client_secret")
        made = Client(
            id=client_id or f"client-{secrets.token_hex(4)}",
            secret=(secret or secrets.token_urlsafe(32)) if has_secret else "",
            metadata={
                "redirect_uris": uris,
                "response_types": ["code"] if "authorization_code" in grant_types else [],
                "grant_types": list(grant_types),
                "token_endpoint_auth_method": auth_method,
                "post_logout_redirect_uris": list(post_logout_redirect_uris),
                **({"jwks": jwks} if jwks else {}),
                **_backchannel(backchannel_logout_uri),
                **metadata,
            },
        )
        secret_field = {"client_secret": made.secret} if made.secret else {}
        self._control("client", client_id=made.id, **secret_field, **made.metadata)
        return made

    def set_claims(self, login: str, claims: Mapping[str, object | None]) -> None:
        """Change some claims of a person, or make the person; a claim that is None goes away."""
        self._control("account", login=login, claims=dict(claims))

    def remove_account(self, login: str) -> None:
        """Forget a person: sign-in, refresh and userinfo fail from now on."""
        self._control("account", login=login, claims=None)

    def configure(self, **settings: object) -> None:
        """Change entries of SETTINGS, e.g. `access_token_ttl=2`, `claims_in_id_token=False`, `default_resource="https://api"`."""
        unknown = settings.keys() - SETTINGS.keys()
        if unknown:
            message = f"no such setting: {', '.join(sorted(unknown))}"
            raise ServiceFailedError(message)
        self._control("settings", **settings)

    def rotate_keys(self, *, keep_old: bool = True) -> list[str]:
        """Sign with new keys from now on; return every key id now published, the new ones (RS256, ES256) first."""
        return list(self._control("keys", keep_old=keep_old)["kids"])

    def break_endpoint(
        self, path: str, *, status: int | None = None, delay: float = 0, body: str | None = None
    ) -> None:
        """Make a path, e.g. `/token` or `/.well-known/openid-configuration`, slow (`delay`, seconds) or fail."""
        fault = {"status": status, "delay": delay, "body": body}
        self._control("fault", path=path, **{name: value for name, value in fault.items() if value})

    def repair(self) -> None:
        """End every fault."""
        self._control("repair")

    def count(self, path: str) -> int:
        """How many requests came to a path since the start or the last reset, e.g. `provider.count("/token")`."""
        return sum(request["path"] == path for request in self._control("requests")["requests"])

    async def end_sessions(self, login: str) -> list[dict[str, str]]:
        """End a person's sessions, telling clients by back-channel logout; returns whom it told, and how that went."""
        answer = await asyncio.to_thread(self._control, "end_sessions", login=login)
        return list(answer["told"])

    async def sign_in(
        self,
        http: aiohttp.ClientSession,
        authorization_url: str | URL,
        login: str,
        *,
        cancel: bool = False,
    ) -> URL:
        """Sign in (or cancel) as a browser would; return the redirect back to the client, which is not followed.

        `http` carries the provider's cookies: with the same session a second sign-in needs no form (single sign-on).
        Raises ServiceFailedError with the page when the provider refuses.
        """
        form = {"login": login, "password": "any", "do": "cancel" if cancel else "sign-in"}
        return await walk(http, self.issuer, authorization_url, form)

    async def sign_out(self, http: aiohttp.ClientSession, end_session_url: str | URL) -> URL | None:
        """Confirm an RP-initiated logout; return the redirect to the client (None: the provider's own page)."""
        try:
            return await walk(http, self.issuer, end_session_url, {"logout": "yes"})
        except EndedAtProviderError:
            return None

    @property
    def log(self) -> str:
        """What the provider wrote."""
        return self._server.log

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._server.is_running

    def start(self) -> Self:
        """Start (again) on the same port and wait until it answers; clients, sessions and keys are new."""
        _require_packages()
        self._server.start()
        return self

    def stop(self) -> None:
        """End the process."""
        self._server.stop()

    def pause(self) -> None:
        """Freeze the process: connections are accepted by the kernel and nothing answers."""
        self._server.pause()

    def resume(self) -> None:
        """Let a paused provider go on."""
        self._server.resume()

    def renew(self) -> None:
        """Undo what an earlier test did: clients, sessions, accounts, settings, faults and counts; keys stay."""
        self.resume()
        if not self.is_running:
            self.start()
        self._control("reset")

    def discard(self) -> None:
        """Stop for good."""
        self._server.discard()


class OidcProviders:
    """Starts further providers and ends them all at the end of the test."""

    def __init__(self) -> None:
        self._started: list[OidcProvider] = []

    def __call__(self, *, host: str = "localhost") -> OidcProvider:
        """Start one more provider with the same people."""
        provider = start_on_free_port(lambda port: OidcProvider(port, host=host))
        self._started.append(provider)
        return provider

    def discard(self) -> None:
        """Stop everything that was started."""
        for provider in self._started:
            provider.discard()
        self._started.clear()


def _backchannel(uri: str | None) -> dict[str, object]:
    if uri is None:
        return {}
    return {"backchannel_logout_uri": uri, "backchannel_logout_session_required": True}


def _require_packages() -> None:
    if not (NODE / "node_modules" / "oidc-provider").is_dir():
        message = "the npm packages of tests/services/node are missing; `make test` installs them"
        raise ServiceMissingError(message)
