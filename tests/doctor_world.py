"""Examine a configuration as ``sidecar doctor`` does, and servers that are wrong in one way each."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from sidecar.config.document import read_document
from sidecar.config.loader import load
from sidecar.doctor.examination import examine
from sidecar.doctor.finding import Finding, Severity
from sidecar.doctor.patient import Patient
from sidecar.hooks.passwords import FILTERS
from tests.services import commands
from tests.services.process import free_port
from tests.world import BASE, SECRET, merged

OK, SKIPPED, WARNING, FAILURE = Severity.OK, Severity.SKIPPED, Severity.WARNING, Severity.FAILURE
VARIABLES = {"ISSUER": "http://localhost:1/id", "OIDC_SECRET": "hidden-client-secret", "SESSION_SECRET": SECRET}


def written(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """File with a configuration in which nothing is reached."""
    dead = free_port()
    config = merged(
        yaml.load(BASE, Loader=yaml.BaseLoader),  # noqa: S506 - our own text
        {
            "server": {"listen": f"127.0.0.1:{dead}", "public_url": f"http://localhost:{dead}"},
            "app": {"upstream": f"http://127.0.0.1:{free_port()}"},
            "directory": f"sqlite:///{folder}/directory.db",
            "audit": {"stdout": "true"},
        },
    )
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(merged(config, changes or {}), sort_keys=False))
    return file


def patient_of(file: Path, environment: Mapping[str, str] | None = None) -> Patient:
    """The deployment that *file* describes."""
    loaded = load(file, environment={**os.environ, **VARIABLES, **(environment or {})}, filters=FILTERS)
    return Patient(loaded.config, read_document(file), loaded.warnings)


async def examined(
    folder: Path, changes: Mapping[str, Any] | None = None, *only: str, **environment: str
) -> list[Finding]:
    """Findings of the checks *only*, all of which take part when there are none."""
    return await examine(patient_of(written(folder, changes), environment), only=only)


def one(findings: list[Finding], name: str, part: str = "") -> Finding:
    """The only finding of *name*, and of that *part* if it is given."""
    found = [finding for finding in findings if finding.name == name and part in ("", finding.part)]
    assert len(found) == 1, (name, findings)
    return found[0]


def bad(findings: list[Finding]) -> set[str]:
    """Names of what failed or should be looked at."""
    return {finding.name for finding in findings if finding.severity in (WARNING, FAILURE)}


@dataclass
class Impostor:
    """A small HTTP server whose answers a test writes."""

    answers: dict[str, Callable[[web.BaseRequest], web.StreamResponse]] = field(default_factory=dict)
    ahead: float = 0.0
    url: str = ""
    port: int = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer with the clock that the test set."""
        make = self.answers.get(request.path)
        answer = web.Response(text="hello") if make is None else make(request)
        answer.headers["Date"] = formatdate(time.time() + self.ahead, usegmt=True)
        return answer

    def describes(self, **changes: Any) -> None:
        """Be an OpenID provider whose discovery document has *changes*; None removes a line."""
        document = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/auth",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        shown = {name: value for name, value in {**document, **changes}.items() if value is not None}
        self.answers["/.well-known/openid-configuration"] = lambda _: web.json_response(shown)
        self.answers.setdefault("/jwks", lambda _: web.json_response({"keys": []}))


@asynccontextmanager
async def impostor(
    host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Impostor]:
    """One that listens on *host*."""
    one = Impostor()
    runner = web.ServerRunner(web.Server(one.handle, access_log=None), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, host, port or free_port(), ssl_context=tls).start()
    one.port = runner.addresses[0][1]
    one.url = f"{'https' if tls else 'http'}://localhost:{one.port}"
    try:
        yield one
    finally:
        await runner.cleanup()


async def commanded(file: Path, *words: str, **environment: str) -> tuple[int, str]:
    """Exit code and standard output of ``sidecar doctor``."""
    variables = {**os.environ, **VARIABLES, **environment}
    line = ("doctor", str(file), *words)
    done = await asyncio.to_thread(commands.typed, *line, folder=Path.cwd(), environment=variables, timeout=90)
    return done.returncode, done.stderr + done.stdout
