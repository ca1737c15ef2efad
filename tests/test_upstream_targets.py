"""Where the application may be: TCP, TLS with an authority of its own and a client certificate, Unix sockets."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path

import pytest
import structlog

from sidecar.config.service import App, UpstreamTls
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.upstream import Head, Upstream
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


@pytest.mark.parametrize(
    ("days", "name", "is_known", "said"),
    [
        (-1, None, True, "its certificate is not accepted: certificate has expired"),
        (30, "other.example", True, "its certificate is not accepted: Hostname mismatch"),
        (30, None, False, "its certificate is not accepted: unable to get local issuer certificate"),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_said(
    tmp_path: Path, days: int, name: str | None, is_known: bool, said: str
) -> None:
    certificates = make_certificates(tmp_path, days=days)
    tls = UpstreamTls(ca=certificates.authority if is_known else None, server_name=name)
    async with raw_application(polite, ssl=server_tls(certificates)) as application:
        upstream = Upstream(App(upstream=f"https://127.0.0.1:{application.port}", tls=tls))
        with pytest.raises(Unavailable) as caught:
            await upstream.probe()
        assert caught.value.detail.startswith(f"https://127.0.0.1:{application.port}: {said}")
        assert "_ssl.c" not in caught.value.detail


async def test_an_application_that_speaks_no_tls_is_told_of_in_few_words(certificates: Certificates) -> None:
    async def plain(caller: Caller) -> None:
        await caller.reader.read(5)
        await caller.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with raw_application(plain) as application:
        tls = UpstreamTls(ca=certificates.authority)
        upstream = Upstream(App(upstream=f"https://127.0.0.1:{application.port}", tls=tls))
        with pytest.raises(Unavailable) as caught:
            await upstream.probe()
        assert ": TLS failed: " in caught.value.detail
        assert "_ssl.c" not in caught.value.detail


async def test_files_that_were_renewed_serve_the_next_connection(tmp_path: Path) -> None:
    made = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        made.append(make_certificates(tmp_path / name))
    first, second = made
    ours = Certificates(*(tmp_path / name for name in ("ca.pem", "ours.pem", "ours.key")))
    in_force = server_tls(first, wants_client=True)
    async with raw_application(polite, ssl=in_force) as application:
        copied(first, ours)
        tls = UpstreamTls(ca=ours.authority, certificate=ours.certificate, key=ours.key)
        upstream = Upstream(App(upstream=f"https://127.0.0.1:{application.port}", tls=tls))

        async def asked() -> str:
            try:
                await upstream.ask(Head("GET", "/", (("Host", "h"),)))
            except Unavailable as fault:
                return fault.detail
            return "ok"

        assert await asked() == "ok"
        in_force.load_cert_chain(second.certificate, second.key)
        assert "not accepted" in await asked()
        # Half of a file is none: the former stays, and it is said.
        ours.authority.write_bytes(second.authority.read_bytes()[:300])
        with structlog.testing.capture_logs() as lines:
            assert "not accepted" in await asked()
        assert [(one["event"], one["setting"]) for one in lines] == [("cannot be used, the former stays", "app.tls")]
        copied(second, ours)
        in_force.load_verify_locations(second.authority)
        assert await asked() == "ok"
        # Ours is a new one, too.
        tls_object = application.callers[-1].writer.get_extra_info("ssl_object")
        assert ssl.DER_cert_to_PEM_cert(tls_object.getpeercert(True)) == second.certificate.read_text()
        await upstream.close()


def copied(source: Certificates, target: Certificates) -> None:
    for name in ("authority", "certificate", "key"):
        shutil.copy(getattr(source, name), getattr(target, name))


def test_files_that_cannot_be_used_are_named(tmp_path: Path, certificates: Certificates) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for tls in (
        UpstreamTls(ca=nonsense),
        UpstreamTls(ca=certificates.authority, certificate=nonsense, key=nonsense),
    ):
        with pytest.raises(ValueError, match=r"app\.tls: .*nonsense\.pem.* cannot be used: "):
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
