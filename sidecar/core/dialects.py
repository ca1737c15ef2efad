"""How front proxies ask: which headers say what a request is, and which answers they understand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sidecar.core.headers import HeaderPlan
from sidecar.faults import Refused
from sidecar.reason import Reason

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_SCHEMES: Mapping[str, str] = {"": "", "http": "http", "https": "https", "ws": "http", "wss": "https"}
# Between us and the front proxy, or written by front proxies and content delivery networks about a connection. Not
# HTTP2-Settings: a front proxy that passes on any Upgrade opens a tunnel with it, whose requests nobody is asked about.
_OF_PROXIES = frozenset(
    [
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "content-length", "host",
        "forwarded", "x-real-ip", "x-client-ip", "true-client-ip", "x-cluster-client-ip", "cf-connecting-ip",
        "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-server",
        "x-forwarded-scheme", "x-forwarded-ssl", "x-forwarded-method", "x-forwarded-uri",
        "x-forwarded-tls-client-cert", "x-forwarded-tls-client-cert-info", "x-scheme", "x-url-scheme",
        "front-end-https",
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dialect:
    """Names of the headers that say what was asked for; "" where the question has it in the same place itself.

    ``takes_three``: only 200, 401 and 403 are understood, so that the whole answer has to be fetched by a second
    question. ``names_removals``: a header of the answer lists what has to be taken out of the request.
    ``wants_all``: what the answer does not have is not taken out, so that it has everything, if with an empty value.
    """

    method: str
    uri: str
    host: str
    takes_three: bool = False
    names_removals: bool = False
    wants_all: bool = False


_FORWARDED = Dialect("X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host")
DIALECTS: Mapping[str, Dialect] = {
    "nginx": Dialect("X-Original-Method", "X-Original-URI", "X-Forwarded-Host", takes_three=True),
    "traefik": _FORWARDED,
    # Version 2.6 hands the name of its own placeholder to the application instead.
    "caddy": replace(_FORWARDED, wants_all=True),
    "haproxy": _FORWARDED,
    "envoy": Dialect("", "", "", names_removals=True),
}


def told_method(text: str) -> str:
    """*text* as a method; Refused(HEADERS_INVALID, 400) when it is none."""
    if not _METHOD.fullmatch(text):
        raise Refused(Reason.HEADERS_INVALID, 400, "the front proxy names no method")
    return text


def told_scheme(text: str) -> str:
    """Scheme in the address bar, "" when nothing is said; Refused(HEADERS_INVALID, 400) for anything else."""
    scheme = _SCHEMES.get(text.strip().lower())
    if scheme is None:
        raise Refused(Reason.HEADERS_INVALID, 400, "the front proxy names no scheme")
    return scheme


def refuse_misleading(names: Iterable[bytes], plan: HeaderPlan, managed: frozenset[str], dialect: Dialect) -> None:
    """Raise Refused(HEADERS_INVALID, 400) for a header that the gate would take out, and no front proxy does.

    A front proxy replaces the *managed* names (lower case) as they are written. Other spellings, and what makes an
    application see another request or another person, would go past it.
    """
    own = {dialect.method.lower(), dialect.uri.lower(), dialect.host.lower()}
    for raw in names:
        name = raw.decode("latin-1").lower()
        if plan.drops(raw) and name not in _OF_PROXIES and name not in managed and name not in own:
            raise Refused(Reason.HEADERS_INVALID, 400, f"{name[:64]!a} would reach the application")
