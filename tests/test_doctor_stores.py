"""``sidecar doctor`` looks at what the sidecar keeps things in: Redis, the directory, hooks, files, the machine."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sidecar.directory import Directory
from sidecar.doctor import files
from sidecar.doctor.directory import file_system, file_system_of
from sidecar.doctor.examination import examine
from tests.doctor_world import FAILURE, OK, SKIPPED, WARNING, bad, examined, one, patient_of, written
from tests.services.process import free_port
from tests.services.redis import AclUser, RedisServer, RedisServers
from tests.test_journey import users_table
from tests.world import PROVISION

REDIS = {"sessions": {"redis": {"env": "REDIS_URL"}}}


async def with_redis(folder: Path, server: RedisServer, *only: str) -> Any:
    return await examined(folder, REDIS, *(only or ("redis",)), REDIS_URL=server.url)


async def test_a_plain_redis_is_well(tmp_path: Path, redis_server: RedisServer, redis_url: str) -> None:
    found = await examined(tmp_path, REDIS, "redis", "clock", REDIS_URL=redis_url)
    assert not bad(found), found
    assert one(found, "redis-push").severity is OK
    assert one(found, "clock", "sessions").severity is OK
    with redis_server.client() as client:
        # What the examination wrote ends by itself.
        assert all(0 < client.pttl(key) <= 10_000 for key in client.scan_iter("sidecar:doctor:*"))


async def test_a_redis_that_evicts_keys_ends_sessions(tmp_path: Path, redis_servers: RedisServers) -> None:
    server = redis_servers("--maxmemory-policy", "allkeys-lru", maxmemory="8mb")
    finding = one(await with_redis(tmp_path, server), "redis-eviction")
    assert (finding.severity, "allkeys-lru" in finding.seen, finding.path) == (FAILURE, True, "sessions.redis")
    assert finding.line > 0
    server = redis_servers("--maxmemory-policy", "volatile-ttl")
    finding = one(await with_redis(tmp_path, server), "redis-eviction")
    assert (finding.severity, "volatile-ttl" in finding.seen) == (WARNING, True)


async def test_a_redis_that_is_nearly_full(tmp_path: Path, redis_servers: RedisServers) -> None:
    server = redis_servers(maxmemory="6mb")
    with server.client() as client:
        for number in range(50):
            client.set(f"other:{number}", b"x" * 90_000)
    assert one(await with_redis(tmp_path, server), "redis-memory").severity is WARNING


async def test_what_the_acl_user_may_not_do_is_named(tmp_path: Path, redis_servers: RedisServers) -> None:
    # A clean slate: the tracking of changes, scripts and INFO are what careful people take away.
    server = redis_servers(acl=AclUser("app", "hidden-password", "~sidecar:* &* +@all -eval -client|tracking -info"))
    found = await with_redis(tmp_path, server)
    assert "EVAL" in one(found, "redis-permissions").seen
    assert one(found, "redis-permissions").severity is FAILURE
    assert one(found, "redis-push").severity is WARNING
    assert one(found, "redis-eviction").severity is SKIPPED
    assert "hidden-password" not in str(found)


def test_a_redis_that_failed_to_save(tmp_path: Path, redis_servers: RedisServers) -> None:
    server = redis_servers("--save", "3600 1000")
    with server.client() as client:
        folder = str(client.config_get("dir")["dir"])
        client.set("other", "x")
        (Path(folder) / "dump.rdb").mkdir()
        client.bgsave()
        for _ in range(200):
            if client.info("persistence")["rdb_last_bgsave_status"] != "ok":
                break
            time.sleep(0.02)
    assert one(asyncio.run(with_redis(tmp_path, server)), "redis-persistence").severity is WARNING


def test_a_redis_that_would_bring_ended_sessions_back_from_a_snapshot(
    tmp_path: Path, redis_servers: RedisServers
) -> None:
    server = redis_servers()

    def said() -> Any:
        return one(asyncio.run(with_redis(tmp_path, server)), "redis-persistence")

    assert said().severity is OK
    with server.client() as client:
        client.bgsave()
        for _ in range(200):
            if client.info("persistence")["rdb_last_bgsave_time_sec"] >= 0:
                break
            time.sleep(0.02)
        assert said().severity is WARNING
        client.config_set("appendonly", "yes")
    assert said().severity is OK


async def test_a_redis_that_is_too_old_or_far_away_without_tls(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No server this old can be had here: the number that it says is all that is made up.
    monkeypatch.setattr("sidecar.sessions.redis._OLDEST", (99, 0))
    found = await examined(tmp_path, REDIS, "redis-version", REDIS_URL=redis_url)
    assert one(found, "redis-version").severity is FAILURE
    far = await examined(tmp_path, REDIS, "redis-tls", REDIS_URL="redis://app:hidden-password@192.0.2.200:6379/0")
    assert (one(far, "redis-tls").severity, "hidden" in str(far)) == (WARNING, False)


async def test_a_redis_that_is_down_is_one_failure(tmp_path: Path) -> None:
    found = await examined(tmp_path, REDIS, "redis", "clock", "connection", REDIS_URL="redis://127.0.0.1:1/0")
    assert [finding.part for finding in found if finding.name == "connection" and finding.severity is FAILURE] == [
        "sessions", "app", "logins.corp",
    ]  # fmt: skip
    assert bad(found) == {"connection"}


def accounts(folder: Path, **changes: Any) -> Mapping[str, Any]:
    section = yaml.load(PROVISION, Loader=yaml.BaseLoader)  # noqa: S506 - our own text
    return {"directory": {"env": "DIRECTORY_URL"}, "provision": {**section, **changes}}


async def test_directories_of_older_and_newer_programs(tmp_path: Path, database_url: str) -> None:
    environment = {"DIRECTORY_URL": database_url, "USERS_DB": users_table(tmp_path / "users.db")}
    found = await examined(tmp_path, accounts(tmp_path), "directory", **environment)
    assert one(found, "directory-migrations").severity is OK
    opened = await Directory.open(database_url, "wiki", 30)
    await opened.close()
    for version, severity in (("0004", WARNING), ("9999", FAILURE)):
        engine = create_async_engine(database_url)
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE sidecar_version SET version_num = :v"), {"v": version})
        await engine.dispose()
        found = await examined(tmp_path, accounts(tmp_path), "directory", **environment)
        finding = one(found, "directory-migrations")
        assert (finding.severity, version in finding.seen, finding.path) == (severity, True, "directory")
    # Looking changed nothing.
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT version_num FROM sidecar_version")) == "9999"
    await engine.dispose()


async def test_a_directory_that_is_not_there_is_not_made_by_looking(tmp_path: Path, sqlite_url: str) -> None:
    environment = {"DIRECTORY_URL": sqlite_url, "USERS_DB": users_table(tmp_path / "users.db")}
    found = await examined(tmp_path, accounts(tmp_path), **environment)
    assert one(found, "directory-migrations").severity is OK
    assert not (tmp_path / "database.sqlite").exists()


async def test_databases_that_are_set_up_carelessly(tmp_path: Path, sqlite_url: str, postgres_url: str) -> None:
    with closing(sqlite3.connect(tmp_path / "database.sqlite")) as other:
        other.execute("CREATE TABLE other (id INT)")
    environment = {"USERS_DB": users_table(tmp_path / "users.db")}
    found = await examined(tmp_path, accounts(tmp_path), "directory-database", DIRECTORY_URL=sqlite_url, **environment)
    assert "journal_mode" in next(finding for finding in found if finding.severity is WARNING).seen
    found = await examined(tmp_path, accounts(tmp_path), "directory", DIRECTORY_URL=postgres_url, **environment)
    assert "statement_timeout" in one(found, "directory-database").seen


def test_sqlite_on_a_network_file_system_is_known_by_the_table_of_mounts(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path}/shared nfs4 rw 0 0\n")
    assert file_system_of(tmp_path / "shared" / "a.db", mounts) == "nfs4"
    assert file_system_of(tmp_path / "a.db", mounts) == "ext4"
    patient = patient_of(written(tmp_path))
    assert file_system(patient, tmp_path / "shared" / "a.db", mounts).severity is FAILURE
    assert file_system(patient, tmp_path / "a.db", mounts).severity is OK


async def test_a_lookup_that_finds_anybody_and_one_that_fails(tmp_path: Path) -> None:
    database = users_table(tmp_path / "users.db")
    environment = {"DIRECTORY_URL": f"sqlite:///{tmp_path}/d.db", "USERS_DB": database}
    good = await examined(tmp_path, accounts(tmp_path), "hooks", **environment)
    assert (bad(good), one(good, "hook-lookup").severity) == (set(), OK)
    for statement, word in (
        ("SELECT id FROM users WHERE login <> :login", "cannot exist"),
        ("SELECT id FROM nowhere WHERE login = :login", "failed"),
    ):
        step = {"sql": {"on": "db", "query": statement, "params": {"login": "{{ account.key }}"}}}
        finding = one(await examined(tmp_path, accounts(tmp_path, lookup=step), "hooks", **environment), "hook-lookup")
        assert (finding.severity, word in finding.seen, finding.path) == (FAILURE, True, "provision.lookup"), finding
    with closing(sqlite3.connect(tmp_path / "users.db")) as connection:
        assert connection.execute("SELECT login FROM users").fetchall() == [("root",)]


async def test_a_hook_whose_template_breaks(tmp_path: Path) -> None:
    step = {"sql": {"on": "db", "exec": "UPDATE users SET role = :r", "params": {"r": "{{ roles.nothing.at.all }}"}}}
    environment = {"DIRECTORY_URL": f"sqlite:///{tmp_path}/d.db", "USERS_DB": users_table(tmp_path / "users.db")}
    found = await examined(tmp_path, accounts(tmp_path, set_roles=step), "hook-render", **environment)
    finding = one(found, "hook-render")
    assert (finding.severity, finding.path) == (WARNING, "provision.set_roles")
    assert "roles.nothing" in finding.seen


async def test_secrets_that_others_can_read_and_files_that_they_can_write(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a session secret of which nobody knows anything")
    changes = {"sessions": {"secrets": [{"file": "secret"}]}}
    secret.chmod(0o600)
    assert one(await examined(tmp_path, changes, "file-permissions"), "file-permissions").severity is OK
    secret.chmod(0o644)
    finding = one(await examined(tmp_path, changes, "file-permissions"), "file-permissions")
    assert (finding.severity, finding.path) == (FAILURE, "sessions.secrets[0]")
    secret.chmod(0o600)
    (tmp_path / "config.yaml").chmod(0o666)
    assert one(await examined(tmp_path, changes, "file-permissions"), "file-permissions").severity is FAILURE


async def test_session_secrets_that_can_be_guessed_are_used_twice_or_are_old(tmp_path: Path) -> None:
    weak = await examined(tmp_path, {}, "session-secret", SESSION_SECRET="abcabcabc" * 5)
    assert one(weak, "session-secret").severity is FAILURE
    same = "one secret for everything is the start of trouble"
    twice = await examined(tmp_path, {}, "session-secret", SESSION_SECRET=same, OIDC_SECRET=same)
    assert one(twice, "session-secret").severity is FAILURE
    (tmp_path / "old").write_text("a session secret of which nobody knows anything")
    os.utime(tmp_path / "old", (1_500_000_000, 1_500_000_000))
    old = await examined(tmp_path, {"sessions": {"secrets": [{"file": "old"}]}}, "session-secret")
    assert one(old, "session-secret").severity is WARNING


async def test_audit_lines_that_go_nowhere_or_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = await examined(tmp_path, {"audit": {"stdout": "false"}}, "audit-sink")
    assert one(nowhere, "audit-sink").severity is WARNING
    for sink in ({"database": {}}, {"webhook": {"url": "https://siem.example.com/", "secret": {"env": "SESSION_SECRET"},
                                                "spool": str(tmp_path / "spool")}}):  # fmt: skip
        somewhere = await examined(tmp_path, {"audit": {"stdout": "false", **sink}}, "audit-sink")
        assert one(somewhere, "audit-sink").severity is OK
    changes = {"audit": {"file": str(tmp_path / "audit.jsonl")}}
    assert one(await examined(tmp_path, changes, "audit-sink"), "audit-sink").severity is OK
    # Root may write everything: what the system would say to somebody else.
    monkeypatch.setattr("sidecar.doctor.files.os.access", lambda *_: False)
    assert one(await examined(tmp_path, changes, "audit-sink"), "audit-sink").severity is FAILURE


async def test_a_directory_that_cannot_be_read_fails_also_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_text("this is no database" * 100)
    environment = {"DIRECTORY_URL": f"sqlite:///{tmp_path}/broken.db", "USERS_DB": users_table(tmp_path / "users.db")}
    found = await examined(tmp_path, accounts(tmp_path), "directory", **environment)
    assert one(found, "connection", "directory").severity is FAILURE


async def test_a_redis_that_refuses_us_is_not_said_to_be_silent(tmp_path: Path, redis_servers: RedisServers) -> None:
    server = redis_servers(acl=AclUser("app", "right", "~sidecar:* &* +@all"))
    url = f"redis://app:wrong-one@127.0.0.1:{server.port}/0"
    found = await examined(tmp_path, REDIS, "redis", "clock", REDIS_URL=url)
    assert "the user or the password is wrong or missing" in one(found, "redis-version").seen
    assert "the user or the password is wrong or missing" in one(found, "clock", "sessions").seen


async def test_receivers_of_audit_lines_are_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        there = door.getsockname()[1]
        nowhere = free_port()
        webhook = {"secret": {"env": "SESSION_SECRET"}, "spool": str(tmp_path / "spool"), "insecure": "true"}
        for port, severity in ((there, OK), (nowhere, FAILURE)):
            changes = {
                "syslog": {"url": f"tcp://127.0.0.1:{port}"},
                "webhook": {"url": f"http://127.0.0.1:{port}/", **webhook},
            }
            found = await examined(tmp_path, {"audit": changes}, "connection")
            assert one(found, "connection", "audit.syslog").severity is severity
            assert one(found, "connection", "audit.webhook").severity is severity


async def test_disks_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = patient_of(written(tmp_path, {"audit": {"file": str(tmp_path / "audit.jsonl")}}))
    assert one(await examine(patient, only=["disk-space"]), "disk-space").severity is OK
    monkeypatch.setattr(files, "_LITTLE", 1 << 60)
    assert one(await examine(patient, only=["disk-space"]), "disk-space").severity is WARNING
    monkeypatch.setattr(files, "_NEARLY_NOTHING", 1 << 60)
    assert one(await examine(patient, only=["disk-space"]), "disk-space").severity is FAILURE


async def test_too_few_descriptors_and_too_many_workers(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(600, hard), hard))
    try:
        found = await examined(tmp_path, {}, "machine")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert one(found, "descriptors").severity is WARNING
    assert one(found, "workers").severity is OK
    many = {"server": {"workers": 200}, **REDIS}
    found = await examined(tmp_path, many, "machine", REDIS_URL="redis://127.0.0.1:1/0")
    assert (one(found, "workers").severity, one(found, "workers").path) == (WARNING, "server.workers")
