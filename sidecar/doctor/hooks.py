"""Render every hook for a sample person, and really call only what looks up somebody who cannot exist."""

from __future__ import annotations

import re
import secrets
import time

from sidecar.config.document import Location
from sidecar.config.provision import Provision
from sidecar.doctor.finding import Probe
from sidecar.doctor.patient import Patient
from sidecar.faults import Unavailable
from sidecar.hooks.hook import StepHook
from sidecar.hooks.order import Order, PlannedCall
from sidecar.model import Account, Change, Identity, Result

_MISSING = re.compile(r"<missing ([^<>]*)>")
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
    changes = [change for change in Change if hook.has(change)]
    found = []
    try:
        for change in changes:
            for call in hook.plan(_order(section, change)):
                # What reads claims that the sample does not have says nothing: real people may have them.
                missing = [one for one in _missing(call) if "claims" not in one]
                if missing:
                    seen = f"{call.step} cannot be rendered for a sample person: {', '.join(missing)[:200]}"
                    found.append(patient.warning("hook-render", seen, _place(call.step), part=call.step))
    finally:
        await hook.close()
    for finding in found:
        yield finding
    if not found:
        names = ", ".join(change.value for change in changes)
        yield patient.ok("hook-render", f"rendered for a sample person: {names}")


def _missing(call: PlannedCall) -> list[str]:
    """Templates that had no value, as plans show them."""
    return _MISSING.findall(f"{call.action} {call.values}")


def _place(step: str) -> Location:
    """``create[1]`` as a location."""
    name, _, number = step.removesuffix("]").partition("[")
    return ("provision", name, int(number))


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
