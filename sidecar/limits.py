"""Turn away clients that ask too often: for sign-ins, with answers of providers, and with tokens that are bad."""

from __future__ import annotations

from sidecar.config.service import Limits as Section
from sidecar.core.limits import Meter
from sidecar.faults import Refused
from sidecar.model import Visit
from sidecar.reason import Reason

# Pages of ours that cost something, or at which something could be guessed.
_SIGN_IN = frozenset(["login", "invitation", "break-glass"])
_ANSWERS = frozenset(["callback", "backchannel", "frontchannel", "saml"])


class Limits:
    """What each client may do, in this worker. Every method raises Refused(RATE_LIMITED, 429) with the time to wait."""

    def __init__(self, section: Section) -> None:
        """Count by the rates of *section*."""
        self._sign_in = Meter(section.sign_in)
        self._answers = Meter(section.answers)
        self._bad_tokens = Meter(section.bad_tokens)
        self._requests = Meter(section.requests)

    def page(self, name: str, visit: Visit, now: float) -> None:
        """Count a visit to the page *name* of ours."""
        if name in _SIGN_IN:
            _check(self._sign_in.take(visit.client, now), "sign-ins begun")
        elif name in _ANSWERS:
            _check(self._answers.take(visit.client, now), "answers of providers")

    def request(self, visit: Visit, now: float) -> None:
        """Count a request for the application; with a token not from somebody whose last ones were bad."""
        _check(self._requests.take(visit.client, now), "requests")
        _check(self._token_wait(visit, now), "bad tokens")

    def is_free(self, visit: Visit, now: float) -> bool:
        """True when ``request`` would let this one pass; counts nothing."""
        return not (self._requests.wait(visit.client, now) or self._token_wait(visit, now))

    def _token_wait(self, visit: Visit, now: float) -> float:
        """Seconds until somebody whose last ones were bad may come with a token, or a certificate, again."""
        return self._bad_tokens.wait(visit.client, now) if visit.authorization or visit.certificate else 0.0

    def bad_token(self, visit: Visit, now: float) -> None:
        """Count a token that was not accepted; raises nothing."""
        self._bad_tokens.take(visit.client, now)


def _check(wait: float, what: str) -> None:
    if wait:
        raise Refused(Reason.RATE_LIMITED, 429, f"too many {what}", retry_after=wait)
