"""Compare this machine's clock with those of the providers, the application and Redis."""

from __future__ import annotations

import asyncio
import time

from sidecar.config.document import Location
from sidecar.doctor.finding import Finding, Probe
from sidecar.doctor.looking import UnseenError, skew_of
from sidecar.doctor.patient import Patient
from sidecar.doctor.providers import document_of
from sidecar.doctor.redis import fault_of, stored
from sidecar.faults import Unavailable
from sidecar.upstream import Head, Upstream

# What no setting bounds is still strange beyond this.
_LOOSE = 30.0
_PATIENCE = 8.0


def probes(patient: Patient) -> list[Probe]:
    """One for each other clock."""
    config = patient.config
    found: list[Probe] = [_provider(patient, name) for name in config.oidc_logins]
    found += [_provider(patient, name) for name, login in config.saml_logins.items() if "://" in login.metadata]
    found.append(_application(patient))
    if config.sessions.redis is not None:
        found.append(_redis(patient))
    return found


async def _provider(patient: Patient, name: str) -> Probe:
    section = patient.config.logins[name]
    try:
        skew = (await document_of(patient, name)).skew()
    except UnseenError:
        yield patient.skipped("clock", "the provider could not be asked", f"logins.{name}")
        return
    yield _judged(patient, skew, section.leeway.total_seconds(), f"logins.{name}", ("logins", name, "leeway"))


async def _application(patient: Patient) -> Probe:
    upstream = Upstream(patient.config.app)
    try:
        async with asyncio.timeout(_PATIENCE):
            asked = time.time()
            host = patient.site.authority if patient.config.app.host == "public" else upstream.authority
            lines = await upstream.ask(Head("GET", "/", (("Host", host), ("User-Agent", "sidecar-doctor"))))
            skew = skew_of(dict(lines).get("Date", ""), asked, time.time())
    except (Unavailable, TimeoutError):
        yield patient.skipped("clock", "the application did not answer", "app")
        return
    finally:
        await upstream.close()
    yield _judged(patient, skew, _LOOSE, "app", None)


async def _redis(patient: Patient) -> Probe:
    if fault := await fault_of(patient):
        yield patient.skipped("clock", f"Redis cannot be asked: {fault}", "sessions")
        return
    async with stored(patient) as store:
        asked = time.time()
        seconds, _ = await store.inspect("TIME")
        answered = time.time()
    skew = max(0.0, seconds - answered) or min(0.0, seconds + 1 - asked)
    yield _judged(patient, skew, _LOOSE, "sessions", None)


def _judged(patient: Patient, skew: float | None, limit: float, part: str, place: Location | None) -> Finding:
    if skew is None:
        return patient.skipped("clock", "no Date in the answer", part)
    if abs(skew) < 1:
        return patient.ok("clock", "the same time, as far as can be seen", part)
    seen = f"its clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) > limit:
        return patient.failure("clock", f"{seen}, and {limit:g} s are tolerated", place, part=part)
    return (
        patient.warning("clock", f"{seen}; {limit:g} s are tolerated", place, part=part)
        if abs(skew) > limit / 2
        else patient.ok("clock", seen, part)
    )
