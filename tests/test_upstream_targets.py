"""Where the application may be: TCP, TLS with an authority of its own and a client certificate, Unix sockets."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from sidecar.config.service import App, UpstreamTls
from sidecar.model import Unavailable
from sidecar.reason import Reason
from sidecar.upstream import Upstream
from tests.services.certificates import Certificates, make_certificates
from tests.services.upstream import Caller, front, raw_application, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def polite(caller: Caller) -> None:
    while await caller.head():
        await caller.say(OK)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


def server_tls(certificates: Certificates, *, wants_client: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    if wants_client:
        context.load_verify_locations(certificates.authority)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


async def ask_over_tls(certificates: Certificates, tls: UpstreamTls, host: str = "127.0.0.1", **options: bool) -> bytes:
    async with (
        raw_application(polite, ssl=server_tls(certificates, **options)) as application,
        front(f"https://{host}:{application.port}", tls=tls) as place,
    ):
        return await place.get()


async def test_tls_with_an_authority_of_its_own(certificates: Certificates) -> None:
    got = await ask_over_tls(certificates, UpstreamTls(ca=certificates.authority))
    assert got.endswith(b"ok")


async def test_an_unknown_authority_is_refused(certificates: Certificates) -> None:
    assert (await ask_over_tls(certificates, UpstreamTls())).startswith(b"HTTP/1.1 502 ")


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, days=-1)
    got = await ask_over_tls(certificates, UpstreamTls(ca=certificates.authority))
    assert got.startswith(b"HTTP/1.1 502 ")


async def test_the_name_in_the_certificate_counts(certificates: Certificates) -> None:
    wrong = UpstreamTls(ca=certificates.authority, server_name="other.example")
    assert (await ask_over_tls(certificates, wrong)).startswith(b"HTTP/1.1 502 ")


async def test_verification_can_be_switched_off(certificates: Certificates) -> None:
    assert (await ask_over_tls(certificates, UpstreamTls(verify=False))).endswith(b"ok")


async def test_a_client_certificate_is_shown(certificates: Certificates) -> None:
    tls = UpstreamTls(ca=certificates.authority, certificate=certificates.certificate, key=certificates.key)
    assert (await ask_over_tls(certificates, tls, wants_client=True)).endswith(b"ok")


def test_files_that_cannot_be_used_are_named(tmp_path: Path, certificates: Certificates) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for tls, key in (
        (UpstreamTls(ca=nonsense), "app.tls.ca"),
        (UpstreamTls(ca=certificates.authority, certificate=nonsense, key=nonsense), "app.tls.certificate"),
    ):
        with pytest.raises(ValueError, match=key):
            Upstream(App(upstream="https://h", tls=tls))


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with raw_application(polite, path=path) as application, front(f"unix:{path}") as place:
        assert (await place.get()).endswith(b"ok")
        assert place.upstream.authority == "localhost"
        assert await place.upstream.probe() == f"unix:{path} accepts connections"
        await until(lambda: len(application.callers) == 2)


@pytest.mark.parametrize(
    "address", ["ftp://x", "http://", "http://h/path", "http://u@h", "http://h?q", "unix:relative", "h:80"]
)
def test_an_address_that_cannot_be_used_is_named(address: str) -> None:
    with pytest.raises(ValueError, match=r"app\.upstream"):
        Upstream(App(upstream=address))


async def test_the_probe_says_what_it_reached(certificates: Certificates) -> None:
    async with raw_application(polite, ssl=server_tls(certificates)) as application:
        upstream = Upstream(
            App(upstream=f"https://127.0.0.1:{application.port}", tls=UpstreamTls(ca=certificates.authority))
        )
        assert await upstream.probe() == f"https://127.0.0.1:{application.port} accepts connections (TLSv1.3)"
        await until(lambda: application.callers)
        await upstream.close()


async def test_the_probe_says_that_nobody_is_there() -> None:
    with pytest.raises(Unavailable) as caught:
        await Upstream(App(upstream="http://127.0.0.1:1")).probe()
    assert (caught.value.reason, caught.value.status) == (Reason.UPSTREAM_DOWN, 502)


async def test_a_handshake_that_takes_too_long_becomes_504(certificates: Certificates) -> None:
    async def mute(caller: Caller) -> None:
        await asyncio.Event().wait()

    async with (
        raw_application(mute) as application,
        front(f"https://127.0.0.1:{application.port}", connect_timeout=0.1) as place,
    ):
        assert (await place.get()).startswith(b"HTTP/1.1 504 ")
