"""Read and write cookies: pairs in, header text out (RFC 6265bis)."""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Container, Sequence
from dataclasses import dataclass

# What a pair takes in memory besides its letters: three objects.
_WEIGHT = 168
_WIDEST = 4
_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]*")
_MOST = 200
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")


@dataclass(frozen=True, slots=True)
class CookieStyle:
    """How this deployment's cookies are marked. ``same_site`` is Lax, Strict or None."""

    secure: bool
    domain: str = ""
    same_site: str = "Lax"

    def named(self, name: str, *, host_only: bool = False) -> str:
        """Full name with the safest prefix that browsers will enforce (RFC 6265bis, section 4.1.3)."""
        if not self.secure:
            return name
        return f"__Secure-{name}" if self.domain and not host_only else f"__Host-{name}"


def parse_cookies(lines: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of all Cookie header lines in order, duplicates kept; at most 200, the rest is not looked at."""
    pairs: list[tuple[str, str]] = []
    for line in lines:
        for part in line.split(";", _MOST):
            name, equals, value = part.partition("=")
            if equals and len(pairs) < _MOST:
                pairs.append((name.strip(), value.strip()))
    return tuple(pairs)


def weight_of(pairs: Sequence[tuple[str, str]]) -> int:
    """About how many bytes *pairs* take in memory, which is many times what they take in a header line."""
    return sum([_WEIGHT + _letters(name) + _letters(value) for name, value in pairs])


def _letters(text: str) -> int:
    return len(text) if text.isascii() else _WIDEST * len(text)


def values_of(pairs: Sequence[tuple[str, str]], name: str, most: int = 3) -> tuple[str, ...]:
    """First few distinct values of the cookie *name*: a browser may send one per path or domain."""
    found = dict.fromkeys(value for key, value in pairs if key == name and value)
    return tuple(found)[:most]


def set_cookie(
    style: CookieStyle, name: str, value: str, *, max_age: int | None = None, host_only: bool = False, lax: bool = False
) -> str:
    """Text of a Set-Cookie header for the full *name*; *max_age* in seconds, None for the browser session.

    *lax* overrides a stricter SameSite for cookies that must come along when a provider sends the browser back.
    """
    if not _VALUE.fullmatch(value):
        message = "a cookie value that would need quoting"
        raise ValueError(message)
    parts = [f"{name}={value}", "Path=/", "HttpOnly", f"SameSite={'Lax' if lax else style.same_site}"]
    if style.secure:
        parts.append("Secure")
    if style.domain and not host_only:
        parts.append(f"Domain={style.domain}")
    if max_age is not None:
        parts.append(f"Max-Age={max_age}")
    return "; ".join(parts)


def expire_cookie(style: CookieStyle, name: str, *, host_only: bool = False) -> str:
    """Text of a Set-Cookie header that removes the cookie."""
    return set_cookie(style, name, "", max_age=0, host_only=host_only)


def is_cookie_name(name: str) -> bool:
    """True for a token (RFC 6265, section 4.1.1): what may be written into a Set-Cookie header."""
    return _NAME.fullmatch(name) is not None


def cookie_mark(name: str, value: str) -> str:
    """Short hash of a cookie that knows it again; it does not tell the value."""
    digest = hashlib.sha256(f"{name}={value}".encode(errors="surrogatepass")).digest()
    return urlsafe_b64encode(digest).decode()[:12]


def without_marked(text: str, marks: Container[str]) -> str:
    """A Cookie header's text without the cookies of these marks."""
    kept = []
    for part in text.split(";"):
        name, _, value = part.partition("=")
        if cookie_mark(name.strip(), value.strip()) not in marks:
            kept.append(part)
    return ";".join(kept).strip()


def lines_without_marked(lines: Sequence[tuple[str, str]], marks: Container[str]) -> tuple[tuple[str, str], ...]:
    """Header lines without the cookies of these marks, and without a Cookie line of which nothing is left."""
    cut = [(name, without_marked(value, marks) if name.lower() == "cookie" else value) for name, value in lines]
    return tuple(line for line in cut if line[1] or line[0].lower() != "cookie")
