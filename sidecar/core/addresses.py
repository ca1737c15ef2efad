"""Find the person's address behind trusted proxies, and judge the Host that was asked for."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# A name has at most 253 letters (RFC 1035, section 2.3.4); what strangers send is remembered for a while.
_LONGEST_AUTHORITY = 300


def parse_address(text: str) -> Address | None:
    """Parse an IP address as peers and X-Forwarded-For give it: ports and brackets are taken off."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_trusted(text: str, trusted: Sequence[Network]) -> bool:
    """True when the peer *text* is one of our own proxies; a Unix socket ("") is trusted only if any network is."""
    if not text:
        return bool(trusted)
    address = parse_address(text)
    return address is not None and any(address in network for network in trusted)


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Address of the person: the last one in the chain that no trusted proxy of ours stands for.

    *forwarded_for* are the X-Forwarded-For header lines in order. They count only when the peer itself is trusted.
    """
    if not trusted or not is_trusted(peer, trusted):
        return peer
    chain = [part for line in forwarded_for for part in line.split(",")]
    client = peer
    for part in reversed(chain):
        address = parse_address(part)
        if address is None:
            return client
        client = str(address)
        if not any(address in network for network in trusted):
            return client
    return client


def host_of(authority: str) -> str:
    """Host name of an authority, lower case, without port and without the root dot; "" when it is malformed."""
    return _host_of(authority) if len(authority) <= _LONGEST_AUTHORITY else ""


@lru_cache(maxsize=1024)
def _host_of(authority: str) -> str:
    text = authority.strip().lower()
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    if (port and not port.isdecimal()) or not host or any(letter in host for letter in "/@\\?# \t,"):
        return ""
    return host.removesuffix(".")
