"""A small OpenID provider without passwords, for the demo and for tests; it serves this machine only."""

import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from sidecar.demo.pages import guard_response, static_routes
from sidecar.demo.people import PEOPLE, DemoClient, DemoPerson
from sidecar.demo.register import Register
from sidecar.demo.sign_in import SignInPages
from sidecar.demo.token_api import TokenApi


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class DemoProvider:
    """An OpenID provider whose whole state is in memory."""

    def __init__(
        self,
        issuer: str,
        clients: Mapping[str, DemoClient],
        people: Sequence[DemoPerson] = PEOPLE,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clients` by client_id; `clock` returns seconds since the epoch.

        Raises ValueError when the issuer is not an http URL of this machine.
        """
        parts = urlsplit(issuer)
        if parts.scheme != "http" or not is_loopback(parts.hostname or "") or parts.query or parts.fragment:
            message = "the demo provider has no passwords, so its issuer must be http on loopback"
            raise ValueError(message)
        if issuer.endswith("/"):
            message = "the issuer must not end with a slash"
            raise ValueError(message)
        self._authority = parts.netloc
        self._prefix = parts.path
        self._register = Register.of(issuer, clients, people, clock)

    @property
    def issuer(self) -> str:
        """The issuer identifier, without a slash at its end."""
        return self._register.issuer

    def app(self) -> web.Application:
        """Return the application; it may be served on loopback only."""
        app = web.Application(middlewares=[self._only_here], client_max_size=64 * 1024)
        app.router.add_routes(TokenApi(self._register).routes(self._prefix))
        app.router.add_routes(SignInPages(self._register, self._prefix).routes())
        app.router.add_routes(static_routes("idp", self._prefix))
        app.on_response_prepare.append(guard_response)
        return app

    def change_groups(self, login: str, groups: Iterable[str]) -> None:
        """Do what the people page does. Raises KeyError for an unknown login."""
        self._register.change_groups(login, groups)

    def change_name(self, login: str, name: str) -> None:
        """Give a person another name, as after a wedding. Raises KeyError for an unknown login."""
        self._register.change_name(login, name)

    def rotate_key(self) -> None:
        """Sign with a new key from now on; the previous one stays in the JWKS."""
        self._register.signer.rotate()

    @web.middleware
    async def _only_here(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # Another Host is a site that made its own name point here (DNS rebinding).
        if request.host != self._authority or not is_loopback(request.remote or ""):
            raise web.HTTPMisdirectedRequest(text="the demo provider answers this machine only\n")
        return await handler(request)
