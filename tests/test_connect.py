"""``sidecar check --connect`` reaches everything that the configuration names, and says what is wrong where."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from sidecar.demo import LegacyApp
from tests.services import commands
from tests.services.certificates import make_certificates
from tests.services.oidc import OidcProvider
from tests.services.process import free_port
from tests.services.redis import RedisServer, RedisServers
from tests.test_journey import users_table
from tests.test_journey_kinds import REST
from tests.world import BASE, PROVISION, World, merged


async def checked(
    folder: Path, config: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    """Exit code and findings of ``sidecar check --connect --json``."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    line, variables = ("check", "--connect", "--json", str(file)), {**os.environ, **environment}
    done = await asyncio.to_thread(commands.typed, *line, folder=folder, environment=variables, timeout=90)
    return done.returncode, json.loads(done.stdout)


async def test_everything_is_reached_or_named_with_what_is_wrong(
    world: World,
    tmp_path: Path,
    oidc_provider: OidcProvider,
    redis_server: RedisServer,
    redis_url: str,
    postgres_url: str,
) -> None:
    application = await world.application()
    runner = web.AppRunner(LegacyApp(tmp_path / "legacy.db", "the-token").app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provision = yaml.load(PROVISION, Loader=yaml.BaseLoader)  # noqa: S506 - our own text
    api = yaml.load(REST, Loader=yaml.BaseLoader)["connections"]["api"]  # noqa: S506 - our own text
    provision["connections"]["api"] = api
    config = merged(
        yaml.load(BASE, Loader=yaml.BaseLoader),  # noqa: S506 - our own text
        {
            "server": {"listen": "127.0.0.1:8123", "public_url": "http://localhost:8123"},
            "app": {"upstream": f"http://127.0.0.1:{application.port}"},
            "sessions": {"redis": {"env": "REDIS_URL"}},
            "directory": {"env": "DIRECTORY_URL"},
            "provision": provision,
        },
    )
    good = {
        "ISSUER": oidc_provider.issuer,
        "OIDC_SECRET": "hidden-client-secret",
        "SESSION_SECRET": "a session secret that is long enough for anybody",
        "REDIS_URL": redis_url,
        "DIRECTORY_URL": postgres_url,
        "USERS_DB": users_table(tmp_path / "users.db"),
        "USERS_API": f"http://127.0.0.1:{runner.addresses[0][1]}/api",
        "API_TOKEN": "the-token",
    }
    code, said = await checked(tmp_path, config, good)
    assert (code, said["ok"]) == (0, True), said
    found = said["connections"]
    assert set(found) == {
        *("sessions", "app", "logins.corp", "directory"),
        *("provision.connections.db", "provision.connections.api"),
    }
    # It asks for no pushes, so it says nothing of them.
    assert re.fullmatch(r"redis [0-9.]+", found["sessions"]["says"])
    assert oidc_provider.issuer in found["logins.corp"]["says"]
    assert found["directory"]["says"].startswith("postgresql")

    nowhere = free_port()
    bad = {
        "ISSUER": f"http://localhost:{nowhere}",
        "REDIS_URL": f"redis://someone:hidden-redis-password@127.0.0.1:{redis_server.port}/0",
        "DIRECTORY_URL": postgres_url.replace("not-so-secret", "hidden-database-password"),
        "USERS_DB": f"sqlite:///{tmp_path}/nowhere/users.db",
        "USERS_API": f"http://127.0.0.1:{nowhere}/api",
    }
    for name, value in bad.items():
        assert good[name] != value
    code, said = await checked(tmp_path, config, {**good, **bad})
    await runner.cleanup()
    assert (code, said["ok"]) == (3, False)
    assert [name for name, part in said["connections"].items() if part["ok"]] == ["app"]
    for name, word in {
        "sessions": "AuthenticationError",
        "logins.corp": "provider-unavailable",
        "directory": "directory-unavailable",
        "provision.connections.api": "ConnectionRefusedError",
    }.items():
        assert word in said["connections"][name]["says"], said
    assert "hidden" not in json.dumps(said)


async def test_a_certificate_that_is_not_accepted_is_named_as_the_cause(
    tmp_path: Path, redis_servers: RedisServers
) -> None:
    (tmp_path / "expired").mkdir()
    expired = make_certificates(tmp_path / "expired", days=-1)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(expired.certificate, expired.key)
    # Of another authority: one that has expired the tests themselves would not take for started.
    redis = redis_servers(tls=True)
    runner = web.AppRunner(web.Application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    here = f"https://localhost:{runner.addresses[0][1]}"
    trusted = str(expired.authority)
    provision = yaml.load(PROVISION, Loader=yaml.BaseLoader)  # noqa: S506 - our own text
    provision["connections"]["api"] = {"rest": {"base_url": here, "ca": trusted}}
    config = merged(
        yaml.load(BASE, Loader=yaml.BaseLoader),  # noqa: S506 - our own text
        {
            "server": {"listen": "127.0.0.1:8123", "public_url": "http://localhost:8123"},
            "app": {"upstream": here, "tls": {"ca": trusted}},
            "sessions": {"redis": {"env": "REDIS_URL"}, "redis_ca": trusted},
            "directory": {"env": "DIRECTORY_URL"},
            "provision": provision,
            "engines": {"decisions": {"type": "opa", "url": here, "path": "a/b", "ca": trusted}},
            "audit": {"webhook": {"url": here, "secret": {"env": "HOOK"}, "ca": trusted, "spool": "spool"}},
        },
    )
    config["logins"]["corp"]["ca"] = trusted
    environment = {
        "ISSUER": here,
        "OIDC_SECRET": "hidden-client-secret",
        "SESSION_SECRET": "a session secret that is long enough for anybody",
        "HOOK": "another secret that is long enough for anybody",
        "REDIS_URL": redis.url,
        "DIRECTORY_URL": f"sqlite:///{tmp_path}/directory.db",
        "USERS_DB": users_table(tmp_path / "users.db"),
    }
    code, said = await checked(tmp_path, config, environment)
    await runner.cleanup()
    assert code == 3, said
    bad = {name: part["says"] for name, part in said["connections"].items() if not part["ok"]}
    assert bad.keys() == {
        *("sessions", "app", "logins.corp", "engines.decisions", "audit.webhook", "provision.connections.api"),
    }
    assert "its certificate is not accepted: self-signed certificate in certificate chain" in bad.pop("sessions")
    assert all("certificate has expired" in says for says in bad.values()), bad
