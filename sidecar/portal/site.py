"""What this deployment is called from the outside: its address, its prefix, its cookies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from sidecar.config.service import Server, Sessions
from sidecar.core.addresses import host_of
from sidecar.core.callers import is_from_elsewhere
from sidecar.core.cookies import CookieStyle, expire_cookie, set_cookie
from sidecar.core.paths import read_target, safe_return_to
from sidecar.model import Visit

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Site:
    """Names and addresses; cookies are only written through it.

    ``origin`` is scheme://host[:port], ``prefix`` the path below which our own pages live.
    """

    origin: str
    host: str
    authority: str
    port: int
    scheme: str
    prefix: str
    style: CookieStyle
    cookie: str
    login_seconds: int

    @property
    def browser_cookie(self) -> str:
        """Cookie that ties sign-ins to the browser that began them; one for all tabs, so it never piles up."""
        return self.style.named(f"{self.cookie}-browser", host_only=True)

    @property
    def form_cookie(self) -> str:
        """Cookie that points to a form kept across a sign-in."""
        return self.style.named(f"{self.cookie}-form", host_only=True)

    @property
    def session_cookie(self) -> str:
        """Cookie that carries the session's token."""
        return self.style.named(self.cookie)

    @property
    def shared(self) -> str:
        """Where sessions hold good: at this address, or at every one below the domain that the cookie is meant for."""
        return self.style.domain.lower() or self.origin

    @property
    def own_cookies(self) -> frozenset[str]:
        """Names that never reach the application, and that it can never set."""
        # Those of a console on another port of this host, too: browsers do not tell ports apart.
        console = [f"{mark}{self.cookie}-console{kind}" for mark in ("", "__Host-") for kind in ("", "-browser")]
        return frozenset([self.session_cookie, self.browser_cookie, self.form_cookie, *console])

    def owns(self, path: str) -> bool:
        """True when the canonical *path* is below our prefix."""
        return path.startswith(self.prefix + "/") or path == self.prefix

    def is_asked_elsewhere(self, headers: Mapping[str, str]) -> bool:
        """True when a page of another site made the browser ask for this; one that has our sessions is none."""
        return is_from_elsewhere(self.origin, headers, trusts_siblings=bool(self.style.domain))

    def difference(self, visit: Visit) -> str:
        """How the address that the browser uses differs from public_url; "" when it does not, or nobody can know."""
        if visit.host != self.host:
            return f"asked at host {visit.host}, public_url has {self.host}"
        if visit.scheme not in ("", self.scheme):
            return f"asked over {visit.scheme}, public_url has {self.scheme}"
        return ""

    def path(self, name: str) -> str:
        """Path of one of our own pages."""
        return f"{self.prefix}/{name}"

    def authority_of(self, host: str) -> str:
        """What a Host header says for one of our names: with the public port, whichever one was asked for."""
        if host == self.host:
            return self.authority
        name = f"[{host}]" if ":" in host else host
        return name if self.port == _DEFAULT_PORTS.get(self.scheme) else f"{name}:{self.port}"

    def login_path(self, to: str) -> str:
        """Path that begins a sign-in and comes back to *to*."""
        return f"{self.prefix}/login?to={quote(to, safe='/')}"

    def return_to(self, text: str) -> str:
        """Return target that is surely inside the application: never another host, never one of our own pages."""
        safe = safe_return_to(text) if text else None
        return safe if safe is not None and not self.owns(read_target(safe).path) else "/"

    def give_session(self, token: str) -> str:
        """Set-Cookie text for a new session."""
        return set_cookie(self.style, self.session_cookie, token)

    def give_browser(self, value: str) -> str:
        """Set-Cookie text for the browser binding; lives as long as a sign-in may take."""
        return set_cookie(self.style, self.browser_cookie, value, max_age=self.login_seconds, host_only=True, lax=True)

    def give_form(self, token: str) -> str:
        """Set-Cookie text that points to a kept form."""
        return set_cookie(self.style, self.form_cookie, token, max_age=self.login_seconds, host_only=True, lax=True)

    def drop_session(self) -> str:
        """Set-Cookie text that removes the session cookie."""
        return expire_cookie(self.style, self.session_cookie)

    def drop_form(self) -> str:
        """Set-Cookie text that removes the pointer to a kept form."""
        return expire_cookie(self.style, self.form_cookie, host_only=True)


def site_of(server: Server, sessions: Sessions) -> Site:
    """Work the site out of the configuration."""
    parts = urlsplit(server.public_url)
    secure = parts.scheme == "https"
    style = CookieStyle(
        secure=secure, domain=sessions.cookie.domain or "", same_site=sessions.cookie.same_site.capitalize()
    )
    return Site(
        origin=f"{parts.scheme}://{parts.netloc.lower()}",
        host=host_of(parts.netloc),
        authority=parts.netloc.lower(),
        port=parts.port or _DEFAULT_PORTS[parts.scheme],
        scheme=parts.scheme,
        prefix=server.prefix.rstrip("/"),
        style=style,
        cookie=sessions.cookie.name,
        login_seconds=int(sessions.login.total_seconds()),
    )
