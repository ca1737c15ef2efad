"""Learn which header lines differ from request to request, beside those that are known to.

Gateways, balancers and programs number requests under names of their own. Without this each of their requests would be
one whose lines never came before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sidecar.core.regulars import VARYING, is_length, lines_of

# How often a name is looked at before it is judged, and how many values it must have had by then.
_SIGHTINGS, _DISTINCT = 64, 56
# Names of strangers: so many are looked at, and so many learnt. Each that is learnt costs every request a little.
_MOST_WATCHED, _MOST_LEARNT = 128, 32
_LONGEST_NAME = 64


class Variance:
    """Knows which ``names`` vary, in lower case, and their ``lines`` for ``without_varying``; they grow only."""

    __slots__ = ("_may_vary", "_watched", "lines", "names")

    def __init__(self, may_vary: Callable[[bytes], bool]) -> None:
        """Begin with those that are known to vary; no other will unless *may_vary*, which takes a lower-case name.

        Whoever says so of a name promises that nothing here depends on what stands behind it.
        """
        self._may_vary = may_vary
        self._watched: dict[bytes, list[int]] = {}
        self.names = VARYING
        self.lines = lines_of(VARYING)

    def note(self, lines: Sequence[tuple[bytes, bytes]]) -> None:
        """Look at the *lines* of a request that was not known by them."""
        for raw, value in lines:
            name = raw.lower()
            if name in self.names or is_length(name):
                continue
            sightings = self._watched.get(name)
            if sightings is None:
                sightings = self._watch(name)
            if sightings is None:
                continue
            sightings.append(hash(value))
            if len(sightings) >= _SIGHTINGS:
                del self._watched[name]
                if len(set(sightings)) >= _DISTINCT:
                    self._learn(name)

    def _watch(self, name: bytes) -> list[int] | None:
        if len(self.names) - len(VARYING) >= _MOST_LEARNT or len(name) > _LONGEST_NAME or not self._may_vary(name):
            return None
        if len(self._watched) >= _MOST_WATCHED:
            self._watched.clear()
        sightings = self._watched[name] = []
        return sightings

    def _learn(self, name: bytes) -> None:
        self.names = self.names | {name}
        self.lines = lines_of(self.names)
