"""Render every hook for a sample person, and really call only what looks up somebody who cannot exist."""

from __future__ import annotations

import secrets
import time

from sidecar.config.provision import Provision
from sidecar.core.template import TemplateError
from sidecar.doctor.finding import Probe
from sidecar.doctor.patient import Patient
from sidecar.hooks.hook import StepHook
from sidecar.hooks.order import Order
from sidecar.model import Account, Change, Identity, Result, Unavailable

_ADDRESS = "sidecar-doctor@example.invalid"


def probes(patient: Patient) -> list[Probe]:
    """Nothing where no accounts are kept."""
    section = patient.config.provision
    return [] if section is None else [_rendered(patient, section), _looked_up(patient, section)]


def _order(section: Provision, change: Change) -> Order:
    name = f"sidecar-doctor-{secrets.token_hex(6)}"
    who = Identity("doctor", "https://doctor.invalid", name, name, _ADDRESS, "Sidecar Doctor", ())
    roles = section.roles.managed[:1]
    return Order(
        change,
        who,
        Account(name),
        attributes=dict.fromkeys(section.attributes, _ADDRESS),
        changed=frozenset(section.attributes),
        roles=roles,
        added=roles,
        generated={"password": secrets.token_urlsafe(16), "uuid": secrets.token_hex(16)},
        idempotency=secrets.token_hex(8),
        now=time.time(),
        new_key=name,
    )


async def _rendered(patient: Patient, section: Provision) -> Probe:
    hook = StepHook(section)
    changes = [change for change in Change if change is not Change.LIST and hook.has(change)]
    broken = False
    try:
        for change in changes:
            try:
                hook.plan(_order(section, change))
            except (TemplateError, ValueError) as error:
                broken = True
                yield patient.failure("hook-render", str(error)[:200], ("provision", change.value), part=change.value)
    finally:
        await hook.close()
    if not broken:
        names = ", ".join(change.value for change in changes)
        yield patient.ok("hook-render", f"rendered for a sample person: {names}")


async def _looked_up(patient: Patient, section: Provision) -> Probe:
    hook = StepHook(section)
    place = ("provision", "lookup")
    try:
        outcome = await hook.apply(_order(section, Change.LOOKUP))
    except Unavailable as fault:
        yield patient.skipped("hook-lookup", f"the application could not be asked: {fault.detail}")
        return
    finally:
        await hook.close()
    if outcome.result is Result.NOT_FOUND:
        yield patient.ok("hook-lookup", "somebody who cannot exist is not found")
    elif outcome.result in (Result.FOUND, Result.AMBIGUOUS):
        yield patient.failure("hook-lookup", "an account was found for a name that cannot exist", place)
    else:
        yield patient.failure("hook-lookup", f"{outcome.result.value}: {outcome.detail}", place)
