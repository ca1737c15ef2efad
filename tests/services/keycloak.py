"""A real Keycloak, for SAML and OpenID Connect, whose clients, people and groups a test can change at run time."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

from tests.services.oidc import ACCOUNTS
from tests.services.process import (
    HOST,
    Server,
    ServiceFailedError,
    ServiceMissingError,
    find_program,
    new_directory,
)

READY = Path(__file__).parents[2] / ".cache" / "keycloak"
REALM = "company"
PASSWORD = "any"
# Of the first realm, which tools/keycloak makes.
ADMINISTRATOR = {"client_id": "admin-cli", "grant_type": "password", "username": "admin", "password": "admin"}
START_SECONDS = 240.0
JAVA = (
    "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    "-Dpicocli.disable.closures=true",
    "-Dfile.encoding=UTF-8",
    # A short life: what a thorough compiler and a second collector thread would gain is not earned back.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xms64m",
    "-Xmx512m",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.security=ALL-UNNAMED",
)
# Attributes of a person as Keycloak sends them to a SAML client: mapper, property, name.
PROPERTIES = (("username", "username"), ("email", "email"), ("firstName", "givenName"), ("lastName", "surname"))


class KeycloakServer:
    """One running Keycloak with one realm; `issuer` is also its SAML entityID.

    It is another site than `localhost` for cookies, so that what it posts comes from elsewhere, as it does in earnest.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.issuer = f"{self.url}/realms/{REALM}"
        self.metadata_url = f"{self.issuer}/protocol/saml/descriptor"
        self._home = new_directory("sidecar-keycloak")
        self._server = Server(
            "keycloak",
            self._command(),
            answers=self._answers,
            start_seconds=START_SECONDS,
        )
        self._token = ""

    def _command(self) -> list[str]:
        places = [f"-Dkc.home.dir={self._home}", f"-Djboss.server.config.dir={self._home}/conf"]
        program = ["-cp", f"{self._home}/lib/quarkus-run.jar", "io.quarkus.bootstrap.runner.QuarkusEntryPoint"]
        options = ["--http-enabled=true", f"--http-host={HOST}", f"--http-port={self.port}", "--hostname-strict=false"]
        # Not by kc.sh, whose child would outlive it.
        return [find_program("java"), *JAVA, *places, *program, "start", "--optimized", "--cache=local", *options]

    def _answers(self) -> bool:
        with suppress(OSError, HTTPException):
            return self._request("GET", "/realms/master")[0] == 200
        return False

    def start(self) -> Self:
        """Start (again) on the same port and wait until it answers; realm, clients and sessions are kept."""
        self._furnish()
        self._token = ""
        self._server.start()
        if self._request("GET", f"/realms/{REALM}")[0] != 200:
            self.admin("POST", "", _realm(), realm="")
        return self

    def _furnish(self) -> None:
        if not READY.is_dir():
            message = "Keycloak is not there; `make test` fetches it, or run tools/keycloak"
            raise ServiceMissingError(message)
        if (self._home / "data").exists():
            return
        for name in ("lib", "conf", "providers", "themes"):
            (self._home / name).symlink_to(READY / name)
        shutil.copytree(READY / "data", self._home / "data")

    def _request(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        connection = HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read().decode(), response.headers.get("Location", "")
        finally:
            connection.close()

    def admin(self, method: str, path: str, body: object = None, *, realm: str = f"/{REALM}") -> Any:
        """Call the administration API below the realm; returns JSON, or the Location of something new."""
        status, text, location = self._administer(method, path, body, realm)
        if status == 401:
            self._token = self._fresh_token()
            status, text, location = self._administer(method, path, body, realm)
        if status >= 300:
            message = f"Keycloak refused {method} {path} ({status}): {text[:2000]}"
            raise ServiceFailedError(message)
        return json.loads(text) if text else location

    def _administer(self, method: str, path: str, body: object, realm: str) -> tuple[int, str, str]:
        text = body if isinstance(body, str | None) else json.dumps(body)
        kind = "application/xml" if isinstance(body, str) else "application/json"
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        return self._request(method, f"/admin/realms{realm}{path}", text, headers)

    def _fresh_token(self) -> str:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        path = "/realms/master/protocol/openid-connect/token"
        status, text, _ = self._request("POST", path, urlencode(ADMINISTRATOR), form)
        if status != 200:
            message = f"Keycloak refused its administrator ({status}): {text}"
            raise ServiceFailedError(message)
        return str(json.loads(text)["access_token"])

    def metadata(self) -> str:
        """The SAML metadata of the realm."""
        return self._request("GET", f"/realms/{REALM}/protocol/saml/descriptor")[1]

    def saml_client(self, metadata: str, *, attributes: Mapping[str, str] | None = None, **changes: object) -> str:
        """Register a service provider by its metadata, as an administrator imports it; returns its id.

        `attributes` are Keycloak's of a SAML client, e.g. `{"saml.encrypt": "true"}`; `changes` are other fields of it.
        """
        client = self.admin("POST", "/client-description-converter", metadata)
        client["attributes"] = {**client.get("attributes", {}), **(attributes or {})}
        client["protocolMappers"] = [_property(*pair) for pair in PROPERTIES] + [_saml_groups()]
        return self._add_client({**client, **changes})

    def oidc_client(self, client_id: str, redirect_uris: Sequence[str], **attributes: str) -> str:
        """Register a confidential OpenID client and return its secret; attributes with `_` for `.` are Keycloak's."""
        secret = secrets.token_urlsafe(24)
        self._add_client(
            {
                "clientId": client_id,
                "protocol": "openid-connect",
                "secret": secret,
                "publicClient": False,
                "redirectUris": list(redirect_uris),
                "standardFlowEnabled": True,
                "frontchannelLogout": False,
                "attributes": {name.replace("_", "."): value for name, value in attributes.items()},
                "protocolMappers": [_oidc_groups()],
            }
        )
        return secret

    def _add_client(self, client: Mapping[str, object]) -> str:
        return str(self.admin("POST", "/clients", client)).rpartition("/")[2]

    def change_client(self, key: str, attributes: Mapping[str, str] | None = None, **changes: object) -> None:
        """Change a client (by the id that `saml_client` gave)."""
        client = self.admin("GET", f"/clients/{key}")
        client["attributes"] = {**client["attributes"], **(attributes or {})}
        self.admin("PUT", f"/clients/{key}", {**client, **changes})

    def person(self, login: str) -> dict[str, Any]:
        """What Keycloak knows of a person."""
        found: list[dict[str, Any]] = self.admin("GET", f"/users?exact=true&username={quote(login)}")
        return found[0]

    def set_groups(self, login: str, groups: Sequence[str]) -> None:
        """Make a person a member of these groups only; a group that is not there is made."""
        membership = f"/users/{self.person(login)['id']}/groups"
        for group in self.admin("GET", membership):
            self.admin("DELETE", f"{membership}/{group['id']}")
        for name in groups:
            self.admin("PUT", f"{membership}/{self._group(name)}")

    def _group(self, name: str) -> str:
        known = {group["name"]: str(group["id"]) for group in self.admin("GET", "/groups")}
        return known.get(name) or str(self.admin("POST", "/groups", {"name": name})).rpartition("/")[2]

    def change_person(self, login: str, **changes: object) -> None:
        """Change fields of a person, e.g. `emailVerified=False`, `enabled=False`."""
        person = self.person(login)
        self.admin("PUT", f"/users/{person['id']}", {**person, **changes})

    def end_sessions(self, login: str) -> None:
        """End a person's sessions as an administrator does: clients hear of it without the browser."""
        self.admin("POST", f"/users/{self.person(login)['id']}/logout")

    def session_count(self, login: str) -> int:
        """How many sessions a person has at Keycloak."""
        return len(self.admin("GET", f"/users/{self.person(login)['id']}/sessions"))

    def rotate_keys(self) -> None:
        """Sign with a new key from now on; the old one is still published."""
        provider = {"name": "newer", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider"}
        self.admin("POST", "/components", {**provider, "config": {"priority": ["500"], "keySize": ["2048"]}})

    @property
    def log(self) -> str:
        """What Keycloak wrote."""
        return self._server.log

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._server.is_running

    def stop(self) -> None:
        """End the process."""
        self._server.stop()

    def pause(self) -> None:
        """Freeze the process: connections are accepted by the kernel and nothing answers."""
        self._server.pause()

    def resume(self) -> None:
        """Let a paused Keycloak go on."""
        self._server.resume()

    @contextmanager
    def stopped_answering(self) -> Iterator[None]:
        """Frozen for the length of a block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def renew(self) -> None:
        """Undo what an earlier test did: clients, people, groups, sessions and added keys."""
        self.resume()
        if not self.is_running:
            self.start()
        for client in self.admin("GET", "/clients"):
            if client["clientId"] not in BUILT_IN:
                self.admin("DELETE", f"/clients/{client['id']}")
        for key in self.admin("GET", "/components?name=newer&type=org.keycloak.keys.KeyProvider"):
            self.admin("DELETE", f"/components/{key['id']}")
        for person in self.admin("GET", "/users"):
            self.admin("DELETE", f"/users/{person['id']}")
        for person in _people():
            self.admin("POST", "/users", person)

    def discard(self) -> None:
        """Stop for good and delete everything."""
        self._server.discard()
        shutil.rmtree(self._home, ignore_errors=True)


BUILT_IN = {"account", "account-console", "admin-cli", "broker", "realm-management", "security-admin-console"}


def _realm() -> dict[str, object]:
    groups = sorted({str(group) for claims in ACCOUNTS.values() for group in claims["groups"]})  # type: ignore[attr-defined]
    return {
        "realm": REALM,
        "enabled": True,
        # Loopback only.
        "sslRequired": "none",
        "groups": [{"name": name} for name in groups],
        "users": _people(),
    }


def _people() -> list[dict[str, object]]:
    return [_person(login, claims) for login, claims in ACCOUNTS.items()]


def _person(login: str, claims: Mapping[str, Any]) -> dict[str, object]:
    first, _, last = claims["name"].partition(" ")
    return {
        "username": login,
        "enabled": True,
        "email": claims["email"],
        "emailVerified": claims["email_verified"],
        "firstName": first,
        "lastName": last,
        "credentials": [{"type": "password", "value": PASSWORD}],
        "groups": list(claims["groups"]),
    }


def _property(of_keycloak: str, name: str) -> dict[str, object]:
    config = {"user.attribute": of_keycloak, "attribute.name": name, "attribute.nameformat": "Basic"}
    return _mapper("saml", name, "saml-user-property-mapper", {**config, "friendly.name": name})


def _saml_groups() -> dict[str, object]:
    config = {"attribute.name": "groups", "attribute.nameformat": "Basic", "single": "true", "full.path": "false"}
    return _mapper("saml", "groups", "saml-group-membership-mapper", config)


def _oidc_groups() -> dict[str, object]:
    config = {"claim.name": "groups", "full.path": "false", "id.token.claim": "true", "userinfo.token.claim": "true"}
    return _mapper("openid-connect", "groups", "oidc-group-membership-mapper", config)


def _mapper(protocol: str, name: str, kind: str, config: Mapping[str, str]) -> dict[str, object]:
    return {"name": name, "protocol": protocol, "protocolMapper": kind, "config": dict(config)}
