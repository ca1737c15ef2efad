"""Ask an LDAP server; the library is python-ldap, which waits, so all of this belongs into a thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sidecar.config.sync_source import LdapSource
from sidecar.sync.sources.ldap_tls import unaccepted
from sidecar.sync.sources.source import down

_BROKEN = ("SIZELIMIT_EXCEEDED", "ADMINLIMIT_EXCEEDED", "TIMELIMIT_EXCEEDED", "PARTIAL_RESULTS")
# Below the root of a domain Active Directory refers to these parts of itself; there are no people in them.
_WITHOUT_PEOPLE = ("/cn=configuration,", "/dc=domaindnszones,", "/dc=forestdnszones,")

Values = Mapping[str, Sequence[bytes]]
Entry = tuple[str, Values]


def library() -> Any:
    """python-ldap, with what it can of controls and synchronisation. Raises Unavailable where it is not there."""
    try:
        import ldap  # noqa: PLC0415 - an extra, for those who have such a server
        import ldap.controls  # noqa: PLC0415 - as above
        import ldap.syncrepl  # noqa: PLC0415 - as above
    except ImportError:
        raise down("LDAP needs python-ldap; in the sidecar's source: pip install '.[ldap]'") from None
    return ldap


class LdapServer:
    """One server. What it did not give goes to ``faults``; one that cannot be asked raises Unavailable(SOURCE_DOWN)."""

    def __init__(self, name: str, section: LdapSource) -> None:
        """Ask the server of *section*; *name* is for messages."""
        self.name = name
        self.section = section
        self.faults: list[str] = []

    @property
    def seconds(self) -> float:
        """Longest wait for one answer."""
        return self.section.timeout.total_seconds()

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A connection, for as long as it takes; errors of the library come out as Unavailable."""
        ldap = library()
        connection = None
        try:
            connection = ldap.initialize(self.section.url)
            self._prepare(ldap, connection)
            yield connection
        except (ldap.CONNECT_ERROR, ldap.SERVER_DOWN) as error:
            raise down(f"{self.name}: {unaccepted(self.section) or _words(error)}") from None
        except ldap.LDAPError as error:
            raise down(f"{self.name}: {_words(error)}") from None
        finally:
            if connection is not None:
                _close(connection, ldap)

    def _prepare(self, ldap: Any, connection: Any) -> None:
        section = self.section
        connection.set_option(ldap.OPT_PROTOCOL_VERSION, 3)
        connection.set_option(ldap.OPT_REFERRALS, 0)
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, self.seconds)
        connection.set_option(ldap.OPT_TIMEOUT, self.seconds)
        connection.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
        if section.ca is not None:
            connection.set_option(ldap.OPT_X_TLS_CACERTFILE, str(section.ca))
        connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
        if section.start_tls:
            connection.start_tls_s()
        if section.bind and section.password is not None:
            connection.simple_bind_s(section.bind, section.password.reveal())

    def pages(self, base: str, which: str, attributes: Sequence[str]) -> Iterator[list[Entry]]:
        """Entries below *base*, a page at a time."""
        ldap = library()
        with self.connected() as connection:
            cookie: Any = b""
            while True:
                controls = []
                if self.section.page:
                    controls = [ldap.controls.SimplePagedResultsControl(True, self.section.page, cookie)]  # noqa: FBT003 - critical
                number = connection.search_ext(base, ldap.SCOPE_SUBTREE, which, list(attributes), serverctrls=controls)
                entries: list[Entry] = []
                told = self._page(connection, number, entries)
                yield entries
                cookies = [one.cookie for one in told if getattr(one, "cookie", None) is not None]
                cookie = cookies[0] if cookies else b""
                if not cookie:
                    return

    def _page(self, connection: Any, number: int, entries: list[Entry]) -> Sequence[Any]:
        """Fill *entries* with one page; the controls at its end, none when the server stopped before."""
        ldap = library()
        # One message at a time: what came before a limit is given all the same.
        while True:
            try:
                kind, found, _, told = connection.result3(number, 0, self.seconds)
            except limits(ldap) as limit:
                self.stopped(limit)
                return ()
            for name, values in found:
                if name is None:
                    self.referred(values)
                else:
                    entries.append((name, values))
            if kind == ldap.RES_SEARCH_RESULT:
                return list(told)

    def stopped(self, limit: Exception) -> None:
        """Note that a limit of the server cut the answer off."""
        self.faults.append(f"the server stopped: {type(limit).__name__.lower().replace('_', ' ')}")

    def referred(self, addresses: Sequence[Any]) -> None:
        """Note that some of it is on another server, unless that has no people."""
        texts = [one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in addresses]
        if not all(any(part in f"{text.lower()}," for part in _WITHOUT_PEOPLE) for text in texts):
            self.faults.append("the server refers to another one for some of it")

    def values(self, connection: Any, dn: str, attribute: str) -> Values:
        """What one entry says of one attribute."""
        ldap = library()
        found = connection.search_ext_s(dn, ldap.SCOPE_BASE, "(objectClass=*)", [attribute], timeout=self.seconds)
        return next((values for name, values in found if name is not None), {})

    def probe(self) -> str:
        """Reach the place where people are."""
        with self.connected() as connection:
            self.values(connection, self.section.base, "1.1")
        return f"answers at {self.section.base}"


def limits(ldap: Any) -> tuple[Any, ...]:
    """The errors by which a server says that it gave only part of it."""
    return tuple(getattr(ldap, name) for name in _BROKEN)


def _words(error: Exception) -> str:
    """The kind of error and the server's word for it, never what was sent."""
    told = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return f"{type(error).__name__} {told.get('desc', '')}".strip()


def _close(connection: Any, ldap: Any) -> None:
    try:
        connection.unbind_ext_s()
    except ldap.LDAPError:
        return
