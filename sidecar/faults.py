"""What is raised: they were wrong, or something that we need is not there.

Not compiled with the nouns: rooms have kinds of their own, and mypyc forbids those of what it compiled.
"""

from __future__ import annotations

from typing import Self

from sidecar.reason import Reason


class Refused(Exception):  # noqa: N818 - the domain's word
    """They were wrong: the caller sent something that may not pass. Answered with ``status`` (4xx) and audited.

    ``detail`` is for the operator's log only: never a secret, never shown to the end user.
    """

    def __init__(
        self, reason: Reason, status: int = 403, detail: str = "", *, retry_after: float = 0.0, is_noted: bool = False
    ) -> None:
        """Refuse because of *reason*; *status* is the HTTP status, 400..499; *retry_after* seconds it may be tried.

        *is_noted* says that the audit has its line about it.
        """
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        self.is_noted = is_noted

    @property
    def is_bad_token(self) -> bool:
        """True when it is a token, or a certificate, that was not accepted."""
        return self.status == 401 and self.reason.value.startswith(("token-", "certificate-"))


class Unavailable(Exception):  # noqa: N818 - the domain's word
    """Something that we need is down, slow or answers nonsense: 502/503/504, never read as "signed out"."""

    def __init__(self, reason: Reason, detail: str = "", status: int = 503, *, is_answer: bool = False) -> None:
        """Give up because of *reason*; *status* is the HTTP status, 500..599.

        *is_answer* says that somebody is there, and answered this one question in a way that is of no use.
        """
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.status = status
        self.detail = detail
        self.is_answer = is_answer
        self.login = ""
        self.to = ""

    def at(self, login: str, to: str = "") -> Self:
        """Say that it is the provider of *login* that is unavailable, to somebody who wants to go *to*; itself."""
        self.login, self.to = login, to
        return self


class Unreached(Unavailable):
    """Nobody answered for what we need: no connection, no answer in time, or a server's own word that it cannot.

    Any other Unavailable is an answer, which could not be used: somebody is there. Unless that is about one question
    only (``is_answer``), one side is set up wrongly.
    """
