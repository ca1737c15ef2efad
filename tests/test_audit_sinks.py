"""Audit lines reach syslog servers as RFC 5424 has it, say of people what they may, and close the door when told to."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.audit import Audit, PersonalData, Syslog
from sidecar.core.audit import Event
from sidecar.telemetry.audit import AuditLog
from sidecar.telemetry.opening import open_audit
from sidecar.telemetry.sinks import FileSink
from tests.services.certificates import make_certificates
from tests.world import World, until

# RFC 5424, section 6: <PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID SD MSG.
MESSAGE = re.compile(rb"<(\d+)>1 (\S+) (\S+) (\S+) (\d+) (\S+) - (.*)", re.DOTALL)

# As syslog(3) writes to /dev/log, which is what journald and rsyslog read there: <PRI>Mmm dd hh:mm:ss TAG[PID]: MSG.
LOCAL = re.compile(rb"<(\d+)>([A-Z][a-z]{2}) ([ \d]\d) (\d\d:\d\d:\d\d) (sidecar)\[(\d+)\]: (.*)", re.DOTALL)


def clock() -> float:
    return 1_800_000_000.25


class Collector:
    """A syslog server that keeps what reaches it; one that *hangs_up* ends each connection after one message."""

    def __init__(self, door: socket.socket, *, hangs_up: bool = False) -> None:
        self.door = door
        self.hangs_up = hangs_up
        self.gone = threading.Semaphore(0)
        self.messages: list[bytes] = []
        self.came = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            while self.door.type is socket.SOCK_DGRAM:
                self._take(self.door.recv(70_000))
            while True:
                self._read(self.door.accept()[0])
        except OSError:
            return

    def _read(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while size := b"".join(iter(lambda: stream.read(1), b" ")) if stream.peek(1) else b"":
                self._take(stream.read(int(size)))
                if self.hangs_up:
                    break
        connection.close()
        self.gone.release()

    def _take(self, message: bytes) -> None:
        self.messages.append(message)
        self.came.release()

    def wait(self, number: int) -> None:
        for _ in range(number):
            assert self.came.acquire(timeout=10)


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield door


def told(collector: Collector) -> list[dict[str, Any]]:
    """What the messages say, once it is sure that they are messages."""
    found = [MESSAGE.fullmatch(message) for message in collector.messages]
    assert all(found)
    return [json.loads(match[7]) for match in found if match]


def log_to(url: str, **settings: Any) -> AuditLog:
    return open_audit(Audit(syslog=Syslog(url=url, **settings), chain=None), clock)


def test_syslog_over_tcp_counts_and_goes_on_after_a_break(tcp: socket.socket) -> None:
    collector = Collector(tcp)
    log = log_to(f"tcp://127.0.0.1:{tcp.getsockname()[1]}", facility="local3")
    log.record(Event.DECISION, {"effect": "deny", "path": "/a"})
    log.record(Event.LOGIN_SUCCEEDED, {"person": "ada\nlovelace"})
    log.close()
    collector.wait(2)
    first = MESSAGE.fullmatch(collector.messages[0])
    assert first is not None
    # local3 is 19; refusals are warnings (4), all else notices (5).
    assert (first[1], first[4], first[6]) == (b"156", b"sidecar", b"decision")
    assert first[2] == b"2027-01-15T08:00:00.250+00:00"
    assert collector.messages[1].startswith(b"<157>1 ")
    assert [line["event"] for line in told(collector)] == ["decision", "login-succeeded"]
    again = log_to(f"tcp://127.0.0.1:{tcp.getsockname()[1]}")
    again.record(Event.DECISION, {"path": "/b"})
    again.close()
    collector.wait(1)


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_what_a_syslog_server_would_not_read_any_more_goes_to_the_next_connection(
    kind: str, tcp: socket.socket, tmp_path: Path
) -> None:
    port, made = tcp.getsockname()[1], make_certificates(tmp_path)
    door = tcp
    if kind == "tls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(made.certificate, made.key)
        door = context.wrap_socket(tcp, server_side=True)
    collector = Collector(door, hangs_up=True)
    log = log_to(f"{kind}://localhost:{port}", **({"ca": made.authority} if kind == "tls" else {}))
    for number in range(5):
        log.record(Event.DECISION, {"path": f"/{number}"})
        log.flush()
        assert collector.gone.acquire(timeout=10)
    log.close()
    assert [line["path"] for line in told(collector)] == ["/0", "/1", "/2", "/3", "/4"]
    door.close()


def test_what_somebody_should_look_at_is_a_warning_in_syslog(tcp: socket.socket) -> None:
    collector = Collector(tcp)
    log = log_to(f"tcp://127.0.0.1:{tcp.getsockname()[1]}")
    lines: list[tuple[Event, dict[str, object]]] = [
        (Event.DECISION, {"effect": "unavailable"}),
        (Event.LOGIN_FAILED, {"reason": "state-unknown"}),
        (Event.TOKEN_REFUSED, {}),
        (Event.BREAK_GLASS_USED, {"person": "ops"}),
        (Event.DECISION, {"effect": "allow", "path": '/"effect":"deny"'}),
        (Event.SIGNED_OUT, {}),
    ]
    for event, fields in lines:
        log.record(event, fields)
    log.close()
    collector.wait(len(lines))
    severities = [int(match[1]) % 8 for one in collector.messages if (match := MESSAGE.fullmatch(one))]
    assert severities == [4, 4, 4, 4, 5, 5]


def test_syslog_over_udp_and_a_socket(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(tmp_path / "log"))
        for door, url in ((udp, f"udp://127.0.0.1:{udp.getsockname()[1]}"), (unix, f"unix://{tmp_path}/log")):
            collector = Collector(door)
            log = log_to(url)
            log.record(Event.DECISION, {"path": "/" + "x" * 100_000 if door is udp else "/"})
            log.record(Event.SIGNED_OUT, {"session": "s"})
            log.close()
            collector.wait(2)
            kind = MESSAGE if door is udp else LOCAL
            assert kind.fullmatch(collector.messages[0])
            assert json.loads(kind.fullmatch(collector.messages[1])[7])["event"] == "signed-out"  # type: ignore[index]
            door.shutdown(socket.SHUT_RDWR) if door is unix else None


def test_syslog_over_tls_believes_only_its_authority(tcp: socket.socket, tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    collector = Collector(context.wrap_socket(tcp, server_side=True))
    url = f"tls://localhost:{tcp.getsockname()[1] if tcp.fileno() >= 0 else collector.door.getsockname()[1]}"
    log = log_to(url, ca=made.authority)
    log.record(Event.DECISION, {"path": "/"})
    log.close()
    collector.wait(1)
    assert told(collector)[0]["path"] == "/"
    collector.door.close()


async def test_while_the_audit_cannot_be_written_nobody_gets_in_where_told_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await world({"audit": {"on_failure": "refuse"}})
    async with running.browser() as ada:
        await ada.sign_in("ada")
        assert (await ada.page("/page")).status == 200
        full = {"is": True}
        whole = FileSink.write

        def write(sink: FileSink, lines: bytes) -> int:
            if full["is"]:
                raise OSError(28, "No space left on device")
            return whole(sink, lines)

        monkeypatch.setattr(FileSink, "write", write)

        async def status_is(status: int) -> bool:
            return bool((await ada.page("/page")).status == status)

        await until(lambda: status_is(503))
        page = await ada.page("/page")
        assert page.status == 503
        seen = len(running.application.seen)
        assert (await ada.page("/page")).status == 503
        assert len(running.application.seen) == seen
        assert (await ada.fetch("/-/live")).status == 200
        full["is"] = False
        await until(lambda: status_is(200))
    reasons = [line.get("reason") for line in running.audit()]
    assert "audit-unavailable" in reasons


async def test_by_default_lines_wait_and_people_do_not(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await world()
    async with running.browser() as ada:
        await ada.sign_in("ada")
        with monkeypatch.context() as patch:
            patch.setattr(FileSink, "write", lambda _sink, _lines: (_ for _ in ()).throw(OSError(28, "full")))
            assert [(await ada.page(f"/page/{number}")).status for number in range(20)] == [200] * 20
            await asyncio.sleep(0.2)
    paths = [line["path"] for line in running.audit() if line.get("path", "").startswith("/page/")]
    assert paths == [f"/page/{number}" for number in range(20)]


async def test_audit_lines_say_of_people_what_they_may(world: World) -> None:
    fields = {
        "person": "pseudonym",
        "subject": "pseudonym",
        "username": "drop",
        "client": "network",
        "path": "pseudonym",
    }
    running = await world(
        {"audit": {"personal": {"fields": fields, "key": {"env": "PSEUDONYMS"}}}}, environment={"PSEUDONYMS": "k" * 32}
    )
    async with running.browser() as ada:
        await ada.sign_in("ada")
        for _ in range(3):
            assert (await ada.page("/secret-page")).status == 200
    lines = [line for line in running.audit() if line.get("effect") == "allow" and line.get("person")]
    assert len(lines) >= 3
    # The same person is the same pseudonym, on the fast way as on the other.
    assert len({(line["person"], line["subject"]) for line in lines}) == 1
    assert len({line["path"] for line in lines[-3:]}) == 1
    assert all(line["person"].startswith("~") and line["client"] == "127.0.0.0/24" for line in lines)
    text = running.audit_file.read_text()
    # With its quotation mark: the letters of a short name are hexadecimal digits, too.
    assert not any(word in text for word in ('"ada', "secret-page", '127.0.0.1"'))


def test_a_treatment_of_nothing_is_nothing_and_pseudonyms_differ_by_key(tmp_path: Path) -> None:
    def line(**settings: Any) -> dict[str, Any]:
        path = tmp_path / "audit.jsonl"
        log = open_audit(Audit(file=path, chain=None, personal=PersonalData(**settings)), clock)
        log.record(Event.LOGIN_SUCCEEDED, {"person": "ada", "client": "2001:db8:1:2::3", "detail": "é"})
        log.close()
        return dict(json.loads(path.read_text().splitlines()[-1]))

    assert line(fields={"person": "keep"})["person"] == "ada"
    one, other = line(fields={"person": "pseudonym"}), line(fields={"person": "pseudonym", "detail": "drop"})
    assert one["person"] != other["person"]
    assert "detail" not in other
    assert line(fields={"client": "network"})["client"] == "2001:db8:1::/48"
