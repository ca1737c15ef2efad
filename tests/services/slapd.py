"""A real OpenLDAP server on a free port, with its data in a temporary directory."""

from __future__ import annotations

import shutil
from typing import Any, Self

import ldap

from tests.services.certificates import Certificates
from tests.services.process import HOST, Server, find_program, free_port, new_directory, run_once

SUFFIX = "dc=example,dc=com"
ADMIN = f"cn=admin,{SUFFIX}"
READER = f"cn=reader,{SUFFIX}"
PASSWORD = "not-so-secret"

CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile {folder}/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload syncprov
sizelimit unlimited
database mdb
maxsize 268435456
suffix "{suffix}"
rootdn "{admin}"
rootpw {password}
directory {folder}/data
dbnosync
index objectClass,uid,modifyTimestamp,entryUUID eq
limits dn.exact="{reader}" {limits}
access to attrs=userPassword by anonymous auth
access to * by dn.exact="{reader}" read by * none
{overlay}
"""
TLS = "TLSCertificateFile {certificate}\nTLSCertificateKeyFile {key}\n"


class SlapdServer:
    """One running slapd. ``READER`` may read, within *limits* as slapd.conf writes them.

    *overlay* are more lines about the database, such as ``overlay syncprov``. With *certificates* it knows
    StartTLS, and listens at ``tls_url``, too.
    """

    def __init__(
        self, port: int, limits: str = "size=unlimited", overlay: str = "", certificates: Certificates | None = None
    ) -> None:
        self.url = f"ldap://{HOST}:{port}"
        self.tls_url = f"ldaps://{HOST}:{free_port()}" if certificates is not None else ""
        self.certificates = certificates
        self._directory = new_directory("sidecar-slapd")
        (self._directory / "data").mkdir()
        self._limits = limits
        self._overlay = overlay
        self._server = Server(
            "slapd",
            [
                find_program("slapd"),
                "-d",
                "0",
                "-f",
                str(self._directory / "slapd.conf"),
                "-h",
                f"{self.url} {self.tls_url}",
            ],
            answers=self._answers,
        )

    def _write(self, limits: str) -> None:
        values = {"folder": self._directory, "suffix": SUFFIX, "admin": ADMIN, "password": PASSWORD, "reader": READER}
        values |= {"limits": limits, "overlay": self._overlay}
        tls = self.certificates
        said = TLS.format(certificate=tls.certificate, key=tls.key) if tls is not None else ""
        (self._directory / "slapd.conf").write_text(said + CONFIG.format(**values))

    def _answers(self) -> bool:
        try:
            self.admin().unbind_s()
        except ldap.LDAPError:
            return False
        return True

    def admin(self) -> Any:
        """A connection that may do everything."""
        connection = ldap.initialize(self.url)
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, 5)
        connection.simple_bind_s(ADMIN, PASSWORD)
        return connection

    def load(self, text: str) -> None:
        """Put entries (LDIF) in, while the server does not run."""
        self._write(self._limits)
        file = self._directory / "people.ldif"
        base = f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n"
        reader = f"dn: {READER}\nobjectClass: person\ncn: reader\nsn: reader\nuserPassword: {PASSWORD}\n\n"
        units = "".join(
            f"dn: ou={unit},{SUFFIX}\nobjectClass: organizationalUnit\nou: {unit}\n\n" for unit in ("people", "groups")
        )
        file.write_text(base + reader + units + text)
        run_once([find_program("slapadd"), "-q", "-f", str(self._directory / "slapd.conf"), "-l", str(file)])

    def limit(self, limits: str) -> None:
        """Start again with other limits for ``READER``."""
        self.stop()
        self._write(limits)
        self.start()

    def certify(self, certificates: Certificates) -> None:
        """Start again with another certificate."""
        self.certificates = certificates
        self.limit(self._limits)

    def change(self, overlay: str) -> None:
        """Start again with other lines about the database."""
        self._overlay = overlay
        self.limit(self._limits)

    def start(self) -> Self:
        """Start and wait until it answers."""
        self._server.start()
        return self

    def stop(self) -> None:
        """End the server."""
        self._server.stop()

    def discard(self) -> None:
        """Stop for good and delete everything."""
        self._server.discard()
        shutil.rmtree(self._directory, ignore_errors=True)
