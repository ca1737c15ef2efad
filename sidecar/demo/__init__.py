"""Foreign software for trying the sidecar: a small identity provider and a small legacy application.

Nothing here imports the rest of `sidecar`, as an application that nobody can change would not either.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from sidecar.demo.legacy import LegacyApp
from sidecar.demo.people import PEOPLE, DemoClient, DemoPerson
from sidecar.demo.provider import DemoProvider

__all__ = ["PEOPLE", "Demo", "DemoClient", "DemoPerson", "DemoProvider", "LegacyApp", "start"]

_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Demo:
    """The two while they run; URLs have no slash at their end."""

    provider: DemoProvider
    application_url: str
    _runners: Sequence[web.AppRunner]

    @property
    def issuer(self) -> str:
        """The provider's issuer identifier."""
        return self.provider.issuer

    async def stop(self) -> None:
        """Close both; open streams end. May be called twice."""
        for runner in self._runners:
            await runner.cleanup()


async def start(
    *,
    database: Path,
    api_token: str,
    clients: Mapping[str, DemoClient],
    sign_out: str = "/-/logout",
    identity_port: int = 0,
    application_port: int = 0,
    people: Sequence[DemoPerson] = PEOPLE,
) -> Demo:
    """Serve both on loopback in this event loop; port 0 takes a free one.

    Raises OSError when a port is taken, sqlite3.Error when the database cannot be used.
    """
    application = LegacyApp(database, api_token, sign_out)
    identity_socket, application_socket = _bound(identity_port), _bound(application_port)
    # The path keeps the provider's cookies from the others, as cookies do not know ports.
    provider = DemoProvider(f"http://{_address(identity_socket)}/id", clients, people)
    runners = [
        await _serve(provider.app(), identity_socket),
        await _serve(application.app(), application_socket),
    ]
    return Demo(provider, f"http://{_address(application_socket)}", runners)


def _bound(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
    except OSError:
        listening.close()
        raise
    return listening


def _address(listening: socket.socket) -> str:
    return f"{_HOST}:{listening.getsockname()[1]}"


async def _serve(app: web.Application, listening: socket.socket) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    return runner
