"""Read what an argon2id hash says of itself (PHC string format), and judge whether that is strong enough."""

from __future__ import annotations

import re
from dataclasses import dataclass

# RFC 9106, section 4, second recommendation: 64 MiB, three passes, four lanes, 128 bits of salt, 256 bits of tag.
MEMORY_KIB, PASSES, LANES, SALT_BYTES, TAG_BYTES = 65536, 3, 4, 16, 32
# Anybody can make the sidecar compute it: more would be a way to keep it busy.
_MOST_MEMORY_KIB, _MOST_PASSES, _MOST_LANES = 262144, 10, 16
_FORM = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,8}),t=([0-9]{1,4}),p=([0-9]{1,3})\$([A-Za-z0-9+/]{1,128})\$([A-Za-z0-9+/]{1,256})"
)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Cost of one hash, and the length of its salt and tag in bytes."""

    memory_kib: int
    passes: int
    lanes: int
    salt: int
    tag: int


def parameters_of(text: str) -> Parameters | None:
    """What the hash *text* was made with; None when it is no argon2id hash of version 1.3."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    memory, passes, lanes = (int(match[number]) for number in (1, 2, 3))
    return Parameters(memory, passes, lanes, len(match[4]) * 3 // 4, len(match[5]) * 3 // 4)


def weakness(found: Parameters) -> str:
    """What is wrong with it, "" when nothing is."""
    if found.memory_kib < MEMORY_KIB or found.passes < PASSES:
        return f"weak: m={found.memory_kib}, t={found.passes}; at least m={MEMORY_KIB}, t={PASSES} (RFC 9106)"
    if not found.lanes or found.salt < SALT_BYTES or found.tag < TAG_BYTES:
        return f"weak: at least {SALT_BYTES} bytes of salt and {TAG_BYTES} bytes of hash (RFC 9106)"
    if found.memory_kib > _MOST_MEMORY_KIB or found.passes > _MOST_PASSES or found.lanes > _MOST_LANES:
        return f"so costly that trying it keeps the sidecar busy; at most m={_MOST_MEMORY_KIB}, t={_MOST_PASSES}"
    return ""
