"""The only place where headers cross from the outside to the application: strip, then inject.

Names are compared after mapping everything but letters and digits to ``_`` and lower-casing, because CGI, WSGI, PHP
and IIS collapse them so (``X_Remote_User`` and ``X-Remote-User`` reach such an application as one).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.header import Header
from enum import Enum, auto
from urllib.parse import quote

from sidecar.core.credentials import carries_ours, is_basic, is_bearer
from sidecar.faults import Refused
from sidecar.reason import Reason

Line = tuple[str, str]

# RFC 9110, section 7.6.1, and the framing that the connection itself owns.
_HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep_alive",
        "proxy_authenticate",
        "proxy_authorization",
        "proxy_connection",
        "te",
        "trailer",
        "transfer_encoding",
        "upgrade",
        "content_length",
        "http2_settings",
    ]
)
# What applications believe without having been told to: never from the outside. "proxy" is httpoxy.
_NEVER_FROM_OUTSIDE = frozenset(
    [
        "forwarded",
        "x_real_ip",
        "x_client_ip",
        "true_client_ip",
        "x_cluster_client_ip",
        "cf_connecting_ip",
        "client_ip",
        "proxy_client_ip",
        "wl_proxy_client_ip",
        "x_originating_ip",
        "x_forwarded",
        "proxy",
        "remote_user",
        "remote_groups",
        "remote_email",
        "remote_name",
        "x_scheme",
        # gunicorn takes it for the part of the path that it removes: /public/admin with /public becomes /admin.
        "script_name",
        "path_info",
        "x_script_name",
        # Rack::Sendfile lets them choose which file is sent.
        "x_sendfile_type",
        # Next.js skips its own checks for it.
        "x_middleware_subrequest",
        "x_http_method_override",
        "x_http_method",
        "x_method_override",
        "front_end_https",
        "x_url_scheme",
        "x_arr_ssl",
        "x_ssl_client_cert",
        # RFC 9440, and what proxies called it before.
        "client_cert",
        "client_cert_chain",
        "x_client_cert",
    ]
)
_NEVER_PREFIXES = (
    "forwarded_",
    "x_forwarded_",
    "x_original_",
    "x_rewrite_",
    "x_remote_",
    "x_auth_request_",
    "x_webauth_",
    "x_accel_",
    "x_ssl_client_",
    "ssl_client_",
)
_AUTHORIZATION = len("authorization")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Names of strangers are remembered too: so many, and none that is longer than names are.
_MEMO = 4096
_LONGEST_IN_MEMO = 64


class _Fate(Enum):
    KEEP = auto()
    DROP = auto()
    COOKIE = auto()
    CONNECTION = auto()
    HOST = auto()


def collapsed(name: str) -> str:
    """Name as the least careful application reads it."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())


@dataclass(slots=True)
class HeaderPlan:
    """Which incoming headers die: compiled once from the names that this configuration manages.

    ``own_cookies`` are cookie names (exact, or prefixes ending in ``*``) that never reach the application.
    """

    managed: frozenset[str]
    own_cookies: frozenset[str] = frozenset()
    keeps_bearer: bool = True
    keeps_basic: bool = True
    _memo: dict[bytes, _Fate] = field(default_factory=dict, repr=False)

    def fate(self, name: bytes) -> _Fate:
        """What happens to a header line of this raw name."""
        known = self._memo.get(name)
        if known is not None:
            return known
        fate = self._judge(name.decode("latin-1"))
        if len(self._memo) < _MEMO and len(name) <= _LONGEST_IN_MEMO:
            self._memo[name] = fate
        return fate

    def _judge(self, name: str) -> _Fate:
        plain = collapsed(name)
        if plain == "connection":
            return _Fate.CONNECTION
        if plain == "host":
            return _Fate.HOST
        if plain == "cookie":
            # Only the true spelling is a cookie header; X_Cookie look-alikes die.
            return _Fate.COOKIE if name.lower() == "cookie" else _Fate.DROP
        if plain in _HOP_BY_HOP or plain in _NEVER_FROM_OUTSIDE or plain in self.managed:
            return _Fate.DROP
        return _Fate.DROP if plain.startswith(_NEVER_PREFIXES) else _Fate.KEEP

    def incoming(self, raw: Sequence[tuple[bytes, bytes]]) -> list[Line]:
        """Lines that may pass to the application, in their order and spelling, bytes kept by surrogateescape.

        Host is left out: whoever sends knows which one is due. Raises Refused(HEADERS_INVALID, 400) when a value holds
        control characters.
        """
        kept: list[Line] = []
        named_by_connection: set[str] = set()
        for name, value in raw:
            fate = self.fate(name)
            if fate is _Fate.KEEP:
                kept.append((name.decode("latin-1"), value.decode("utf-8", "surrogateescape")))
            elif fate is _Fate.COOKIE:
                text = self._without_own(value.decode("utf-8", "surrogateescape"))
                if text:
                    kept.append((name.decode("latin-1"), text))
            elif fate is _Fate.CONNECTION:
                named_by_connection |= {part.strip().lower() for part in value.decode("latin-1").split(",")}
        named_by_connection -= {"close", "keep-alive", "upgrade", ""}
        if named_by_connection:
            # RFC 9110, section 7.6.1; ours are added afterwards, so nobody can name them away.
            kept = [line for line in kept if line[0].lower() not in named_by_connection]
        return [line for line in kept if not self._is_credential(line)]

    def _is_credential(self, line: Line) -> bool:
        """True for credentials that were meant for the sidecar, and for none but it."""
        if len(line[0]) != _AUTHORIZATION or collapsed(line[0]) != "authorization":
            return False
        if not self.keeps_bearer and is_bearer(line[1]):
            return True
        return (not self.keeps_basic and is_basic(line[1])) or carries_ours(line[1])

    def drops(self, name: bytes) -> bool:
        """True for a header line that never passes."""
        return self.fate(name) is _Fate.DROP

    def passes(self, name: bytes) -> bool:
        """True for a header line that passes as it is, unless it is a credential."""
        return self.fate(name) is _Fate.KEEP

    def stands_alone(self, name: bytes, value: bytes) -> bool:
        """True when what becomes of the line, and of the others, depends on nothing but itself."""
        fate = self.fate(name)
        return fate is not _Fate.CONNECTION or value.lower() in (b"keep-alive", b"close", b"")

    def _without_own(self, value: str) -> str:
        if not self.own_cookies:
            return value
        pairs = [pair for pair in value.split(";") if not self.is_own(pair.partition("=")[0].strip())]
        return ";".join(pairs).strip()

    def is_own(self, cookie: str) -> bool:
        """True when a cookie of this name belongs to the sidecar."""
        return cookie in self.own_cookies

    def sets_own(self, set_cookie: str) -> bool:
        """True when the text of a Set-Cookie header makes a browser send one of the sidecar's cookies.

        ``=name=value`` is a cookie without a name, which browsers send back as ``name=value``.
        """
        pair = set_cookie.partition(";")[0].lstrip(" \t=")
        return self.is_own(pair.partition("=")[0].strip())


def is_header_name(name: str) -> bool:
    """True for a field name (RFC 9110, section 5.1)."""
    return _NAME.fullmatch(name) is not None


def encode_value(name: str, value: str, encoding: str, limit: int) -> str:
    """Make *value* fit to stand in the header *name*; bytes beyond ASCII come out as surrogateescape text.

    *encoding* is utf-8, ascii, latin-1, percent, rfc2047 or base64; *limit* in bytes. Raises Refused(HEADER_VALUE)
    for control characters (a line break would be a second header), for what the encoding cannot say, and for values
    over the limit: a list that is cut short would silently be another list.
    """
    try:
        text = _encoded(name, value, encoding)
    except UnicodeEncodeError:
        # Also half a character, which no encoding has words for.
        raise Refused(Reason.HEADER_VALUE, 403, f"{name}: not expressible in {encoding}") from None
    if len(text.encode("utf-8", "surrogateescape")) > limit:
        raise Refused(Reason.HEADER_VALUE, 403, f"{name}: longer than {limit} bytes")
    return text.strip()


def encode_basic(name: str, user: str, password: str, limit: int) -> str:
    """Make a Basic credential (RFC 7617, in UTF-8); raises Refused(HEADER_VALUE) for what cannot stand in one."""
    if ":" in user or _CONTROL.search(user + password):
        raise Refused(Reason.HEADER_VALUE, 403, f"{name}: a colon in the user name, or control characters")
    return "Basic " + encode_value(name, f"{user}:{password}", "base64", limit)


def _encoded(name: str, value: str, encoding: str) -> str:
    if encoding == "base64":
        return base64.b64encode(value.encode()).decode()
    if encoding == "percent":
        return quote(value, safe=" !#$&'()*+,/:;=?@[]^_`{|}~-.")
    if _CONTROL.search(value) or "\t" in value:
        raise Refused(Reason.HEADER_VALUE, 403, f"{name}: control characters in the value")
    if encoding == "rfc2047":
        return value if value.isascii() else Header(value, "utf-8", maxlinelen=10**6).encode()
    return value.encode(encoding).decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the request came from and where people think they are: what X-Forwarded-* tell the application."""

    client: str
    scheme: str
    host: str
    port: int


def forwarding_lines(origin: Origin) -> list[Line]:
    """X-Forwarded-*, X-Real-IP and Forwarded (RFC 7239) lines; ours alone, nothing of what came in."""
    node = f'"[{origin.client}]"' if ":" in origin.client else origin.client or "unknown"
    return [
        ("X-Forwarded-For", origin.client),
        ("X-Forwarded-Proto", origin.scheme),
        ("X-Forwarded-Host", origin.host),
        ("X-Forwarded-Port", str(origin.port)),
        ("X-Real-IP", origin.client),
        ("Forwarded", f'for={node};host="{origin.host}";proto={origin.scheme}'),
    ]


def check_names(names: Iterable[str]) -> Mapping[str, str]:
    """Collapsed name → name; raises ValueError when two names are one to a careless application."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(collapsed(name), name)
        if other != name:
            message = f"{name} and {other} are the same header to many applications"
            raise ValueError(message)
    return seen
