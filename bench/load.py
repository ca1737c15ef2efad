"""Put load on a server: wrk for many small requests, plain sockets for a few large ones."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.services.process import find_program, new_directory

# What a program that is no browser sends; all peers get the same, and their own cookie.
HEADERS = {"User-Agent": "bench", "Accept": "*/*", "Accept-Encoding": "gzip"}
_PIECE = 1 << 20
# wrk tells what it found in one line that can be read, and waits between requests where it is told to. Requests are put
# together here: wrk's own way of it gives the header lines another order in each run, as no client does.
_SCRIPT = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args)
  pause, method, own, size, habits = tonumber(args[1]) or 0, args[2], args[3], tonumber(args[4]), tonumber(args[5])
  before = args[6]
  strange, number = 0, math.random(1e6)
  start, after = method .. " " .. wrk.path, " HTTP/1.1\\r\\nHost: " .. wrk.headers["Host"] .. "\\r\\n" .. lines
end
lines, cookies = %s, {%s}
-- Never the same address twice: nobody shall answer out of what it remembers.
function request()
  number = number + 1
  local head = before == "" and start .. "?of=" .. number .. after or start .. after
  if #cookies > 0 then
    local who, habit = math.random(#cookies), math.random(habits)
    head = head .. "User-Agent: bench " .. habit .. "\\r\\nCookie: " .. cookies[who] .. "\\r\\n"
  end
  if own ~= "" then head = head .. own .. ": " .. before .. number .. "\\r\\n" end
  if size == 0 then return head .. "\\r\\n" end
  local body = string.rep("x", size - number %% 10)
  return head .. "Content-Length: " .. #body .. "\\r\\n\\r\\n" .. body
end
function response(status) if status ~= 200 and status ~= 202 then strange = strange + 1 end end
%s
function done(summary, latency, requests)
  local strange = 0
  for _, thread in ipairs(threads) do strange = strange + thread:get("strange") end
  local e = summary.errors
  io.write(string.format('\\nRESULT {"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "faults": ',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
  io.write(string.format("[%%d, %%d, %%d, %%d, %%d]}\\n", strange, e.connect, e.read, e.write, e.timeout))
end
"""
# Evenly spread around the mean, so that connections do not march in step.
_PACED = "function delay() return math.random(0, 2 * pause) end"


@dataclass(frozen=True, slots=True)
class Shape:
    """What requests look like: *own* names a header line whose value differs each time; *size* is a body's, in bytes.

    Where its value begins with a path, *before*, that is what differs, and the address is always the same: a question.
    They come from whoever is called in *cookies*, each with so many *habits* of writing header lines, at random.
    """

    method: str = "GET"
    own: str = ""
    size: int = 0
    cookies: tuple[str, ...] = ()
    habits: int = 1
    before: str = ""


ORDINARY = Shape()


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw; latencies in milliseconds.

    ``faults`` counts answers other than 200 (202), and what failed to connect, be read, be written, or come in two
    seconds.
    """

    requests: int
    seconds: float
    p50: float
    p99: float
    faults: tuple[int, int, int, int, int]

    @property
    def bad(self) -> str:
        """What went wrong in words, "" when nothing did."""
        kinds = ("not 200", "connect", "read", "write", "later than 2 s")
        return ", ".join(f"{count} {kind}" for kind, count in zip(kinds, self.faults, strict=True) if count)

    @property
    def rate(self) -> float:
        """Answers in a second."""
        return self.requests / self.seconds if self.seconds else 0.0


def wrk(
    url: str,
    cookie: str,
    seconds: float,
    connections: int,
    *,
    pause: int = 0,
    shape: Shape = ORDINARY,
    headers: Mapping[str, str] = HEADERS,
) -> Load:
    """Ask for *url* as fast as it answers, or with *pause* milliseconds on average between requests."""
    folder = new_directory("bench-wrk")
    script = folder / "load.lua"
    names = {**headers, **({"Cookie": cookie} if cookie else {})}
    if shape.cookies:
        names = {name: value for name, value in names.items() if name not in {"Cookie", "User-Agent"}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in names.items())
    cookies = ", ".join(map(json.dumps, shape.cookies))
    script.write_text(_SCRIPT % (json.dumps(lines), cookies, _PACED if pause else ""))
    words = [find_program("wrk"), "-t1", f"-c{connections}", f"-d{round(seconds)}s", "-s", str(script)]
    words += [url, "--", str(pause), shape.method, shape.own, str(shape.size), str(shape.habits), shape.before]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    script.unlink()
    folder.rmdir()
    found: dict[str, Any] = json.loads(done.stdout.rpartition("RESULT ")[2])
    return Load(**found)


def _head(method: str, path: str, authority: str, cookie: str, *lines: str) -> bytes:
    start = [
        f"{method} {path} HTTP/1.1",
        f"Host: {authority}",
        *(f"{name}: {value}" for name, value in HEADERS.items()),
    ]
    return "\r\n".join([*start, *([f"Cookie: {cookie}"] if cookie else []), *lines, "", ""]).encode()


def download(port: int, path: str, cookie: str) -> tuple[int, float]:
    """Fetch *path* once: (bytes of body, seconds). Raises ValueError for an answer other than 200."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
        link.sendall(_head("GET", path, f"127.0.0.1:{port}", cookie, "Connection: close"))
        room = bytearray(_PIECE)
        size = link.recv_into(room)
        while b"\r\n\r\n" not in room[:size]:
            size += link.recv_into(memoryview(room)[size:])
        if not room.startswith(b"HTTP/1.1 200"):
            raise ValueError(bytes(room[:200]))
        total = size - room.index(b"\r\n\r\n") - 4
        while size := link.recv_into(room):
            total += size
    return total, time.perf_counter() - began


def upload(port: int, path: str, cookie: str, size: int) -> tuple[int, float]:
    """Send *size* bytes once: (bytes of body, seconds). Raises ValueError for an answer other than 200."""
    began = time.perf_counter()
    piece = bytes(_PIECE)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
        link.sendall(_head("POST", path, f"127.0.0.1:{port}", cookie, f"Content-Length: {size}", "Connection: close"))
        for _ in range(size // _PIECE):
            link.sendall(piece)
        answer = link.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ValueError(answer[:200])
    return size, time.perf_counter() - began


def program(name: str) -> Path | None:
    """Where an installed program is, None when it is not."""
    try:
        return Path(find_program(name))
    except AssertionError:
        return None
