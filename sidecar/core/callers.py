"""Tell a person who looks at a page from a program that wants data."""

from __future__ import annotations

from collections.abc import Mapping


def wants_page(method: str, headers: Mapping[str, str]) -> bool:
    """True when the answer will be looked at: redirects and HTML make sense.

    Decided by Fetch Metadata where the browser sends it (W3C Fetch Metadata Request Headers), else by Accept and
    X-Requested-With. WebSocket handshakes and callers with an Authorization header are programs.
    """
    if "Upgrade" in headers or "Authorization" in headers:
        return False
    if headers.get("X-Requested-With", "").lower() == "xmlhttprequest":
        return False
    mode = headers.get("Sec-Fetch-Mode")
    if mode is not None:
        return mode == "navigate" and headers.get("Sec-Fetch-Dest", "document") in (
            "document",
            "iframe",
            "frame",
        )
    return method in ("GET", "HEAD", "POST") and "text/html" in headers.get("Accept", "")


def is_from_elsewhere(origin: str, headers: Mapping[str, str], *, trusts_siblings: bool) -> bool:
    """True when another site surely made the browser send this; older browsers only tell where a form comes from.

    Another name below the same domain, or another port of this host, is another site, unless *trusts_siblings*.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("none", "same-origin") and not (trusts_siblings and site == "same-site")
    # "null" is also what our own pages send, since they ask for no referrer.
    return headers.get("Origin", origin).lower() not in (origin, "null")


def is_embedded(headers: Mapping[str, str]) -> bool:
    """True when a page shows this as a picture, loads it as a script or the like: nobody goes there."""
    return headers.get("Sec-Fetch-Dest", "document") not in ("document", "iframe", "frame", "empty")


def is_ahead(headers: Mapping[str, str]) -> bool:
    """True when the browser fetches this in case that somebody goes there (Speculation Rules)."""
    return headers.get("Sec-Purpose", "").lower().startswith("prefetch")


def is_from_here(origin: str, headers: Mapping[str, str]) -> bool:
    """True when a state-changing request surely comes from a page of *origin* (scheme://host[:port])."""
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    sent = headers.get("Origin")
    return sent is not None and sent.lower() == origin
