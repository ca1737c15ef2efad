"""Check the names of headers and claims that the application gets."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.document import Document, Location
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.core.headers import collapsed, is_header_name

# RFC 9110, section 7.6.1, and what frames or routes the request.
_NOT_OURS_TO_GIVE = frozenset(
    [
        "connection", "keep_alive", "proxy_authenticate", "proxy_authorization", "proxy_connection", "te", "trailer",
        "transfer_encoding", "upgrade", "content_length", "content_type", "content_encoding", "http2_settings",
        "host", "cookie", "set_cookie", "expect", "range",
    ]
)  # fmt: skip
# What the sidecar sends itself, and what applications take for the same.
_FORWARDED = frozenset(
    [
        "forwarded", "x_real_ip", "x_forwarded_for", "x_forwarded_proto", "x_forwarded_host", "x_forwarded_port",
        "x_forwarded_prefix", "x_forwarded_server", "x_forwarded_scheme", "x_forwarded_ssl", "x_forwarded_uri",
        "x_forwarded_method",
    ]
)  # fmt: skip
# RFC 7519, section 4.1: written by the signer itself.
_REGISTERED = frozenset(["iss", "aud", "sub", "iat", "exp", "nbf", "jti"])


def names(config: Config, document: Document) -> Iterator[Problem]:
    """Names that can be headers, that are nobody else's, and that stay two for the least careful application."""
    seen: dict[str, str] = {}
    places: list[tuple[str, Location]] = [(name, ("headers", name)) for name in config.headers]
    if config.assertion is not None:
        places.append((config.assertion.header, ("assertion", "header")))
    for name, place in places:
        plain = collapsed(name)
        if not is_header_name(name):
            yield document.error(place, "is no name of a header", "Use letters, digits and -")
        elif plain in _NOT_OURS_TO_GIVE:
            yield document.error(
                place, "belongs to the connection or the browser", "Choose a name such as X-Remote-User"
            )
        elif plain in _FORWARDED:
            yield document.error(place, "is written by the sidecar itself", "Remove it: the application gets it anyway")
        elif plain in seen:
            message = f"is the same as {seen[plain]} to many applications, which read - and _ as one"
            yield document.error(place, message, "Rename one of them")
        seen.setdefault(plain, document.quoted(place, name))


def values(config: Config, document: Document) -> Iterator[Problem]:
    """Secrets that can stand in a header, and passwords that have one to go in."""
    for name, line in config.headers.items():
        secret = line.secret.reveal() if line.secret is not None else ""
        if secret and (not secret.isprintable() or not secret.isascii() or secret != secret.strip()):
            message = "the secret has letters that cannot stand in a header"
            yield document.error(("headers", name), message, "Use letters, digits and signs of ASCII")
        if line.basic is not None and collapsed(name) not in ("authorization", "x_authorization"):
            message = "a Basic credential that applications look for elsewhere"
            yield document.warning(("headers", name, "basic"), message, "Call the header Authorization")


def assertion(config: Config, document: Document) -> Iterator[Problem]:
    """Claims that say who signed what for whom cannot be chosen."""
    for name in sorted(_REGISTERED & set(config.assertion.claims if config.assertion else ())):
        yield document.error(("assertion", "claims", name), "is written by the signer itself", "Choose another name")
