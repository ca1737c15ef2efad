"""Read and write the times of SAML (xs:dateTime in UTC; SAML 2.0 Core, section 1.3.3)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from sidecar.faults import Refused
from sidecar.reason import Reason

_INSTANT = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{1,12}))?(Z|[+-]\d{2}:\d{2})", re.ASCII)


def read_instant(text: str, what: str) -> float:
    """Epoch seconds of *text*; Refused(TOKEN_TIME) names *what* it is when it is no time."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise Refused(Reason.TOKEN_TIME, 403, f"SAML: {what} is no time")
    try:
        whole = datetime.fromisoformat(match[1] + match[3]).timestamp()
    except (ValueError, OverflowError):
        raise Refused(Reason.TOKEN_TIME, 403, f"SAML: {what} is no time") from None
    return whole + float(f"0.{match[2] or 0}")


def ahead(what: str, at: float, now: float) -> str:
    """Words for operators about a time that is still to come."""
    return f"{what} is {at - now:.0f} s in the future: compare the clocks"


def past(what: str, at: float, now: float) -> str:
    """Words for operators about a time that is over: the answer was slow, or a clock is wrong."""
    return f"{what} was {now - at:.0f} s ago: if new answers fail, too, compare the clocks"


def write_instant(seconds: float) -> str:
    """Text of epoch *seconds*, without fractions."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
