"""A real Redis on a free port, plain or with TLS, an ACL user, a memory limit, or replicas under a Sentinel."""

from __future__ import annotations

import shutil
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import redis

from tests.services.certificates import Certificates, make_certificates
from tests.services.process import HOST, Server, find_program, new_directory, start_on_free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

SENTINEL_NAME = "sidecar"


@dataclass(frozen=True, slots=True)
class AclUser:
    """A Redis user who may do what `rules` say; the default user is then switched off."""

    name: str = "sidecar"
    password: str = "not-so-secret"
    rules: str = "~* &* +@all"


class RedisServer:
    """One running redis-server: its `url`, and `stop`, `start`, `pause` and `resume` on the same port."""

    def __init__(
        self,
        port: int,
        *,
        options: Sequence[str] = (),
        acl: AclUser | None = None,
        tls: bool | Certificates = False,
    ) -> None:
        self.host = HOST
        self.port = port
        self._directory = new_directory("sidecar-redis")
        self._acl = acl
        own = make_certificates(self._directory) if tls is True else None
        self.certificates: Certificates | None = own or tls or None
        self._server = Server("redis-server", self._command(options), answers=self._answers)

    def _command(self, options: Sequence[str]) -> list[str]:
        words = [find_program("redis-server"), "--bind", self.host, "--dir", str(self._directory)]
        words += ["--save", "", "--appendonly", "no"]
        if self.certificates is None:
            words += ["--port", str(self.port)]
        else:
            words += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            words += ["--tls-cert-file", str(self.certificates.certificate)]
            words += ["--tls-key-file", str(self.certificates.key)]
            words += ["--tls-ca-cert-file", str(self.certificates.authority)]
            words += ["--tls-replication", "yes", "--tls-cluster", "yes"]
        if self._acl is not None:
            words += ["--aclfile", str(self._write_acl(self._acl))]
        return [*words, *options]

    def _write_acl(self, user: AclUser) -> Path:
        path = self._directory / "users.acl"
        path.write_text(f"user default off\nuser {user.name} on >{user.password} {user.rules}\n")
        return path

    @property
    def url(self) -> str:
        """`redis://` or `rediss://` with the user and password that may enter."""
        scheme = "redis" if self.certificates is None else "rediss"
        who = f"{quote(self._acl.name, safe='')}:{quote(self._acl.password, safe='')}@" if self._acl else ""
        return f"{scheme}://{who}{self.host}:{self.port}/0"

    def client(self) -> redis.Redis:
        """Return a new blocking client for looking into the server; use it with `with`, which closes it."""
        if self.certificates is None:
            return redis.Redis.from_url(self.url, socket_timeout=5)
        return redis.Redis.from_url(self.url, socket_timeout=5, ssl_ca_certs=str(self.certificates.authority))

    def _answers(self) -> bool:
        with suppress(redis.RedisError, OSError, ssl.SSLError), self.client() as client:
            client.ping()
            return True
        return False

    def renew(self) -> None:
        """Undo what an earlier test did: resume or start the server, and forget every key."""
        self.resume()
        if not self.is_running:
            self.start()
        with self.client() as client:
            client.flushall()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._server.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._server.is_running

    def start(self) -> Self:
        """Start (again) on the same port and wait until it answers; the memory of an earlier run is gone."""
        self._server.start()
        return self

    def stop(self) -> None:
        """End the process; connections are refused from now on."""
        self._server.stop()

    def pause(self) -> None:
        """Freeze the server: connections are accepted by the kernel and nothing answers."""
        self._server.pause()

    def resume(self) -> None:
        """Let a paused server go on."""
        self._server.resume()

    def discard(self) -> None:
        """Stop for good and delete everything."""
        self._server.discard()
        shutil.rmtree(self._directory, ignore_errors=True)


class Sentinel:
    """One Sentinel that watches `master` and `replica` as `sidecar`; it fails over some two seconds after a loss."""

    def __init__(self, port: int, master: RedisServer, replica: RedisServer) -> None:
        self.name = SENTINEL_NAME
        self.host = HOST
        self.port = port
        self.master = master
        self.replica = replica
        self._directory = new_directory("sidecar-sentinel")
        path = self._directory / "sentinel.conf"
        path.write_text(self._configuration())
        command = [find_program("redis-server"), str(path), "--sentinel"]
        self._server = Server("sentinel", command, answers=self._answers)

    def _configuration(self) -> str:
        certificates = self.master.certificates
        ports: tuple[str, ...] = (f"port {self.port}",)
        if certificates is not None:
            ports = (
                *("port 0", f"tls-port {self.port}", "tls-replication yes", "tls-auth-clients no"),
                f"tls-cert-file {certificates.certificate}",
                f"tls-key-file {certificates.key}",
                f"tls-ca-cert-file {certificates.authority}",
            )
        lines = (
            f"bind {self.host}",
            *ports,
            f"dir {self._directory}",
            f"sentinel monitor {self.name} {self.master.host} {self.master.port} 1",
            f"sentinel down-after-milliseconds {self.name} 1000",
            f"sentinel failover-timeout {self.name} 3000",
        )
        return "\n".join(lines) + "\n"

    def client(self) -> redis.Redis:
        """Return a new blocking client of the Sentinel itself; the caller closes it."""
        trusted = self.master.certificates
        tls = {"ssl": True, "ssl_ca_certs": str(trusted.authority)} if trusted else {}
        return redis.Redis(host=self.host, port=self.port, socket_timeout=5, decode_responses=True, **tls)  # type: ignore[arg-type]

    def _answers(self) -> bool:
        # Ready means: it also knows the replica, and that one is in step, so a failover would succeed and lose nothing.
        with suppress(redis.RedisError, OSError), self.client() as client, self.replica.client() as replica:
            return len(client.sentinel_slaves(self.name)) == 1 and b"connected" in replica.execute_command("ROLE")
        return False

    def start(self) -> Self:
        """Start and wait until it knows the master and the replica."""
        self._server.start()
        return self

    def current_master_port(self) -> int:
        """Return the port of the server that the Sentinel calls master; a failover under way does not count yet."""
        with self.client() as client:
            return int(client.sentinel_master(self.name)["port"])

    def discard(self) -> None:
        """Stop the Sentinel for good; the two servers go on."""
        self._server.discard()
        shutil.rmtree(self._directory, ignore_errors=True)


class RedisServers:
    """Starts further Redis servers and ends them all at the end of the test."""

    def __init__(self) -> None:
        self._started: list[RedisServer | Sentinel] = []

    def __call__(
        self, *options: str, acl: AclUser | None = None, tls: bool | Certificates = False, maxmemory: str | None = None
    ) -> RedisServer:
        """Start a Redis; `options` are further words of redis-server's command line; `maxmemory` never evicts."""
        limit = ("--maxmemory", maxmemory, "--maxmemory-policy", "noeviction") if maxmemory else ()
        words = (*limit, *options)
        server = start_on_free_port(lambda port: RedisServer(port, options=words, acl=acl, tls=tls))
        self._started.append(server)
        return server

    def sentinel(self, *, tls: bool = False) -> Sentinel:
        """Start a master, a replica of it that is in step, and a Sentinel over both; all with one certificate."""
        # The master is who waits, five seconds by itself, for further replicas that could be sent the same.
        at_once = ("--repl-diskless-sync-delay", "0")
        master = self(*at_once, tls=tls)
        replica = self("--replicaof", f"{master.host} {master.port}", *at_once, tls=master.certificates or False)
        sentinel = start_on_free_port(lambda port: Sentinel(port, master, replica))
        self._started.append(sentinel)
        return sentinel

    def discard(self) -> None:
        """Stop everything that was started."""
        for server in reversed(self._started):
            server.discard()
        self._started.clear()
