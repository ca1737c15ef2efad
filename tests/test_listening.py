"""Listeners bind what they were told and no more, and leave nothing bound that failed."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sidecar import listening
from sidecar.config.service import Server
from sidecar.doorway import Doorway
from sidecar.listening import Listener, bound, turn_newcomers_away
from tests.services.certificates import make_certificates
from tests.services.process import free_port


class Nobody:
    """A door that is never reached."""

    async def handle(self, request: Any) -> Any:
        raise AssertionError(request)

    def depart(self, *_: Any) -> None:
        raise AssertionError

    def again(self, *_: Any) -> None:
        raise AssertionError


def server(listen: str, **settings: Any) -> Server:
    return Server.model_validate({"listen": listen, "public_url": "https://wiki.example", **settings})


async def no_metrics(request: Any) -> Any:
    raise AssertionError(request)


async def test_an_address_of_ipv6_is_of_ipv6_alone() -> None:
    try:
        (one,) = await bound("server.listen", "[::]:0")
    except OSError:
        pytest.skip("there is no IPv6 here")
    with one:
        assert one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


async def test_nothing_stays_bound_when_one_address_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    class Noted(socket.socket):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        monkeypatch.setattr(listening.socket, "socket", Noted)
        with pytest.raises(OSError, match=r"^server\.listen: cannot listen on "):
            await bound("server.listen", f"127.0.0.1:{other.getsockname()[1]}")
    assert made
    assert [one.fileno() for one in made] == [-1] * len(made)


async def test_other_proxies_are_trusted_from_one_configuration_to_the_next() -> None:
    section = server(f"127.0.0.1:{free_port()}", proxy_protocol="true", trusted_proxies=["10.0.0.0/8"])
    listener = Listener(section, Nobody(), no_metrics)
    await listener.start()
    listener.serve(
        section.model_copy(update={"trusted_proxies": (ip_network("192.0.2.0/24"),)}), Nobody(), no_metrics, None
    )
    doors = [door for door in listener._doors if isinstance(door, Doorway)]
    assert [list(door.trusted) for door in doors] == [[ip_network("192.0.2.0/24")]]
    await listener.drain(1, _nothing)


async def _nothing() -> None:
    return


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_handshake_takes_no_longer_than_a_head(tmp_path: Path, kind: str) -> None:
    made = make_certificates(tmp_path)
    where = f"unix:{tmp_path}/socket" if kind == "unix" else f"127.0.0.1:{free_port()}"
    tls = {"certificate": str(made.certificate), "key": str(made.key)}
    listener = Listener(server(where, tls=tls, head_timeout="1s"), Nobody(), no_metrics)
    await listener.start()
    if kind == "unix":
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/socket")
    else:
        reader, writer = await asyncio.open_connection(*where.split(":"))
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await listener.drain(1, _nothing)


def test_those_who_come_together_are_let_in_together() -> None:
    many = 128

    async def turns_until_all_are_in() -> int:
        port, turns = free_port(), 0
        listener = Listener(server(f"127.0.0.1:{port}"), Nobody(), no_metrics)
        await listener.start()
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(many)]
        while len(listener._servers[0].connections) < many:
            turns += 1
            await asyncio.sleep(0)
        for client in clients:
            client.close()
        await listener.drain(1, _nothing)
        return turns

    # A turn of a busy loop takes milliseconds.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(turns_until_all_are_in()) <= many / 8


def test_newcomers_are_turned_away_and_whoever_has_come_is_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as leaving:
        address = leaving.getsockname()
        with socket.create_connection(address, timeout=10) as early:
            turn_newcomers_away(leaving)
            # Neither taken nor refused: whoever tries again a second later finds our successor.
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            there, _ = leaving.accept()
            with there:
                early.sendall(b"here")
                assert there.recv(4) == b"here"
