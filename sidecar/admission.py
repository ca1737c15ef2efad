"""Whoever gets in, and because of what."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.headers import Line
from sidecar.core.policy import Standing
from sidecar.model import Decision, Session


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who is known: how they came in, what they are here, and with which token."""

    session: Session
    standing: Standing
    roles: tuple[str, ...]
    token: str = ""


class Admission:
    """Somebody gets in: why, who it is (None where anyone may), and the header lines about them."""

    __slots__ = ("caller", "decision", "lines")

    def __init__(self, decision: Decision, caller: Caller | None, lines: tuple[Line, ...]) -> None:
        """Let *caller* in by *decision*."""
        self.decision = decision
        self.caller = caller
        self.lines = lines
