"""A real Active Directory domain controller, which is Samba's, on an address of its own."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import ldap

from tests.services.process import SERVER_DIRECTORIES, Server, new_directory

DOMAIN = "DC=ad,DC=example,DC=com"
ADMIN = "administrator@ad.example.com"
PASSWORD = "Not-So-Secret-1"
# What Debian's samba is for; the system's Python has its modules.
SYSTEM_PYTHON = "/usr/bin/python3"
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/bin", *SERVER_DIRECTORIES))

# Through the database: over the network it takes minutes.
_LOAD = """
import json, sys
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB
options = LoadParm(); options.load(sys.argv[1])
database = SamDB(url=sys.argv[2], session_info=system_session(), lp=options)
database.transaction_start()
for entry in json.load(sys.stdin):
    database.add(entry)
database.transaction_commit()
"""


def missing() -> str:
    """Why there can be no domain controller here, "" when there can."""
    if os.geteuid() != 0:
        return "a domain controller listens on port 389, so these tests need root"
    if shutil.which("samba-tool", path=_PATH) is None or shutil.which("samba", path=_PATH) is None:
        packages = "samba samba-ad-provision samba-dsdb-modules samba-vfs-modules winbind"
        return f"there is no domain controller here: apt-get install {packages}"
    return ""


class DomainController:
    """One domain. Its LDAP listens on the ordinary ports of an address that only this machine has."""

    def __init__(self) -> None:
        self.host = f"127.{random.randint(64, 126)}.{random.randint(1, 254)}.{random.randint(1, 254)}"
        self.url = f"ldap://{self.host}"
        self._folder = new_directory("sidecar-samba")
        program = shutil.which("samba", path=_PATH) or "samba"
        options = {
            "server services": "ldap",
            "interfaces": f"{self.host}/8",
            "bind interfaces only": "yes",
            # Passwords of a test, on this machine.
            "ldap server require strong auth": "no",
            "pid directory": self._folder,
            "ncalrpc dir": self._folder / "ncalrpc",
            "log file": self._folder / "log",
            "prefork children": "1",
        }
        told = [f"--option={name}={value}" for name, value in options.items()]
        self._server = Server(
            "samba",
            [program, "-F", "--no-process-group", "--debug-stdout", "-d", "0", "-s", str(self._settings), *told],
            answers=self._answers,
        )

    @property
    def _settings(self) -> Path:
        return self._folder / "domain/etc/smb.conf"

    def provision(self) -> None:
        """Make the domain; some ten seconds."""
        command = [
            *("samba-tool", "domain", "provision", f"--targetdir={self._folder / 'domain'}"),
            *("--realm=AD.EXAMPLE.COM", "--domain=AD", f"--adminpass={PASSWORD}", "--server-role=dc"),
            *("--dns-backend=NONE", "--host-ip=127.0.0.1", "--host-name=dc1"),
            # A container's file system need not have attributes that only the system may write.
            f"--option=posix:eadb={self._folder / 'attributes.tdb'}",
            "--option=vfs objects=dfs_samba4 acl_xattr xattr_tdb",
        ]
        self._run(command)

    def load(self, entries: list[dict[str, Any]]) -> None:
        """Put entries in, while it does not run."""
        database = self._folder / "domain/private/sam.ldb"
        self._run([SYSTEM_PYTHON, "-c", _LOAD, str(self._settings), str(database)], json.dumps(entries))

    def _run(self, command: list[str], told: str = "") -> None:
        environment = {"PATH": _PATH, "HOME": str(self._folder)}
        done = subprocess.run(
            command, input=told, env=environment, capture_output=True, text=True, timeout=180, check=False
        )
        if done.returncode != 0:
            message = f"{command[0]} failed: {done.stderr[-2000:]}"
            raise AssertionError(message)

    def _answers(self) -> bool:
        try:
            self.admin().unbind_s()
        except ldap.LDAPError:
            return False
        return True

    def admin(self) -> Any:
        """A connection that may do everything."""
        connection = ldap.initialize(self.url)
        connection.set_option(ldap.OPT_REFERRALS, 0)
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, 5)
        connection.simple_bind_s(ADMIN, PASSWORD)
        return connection

    def start(self) -> Self:
        """Start and wait until it answers."""
        self._server.start()
        return self

    def discard(self) -> None:
        """Stop for good and delete everything."""
        self._server.discard()
        shutil.rmtree(self._folder, ignore_errors=True)
