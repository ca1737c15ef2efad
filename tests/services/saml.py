"""A second real SAML identity provider, on pysaml2, whose people and habits a test can change at run time."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

from tests.services.certificates import make_self_signed
from tests.services.process import HOST, Server, ServiceFailedError, find_program, new_directory

PROGRAM = Path(__file__).parent / "pysaml2_idp.py"
# Everybody who can sign in at a new or reset provider; the names are those of the eduPerson and inetOrgPerson schemas.
PEOPLE: dict[str, dict[str, object]] = {
    "ada": {
        "uid": "ada",
        "displayName": "Ada Lovelace",
        "mail": "ada@example.com",
        "eduPersonEntitlement": ["wiki-admins", "staff"],
    },
    "bob": {"uid": "bob", "displayName": "Bob Mörk", "mail": "bob@example.com", "eduPersonEntitlement": ["staff"]},
}


class SamlProvider:
    """One running provider; `metadata_url` is also its entityID, at another site than `localhost` for cookies."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.metadata_url = f"{self.url}/metadata"
        self._folder = new_directory("sidecar-saml")
        make_self_signed(self._folder, "provider")
        find_program("xmlsec1")
        arguments = json.dumps({"host": HOST, "port": port, "url": self.url, "folder": str(self._folder)})
        self._server = Server("saml-provider", [sys.executable, str(PROGRAM), arguments], answers=self._answers)

    def _answers(self) -> bool:
        with suppress(OSError, HTTPException):
            self._control("seen")
            return True
        return False

    def _control(self, what: str, **values: object) -> Any:
        return json.loads(self._request("POST", f"/control/{what}", json.dumps(values)))

    def _request(self, method: str, path: str, body: str | None = None) -> str:
        connection = HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status != 200:
            message = f"the provider refused {path}: {text}\n{self.log[-2000:]}"
            raise ServiceFailedError(message)
        return text

    def register(self, metadata: str) -> None:
        """Trust a service provider, by its metadata."""
        self._control("sp", metadata=metadata)

    def configure(self, **settings: object) -> None:
        """Change habits, see SETTINGS of the program; `name_id` is persistent, transient or email."""
        self._control("settings", **settings)

    def set_attributes(self, login: str, attributes: Mapping[str, object]) -> None:
        """Say all that is known of a person."""
        self._control("person", login=login, attributes=dict(attributes))

    def seen(self) -> list[str]:
        """What came, in order: `signed` or `unsigned` for each request, `logout asked: …`, `logout answered: …`."""
        return list(self._control("seen")["seen"])

    def metadata(self) -> str:
        """The provider's own metadata."""
        return self._request("GET", "/metadata")

    @property
    def log(self) -> str:
        """What the provider wrote."""
        return self._server.log

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._server.is_running

    def start(self) -> Self:
        """Start (again) on the same port and wait until it answers; service providers and sessions are forgotten."""
        self._server.start()
        self._control("reset", people=PEOPLE)
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
        """Undo what an earlier test did; the key stays."""
        self.resume()
        if not self.is_running:
            self.start()
        self._control("reset", people=PEOPLE)

    def discard(self) -> None:
        """Stop for good."""
        self._server.discard()
        shutil.rmtree(self._folder, ignore_errors=True)
