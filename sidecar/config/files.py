"""Look whether the files that a configuration names are there and serve, before something needs them at night."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sidecar.config.cedar_files import CedarMissingError, read_policies
from sidecar.config.document import Document, Location
from sidecar.config.engines import CedarEngine
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.secret import Dsn
from sidecar.config.trust import trust_of, words_of
from sidecar.config.within import within

_AUTHORITIES = frozenset(["ca", "redis_ca"])
_KEY_OF = {"certificate": "key", "redis_certificate": "redis_key"}
# As long as it may take until somebody reads what is said, and renews it.
_SOON = timedelta(days=14)
_READ = _AUTHORITIES | frozenset(_KEY_OF) | frozenset(_KEY_OF.values()) | {"metadata_certificate"}


def file_problems(config: Config, document: Document, usable: frozenset[str]) -> Iterator[Problem]:
    """Files that cannot be read or do not serve, and folders that are not there.

    Relative paths start beside the configuration.
    """
    for name in Config.model_fields:
        if name in usable:
            paths = dict(within(getattr(config, name), Path, (name,)))
            for place, path in paths.items():
                missing = list(_missing(place, path, document))
                yield from missing or _useless(place, paths, document)
            for place, address in within(getattr(config, name), Dsn, (name,)):
                yield from _address_problems(place, address, document)
    if "engines" in usable:
        yield from _policy_problems(config, document)


def _policy_problems(config: Config, document: Document) -> Iterator[Problem]:
    """Policies, schema and entities of Cedar, each problem in its own file and line."""
    for name, section in config.engines.items():
        if not isinstance(section, CedarEngine):
            continue
        try:
            faults = read_policies(section).faults
        except CedarMissingError:
            yield document.error(
                ("engines", name), "cedarpy is not installed", "In the sidecar's source: pip install '.[cedar]'"
            )
            continue
        for fault in faults:
            yield Problem("error", str(fault.file), fault.line, 1, f"engines.{name}.{fault.key}", fault.message)


def _useless(place: Location, paths: dict[Location, Path], document: Document) -> Iterator[Problem]:
    shown = document.quoted(place, str(paths[place]))
    if place[-1] in _AUTHORITIES and not _holds_certificates(paths[place]):
        yield document.error(
            place, f"{shown} holds no certificate", "It must be a PEM file of the authorities to trust"
        )
    elif place[-1] in _KEY_OF:
        key = paths.get((*place[:-1], _KEY_OF[str(place[-1])]))
        problem = _pair_problem(paths[place], key) if key is not None and key.is_file() else ""
        if problem:
            way_out = "Give a certificate and its own private key, both as PEM, the key without a password"
            yield document.error(place, f"{shown} cannot be used with its key: {problem}", way_out)
        elif "keys" not in place:
            # Those of SAML count whatever their dates are; the doctor looks at them.
            yield from _ending(place, paths[place], shown, document)


def _ending(place: Location, certificate: Path, shown: str, document: Document) -> Iterator[Problem]:
    """A certificate of ours that nobody accepts any more, or soon will not."""
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415 - for those who have a certificate

    try:
        ends = load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return
    left = ends - datetime.now(UTC)
    if left < _SOON:
        word = "ended" if left < timedelta(0) else "ends"
        message = f"{shown} {word} on {ends:%Y-%m-%d}"
        yield document.warning(place, message, "Renew it; docs/reload.md tells what makes a renewed one serve")


def _address_problems(place: Location, address: Dsn, document: Document) -> Iterator[Problem]:
    """Files that the address of a database names."""
    try:
        trust = trust_of(address.reveal())
        if trust is not None:
            trust.context()
            if trust.certificate is not None:
                yield from _ending(place, trust.certificate, str(trust.certificate), document)
    except OSError as error:
        files = ", ".join(map(str, trust.files)) if trust is not None else ""
        message = f"{files} cannot be used: {words_of(error)}"
        yield document.error(place, message, "Give PEM files that can be read, the key without a password")
    except ValueError as error:
        yield document.error(place, str(error), "See docs/provisioning.md, The directory")


def _holds_certificates(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError:
        return False
    return True


def _pair_problem(certificate: Path, key: Path) -> str:
    try:
        # Without the empty password, a key that needs one would be asked for at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except OSError as error:
        return words_of(error)
    return ""


def _missing(place: Location, path: Path, document: Document) -> Iterator[Problem]:
    shown = document.quoted(place, str(path))
    if place[-1] in _READ and not (path.is_file() and os.access(path, os.R_OK)):
        yield document.error(place, f"{shown} is no file that can be read", "Check the path and its permissions")
    elif place == ("pages", "templates") and not path.is_dir():
        yield document.error(place, f"{shown} is no folder", "Make it, or remove the line")
