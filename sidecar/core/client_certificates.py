"""Read a client's TLS certificate out of a proxy's header, in each proxy's own way of writing."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote

from sidecar.core.addresses import Network, parse_address

UNREADABLE = b"?"
_ABSENT = frozenset(["", "-", "(null)"])
_PEM = re.compile(r"\s*-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----\s*", re.ASCII)
# What Envoy writes before the certificate, which is none of the caller's own words. Behind it stand their names,
# unquoted, and one of those might hold another certificate.
_BEFORE_CERT = frozenset(["by", "hash"])
# One element of Envoy's list: key=value pairs, in which a quoted value may hold anything.
_PAIR = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,"]*)(;|$)', re.DOTALL)


def certificate_in(lines: Sequence[str], way: str) -> bytes:
    """The certificate (DER) in the header's *lines*, written the *way* of rfc9440, nginx, envoy or traefik.

    b"" when there is none, UNREADABLE for anything else: also for two, since nobody could tell whose is whose.
    """
    given = [line.strip() for line in lines]
    if all(line in _ABSENT for line in given):
        return b""
    if len(given) != 1:
        return UNREADABLE
    try:
        return _WAYS[way](given[0]) or UNREADABLE
    except ValueError:
        return UNREADABLE


def is_named(peer: str, proxies: Sequence[Network | str]) -> bool:
    """True when *peer* is one of *proxies*: networks, and "unix" for whoever comes without an address."""
    if not peer:
        return "unix" in proxies
    address = parse_address(peer)
    return address is not None and any(not isinstance(one, str) and address in one for one in proxies)


def _bare(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError from error


def _rfc9440(text: str) -> bytes:
    """RFC 9440, section 2.1: a byte sequence of structured fields."""
    if len(text) < 2 or text[0] != ":" or text[-1] != ":":
        raise ValueError(text[:1])
    return _bare(text[1:-1])


def _nginx(text: str) -> bytes:
    """PEM, percent-encoded."""
    match = _PEM.fullmatch(unquote(text, errors="strict"))
    if match is None:
        raise ValueError("no PEM")
    return _bare("".join(match[1].split()))


def _traefik(text: str) -> bytes:
    """Base64 without the lines around it, percent-encoded in older versions; the caller's own is the first."""
    return _bare("".join(unquote(text, errors="strict").partition(",")[0].split()))


def _envoy(text: str) -> bytes:
    """X-Forwarded-Client-Cert with one element: with more, another proxy has been on the way, or somebody wrote it."""
    at, found = 0, dict[str, str]()
    while at < len(text):
        match = _PAIR.match(text, at)
        name = match[1].lower() if match is not None else ""
        if match is None or (name == "cert" and not found.keys() <= _BEFORE_CERT):
            raise ValueError(text[at : at + 1])
        found[name] = match[2]
        at = match.end()
    return _nginx(found.get("cert", "").strip('"'))


_WAYS: Mapping[str, Callable[[str], bytes]] = {
    "rfc9440": _rfc9440,
    "nginx": _nginx,
    "traefik": _traefik,
    "envoy": _envoy,
}
