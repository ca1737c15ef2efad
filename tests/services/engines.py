"""Real engines of fine-grained policy: OpenFGA and OPA, as tools/engines has built them."""

from __future__ import annotations

import json
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.services.process import HOST, Server

BUILT = Path(__file__).parents[2] / ".cache" / "engines"
KEY = "a preshared key"


def _program(name: str) -> str:
    if not (BUILT / name).exists():
        # Building them takes a Go compiler and minutes; everything else is tested without them.
        pytest.skip(f"{name} is not built: run tools/engines")
    return str(BUILT / name)


class _Engine:
    """One running engine: `url`, `post`, and `stop`, `start`, `pause` and `resume` on the same port."""

    health: str

    def __init__(self, port: int, command: list[str]) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self._server = Server(type(self).__name__.lower(), command, answers=self._answers)
        self.stop = self._server.stop
        self.start = self._server.start
        self.pause = self._server.pause
        self.resume = self._server.resume
        self.discard = self._server.discard

    def post(self, path: str, value: Any, method: str = "POST") -> Any:
        """Send JSON, or text as it is, with the key; what comes back."""
        is_text = isinstance(value, str)
        request = urllib.request.Request(  # noqa: S310 - our own address
            self.url + path,
            value.encode() if is_text else json.dumps(value).encode(),
            {"Authorization": f"Bearer {KEY}", "Content-Type": "text/plain" if is_text else "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
            return json.loads(answer.read() or b"{}")

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(self.url + self.health, timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
        return False


class OpenFga(_Engine):
    """OpenFGA with its store in memory."""

    health = "/healthz"

    def __init__(self, port: int) -> None:
        keys = ["--authn-method=preshared", f"--authn-preshared-keys={KEY}"]
        super().__init__(port, [_program("openfga"), "run", f"--http-addr={HOST}:{port}", *keys])

    def store(self, model: dict[str, Any], *tuples: tuple[str, str, str]) -> tuple[str, str]:
        """Make a store with *model* and *tuples* (user, relation, object); ids of both."""
        store = self.post("/stores", {"name": "wiki"})["id"]
        made = self.post(f"/stores/{store}/authorization-models", model)["authorization_model_id"]
        if tuples:
            self.write(store, *tuples)
        return store, made

    def write(self, store: str, *tuples: tuple[str, str, str]) -> None:
        """Write *tuples*."""
        keys = [dict(zip(("user", "relation", "object"), line, strict=True)) for line in tuples]
        self.post(f"/stores/{store}/write", {"writes": {"tuple_keys": keys}})


class Opa(_Engine):
    """OPA, which lets in whoever has the key."""

    health = "/health"

    def __init__(self, port: int) -> None:
        super().__init__(
            port,
            [_program("opa"), "run", "--server", f"--addr={HOST}:{port}", "--disable-telemetry", "--log-level=error"],
        )
