"""Signed messages reach their receiver in order and at least once, whatever the receiver, or we, go through."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from sidecar.config.audit import Audit, Webhook
from sidecar.config.secret import Dsn, Secret
from sidecar.core.audit import Event
from sidecar.telemetry import webhook as webhooks
from sidecar.telemetry.audit_watch import AuditWatch
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.opening import open_audit
from sidecar.telemetry.spool import Spool
from sidecar.telemetry.webhook import Sender, WebhookSink, signature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SECRET = "leak-webhook-secret-that-is-long-enough"


class Receiver:
    """A real HTTP server that can fail, hang, redirect, and be away."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.status = 200
        self.hangs = False
        self.tries = 0
        self.guard = 0
        # What stands in the message with which it begins to let things pass, after some twenty tries.
        self.begins_with = b""
        self.asked: set[str] = set()
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.tries += 1
        self.asked.add(request.path)
        body = await request.read()
        stamp, _, proof = request.headers["Sidecar-Signature"].partition(",v1=")
        moment = stamp.removeprefix("t=")
        wanted = hmac.new(SECRET.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(proof, wanted)
        assert abs(int(moment) - time.time()) < 60
        if self.hangs:
            await asyncio.sleep(30)
        if self.status == 302:
            return web.Response(status=302, headers={"Location": "/elsewhere", "Set-Cookie": "a=b"})
        if self.status == 299:
            # Accepted, and an answer without end.
            answer = web.StreamResponse(status=200)
            await answer.prepare(request)
            self._note(request, body)
            while True:
                await answer.write(b"x" * 65536)
        if self.begins_with and self.begins_with in body and self.tries > 20:
            self.status = 200
        if b"<script" in body and self.guard:
            # A firewall in front of it that takes what a log tells of for an attack.
            return web.Response(status=self.guard)
        if self.status == 200:
            self._note(request, body)
        return web.Response(status=self.status)

    def _note(self, request: web.Request, body: bytes) -> None:
        self.messages.append(json.loads(body))
        self.heads.append(dict(request.headers))
        assert request.headers["Sidecar-Message"] == self.messages[-1]["id"]

    @property
    def paths(self) -> list[str]:
        return [line["path"] for message in self.messages for line in message["lines"] if "path" in line]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_LOOK", 0.01)
    monkeypatch.setattr(webhooks, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(webhooks, "_LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(webhooks, "_ADOPT_EVERY", 0.1)
    monkeypatch.setattr(webhooks, "_LEAVING", 0.5)


def section(receiver: Receiver, folder: Path, **settings: Any) -> Webhook:
    url = f"http://127.0.0.1:{receiver.port}/hook"
    kept = {"timeout": "1s", "spool_size": 1 << 20} | settings
    return Webhook(url=Dsn(url), secret=Secret(SECRET), spool=folder / "spool", insecure=True, **kept)


async def until(claim: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def lines(*names: str) -> bytes:
    return b"".join(b'{"path":"%s"}\n' % name.encode() for name in names)


async def test_a_receiver_that_refuses_is_told_of_though_all_is_kept(receiver: Receiver, tmp_path: Path) -> None:
    log = open_audit(Audit(webhook=section(receiver, tmp_path)), time.time)
    watch = AuditWatch(log, Metrics())
    receiver.status = 500
    log.record(Event.SIGNED_OUT, {"path": "/a"})
    await until(lambda: "status 500" in watch.complaints().get("audit.webhook", ""))
    assert not log.is_failing
    receiver.status = 200
    await until(lambda: watch.complaints() == {})
    log.close()


async def test_lines_arrive_signed_and_in_order(receiver: Receiver, tmp_path: Path) -> None:
    log = open_audit(Audit(webhook=section(receiver, tmp_path)), time.time)
    for number in range(1200):
        log.record(Event.DECISION, {"path": f"/{number}", "detail": 'ä"\n\u2028'})
    await until(lambda: len(receiver.paths) == 1200)
    assert receiver.paths == [f"/{number}" for number in range(1200)]
    assert {message["kind"] for message in receiver.messages} == {"audit"}
    assert all(len(message["lines"]) <= 501 for message in receiver.messages)
    await asyncio.to_thread(log.close)
    assert receiver.messages[-1]["lines"][-1]["kind"] == "last"
    assert not list((tmp_path / "spool").iterdir())


async def test_a_receiver_that_fails_hangs_and_is_away_gets_all_in_order(receiver: Receiver, tmp_path: Path) -> None:
    sender = Sender(section(receiver, tmp_path), "audit")
    sink = WebhookSink(sender)
    receiver.status = 500
    began = time.perf_counter()
    for number in range(5):
        sink.write(lines(f"/{number}"))
    assert time.perf_counter() - began < 1
    await until(lambda: receiver.tries >= 3)
    assert sender.complaint == "status 500"
    receiver.hangs = True
    await until(lambda: sender.complaint == "no answer in time")
    await receiver.stop()
    await until(lambda: "Connector" in sender.complaint or "Disconnected" in sender.complaint)
    receiver.hangs, receiver.status = False, 200
    await receiver.start()
    await until(lambda: len(receiver.paths) >= 5)
    assert receiver.paths == [f"/{number}" for number in range(5)]
    assert sender.complaint == ""
    await asyncio.to_thread(sink.close)


async def test_no_redirect_is_followed_and_no_cookie_kept(receiver: Receiver, tmp_path: Path) -> None:
    sink = WebhookSink(Sender(section(receiver, tmp_path), "audit"))
    receiver.status = 302
    sink.write(lines("/a"))
    await until(lambda: receiver.tries >= 2)
    assert receiver.messages == []
    assert receiver.asked == {"/hook"}
    receiver.status = 200
    await until(lambda: receiver.paths == ["/a"])
    assert "Cookie" not in receiver.heads[0]
    await asyncio.to_thread(sink.close)


async def test_surroundings_name_no_proxy(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    sink = WebhookSink(Sender(section(receiver, tmp_path), "audit"))
    sink.write(lines("/a"))
    await until(lambda: receiver.paths == ["/a"])
    await asyncio.to_thread(sink.close)


async def test_an_answer_without_end_holds_nobody(receiver: Receiver, tmp_path: Path) -> None:
    sink = WebhookSink(Sender(section(receiver, tmp_path, timeout="20s"), "audit"))
    receiver.status = 299
    sink.write(lines("/a"))
    sink.write(lines("/b"))
    await until(lambda: receiver.paths == ["/a", "/b"], 5)
    await asyncio.to_thread(sink.close)


async def test_what_is_refused_for_good_is_put_aside(receiver: Receiver, tmp_path: Path) -> None:
    sink = WebhookSink(Sender(section(receiver, tmp_path), "audit"))
    receiver.status = 422
    sink.write(lines("/poison"))
    await until(lambda: bool(list((tmp_path / "spool").glob("*/*.refused"))))
    receiver.status = 200
    sink.write(lines("/good"))
    await until(lambda: receiver.paths == ["/good"])
    await asyncio.to_thread(sink.close)


@pytest.mark.parametrize("guard", [403, 406])
async def test_t63_no_stranger_stops_the_messages_by_what_a_firewall_does_not_let_pass(
    receiver: Receiver, tmp_path: Path, guard: int
) -> None:
    receiver.guard = guard
    sink = WebhookSink(Sender(section(receiver, tmp_path), "audit"))
    sink.write(lines("/before"))
    await until(lambda: receiver.paths == ["/before"])
    sink.write(lines("/<script>"))
    await until(lambda: receiver.tries > 8)
    sink.write(lines("/after"))
    sink.write(lines("/later"))
    await until(lambda: receiver.paths == ["/before", "/after", "/later"])
    assert len(list((tmp_path / "spool").glob("*/*.refused"))) == 1
    await asyncio.to_thread(sink.close)


async def test_a_receiver_that_lets_nothing_pass_gets_everything_once_it_does(
    receiver: Receiver, tmp_path: Path
) -> None:
    # Not with the second one, by which it is tried whether the first one is what is wrong.
    receiver.status, receiver.begins_with = 403, b'"/one"'
    sink = WebhookSink(Sender(section(receiver, tmp_path), "audit"))
    for name in ("/one", "/two", "/three"):
        sink.write(lines(name))
    await until(lambda: receiver.tries > 20)
    await until(lambda: receiver.paths == ["/one", "/two", "/three"])
    assert not list((tmp_path / "spool").glob("*/*.refused"))
    await asyncio.to_thread(sink.close)


async def test_a_spool_that_is_full_takes_no_more(receiver: Receiver, tmp_path: Path) -> None:
    await receiver.stop()
    sink = WebhookSink(Sender(section(receiver, tmp_path), "audit"))
    line = b'{"path":"%s"}\n' % (b"x" * 100_000)
    assert sum(sink.write(line) for _ in range(10)) == 10 * len(line)
    with pytest.raises(OSError, match="is full"):
        sink.write(line)
    held = sum(path.stat().st_size for path in (tmp_path / "spool").rglob("*") if path.is_file())
    assert 900_000 < held <= 1 << 20
    await receiver.start()
    await until(lambda: len(receiver.messages) == 10)
    assert sink.write(line) == len(line)
    await asyncio.to_thread(sink.close)


async def test_what_a_killed_process_left_is_delivered_by_the_next_one(receiver: Receiver, tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from sidecar.config.audit import Webhook
from sidecar.config.secret import Dsn, Secret
from sidecar.telemetry.webhook import Sender, WebhookSink
section = Webhook(url=Dsn(sys.argv[1]), secret=Secret(sys.argv[2]), spool=Path(sys.argv[3]), insecure=True)
sink = WebhookSink(Sender(section, "audit"))
for number in range(30):
    sink.write(b'{"path":"/%d"}\\n' % number)
print("ready", flush=True)
time.sleep(60)
"""
    receiver.status = 503
    url = f"http://127.0.0.1:{receiver.port}/"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, url, SECRET, str(tmp_path / "spool"), stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    while await child.stdout.readline() != b"ready\n":
        assert child.returncode is None
    next_one = Sender(section(receiver, tmp_path), "audit")
    other = Sender(section(receiver, tmp_path), "insights")
    next_one.start()
    other.start()
    await asyncio.sleep(0.5)
    receiver.status = 200
    # As long as it lives, its spool is its own.
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    await until(lambda: len(set(receiver.paths)) == 30)
    first = list(dict.fromkeys(receiver.paths))
    assert first == [f"/{number}" for number in range(30)]
    assert len({message["id"] for message in receiver.messages}) == 30
    await until(lambda: not list((tmp_path / "spool").iterdir()))
    for one in (next_one, other):
        await asyncio.to_thread(one.close)


def test_a_spool_that_somebody_holds_is_not_taken(tmp_path: Path) -> None:
    one, two = Spool(tmp_path, "audit", 1000), Spool(tmp_path, "audit", 1000)
    one.put(b"{}")
    two.adopt()
    assert list(two.waiting()) == []
    one.close()
    two.adopt()
    assert len(list(two.waiting())) == 1
    assert (tmp_path.stat().st_mode & 0o777, next(tmp_path.iterdir()).stat().st_mode & 0o777)[1] == 0o700
    two.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of others")
def test_t59_what_others_put_into_the_spool_is_neither_signed_nor_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the sidecar")
    spool = tmp_path / "spool"
    theirs = spool / "audit-0000000000000000"
    theirs.mkdir(parents=True)
    (theirs / "000000000001").symlink_to(secret)
    (theirs / "000000000002").write_text('{"lines":["forged"]}')
    os.chown(theirs, 65534, 65534)
    (spool / "audit-1111111111111111").symlink_to(theirs)
    made = Spool(spool, "audit", 1 << 20)
    made.adopt()
    assert list(made.waiting()) == []
    os.chown(theirs, os.geteuid(), 0)
    made.adopt()
    assert len(list(made.waiting())) == 2
    made.close()


def test_the_signature_is_over_time_and_body() -> None:
    made = signature(b"key", 1700000000, b"{}")
    assert made == "t=1700000000,v1=" + hmac.new(b"key", b"1700000000.{}", hashlib.sha256).hexdigest()
    assert made != signature(b"key", 1700000001, b"{}") != signature(b"key", 1700000001, b"{ }")
