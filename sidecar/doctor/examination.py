"""Carry out all checks beside each other, each bounded in time, and none able to take another one with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from sidecar.config.secret import Dsn, Secret
from sidecar.config.within import within
from sidecar.doctor import (
    application,
    browser,
    certificates,
    clock,
    connections,
    directory,
    files,
    hooks,
    machine,
    names,
    oidc,
    outside,
    proxies,
    redis,
    saml,
)
from sidecar.doctor.catalogue import CATALOGUE
from sidecar.doctor.finding import Finding, Probe, Severity, Tell
from sidecar.doctor.patient import Patient
from sidecar.faults import Refused, Unavailable

PATIENCE = 20.0
_SHORTEST_SECRET = 6


async def _configuration(patient: Patient) -> Probe:
    for problem in patient.warnings:
        found = patient.warning("configuration", problem.message, change=problem.fix)
        yield replace(found, file=problem.file, line=problem.line, path=problem.path)
    if not patient.warnings:
        yield patient.ok("configuration", "no warnings")


# What --only and --skip name → the probes, which run at once.
CHECKS: Mapping[str, Callable[[Patient], list[Probe]]] = {
    "configuration": lambda patient: [_configuration(patient)],
    "connection": connections.probes,
    "clock": clock.probes,
    "dns": names.probes,
    "tls": certificates.probes,
    "oidc": oidc.probes,
    "redirect": oidc.redirect_probes,
    "client": oidc.client_probes,
    "saml": saml.probes,
    "cookie": browser.probes,
    "public-url": outside.probes,
    "proxies": proxies.probes,
    "redis": redis.probes,
    "directory": directory.probes,
    "hooks": hooks.probes,
    "application": application.probes,
    "files": files.probes,
    "machine": machine.probes,
}
# A person may name a check, or one of the findings that it makes.
NAMES = tuple(dict.fromkeys([*CHECKS, *CATALOGUE]))


def wanted_checks(only: Collection[str], skip: Collection[str]) -> list[str]:
    """Checks to carry out."""
    makers = {name: CATALOGUE[name].check if name in CATALOGUE else name for name in only}
    return [name for name in CHECKS if (not only or name in makers.values()) and name not in skip]


def is_wanted(finding: Finding, only: Collection[str], skip: Collection[str], maker: str = "") -> bool:
    """True for a finding that was asked for; the check *maker* may have met what another one is called after."""
    names = {finding.name, CATALOGUE[finding.name].check, *([maker] if finding.severity is Severity.FAILURE else [])}
    return finding.name == "examination" or ((not only or bool(names & set(only))) and not names & set(skip))


async def examine(
    patient: Patient,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    tell: Tell = lambda _what, _done, _of: None,
    patience: float = PATIENCE,
    checks: Mapping[str, Callable[[Patient], list[Probe]]] = CHECKS,
) -> list[Finding]:
    """Everything that was found, in the order of the checks; no secret of the configuration is in it."""
    named: list[tuple[str, Probe]] = []
    found: list[tuple[str, list[Finding]]] = []
    for name in wanted_checks(only, skip) if checks is CHECKS else checks:
        try:
            named += [(name, probe) for probe in checks[name](patient)]
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
            found.append((name, [_broken(patient, name, error)]))
    done = 0

    async def one(name: str, probe: Probe) -> tuple[str, list[Finding]]:
        nonlocal done
        try:
            return name, await _carried_out(patient, name, probe, patience)
        finally:
            done += 1
            tell("checks", done, len(named))

    found += await asyncio.gather(*(one(name, probe) for name, probe in named))
    patient.close()
    hidden = _hidden_texts(patient)
    return [
        _scrubbed(finding, hidden)
        for name, findings in found
        for finding in findings
        if is_wanted(finding, only, skip, name)
    ]


async def _carried_out(patient: Patient, name: str, probe: Probe, patience: float) -> list[Finding]:
    found: list[Finding] = []
    try:
        async with asyncio.timeout(patience):
            async for finding in probe:
                found.append(finding)  # noqa: PERF401 - what came before it hangs is kept
    except TimeoutError:
        found.append(patient.failure("examination", f"no answer within {patience:g} s", part=name))
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding, never the end of the examination
        found.append(_broken(patient, name, error))
    return found


def _broken(patient: Patient, name: str, error: Exception) -> Finding:
    # The text of a fault of ours names no secret; that of any other error may quote anything.
    said = error.detail if isinstance(error, Unavailable | Refused) else type(error).__name__
    return patient.failure("examination", f"broke off: {said}", part=name)


def _hidden_texts(patient: Patient) -> list[str]:
    """Secrets of the configuration and the passwords in its addresses, the longest first."""
    texts = set()
    for _, secret in within(patient.config, Secret):
        texts |= set(_passwords(secret)) if isinstance(secret, Dsn) else {secret.reveal()}
    return sorted((text for text in texts if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)


def _passwords(address: Dsn) -> Iterator[str]:
    authority, at, _ = address.reveal().partition("://")[2].rpartition("@")
    if at:
        yield authority.partition(":")[2]


def _scrubbed(finding: Finding, hidden: Sequence[str]) -> Finding:
    seen = finding.seen
    for text in hidden:
        seen = seen.replace(text, "***")
    return replace(finding, seen=seen)
