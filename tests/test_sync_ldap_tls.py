"""Nothing is said to an LDAP server, and no password above all, whose certificate is not accepted."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.secret import Secret
from sidecar.config.sync_source import LdapSource
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.sync.sources.ldap_server import LdapServer
from tests.services.certificates import Certificates, make_certificates
from tests.services.process import HOST, free_port
from tests.services.slapd import PASSWORD, READER, SUFFIX, SlapdServer


def made(place: Path, **changes: Any) -> Certificates:
    place.mkdir()
    return make_certificates(place, **changes)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Certificates]:
    folder = tmp_path_factory.mktemp("certificates")
    return {
        "good": made(folder / "good"),
        "expired": made(folder / "expired", days=-1),
        "foreign": made(folder / "foreign"),
    }


@pytest.fixture(scope="module")
def slapd(certificates: dict[str, Certificates]) -> Iterator[SlapdServer]:
    server = SlapdServer(free_port(), certificates=certificates["good"])
    server.load("")
    yield server.start()
    server.discard()


def server_at(url: str, *, start_tls: bool, ca: Path) -> LdapServer:
    section = LdapSource.model_validate(
        {"url": url, "start_tls": start_tls, "bind": READER, "base": SUFFIX, "timeout": "5s"}
    )
    return LdapServer("ad", section.model_copy(update={"password": Secret(PASSWORD), "ca": ca}))


async def fault_of(server: LdapServer) -> str:
    with pytest.raises(Unavailable) as caught:
        await asyncio.to_thread(server.probe)
    assert caught.value.reason is Reason.SOURCE_DOWN
    return caught.value.detail


@pytest.mark.parametrize("start_tls", [False, True])
async def test_a_server_with_the_right_certificate_is_asked(
    slapd: SlapdServer, certificates: dict[str, Certificates], *, start_tls: bool
) -> None:
    slapd.certify(certificates["good"])
    url = slapd.url if start_tls else slapd.tls_url
    server = server_at(url, start_tls=start_tls, ca=certificates["good"].authority)
    assert await asyncio.to_thread(server.probe) == f"answers at {SUFFIX}"


@pytest.mark.parametrize("start_tls", [False, True])
@pytest.mark.parametrize(
    ("shown", "believed", "why"),
    [("expired", "expired", "has expired"), ("foreign", "good", "unable to get local issuer certificate")],
)
async def test_it_is_said_why_a_certificate_is_not_accepted(
    slapd: SlapdServer, certificates: dict[str, Certificates], shown: str, believed: str, why: str, *, start_tls: bool
) -> None:
    slapd.certify(certificates[shown])
    url = slapd.url if start_tls else slapd.tls_url
    told = await fault_of(server_at(url, start_tls=start_tls, ca=certificates[believed].authority))
    assert told.startswith("ad: its certificate is not accepted: ")
    assert why in told


class Listener:
    """Somebody in the place of the server, who notes what is said; *with_tls* by a certificate for another name."""

    def __init__(self, certificates: Certificates) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates.certificate, certificates.key)
        self._socket = socket.create_server((HOST, 0))
        self.port = self._socket.getsockname()[1]
        self.heard = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            with plain:
                plain.settimeout(5)
                try:
                    with self._context.wrap_socket(plain, server_side=True) as encrypted:
                        self.heard += encrypted.recv(4096)
                except OSError:
                    continue

    def close(self) -> None:
        self._socket.close()


async def test_whoever_stands_in_the_servers_place_hears_no_password(certificates: dict[str, Certificates]) -> None:
    listener = Listener(certificates["foreign"])
    try:
        server = server_at(f"ldaps://{HOST}:{listener.port}", start_tls=False, ca=certificates["good"].authority)
        assert "its certificate is not accepted" in await fault_of(server)
        assert not listener.heard
        # And who is believed hears it: else this could not fail.
        server = server_at(f"ldaps://{HOST}:{listener.port}", start_tls=False, ca=certificates["foreign"].authority)
        await fault_of(server)
        assert PASSWORD.encode() in listener.heard
    finally:
        listener.close()


async def test_a_server_that_is_away_is_not_called_unaccepted(certificates: dict[str, Certificates]) -> None:
    server = server_at(f"ldaps://{HOST}:{free_port()}", start_tls=False, ca=certificates["good"].authority)
    assert "SERVER_DOWN" in await fault_of(server)
