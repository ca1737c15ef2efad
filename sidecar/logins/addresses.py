"""Say which web addresses of a provider may be used at all."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_safe_address(text: object) -> bool:
    """Whether *text* is an absolute https URL without user, password and fragment; http only to this machine.

    OpenID Connect Discovery 1.0, section 3 and RFC 8414, section 2 demand https.
    """
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    if not parts.hostname or "@" in parts.netloc or "#" in text:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
