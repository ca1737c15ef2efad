"""Front proxies that ask the sidecar, by the configurations in examples/: real nginx, HAProxy and Caddy.

Traefik and Envoy are not packaged for Debian. `ShapedFront` stands for them: it reads their example, asks as their
documentation says (headers, method, path), and treats the answer so. It shows that the sidecar speaks their dialect,
not that they do.
"""

from __future__ import annotations

import re
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from tests.services.process import HOST, Server, find_program, new_directory, unprivileged

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
# What Traefik takes out of every request by itself, unless it trusts who sent it (forwardedHeaders).
_OF_TRAEFIK = {f"x-forwarded-{name}" for name in ("proto", "for", "host", "port", "server", "uri", "method", "prefix")}
_OF_TRAEFIK |= {"x-forwarded-tls-client-cert", "x-forwarded-tls-client-cert-info", "x-real-ip"}
_HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host"}


@dataclass(frozen=True)
class Places:
    """Ports of the front proxy, the sidecar and the application."""

    front: int
    sidecar: int
    application: int

    def example(self, name: str) -> str:
        """An example with these ports in the place of its own, and our host in the place of the public one."""
        text = (EXAMPLES / name).read_text()
        for old, new in (
            ("127.0.0.1:8080", f"{HOST}:{self.sidecar}"),
            ("127.0.0.1:3000", f"{HOST}:{self.application}"),
            ("listen 8000", f"listen {HOST}:{self.front}"),
            ("bind :8000", f"bind {HOST}:{self.front}"),
            ("\n:8000 {", f"\n:{self.front} {{\n\tbind {HOST}\n"),
            ("wiki.example.com", "localhost"),
        ):
            text = text.replace(old, new)
        return text


class Front:
    """One running front proxy."""

    def __init__(self, kind: str, places: Places) -> None:
        self._port = places.front
        self._folder = new_directory(f"sidecar-{kind}", unprivileged("www-data") if kind == "nginx" else None)
        self._server = Server(kind, getattr(self, f"_{kind}")(places), answers=self._answers, environment=self._home())

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

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self._port), timeout=1):
            return True
        return False

    async def start(self) -> Self:
        """Start and wait until it answers."""
        self._server.start()
        return self

    async def stop(self) -> None:
        """Stop for good and delete everything."""
        self._server.discard()
        shutil.rmtree(self._folder, ignore_errors=True)


class ShapedFront:
    """Asks and carries as Traefik or Envoy would, by what their example says."""

    def __init__(self, kind: str, places: Places) -> None:
        self._places = places
        self._kind = kind
        self._runner: web.ServerRunner | None = None
        file = {"traefik": "traefik/dynamic.yaml", "envoy": "envoy/envoy.yaml"}[kind]
        example = yaml.safe_load(places.example(file))
        getattr(self, f"_read_{kind}")(example)

    def _read_traefik(self, example: dict[str, Any]) -> None:
        section = example["http"]["middlewares"]["sidecar"]["forwardAuth"]
        self._question, self._given = section["address"], [name.lower() for name in section["authResponseHeaders"]]
        added = example["http"]["middlewares"]["of-the-browser"]["headers"]["customRequestHeaders"]
        assert example["http"]["routers"]["application"]["middlewares"] == ["of-the-browser", "sidecar"]
        assert set(added.values()) == {""}
        self._before, self._after = _OF_TRAEFIK | {name.lower() for name in added}, set[str]()
        rule = example["http"]["routers"]["own"]["rule"]
        self._own, self._closed = re.findall(r"PathPrefix\(`([^`]+)`\)", rule)

    def _read_envoy(self, example: dict[str, Any]) -> None:
        manager = example["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        asking = manager["http_filters"][0]["typed_config"]
        service = asking["http_service"]
        self._question = service["server_uri"]["uri"] + service["path_prefix"]
        patterns = service["authorization_response"]["allowed_upstream_headers"]["patterns"]
        self._given = [pattern["exact"] for pattern in patterns]
        assert asking["allowed_headers"]["patterns"] == [{"safe_regex": {"regex": ".*"}}]
        host = manager["route_config"]["virtual_hosts"][0]
        # The router takes them out, behind the filter that asks.
        self._before, self._after = {"x-forwarded-for", "x-forwarded-proto"}, set(host["request_headers_to_remove"])
        routes = host["routes"]
        self._closed, self._own = [route["match"]["prefix"] for route in routes[:2]]

    async def start(self) -> Self:
        """Listen."""
        server = web.Server(self._handle, auto_decompress=False, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self._places.front).start()
        options = {"cookie_jar": aiohttp.DummyCookieJar(), "auto_decompress": False}
        self._http = aiohttp.ClientSession(**options)  # type: ignore[arg-type]
        return self

    async def stop(self) -> None:
        """Stop."""
        await self._http.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        # use_remote_address and trustForwardHeader: what came from outside about the connection is replaced.
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP]
        headers = [line for line in headers if line[0].lower() not in self._before]
        headers += [("X-Forwarded-For", request.remote or "")]
        path = request.raw_path.partition("?")[0]
        if path.startswith(self._own) and not path.startswith(self._closed):
            return await self._carry(request, self._places.sidecar, headers, body)
        if self._kind == "envoy" and path.startswith(self._closed):
            return web.Response(status=404)
        answer = await self._asked(request, headers)
        if isinstance(answer, web.Response):
            return answer
        kept = [line for line in answer if line[0].lower() not in self._after]
        return await self._carry(request, self._places.application, kept, body)

    async def _asked(
        self, request: web.BaseRequest, headers: list[tuple[str, str]]
    ) -> web.Response | list[tuple[str, str]]:
        """Answer for the client, or the lines that the request has when it may pass."""
        about = [("X-Forwarded-Proto", request.scheme)]
        if self._kind == "traefik":
            method, url = "GET", self._question
            about += [("X-Forwarded-Method", request.method), ("X-Forwarded-Uri", request.raw_path)]
            about += [("X-Forwarded-Host", request.host)]
        else:
            method, url = request.method, self._question + request.raw_path
            about += [("Host", request.host)]
        own = {name.lower() for name, _ in about}
        lines = [line for line in headers if line[0].lower() not in own] + about
        async with self._http.request(method, URL(url, encoded=True), headers=lines, allow_redirects=False) as said:
            content = await said.read()
            lets_pass = said.status == 200 if self._kind == "envoy" else 200 <= said.status < 300
            if not lets_pass:
                plain = [(name, value) for name, value in said.headers.items() if name.lower() not in _HOP_BY_HOP]
                return web.Response(status=said.status, headers=aiohttp.typedefs.CIMultiDict(plain), body=content)
            given = [(name, value) for name, value in said.headers.items() if name.lower() in self._given]
            gone = {name.lower() for name, _ in given}
            if self._kind == "traefik":
                gone |= set(self._given)
            else:
                gone |= set(said.headers.get("X-Envoy-Auth-Headers-To-Remove", "").split(","))
            return [line for line in headers if line[0].lower() not in gone] + given

    async def _carry(
        self, request: web.BaseRequest, port: int, headers: list[tuple[str, str]], body: bytes
    ) -> web.Response:
        url = URL(f"http://{HOST}:{port}{request.raw_path}", encoded=True)
        lines = [*headers, ("Host", request.host)]
        async with self._http.request(request.method, url, headers=lines, data=body, allow_redirects=False) as said:
            plain = [(name, value) for name, value in said.headers.items() if name.lower() not in _HOP_BY_HOP]
            return web.Response(status=said.status, headers=aiohttp.typedefs.CIMultiDict(plain), body=await said.read())


def front(kind: str, places: Places) -> Front | ShapedFront:
    """Make the front proxy of that kind."""
    return ShapedFront(kind, places) if kind in ("traefik", "envoy") else Front(kind, places)
