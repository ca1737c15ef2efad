"""Put together who somebody is from all that is said of them: by their sign-in, and by the sources that know them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sidecar.model import Identity, Profile


def effective(signed_in: Identity | None, told: Sequence[Profile], groups: Iterable[str], *, adds: bool) -> Identity:
    """Who somebody is: *signed_in* by their last sign-in, *told* by sources (the strongest first), in *groups* of ours.

    What a source says is stronger than what the sign-in said, so that an account does not change to and fro with the
    way by which word of it came; what no source says stays. With *adds* the groups of both count, else those of the
    sources alone. Groups are unknown (None) as long as one who should have said them did not. Raises ValueError when
    nobody says anything.
    """
    bases = [*([signed_in] if signed_in is not None else []), *[one.identity for one in reversed(told)]]
    if not bases:
        message = "nobody says who this is"
        raise ValueError(message)
    who = bases[0]
    for base in bases[1:]:
        who = replace(
            who,
            username=base.username or who.username,
            email=base.email or who.email,
            name=base.name or who.name,
            claims={**who.claims, **base.claims},
        )
    return replace(who, groups=_groups(signed_in, told, groups, adds=adds))


def _groups(
    signed_in: Identity | None, told: Sequence[Profile], groups: Iterable[str], *, adds: bool
) -> tuple[str, ...] | None:
    if not told:
        return signed_in.groups if signed_in is not None else None
    named = [group for one in told for group in one.identity.groups or ()]
    named += groups
    if adds and signed_in is not None:
        if signed_in.groups is None:
            return None
        named += signed_in.groups
    return tuple(dict.fromkeys(named))
