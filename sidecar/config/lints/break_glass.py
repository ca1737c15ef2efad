"""Check the emergency accounts: hashes that hold, and doors that are no wider than they must be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from sidecar.config.document import Document
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.saml import SamlLogin
from sidecar.core.argon2id import parameters_of, weakness
from sidecar.core.totp import totp_key

_MAKE = "Make one with: sidecar break-glass hash"
_LONG = timedelta(hours=8)
_LEAST_TOTP = 16


def hashes(config: Config, document: Document) -> Iterator[Problem]:
    """Each hash is argon2id with parameters that hold, and all cost the same."""
    section = config.break_glass
    if section is None:
        return
    costs = set()
    for name, account in section.accounts.items():
        place = ("break_glass", "accounts", name, "hash")
        text = account.hash.reveal()
        if not text:
            continue
        found = parameters_of(text)
        if found is None:
            yield document.error(place, "is no argon2id hash", _MAKE)
            continue
        costs.add((found.memory_kib, found.passes, found.lanes))
        if problem := weakness(found):
            yield document.error(place, f"is {problem}", _MAKE)
    for name, account in section.accounts.items():
        if account.totp is not None and account.totp.reveal():
            yield from _totp(document, name, account.totp.reveal())
    if len(costs) > 1:
        message = "the hashes differ in cost, so that the time of an answer tells names apart"
        yield document.warning(("break_glass", "accounts"), message, "Make all of them with the same parameters")


def _totp(document: Document, name: str, text: str) -> Iterator[Problem]:
    place = ("break_glass", "accounts", name, "totp")
    try:
        key = totp_key(text)
    except ValueError:
        key = b""
    if len(key) < _LEAST_TOTP:
        # RFC 4226, section 4: at least 128 bits.
        fix = "Make one with: head -c 20 /dev/urandom | base32"
        yield document.error(place, f"is not at least {_LEAST_TOTP} bytes in base32", fix)


def reach(config: Config, document: Document) -> Iterator[Problem]:
    """From where, how long and how often."""
    section = config.break_glass
    if section is None:
        return
    if not section.networks:
        message = "anybody on the internet may try passwords"
        fix = "Add networks: those from which you would repair things"
        yield document.warning(("break_glass",), message, fix)
    if not section.tries.number:
        message = "nobody is kept from trying passwords all day"
        yield document.error(("break_glass", "tries"), message, "Write tries: 5/15m")
    if not timedelta() < section.lifetime <= _LONG:
        message = "is no lifetime for an emergency"
        yield document.error(("break_glass", "lifetime"), message, "Write 1h, and at most 8h")


def outage(config: Config, document: Document) -> Iterator[Problem]:
    """With ``while: outage`` it must be possible to find out that a provider cannot be reached."""
    section = config.break_glass
    if section is None or section.while_ != "outage":
        return
    for name, login in config.logins.items():
        if isinstance(login, SamlLogin) and not login.metadata.startswith("https://"):
            message = (
                f"{name} has its metadata in a file: nobody can find out that it is unreachable, so this never opens"
            )
            yield document.error(
                ("break_glass", "while"), message, "Write while: always, or give its metadata by https"
            )


def forgetting(config: Config, document: Document) -> Iterator[Problem]:
    """What was ever reached is remembered where a restart does not wipe it out."""
    section = config.break_glass
    if section is not None and section.while_ == "outage" and config.sessions.redis is None:
        message = "stays closed after a restart in the middle of an outage: memory forgets what was ever reached"
        yield document.warning(("break_glass", "while"), message, "Add sessions.redis, or write while: always")


def names(config: Config, document: Document) -> Iterator[Problem]:
    """No login may be called like what marks sessions of emergency accounts."""
    if "break-glass" in config.logins:
        fix = "Call the login otherwise"
        yield document.error(("logins", "break-glass"), "is the name of the emergency sign-in", fix)


def accounts(config: Config, document: Document) -> Iterator[Problem]:
    """What is said of the application's account can come true."""
    section = config.break_glass
    if section is None:
        return
    if section.provision and config.provision is None:
        message = "has no effect without the section provision"
        yield document.error(("break_glass", "provision"), message, "Remove it")
    for name, account in section.accounts.items():
        if section.provision and account.account:
            message = "has no effect beside break_glass.provision, which makes the account"
            yield document.error(("break_glass", "accounts", name, "account"), message, "Remove one of them")


def sessions_outage(config: Config, document: Document) -> Iterator[Problem]:
    """How long sessions outlive their provider."""
    sessions = config.sessions
    if sessions.outage is not None and sessions.outage >= sessions.absolute:
        message = "is no shorter than sessions.absolute, which ends sessions before"
        yield document.warning(("sessions", "outage"), message, "Write less, or leave it out")
