"""Whom to believe towards a server and what to show it, and how the addresses of databases say so."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

# What libpq calls the authorities of the system.
SYSTEM = "system"
_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_VERIFYING = frozenset(["verify-ca", "verify-full"])
# libpq's names, and those of MySQL's drivers; no driver of ours takes them itself.
OF_POSTGRESQL = ("sslmode", "sslrootcert", "sslcert", "sslkey")
OF_MYSQL = ("ssl_ca", "ssl_cert", "ssl_key")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe (``ca``; the system's authorities when None), what to show, and how closely to look.

    ``protocols`` are those to offer by ALPN, none by default.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    is_verified: bool = True
    is_host_checked: bool = True
    protocols: tuple[str, ...] = ()

    @property
    def files(self) -> Sequence[Path]:
        """The files that it is made of."""
        return [path for path in (self.ca, self.certificate, self.key) if path is not None]

    def context(self) -> ssl.SSLContext:
        """Read the files. Raises OSError."""
        context = ssl.create_default_context(cafile=self.ca)
        context.check_hostname = self.is_verified and self.is_host_checked
        context.verify_mode = ssl.CERT_REQUIRED if self.is_verified else ssl.CERT_NONE
        if self.certificate is not None:
            # Without the empty password, a key that needs one would be asked for at the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        if self.protocols:
            context.set_alpn_protocols(self.protocols)
        return context


def words_of(error: OSError) -> str:
    """What is wrong with a file of certificates; quotes nothing that is in it."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM").replace("_", " ").lower()
    return error.strerror or type(error).__name__


def trust_of_postgresql(options: Mapping[str, object]) -> Trust | str | None:
    """What *options*, by libpq's names, ask for: a Trust, a mode that the driver knows itself, or None for neither.

    Raises ValueError that says what is wrong.
    """
    mode, root, certificate, key = (_text(options, name) for name in OF_POSTGRESQL)
    if mode is not None and mode not in _MODES:
        message = f"sslmode is one of {', '.join(_MODES)}"
        raise ValueError(message)
    shown = _pair("sslcert", certificate, "sslkey", key)
    if root is None and certificate is None and (mode not in _VERIFYING or _has_default_root()):
        return mode
    ca = None if root in (None, SYSTEM) else Path(root or "")
    is_verified = root is not None or mode in _VERIFYING
    # Anybody can have a certificate of a public authority, for a name of their own.
    return Trust(ca, *shown, is_verified, is_host_checked=mode != "verify-ca" or ca is None)


def _has_default_root() -> bool:
    """Whether the driver knows authorities by libpq's ways beside the address."""
    return bool(os.environ.get("PGSSLROOTCERT")) or Path("~/.postgresql/root.crt").expanduser().is_file()


def trust_of_mysql(options: Mapping[str, object]) -> Trust | None:
    """What *options* of MySQL ask for; None for a connection without TLS. Raises ValueError that says what is wrong."""
    authority, certificate, key = (_text(options, name) for name in OF_MYSQL)
    shown = _pair("ssl_cert", certificate, "ssl_key", key)
    if authority is None and certificate is None:
        return None
    return Trust(None if authority in (None, SYSTEM) else Path(authority or ""), *shown)


def trust_of(address: str) -> Trust | None:
    """The TLS of a database's whole address, as far as it names some. Raises ValueError that says what is wrong."""
    kind = address.partition(":")[0].partition("+")[0]
    options = dict(parse_qsl(address.rpartition("?")[2])) if "?" in address else {}
    if kind in ("postgres", "postgresql"):
        found = trust_of_postgresql(options)
        return found if isinstance(found, Trust) else None
    return trust_of_mysql(options) if kind in ("mysql", "mariadb") else None


def _text(options: Mapping[str, object], name: str) -> str | None:
    value = options.get(name)
    return value if isinstance(value, str) else None


def _pair(name: str, certificate: str | None, beside: str, key: str | None) -> tuple[Path | None, Path | None]:
    if (certificate is None) != (key is None):
        message = f"{name} and {beside} belong together"
        raise ValueError(message)
    return (None, None) if certificate is None or key is None else (Path(certificate), Path(key))
