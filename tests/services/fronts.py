"""Front proxies that ask the sidecar, by the configurations in examples/: nginx, HAProxy, Caddy, Traefik and Envoy.

Debian has the first three. Traefik and Envoy come as wheels with the extra `test`.
"""

from __future__ import annotations

import asyncio
import platform
import re
import shutil
import signal
import socket
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from tests.services.process import HOST, Server, ServiceMissingError, find_program, new_directory, unprivileged

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = Path(__file__).parents[2] / "examples"
_NGINX = """
daemon off; master_process off; error_log stderr warn; pid {folder}/pid; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off; large_client_header_buffers 4 32k;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  include {folder}/example.conf;
}}
"""


@dataclass(frozen=True)
class Places:
    """Ports of the front proxy, the sidecar and the application."""

    front: int
    sidecar: int
    application: int

    def example(self, name: str) -> str:
        """An example with these ports in the place of its own, and our host in the place of the public one."""
        instead = {
            "127.0.0.1:8080": f"{HOST}:{self.sidecar}",
            "127.0.0.1:3000": f"{HOST}:{self.application}",
            "listen 8000": f"listen {HOST}:{self.front}",
            "bind :8000": f"bind {HOST}:{self.front}",
            "\n:8000 {": f"\n:{self.front} {{\n\tbind {HOST}\n",
            'address: ":8000"': f'address: "{HOST}:{self.front}"',
            "address: 0.0.0.0, port_value: 8000": f"address: {HOST}, port_value: {self.front}",
            "address: 127.0.0.1, port_value: 8080": f"address: {HOST}, port_value: {self.sidecar}",
            "address: 127.0.0.1, port_value: 3000": f"address: {HOST}, port_value: {self.application}",
            "wiki.example.com": "localhost",
        }
        # All at once: a port that was put in may begin with one that is looked for.
        return re.sub("|".join(map(re.escape, instead)), lambda found: instead[found[0]], (EXAMPLES / name).read_text())


class Front:
    """One running front proxy."""

    def __init__(self, kind: str, places: Places) -> None:
        self._kind, self._port = kind, places.front
        self._folder = new_directory(f"sidecar-{kind}", unprivileged("www-data") if kind == "nginx" else None)
        command = getattr(self, f"_{kind}")(places)
        # They have nothing to save, and Traefik takes its time to end.
        how = {"environment": self._home(), "stop_signal": signal.SIGKILL}
        self._server = Server(kind, command, answers=self._answers, **how)

    def _home(self) -> dict[str, str]:
        return {"HOME": str(self._folder), "XDG_DATA_HOME": str(self._folder), "XDG_CONFIG_HOME": str(self._folder)}

    def _file(self, name: str, text: str) -> str:
        path = self._folder / name
        path.write_text(text)
        return str(path)

    def _nginx(self, places: Places) -> Sequence[str]:
        self._file("example.conf", places.example("nginx/nginx.conf"))
        user = "user root;" if unprivileged("www-data") else ""
        return [
            find_program("nginx"),
            "-c",
            self._file("nginx.conf", _NGINX.format(folder=self._folder, user=user)),
        ]

    def _haproxy(self, places: Places) -> Sequence[str]:
        script = self._file("sidecar.lua", places.example("haproxy/sidecar.lua"))
        text = places.example("haproxy/haproxy.cfg").replace("lua-load sidecar.lua", f"lua-load {script}")
        return [find_program("haproxy"), "-db", "-f", self._file("haproxy.cfg", text)]

    def _caddy(self, places: Places) -> Sequence[str]:
        text = "{\n\tadmin off\n\tauto_https off\n}\n" + places.example("caddy/Caddyfile")
        return [find_program("caddy"), "run", "--adapter", "caddyfile", "--config", self._file("Caddyfile", text)]

    def _traefik(self, places: Places) -> Sequence[str]:
        dynamic = self._file("dynamic.yaml", places.example("traefik/dynamic.yaml"))
        static = places.example("traefik/traefik.yaml").replace("/etc/traefik/dynamic.yaml", dynamic)
        return [_out_of_wheel("traefik"), f"--configFile={self._file('traefik.yaml', static)}"]

    def _envoy(self, places: Places) -> Sequence[str]:
        file = self._file("envoy.yaml", places.example("envoy/envoy.yaml"))
        few = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        return [_out_of_wheel("envoy"), "--config-path", file, *few]

    def _answers(self) -> bool:
        if self._kind == "traefik":
            return self._knows_its_routes()
        with suppress(OSError), socket.create_connection((HOST, self._port), timeout=1):
            return True
        return False

    def _knows_its_routes(self) -> bool:
        """Traefik listens before it has read what to do, and says 404 until then."""
        connection = HTTPConnection(HOST, self._port, timeout=5)
        with closing(connection), suppress(OSError, HTTPException):
            connection.request("GET", "/-/style.css", headers={"Host": "localhost"})
            return connection.getresponse().status != 404
        return False

    async def start(self) -> Self:
        """Start and wait until it answers."""
        # In a thread, since the sidecar that it may be asked about runs in this one.
        await asyncio.to_thread(self._server.start)
        return self

    async def stop(self) -> None:
        """Stop for good and delete everything."""
        self._server.discard()
        shutil.rmtree(self._folder, ignore_errors=True)


def _out_of_wheel(name: str) -> str:
    """Path of a program that is installed with the Python packages; where there is none for this platform, skips."""
    try:
        return find_program(name, str(Path(sys.executable).parent))
    except ServiceMissingError:
        if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64"):
            raise
        pytest.skip(f"{name} is not installed, and the extra `test` has none for this platform")


def front(kind: str, places: Places) -> Front:
    """Make the front proxy of that kind."""
    return Front(kind, places)
