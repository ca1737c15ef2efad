"""``sidecar doctor`` looks at clocks, names, certificates, the way in by public_url, and ways around the sidecar."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.doctor import certificates, names
from sidecar.doctor.looking import skew_of
from sidecar.doctor.machine import reachable_addresses
from tests.doctor_world import FAILURE, OK, SKIPPED, WARNING, bad, examined, impostor, one
from tests.services.certificates import Certificates, make_certificates, make_self_signed
from tests.services.nginx import Nginxes
from tests.services.process import free_port
from tests.world import World

NEEDS_ADDRESS = pytest.mark.skipif(not reachable_addresses(), reason="this machine has no address of a network")


def serving(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_clocks_that_differ_beyond_the_leeway(tmp_path: Path) -> None:
    async with impostor() as provider, impostor() as application:
        provider.describes()
        changes: Mapping[str, Any] = {"app": {"upstream": application.url}}
        provider.ahead, application.ahead = 120, -600
        found = await examined(tmp_path, changes, "clock", ISSUER=provider.url)
        theirs = one(found, "clock", "logins.corp")
        assert (theirs.severity, "ahead" in theirs.seen, theirs.path) == (FAILURE, True, "logins.corp.leeway")
        ours = one(found, "clock", "app")
        assert (ours.severity, "behind" in ours.seen) == (FAILURE, True)
        provider.ahead, application.ahead = 20, 0
        found = await examined(tmp_path, changes, "clock", ISSUER=provider.url)
        assert one(found, "clock", "logins.corp").severity is WARNING
        assert one(found, "clock", "app").severity is OK


def test_a_date_is_as_exact_as_its_second_and_the_answer_are() -> None:
    date = "Thu, 26 Nov 2026 00:00:00 GMT"
    moment = 1795651200.0
    assert skew_of(date, moment, moment + 0.1) == 0
    assert skew_of(date, moment + 0.9, moment + 1.0) == 0
    # A slow answer may have been made at any moment between.
    assert skew_of(date, moment - 30, moment + 30) == 0
    assert skew_of(date, moment - 10, moment - 9) == 9
    assert skew_of(date, moment + 11, moment + 12) == -10
    assert skew_of("nonsense", 0, 0) is None


async def test_names_that_do_not_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "server": {"public_url": "https://nowhere.invalid"},
        "app": {"upstream": "http://elsewhere.invalid:80"},
    }
    found = await examined(tmp_path, changes, "dns", ISSUER="https://id.invalid")
    assert one(found, "dns-public-url").severity is FAILURE
    assert one(found, "dns-public-url").path == "server.public_url"
    assert one(found, "dns", "logins.corp").path == "logins.corp.issuer"
    assert one(found, "dns", "app.upstream[0]").severity is FAILURE
    monkeypatch.setattr(names, "_SLOW", -1.0)
    slow = await examined(tmp_path, {}, "dns", ISSUER="http://localhost:1/id")
    assert one(slow, "dns", "logins.corp").severity is WARNING


@pytest.mark.parametrize(
    ("days", "host", "word", "severity"),
    [(-1, "localhost", "expired", FAILURE), (5, "localhost", "ends in", WARNING), (90, "localhost", "", OK)],
)
async def test_certificates_of_provider_and_application(
    days: int, host: str, word: str, severity: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_certificates(tmp_path, host=host, days=days)
    context = serving(made.certificate, made.key)
    async with impostor(tls=context) as provider, impostor(tls=context) as application:
        provider.describes()
        changes = {
            "logins": {"corp": {"ca": str(made.authority)}},
            "app": {"upstream": application.url, "tls": {"ca": str(made.authority)}},
        }
        found = await examined(tmp_path, changes, "tls", ISSUER=provider.url)
        for name in ("tls-provider", "tls-upstream"):
            finding = one(found, name)
            assert (finding.severity, word in finding.seen) == (severity, True), finding
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        found = await examined(tmp_path, {"server": {"public_url": application.url}}, "tls-public-url")
        assert one(found, "tls-public-url").severity is severity


async def test_certificates_of_our_own_listeners_are_read_from_their_files(tmp_path: Path) -> None:
    # Whoever asks the public address sees that of the proxy in front.
    made = make_certificates(tmp_path, days=3)
    tls = {"certificate": str(made.certificate), "key": str(made.key)}
    server = {"tls": tls, "public_url": "https://localhost"}
    found = await examined(tmp_path, {"server": server}, "configuration")
    (finding,) = [each for each in found if each.path == "server.tls.certificate"]
    assert (finding.severity, f"{made.certificate}` ends on" in finding.seen) == (WARNING, True)


async def test_certificates_for_another_name_and_self_signed_ones(tmp_path: Path) -> None:
    made: Certificates = make_certificates(tmp_path, days=90)
    async with impostor(tls=serving(made.certificate, made.key)) as application:
        tls = {"ca": str(made.authority), "server_name": "wiki.internal"}
        found = await examined(tmp_path, {"app": {"upstream": application.url, "tls": tls}}, "tls-upstream")
        finding = one(found, "tls-upstream")
        assert (finding.severity, "another name" in finding.seen, "localhost" in finding.seen) == (FAILURE, True, True)
        assert finding.path == "app.upstream"
    own = make_self_signed(tmp_path, "localhost")
    async with impostor(tls=serving(own.certificate, own.key)) as server:
        found = await examined(tmp_path, {"server": {"public_url": server.url}}, "tls-public-url")
        assert (one(found, "tls-public-url").severity, "self-signed" in one(found, "tls-public-url").seen) == (
            FAILURE,
            True,
        )
    async with impostor() as plain:
        changes = {"server": {"public_url": plain.url.replace("http:", "https:")}}
        assert one(await examined(tmp_path, changes, "tls-public-url"), "tls-public-url").severity is FAILURE
    assert certificates.SOON > 1


@NEEDS_ADDRESS
async def test_an_application_that_listens_for_everybody_is_reached_around_the_sidecar(tmp_path: Path) -> None:
    async with impostor("0.0.0.0") as application:
        finding = one(await examined(tmp_path, {"app": {"upstream": application.url}}, "bypass"), "bypass")
        assert finding.severity is FAILURE
        assert f"{reachable_addresses()[0]}:{application.port}" in finding.seen
        assert finding.path == "app.upstream"
        application.answers["/"] = lambda _: web.Response(status=403)
        finding = one(await examined(tmp_path, {"app": {"upstream": application.url}}, "bypass"), "bypass")
        assert finding.severity is WARNING
        # Another sidecar of ours on the same port is no way around.
        application.answers["/"] = lambda _: web.Response(status=302, headers={"Server": "sidecar"})
        finding = one(await examined(tmp_path, {"app": {"upstream": application.url}}, "bypass"), "bypass")
        assert finding.severity is OK
    async with impostor() as application:
        finding = one(await examined(tmp_path, {"app": {"upstream": application.url}}, "bypass"), "bypass")
        assert finding.severity is OK
    nobody = {"app": {"upstream": f"http://127.0.0.1:{free_port()}"}}
    assert one(await examined(tmp_path, nobody, "bypass"), "bypass").severity is SKIPPED


async def test_a_socket_that_everybody_may_use_and_trust_that_cannot_be_seen(tmp_path: Path) -> None:
    socket = tmp_path / "app.sock"
    socket.touch()
    socket.chmod(0o666)
    changes = {"app": {"upstream": f"unix:{socket}"}}
    found = await examined(tmp_path, changes, "application")
    assert one(found, "bypass").severity is WARNING
    assert one(found, "upstream-trust").severity is SKIPPED
    socket.chmod(0o660)
    secret = {"X-Secret": {"secret": {"env": "SESSION_SECRET"}}}
    found = await examined(tmp_path, {**changes, "headers": secret}, "application")
    assert [finding.severity for finding in found] == [OK, OK]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"sessions": {"cookie": {"domain": "example.com"}}}, "example.com"),
        ({"sessions": {"cookie": {"same_site": "none"}}}, "None"),
        ({"sessions": {"cookie": {"same_site": "strict"}}}, "Strict"),
        ({"server": {"public_url": "https://192.0.2.1"}}, "address"),
        ({"server": {"public_url": "https://wiki"}}, "bare name"),
    ],
)
async def test_cookies_that_more_get_than_should(changes: Mapping[str, Any], word: str, tmp_path: Path) -> None:
    changes = {"server": {"public_url": "https://wiki.example.com"}, **changes}
    finding = one(await examined(tmp_path, changes, "cookie"), "cookie")
    assert (finding.severity, word in finding.seen, bool(finding.path)) == (WARNING, True, True)


@pytest.mark.parametrize(
    ("trusted", "listen", "severity"),
    [
        ([], "0.0.0.0:8080", WARNING),
        (["10.0.0.0/8"], "10.0.0.5:8080", WARNING),
        (["10.0.0.7/32"], "127.0.0.1:8080", FAILURE),
        (["127.0.0.1/32"], "127.0.0.1:8080", OK),
    ],
)
async def test_lists_of_trusted_proxies_that_are_too_wide_or_miss_the_proxy_in_front(
    trusted: list[str], listen: str, severity: object, tmp_path: Path
) -> None:
    server = {"public_url": "https://wiki.example.com", "listen": listen, "trusted_proxies": trusted}
    finding = one(await examined(tmp_path, {"server": server}, "proxies"), "trusted-proxies")
    assert finding.severity is severity, finding
    assert severity is OK or finding.path.startswith("server.trusted_proxies")


async def test_a_proxy_in_front_of_a_private_network_that_is_not_listed(tmp_path: Path) -> None:
    server = {"public_url": "https://10.1.2.3", "listen": "0.0.0.0:8080", "trusted_proxies": ["10.9.9.9/32"]}
    finding = one(await examined(tmp_path, {"server": server}, "trusted-proxies"), "trusted-proxies")
    assert (finding.severity, "10.1.2.3" in finding.seen) == (WARNING, True)


async def in_front(world: World, nginxes: Nginxes, folder: Path, lines: str, *hosts: str) -> list[Any]:
    """Findings about a sidecar whose public_url is an nginx with *lines*."""
    port = free_port()
    nginx = nginxes(f"location / {{ proxy_pass http://127.0.0.1:{port}; {lines} }}")
    public = f"http://localhost:{nginx.port}"
    server = {"public_url": public, "trusted_proxies": ["127.0.0.1/32"], "hosts": list(hosts)}
    running = await world({"server": server}, port=port)
    assert running.port == port
    changes = {"server": {"public_url": public, "listen": f"127.0.0.1:{port}", "trusted_proxies": ["127.0.0.1/32"]}}
    return await examined(folder, changes, "public-url", ISSUER=running.provider.issuer)


HOST = "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;"


@pytest.mark.parametrize(
    ("lines", "failing"),
    [
        (HOST, set()),
        ("", {"public-url"}),
        (f"{HOST} proxy_hide_header Set-Cookie;", {"public-url-cookies"}),
        (f"{HOST} proxy_cookie_flags ~ nohttponly;", {"public-url-cookies"}),
        (f"{HOST} proxy_hide_header Cache-Control; add_header Cache-Control max-age=60;", {"public-url-cache"}),
        (f"{HOST} add_header Age 30;", {"public-url-cache"}),
    ],
)
async def test_what_a_proxy_in_front_does_to_us(
    lines: str, failing: set[str], world: World, nginxes: Nginxes, tmp_path: Path
) -> None:
    found = await in_front(world, nginxes, tmp_path, lines)
    assert {finding.name for finding in found if finding.severity is FAILURE} == failing, found


async def test_a_proxy_that_asks_by_another_name_of_ours(world: World, nginxes: Nginxes, tmp_path: Path) -> None:
    found = await in_front(world, nginxes, tmp_path, "", "127.0.0.1")
    assert (one(found, "public-url").severity, "another host" in one(found, "public-url").seen) == (FAILURE, True)


async def test_public_url_leads_to_somebody_else_or_the_sidecar_does_not_run(world: World, tmp_path: Path) -> None:
    running = await world()
    async with impostor() as other:
        changes = {"server": {"public_url": other.url, "listen": f"127.0.0.1:{running.port}"}}
        finding = one(await examined(tmp_path, changes, "public-url"), "public-url")
        assert (finding.severity, finding.path) == (FAILURE, "server.public_url")
    assert one(await examined(tmp_path, {}, "public-url"), "public-url").severity is SKIPPED
    good = {"server": {"public_url": running.url, "listen": f"127.0.0.1:{running.port}"}}
    assert not bad(await examined(tmp_path, good, "public-url"))
