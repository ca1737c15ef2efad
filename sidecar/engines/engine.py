"""The seam between rules and engines of fine-grained policy: a question goes in, a ruling comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sidecar.core.asking import Question


@dataclass(frozen=True, slots=True)
class Ruling:
    """What an engine said; ``policy`` names the policy that decided, as far as it says so. ``Ruling()`` denies."""

    allowed: bool = False
    policy: str = ""


class Engine(Protocol):
    """Answers questions that core.asking framed for its kind. Cedar, OpenFGA and OPA do it."""

    async def ask(self, question: Question) -> Ruling:
        """Rule on *question*.

        Raises Refused(ENGINE_NOT_ASKED) when it is no question for it, Unavailable(ENGINE_DOWN) when there is no
        ruling, whatever the reason.
        """

    async def probe(self) -> str:
        """Say in a line what is there; raises Unavailable."""

    async def close(self) -> None:
        """Let go of connections."""
