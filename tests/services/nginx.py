"""A real nginx: a reference proxy in front of an application, or one of its servers, which dies, hangs and recovers."""

from __future__ import annotations

import shutil
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.services.process import HOST, Server, find_program, new_directory, start_on_free_port, unprivileged

if TYPE_CHECKING:
    from collections.abc import Sequence

# One process that stays in the foreground and writes nothing outside its folder.
_MAIN = """
daemon off; master_process off; error_log stderr warn; pid {folder}/pid; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off; default_type text/plain;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
  server {{ listen {listen}; {rest} }}
}}
"""
# What an operator would write who wants a proxy that leaves everything alone.
PROXY = """
  client_max_body_size 0; client_header_buffer_size 4k; large_client_header_buffers 4 32k;
  underscores_in_headers on; ignore_invalid_headers off;
  location / {{
    proxy_pass {upstream}; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
    proxy_set_header Host $http_host; proxy_set_header Connection $connection_upgrade;
    proxy_set_header Upgrade $http_upgrade; proxy_pass_header Server; proxy_pass_header Date;
  }}
"""


class Nginx:
    """One running nginx: its `url`, and `stop`, `start`, `pause` and `resume` on the same port."""

    def __init__(self, port: int, rest: str) -> None:
        self.host = HOST
        self.port = port
        self._folder = new_directory("sidecar-nginx", unprivileged("www-data"))
        user = "user root;" if unprivileged("www-data") else ""
        file = self._folder / "nginx.conf"
        file.write_text(_MAIN.format(folder=self._folder, listen=f"{HOST}:{port} backlog=1024", rest=rest, user=user))
        self._server = Server("nginx", [find_program("nginx"), "-c", str(file)], answers=self._answers)
        self.stop = self._server.stop
        self.pause = self._server.pause
        self.resume = self._server.resume

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the process is alive (a paused one is)."""
        return self._server.is_running

    def _answers(self) -> bool:
        # Nothing is asked: a proxy would ask its application, which may live in the thread that waits here.
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
            return True
        return False

    def start(self) -> Self:
        """Start and wait until it answers; raises ServiceFailedError."""
        self._server.start()
        return self

    def discard(self) -> None:
        """Stop for good and delete everything."""
        self._server.discard()
        shutil.rmtree(self._folder, ignore_errors=True)


class Nginxes:
    """A factory; everything that it started ends with `discard`."""

    def __init__(self) -> None:
        self._started: list[Nginx] = []

    def __call__(self, rest: str) -> Nginx:
        """Start one whose `server` block says `rest`."""
        started = start_on_free_port(lambda port: Nginx(port, rest))
        self._started.append(started)
        return started

    def saying(self, texts: Sequence[str]) -> list[Nginx]:
        """Start one for each text, which is its answer to everything; /health answers 200 as well."""
        return [self(f'location / {{ return 200 "{text}"; }}') for text in texts]

    def proxy(self, upstream: str) -> Nginx:
        """Start one that passes everything on to `upstream`."""
        return self(PROXY.format(upstream=upstream))

    def discard(self) -> None:
        """Stop all."""
        for one in self._started:
            one.discard()
