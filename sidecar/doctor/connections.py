"""Reach everything that the configuration names, by the probes of ``check --connect``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sidecar.config.document import Location
from sidecar.doctor.finding import Finding, Probe
from sidecar.doctor.patient import Patient
from sidecar.probing import Finding as Reached
from sidecar.probing import probe_hooks, probes_of, tried


def probes(patient: Patient) -> list[Probe]:
    """One for each part, and one for the connections of the hooks."""
    found = [_part(patient, name, one) for name, one in probes_of(patient.config).items()]
    return found if patient.config.provision is None else [*found, _hooks(patient)]


async def _part(patient: Patient, name: str, one: Callable[[], Awaitable[str]]) -> Probe:
    yield _finding(patient, name, await tried(one))


async def _hooks(patient: Patient) -> Probe:
    for name, reached in (await probe_hooks(patient.config)).items():
        yield _finding(patient, name, reached)


def _finding(patient: Patient, name: str, reached: Reached) -> Finding:
    if reached["ok"]:
        return patient.ok("connection", reached["says"].removeprefix("ok: "), name)
    says = reached["says"].removeprefix("failed: ")
    return patient.failure("connection", says, _place(name), part=name)


def _place(name: str) -> Location:
    """Location of a part: what an operator named may have dots in it."""
    if name == "sessions":
        return ("sessions", "redis")
    if name.startswith("app"):
        return ("app", "upstream")
    depth = 2 if name.startswith(("provision.", "signals.")) else 1
    return tuple(name.split(".", depth))
