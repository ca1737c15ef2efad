"""Callers with a TLS client certificate: who may pass it on, which are believed, and who they are."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.config.callers import CERTIFICATE_ISSUER, CertificateCaller, Certificates
from sidecar.core.addresses import Network
from sidecar.core.binding import thumbprint
from sidecar.core.claims import IdentityPlan
from sidecar.core.client_certificates import UNREADABLE, certificate_in, is_named
from sidecar.core.template import Compiler
from sidecar.faults import Refused
from sidecar.logins.certificates import CertificateAuthenticator
from sidecar.model import Session, Visit, identity_key
from sidecar.reason import Reason
from tests.forger import running_forger, sign
from tests.services.certificates import make_certificates
from tests.services.nginx import Nginxes
from tests.test_journey import users_table
from tests.world import Running, World, free_port

DAY = timedelta(days=1)


@dataclass
class Authority:
    """Issues certificates."""

    name: str = "Callers"
    issuer: Authority | None = None
    is_authority: bool = True

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        above = self.issuer or self
        self.certificate = _issued(
            above,
            self.name,
            self.key,
            [(x509.BasicConstraints(ca=self.is_authority, path_length=None), True)],
        )

    def issue(
        self,
        cn: str = "build",
        *names: x509.GeneralName,
        days: tuple[int, int] = (-1, 1),
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> x509.Certificate:
        """Certificate of a caller."""
        extensions: list[tuple[x509.ExtensionType, bool]] = (
            [(x509.SubjectAlternativeName(names), False)] if names else []
        )
        extensions += [(x509.ExtendedKeyUsage([usage]), False)] if usage is not None else []
        return _issued(self, cn, key or ec.generate_private_key(ec.SECP256R1()), extensions, days)


def _issued(
    by: Authority,
    cn: str,
    key: ec.EllipticCurvePrivateKey,
    extensions: list[tuple[x509.ExtensionType, bool]],
    days: tuple[int, int] = (-2, 2),
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer_name=_name(by.name), subject_name=_name(cn), public_key=key.public_key(), serial_number=77
    )
    builder = builder.not_valid_before(now + days[0] * DAY).not_valid_after(now + days[1] * DAY)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(by.key, hashes.SHA256())


def _name(cn: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


WAYS: dict[str, Callable[[x509.Certificate], str]] = {
    "rfc9440": lambda one: f":{base64.b64encode(der(one)).decode()}:",
    "nginx": lambda one: quote(pem(one)),
    "traefik": lambda one: base64.b64encode(der(one)).decode(),
    "envoy": lambda one: f'By=spiffe://a;Hash=00;Cert="{quote(pem(one))}";Subject="CN=x,O=\\"y;z\\"";URI=spiffe://b',
}
AUTHORITY = Authority()
STRANGER = Authority()


@pytest.mark.parametrize("way", WAYS)
def test_each_proxys_way_of_writing_is_read(way: str) -> None:
    one = AUTHORITY.issue()
    assert certificate_in([WAYS[way](one)], way) == der(one)
    for absent in ([], [""], ["-"], ["(null)"], ["", " "]):
        assert certificate_in(absent, way) == b""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "change",
    [
        lambda text: [text, text],
        lambda text: [text, ""],
        lambda text: [f"{text},{text}"],
        lambda text: [text[:-9]],
        lambda text: ["x" + text],
        lambda text: [text + "\udcff"],
        lambda _: ["%ff"],
        lambda _: ["::"],
        lambda _: [":"],
        lambda _: ['Cert="'],
        lambda _: ["Hash=00"],
        lambda _: [";" * 10_000],
    ],
)
def test_what_cannot_be_read_for_sure_is_no_certificate(way: str, change: Callable[[str], list[str]]) -> None:
    text = WAYS[way](AUTHORITY.issue())
    read = certificate_in(change(text), way)
    whole = certificate_in([text], way)
    # Of Traefik's list the first is the caller's own; in Envoy's element there are other parts than the certificate.
    if (way == "traefik" and change(text) == [f"{text},{text}"]) or (way == "envoy" and read == whole):
        assert read == whole
    elif read != UNREADABLE:
        with pytest.raises(ValueError, match=r".*"):
            x509.load_der_x509_certificate(read)


def test_two_certificates_in_one_element_are_none() -> None:
    one, other = (f'Cert="{quote(pem(AUTHORITY.issue()))}"' for _ in range(2))
    assert certificate_in([f"{one};{other}"], "envoy") == UNREADABLE
    assert certificate_in([f"{one},{other}"], "envoy") == UNREADABLE


@pytest.mark.parametrize("name", ["URI=spiffe://b", "DNS=a.example", 'Subject="CN=x"'])
def test_a_certificate_behind_the_callers_own_names_is_none(name: str) -> None:
    one = f'Cert="{quote(pem(AUTHORITY.issue()))}"'
    assert certificate_in([f"By=spiffe://a;Hash=00;{one};{name}"], "envoy") not in (UNREADABLE, b"")
    assert certificate_in([f"By=spiffe://a;Hash=00;{name};{one}"], "envoy") == UNREADABLE


def test_only_named_peers_are_believed() -> None:
    networks: list[Network | str] = list(Certificates(proxies=("10.0.0.5/32",), ca=Path("x")).proxies)  # type: ignore[arg-type]
    assert [is_named(peer, networks) for peer in ("10.0.0.5", "10.0.0.6", "", "unix", "::ffff:10.0.0.5")] == [
        True, False, False, False, True,
    ]  # fmt: skip
    assert [is_named(peer, ["unix"]) for peer in ("", "10.0.0.5")] == [True, False]
    assert not is_named("", [])


# Which certificates are good


def authenticator(folder: Path, *authorities: Authority, **settings: Any) -> CertificateAuthenticator:
    file = folder / "ca.pem"
    file.write_text("".join(pem(one.certificate) for one in authorities or (AUTHORITY,)))
    compiled = Compiler().compile
    plan = IdentityPlan(
        compiled("{{ claims.sub }}"), compiled("{{ claims.email }}"), None, None, None, trust_email=True
    )
    return CertificateAuthenticator(Certificates(proxies=("unix",), ca=file, **settings), plan)


async def judged(by: CertificateAuthenticator, certificate: bytes, ahead: float = 0.0) -> Session | None:
    visit = Visit("GET", "/", "h", "192.0.2.1", certificate=certificate)
    return await by.identify(visit, datetime.now(UTC).timestamp() + ahead)


async def test_a_certificate_of_the_authority_is_its_owner(tmp_path: Path) -> None:
    names = (x509.UniformResourceIdentifier("spiffe://example.com/build"), x509.RFC822Name("build@example.com"))
    one = AUTHORITY.issue("build", *names, x509.DNSName("build.example.com"))
    by = authenticator(tmp_path)
    session = await judged(by, der(one))
    assert session is not None
    claims = session.identity.claims
    assert session.identity.subject == hashlib.sha256(der(one)).hexdigest() == claims["fingerprint"]
    assert (claims["cn"], claims["uri"], claims["dns"]) == (
        "build",
        "spiffe://example.com/build",
        ["build.example.com"],
    )
    assert session.identity.email == "build@example.com"
    assert (session.provider, session.auth_time) == ("certificates", 0.0)
    assert session.expires == one.not_valid_after_utc.timestamp()
    assert await judged(by, der(one)) is session
    assert await judged(by, b"") is None
    # A usage that is not limited will do, and so will no alternative name.
    assert await judged(by, der(AUTHORITY.issue(usage=None))) is not None


def spoilt(certificate: bytes) -> bytes:
    """The certificate, the last bit of its signature turned over: whatever it was, it is another one now."""
    return certificate[:-1] + bytes([certificate[-1] ^ 1])


@pytest.mark.parametrize(
    "bad",
    [
        lambda: der(STRANGER.issue()),
        lambda: der(AUTHORITY.issue(days=(-3, -1))),
        lambda: der(AUTHORITY.issue(days=(1, 2))),
        lambda: der(AUTHORITY.issue(usage=ExtendedKeyUsageOID.SERVER_AUTH)),
        lambda: der(Authority("Leaf", AUTHORITY, is_authority=False).issue()),
        lambda: spoilt(der(AUTHORITY.issue())),
        lambda: der(AUTHORITY.issue()) + b"\0",
        lambda: UNREADABLE,
        lambda: b"\x30" * 5000,
    ],
)
async def test_a_certificate_that_is_not_valid_here_is_refused(tmp_path: Path, bad: Callable[[], bytes]) -> None:
    by = authenticator(tmp_path)
    with pytest.raises(Refused) as caught:
        await judged(by, bad())
    assert (caught.value.reason, caught.value.status) == (Reason.CERTIFICATE, 401)
    assert caught.value.is_bad_token
    assert not by._known


async def test_a_certificate_below_another_authority_of_the_file_is_good(tmp_path: Path) -> None:
    below = Authority("Below", AUTHORITY)
    assert await judged(authenticator(tmp_path, AUTHORITY, below), der(below.issue())) is not None
    with pytest.raises(Refused):
        await judged(authenticator(tmp_path), der(below.issue()))


async def test_what_is_not_an_authority_vouches_for_nobody_even_in_the_file(tmp_path: Path) -> None:
    leaf = Authority("Leaf", AUTHORITY, is_authority=False)
    with pytest.raises(Refused):
        await judged(authenticator(tmp_path, leaf), der(leaf.issue()))


async def test_a_remembered_certificate_ends_with_its_validity(tmp_path: Path) -> None:
    by = authenticator(tmp_path)
    one = der(AUTHORITY.issue())
    assert await judged(by, one) is not None
    with pytest.raises(Refused):
        await judged(by, one, ahead=2 * 86400)


async def test_callers_are_told_apart_by_name_and_fingerprint_and_nobody_else_gets_in(tmp_path: Path) -> None:
    robot = AUTHORITY.issue("robot")
    fingerprint = hashlib.sha256(der(robot)).hexdigest()
    callers = {
        "pinned": CertificateCaller(fingerprint=(fingerprint.upper(),), claims={"sub": "never", "team": "a"}),
        "build": CertificateCaller(cn=("build",), san=("spiffe://example.com/build", "10.1.2.3")),
    }
    by = authenticator(tmp_path, callers=callers)
    uri = x509.UniformResourceIdentifier("spiffe://example.com/build")
    for certificate, subject in ((robot, "pinned"), (AUTHORITY.issue("build", uri), "build")):
        session = await judged(by, der(certificate))
        assert session is not None
        assert (session.identity.subject, session.identity.username) == (subject, subject)
    for other in (AUTHORITY.issue("build"), AUTHORITY.issue("robot"), AUTHORITY.issue("x", uri)):
        with pytest.raises(Refused) as caught:
            await judged(by, der(other))
        assert "certificates.callers" in caught.value.detail


async def test_a_subject_comes_from_the_certificate_or_there_is_none(tmp_path: Path) -> None:
    by = authenticator(tmp_path, subject=Compiler().compile("{{ claims.uri }}"))
    session = await judged(by, der(AUTHORITY.issue("x", x509.UniformResourceIdentifier("spiffe://e/x"))))
    assert session is not None
    assert session.identity.subject == "spiffe://e/x"
    with pytest.raises(Refused) as caught:
        await judged(by, der(AUTHORITY.issue("x")))
    assert (caught.value.reason, caught.value.status) == (Reason.IDENTITY_INCOMPLETE, 403)


@pytest.mark.parametrize("fingerprint", ["", "00", "zz" * 32])
def test_a_fingerprint_that_is_none_is_said_at_load(fingerprint: str) -> None:
    with pytest.raises(ValueError, match=r"64 hexadecimal digits|fits every"):
        CertificateCaller(fingerprint=(fingerprint,))


def test_an_authority_file_that_cannot_be_read_is_said_at_load(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ValueError, match=r"certificates\.ca"):
        CertificateAuthenticator(
            Certificates(proxies=("unix",), ca=tmp_path / "ca.pem"),
            IdentityPlan(Compiler().compile("x"), None, None, None, None),
        )


# In front of a running sidecar

RULES = [
    {"path": "/public/**", "allow": "anyone"},
    {"path": "/api/**", "allow": {"bearer": ["certificates", "corp"]}},
    {"path": "/**", "allow": "signed_in"},
]


def certificates(folder: Path, **changes: Any) -> dict[str, Any]:
    (folder / "callers.pem").write_text(pem(AUTHORITY.certificate))
    return {
        "access": RULES,
        "limits": {"bad_tokens": "off"},
        "logins": {"corp": {"bearer": {"audience": "api"}}},
        "certificates": {
            "proxies": "127.0.0.1/32",
            "ca": str(folder / "callers.pem"),
            "callers": {"build": {"cn": "build"}},
            **changes,
        },
    }


async def ask(running: Running, path: str = "/api/x", **headers: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(running.url + path, headers=headers) as answer:
        return answer.status


def spellings(running: Running) -> list[str]:
    seen = running.application.seen[-1]
    return [name for name, _ in seen.headers if "cert" in name.lower()]


async def test_a_named_proxy_is_believed_and_nobody_else_in_any_spelling(world: World, tmp_path: Path) -> None:
    good = WAYS["rfc9440"](AUTHORITY.issue())
    running = await world(certificates(tmp_path))
    assert await ask(running, **{"Client-Cert": good}) == 200
    seen = running.application.seen[-1]
    assert seen.values("X-App-User") == ["build"]
    assert not spellings(running)
    assert await ask(running) == 401
    assert await ask(running, **{"Client-Cert": WAYS["rfc9440"](STRANGER.issue())}) == 401
    assert await ask(running, **{"Client-Cert": "nonsense"}) == 401
    # Other spellings are no certificate, and none of them reaches the application, also where nobody asks who it is.
    for name in ("Client_Cert", "client.cert", "X-Client-Cert", "X-Forwarded-Client-Cert", "X-SSL-Client-Cert"):
        assert await ask(running, **{name: good}) == 401
        assert await ask(running, "/public/x", **{name: good}) == 200
        assert not spellings(running)
    # A certificate opens only what rules open to certificates.
    assert await ask(running, "/x", **{"Client-Cert": good}) == 403
    both = f"GET /api/x HTTP/1.1\r\nHost: localhost\r\nClient-Cert: {good}\r\nClient-Cert: {good}\r\n\r\n"
    assert b" 401 " in (await running.raw(both.encode()))[:20]
    elsewhere = await world(certificates(tmp_path, proxies="192.0.2.1/32"))
    assert await ask(elsewhere, **{"Client-Cert": good}) == 401
    assert await ask(elsewhere, "/public/x", **{"Client-Cert": good}) == 200
    assert not spellings(elsewhere)


async def test_t68_a_caller_who_was_switched_off_is_refused_with_a_certificate_too(
    world: World, tmp_path: Path
) -> None:
    good = {"Client-Cert": WAYS["rfc9440"](AUTHORITY.issue())}
    environment = {"USERS_DB": users_table(tmp_path / "users.db")}
    running = await world(certificates(tmp_path), environment=environment, provision=True)
    assert await ask(running, **good) == 200
    accounts = running.sidecar.condition.accounts
    assert accounts.directory is not None
    assert accounts.provisioner is not None
    person = await accounts.directory.person_by_identity(identity_key(CERTIFICATE_ISSUER, "build"))
    assert person is not None
    await accounts.provisioner.disable(person.id, "manual", 1.0)
    assert await ask(running, **good) == 403


async def test_bad_certificates_are_limited_as_bad_tokens_are(world: World, tmp_path: Path) -> None:
    running = await world({**certificates(tmp_path), "limits": {"bad_tokens": "2/1h"}})
    bad = {"Client-Cert": WAYS["rfc9440"](STRANGER.issue())}
    assert [await ask(running, **bad) for _ in range(3)] == [401, 401, 429]


async def test_a_jwt_that_is_bound_to_a_certificate_is_good_with_that_one_alone(world: World, tmp_path: Path) -> None:
    async with running_forger() as forger:
        changes = certificates(tmp_path)
        running = await world(changes, issuer=forger.issuer)
        mine, other = AUTHORITY.issue("build"), AUTHORITY.issue("build")
        now = int(datetime.now(UTC).timestamp())
        claims = forger.standard_claims(aud="api", client_id="c", jti="1", iat=now, exp=now + 300)
        token = sign({**claims, "cnf": {"x5t#S256": thumbprint(der(mine))}}, typ="at+jwt")
        sent = {"Authorization": f"Bearer {token}"}
        for _ in range(2):
            assert await ask(running, **sent, **{"Client-Cert": WAYS["rfc9440"](mine)}) == 200
            assert await ask(running, **sent, **{"Client-Cert": WAYS["rfc9440"](other)}) == 401
            assert await ask(running, **sent) == 401


async def test_a_real_nginx_passes_the_certificate_of_its_client_on(
    world: World, tmp_path: Path, nginxes: Nginxes
) -> None:
    running = await world(certificates(tmp_path, header="X-Client-Certificate", format="nginx"))
    paths = make_certificates(tmp_path)
    port = free_port()
    nginxes(
        f"listen 127.0.0.1:{port} ssl; ssl_certificate {paths.certificate}; ssl_certificate_key {paths.key};"
        f"ssl_client_certificate {tmp_path}/callers.pem; ssl_verify_client optional;"
        f"location / {{ proxy_pass http://127.0.0.1:{running.port}; proxy_set_header Host $http_host;"
        " proxy_set_header X-Client-Certificate $ssl_client_escaped_cert; }"
    )
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "mine.pem").write_text(
        pem(AUTHORITY.issue("build", key=key))
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    )

    async def through(**headers: str) -> tuple[int, int]:
        """Status without, and with, the certificate."""
        statuses = []
        for has_certificate in (False, True):
            tls = ssl.create_default_context(cafile=paths.authority)
            if has_certificate:
                await asyncio.to_thread(tls.load_cert_chain, tmp_path / "mine.pem")
            url = f"https://localhost:{port}/api/x"
            async with aiohttp.ClientSession() as http, http.get(url, ssl=tls, headers=headers) as answer:
                statuses.append(answer.status)
        return statuses[0], statuses[1]

    assert await through() == (401, 200)
    assert running.application.seen[-1].values("X-App-User") == ["build"]
    assert not spellings(running)
    # nginx replaces what its client writes there itself.
    assert await through(**{"X-Client-Certificate": quote(pem(AUTHORITY.issue()))}) == (401, 200)
