"""Keycloak as SAML provider, in a real browser: sign-in, accounts, and sign-out in both directions."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin

import pytest
from playwright.async_api import Page, Request

from tests.replicas_world import Replicas, enter, replicas_of, shown, users_on
from tests.services.certificates import make_self_signed
from tests.services.keycloak import KeycloakServer
from tests.services.process import free_port
from tests.world import World, merged, until

# Starting Keycloak counts, too.
pytestmark = pytest.mark.timeout(400)

ENCRYPTING = {
    "saml.encrypt": "true",
    "saml.encryption.algorithm": "http://www.w3.org/2009/xmlenc11#aes256-gcm",
    "saml.encryption.keyAlgorithm": "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p",
}


class Place:
    """Keycloak, and where replicas that sign in there are started."""

    def __init__(self, request: pytest.FixtureRequest, world: World, keycloak: KeycloakServer, folder: Path) -> None:
        self._request, self._world, self._folder = request, world, folder
        self.keycloak = keycloak
        self.client = ""

    def keys(self, *names: str) -> list[dict[str, Any]]:
        """Lines for key pairs of ours."""
        pairs = [make_self_signed(self._folder, name) for name in names]
        return [{"certificate": str(pair.certificate), "key": {"file": str(pair.key)}} for pair in pairs]

    async def __call__(
        self,
        lines: Mapping[str, Any] | None = None,
        attributes: Mapping[str, str] | None = None,
        changes: Mapping[str, Any] | None = None,
        *,
        database: str = "postgres",
        **client: Any,
    ) -> Replicas:
        """Start replicas with these *lines* in their SAML login, and register them by their own metadata."""
        login = {
            "type": "saml",
            "preset": "keycloak",
            "metadata": self.keycloak.metadata_url,
            "domains": ["example.com"],
            **(lines or {}),
        }
        users = await users_on(self._request, database)
        redis_url: str = self._request.getfixturevalue("redis_url")
        logins = {"logins": {"corp": None, "saml": login}}
        replicas = await replicas_of(self._world, users, redis_url, merged(logins, changes or {}))
        # Keycloak wants signatures of whoever it learns of by metadata, also where these show no key.
        signs = {} if login.get("keys") else {"saml.client.signature": "false"}
        self.client = self.keycloak.saml_client(
            await replicas.own_metadata("saml"), attributes={**signs, **(attributes or {})}, **client
        )
        return replicas


@pytest.fixture
def place(request: pytest.FixtureRequest, world: World, keycloak: KeycloakServer, tmp_path: Path) -> Place:
    """Where a test starts its replicas."""
    return Place(request, world, keycloak, tmp_path)


def answers_of(page: Page) -> list[str]:
    """Collects every SAML answer that the browser carries, as XML."""
    seen: list[str] = []

    def note(request: Request) -> None:
        form = parse_qs(request.post_data or "") if request.method == "POST" else {}
        seen.extend(base64.b64decode(text).decode() for text in form.get("SAMLResponse", []))

    page.on("request", note)
    return seen


async def signed_in(page: Page, replicas: Replicas, login: str = "ada", path: str = "/") -> dict[str, Any]:
    """Sign in with Keycloak's form, and come back."""
    await page.goto(f"{replicas.url}{path}")
    await enter(page, login)
    return await shown(page)


@pytest.mark.parametrize("database", ["postgres", "mariadb"])
async def test_the_whole_story_of_one_person(place: Place, page: Page, database: str) -> None:
    two = await place(database=database)
    assert (await signed_in(page, two, path="/wiki/page?x=1&y=%20"))["path"] == "/wiki/page?x=1&y=%20"
    assert await two.rows() == [("ada", "ada@example.com", "admin")]
    assert two.one.application.seen[-1].values("X-App-Name") == ["Ada Lovelace"]
    made = two.changes()
    assert made.count("account-created") == 1

    await page.context.clear_cookies()
    await signed_in(page, two)
    assert two.changes() == made

    place.keycloak.set_groups("ada", ["staff"])
    await page.context.clear_cookies()
    await signed_in(page, two)
    assert await two.rows() == [("ada", "ada@example.com", "reader")]
    assert two.one.application.seen[-1].values("X-App-Roles") == ["reader"]


async def test_t66_somebody_in_no_group_gets_no_account(place: Place, page: Page) -> None:
    two = await place()
    await page.goto(two.url)
    await enter(page, "eve")
    await page.get_by_text("role-missing").first.wait_for()
    assert await two.rows() == []
    assert two.one.application.seen == []


async def test_requests_are_signed_and_posted_and_answers_encrypted(place: Place, page: Page) -> None:
    lines = {"keys": place.keys("ours"), "binding": "post", "encrypted": "required"}
    two = await place(lines, ENCRYPTING)
    answers = answers_of(page)
    await signed_in(page, two)
    assert await two.rows() == [("ada", "ada@example.com", "admin")]
    assert "EncryptedAssertion" in answers[-1]
    assert "ada@example.com" not in answers[-1]


async def test_keycloak_refuses_requests_that_a_stranger_signed(place: Place, page: Page) -> None:
    two = await place({"keys": place.keys("ours")})
    stranger = make_self_signed(place._folder, "stranger").certificate.read_text()
    place.keycloak.change_client(place.client, {"saml.signing.certificate": "".join(stranger.splitlines()[1:-1])})
    await page.goto(two.url)
    assert await page.is_visible("#kc-error-message")
    # So the signature of the other tests is one that Keycloak looks at.
    assert two.one.application.seen == []


async def test_t67_who_asks_keycloak_for_another_kind_of_name_is_nobody(place: Place, page: Page) -> None:
    two, answers = await place(), answers_of(page)
    # Requests are not signed here, so people can change them: Keycloak gives what this one asks for.
    url = f"{two.url}/"
    while not url.startswith(place.keycloak.issuer):
        headers = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        sent = await page.request.get(url, max_redirects=0, headers=headers)
        url = urljoin(url, sent.headers["location"])
    address, _, query = url.partition("?")
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    asked = zlib.decompress(base64.b64decode(fields["SAMLRequest"]), -15)
    other = asked.replace(b"SAML:2.0:nameid-format:persistent", b"SAML:1.1:nameid-format:unspecified")
    fields["SAMLRequest"] = base64.b64encode(zlib.compress(other)[2:-4]).decode()
    await page.goto(f"{address}?{urlencode(fields)}")
    await enter(page, "ada")
    await page.get_by_text("token-claim").wait_for()
    assert ">ada</saml:NameID>" in answers[-1]
    assert await two.rows() == []


async def test_an_answer_that_is_not_encrypted_is_refused_where_it_must_be(place: Place, page: Page) -> None:
    two = await place({"keys": place.keys("ours"), "encrypted": "required"}, {"saml.encrypt": "false"})
    await page.goto(two.url)
    await enter(page, "ada")
    await page.get_by_text("Reason", exact=True).wait_for()
    assert await two.rows() == []


async def test_t49_several_tabs_come_back_each_to_its_own_page(place: Place, page: Page) -> None:
    two = await place()
    tabs = [page, await page.context.new_page(), await page.context.new_page()]
    for number, tab in enumerate(tabs):
        await tab.goto(f"{two.url}/page/{number}")
    await enter(tabs[1], "ada")
    assert (await shown(tabs[1]))["path"] == "/page/1"
    for number in (0, 2):
        # Keycloak knows the person now, and goes on by itself or when the page is loaded again.
        await tabs[number].goto(f"{two.url}/page/{number}/again")
        assert (await shown(tabs[number]))["path"] == f"/page/{number}/again"
    assert len(await two.rows()) == 1


async def test_t49_tabs_that_began_before_anybody_was_signed_in_all_finish(place: Place, page: Page) -> None:
    two = await place(changes={"sessions": {"idle": "1h"}})
    other = await page.context.new_page()
    await page.goto(f"{two.url}/one")
    # As if both had begun at the same moment, without any cookie: what the second is given takes the first's place.
    await page.context.clear_cookies(name="sidecar-browser")
    await other.goto(f"{two.url}/two")
    await enter(page, "ada")
    assert (await shown(page))["path"] == "/one"
    # Keycloak's page notices that the person is signed in now, and goes on by itself.
    assert (await shown(other))["path"] == "/two"
    assert len(await two.rows()) == 1


async def test_a_sign_in_that_begins_at_keycloak_is_taken_only_where_that_is_switched_on(
    place: Place, page: Page
) -> None:
    begins = {"saml_idp_initiated_sso_url_name": "wiki", "saml_idp_initiated_sso_relay_state": "/wiki/start"}
    two = await place({"unsolicited": True}, begins)
    await page.goto(f"{place.keycloak.issuer}/protocol/saml/clients/wiki")
    await enter(page, "ada")
    assert (await shown(page))["path"] == "/wiki/start"
    assert await two.rows() == [("ada", "ada@example.com", "admin")]


async def test_t44_a_sign_in_that_begins_at_keycloak_is_refused_by_default(place: Place, page: Page) -> None:
    two = await place(attributes={"saml_idp_initiated_sso_url_name": "wiki"})
    await page.goto(f"{place.keycloak.issuer}/protocol/saml/clients/wiki")
    await enter(page, "ada")
    await page.get_by_text("Reason", exact=True).wait_for()
    assert await two.rows() == []
    assert await two.statuses(page) == [401, 401]


@pytest.mark.parametrize("binding", ["redirect", "post"])
async def test_signing_out_here_signs_out_at_keycloak_and_at_both_replicas(
    place: Place, page: Page, binding: str
) -> None:
    two = await place(
        {"keys": place.keys("ours"), "binding": binding},
        {"saml.force.post.binding": str(binding == "post").lower()},
    )
    await signed_in(page, two)
    assert await two.statuses(page) == [200, 200]
    before = await page.context.cookies(two.url)
    assert place.keycloak.session_count("ada") == 1
    await page.goto(f"{two.url}/-/logout")
    # Not `?partial`: our request was understood, and the answer's signature was good.
    await page.wait_for_url(f"{two.url}/-/signed-out")
    assert place.keycloak.session_count("ada") == 0
    # The old cookie is worth nothing either.
    await page.context.add_cookies([{"name": c["name"], "value": c["value"], "url": two.url} for c in before])
    await until(partial(two.both_answer, 401, page))
    await page.goto(two.url)
    assert await page.is_visible("#kc-login")


async def test_t45_signing_out_at_keycloak_in_the_browser_ends_the_session_at_both_replicas(
    place: Place, page: Page
) -> None:
    two = await place({"keys": place.keys("ours")}, frontchannelLogout=True)
    await signed_in(page, two)
    assert await two.statuses(page) == [200, 200]
    await page.goto(f"{place.keycloak.issuer}/protocol/openid-connect/logout")
    await page.click("#kc-logout")
    await until(partial(two.both_answer, 401, page))
    await page.get_by_text("You are logged out").first.wait_for()
    assert [line["ended"] for line in two.events("provider-logout")] == [1]
    assert place.keycloak.session_count("ada") == 0


async def test_signing_out_at_keycloak_ends_only_that_person_s_session(place: Place, page: Page, browser: Any) -> None:
    two = await place({"keys": place.keys("ours")}, frontchannelLogout=True)
    await signed_in(page, two)
    context = await browser.new_context()
    bobs = await context.new_page()
    await signed_in(bobs, two, "bob")
    await page.goto(f"{place.keycloak.issuer}/protocol/openid-connect/logout")
    await page.click("#kc-logout")
    await until(partial(two.both_answer, 401, page))
    assert await two.statuses(bobs) == [200, 200]
    await context.close()


async def test_signing_out_here_works_when_keycloak_does_not_answer(place: Place, page: Page) -> None:
    two = await place({"keys": place.keys("ours")})
    await signed_in(page, two)
    with place.keycloak.stopped_answering():
        leaving = asyncio.ensure_future(page.goto(f"{two.url}/-/logout", wait_until="commit"))
        await until(partial(two.both_answer, 401, page))
        leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)


async def test_a_new_signing_key_at_keycloak_needs_no_restart(place: Place, page: Page) -> None:
    two = await place({"metadata_refresh": "1s"})
    await signed_in(page, two)
    place.keycloak.rotate_keys()
    for _ in range(10):
        await page.context.clear_cookies()
        await page.goto(two.url)
        await enter(page, "ada")
        # The application, or the reason for a refusal.
        await page.get_by_text('"application"').or_(page.get_by_text("Reason", exact=True)).wait_for()
        if await page.get_by_text('"application"').is_visible():
            return
        await asyncio.sleep(0.5)
    pytest.fail("the new key was never believed")


# The account itself has to carry the address.
PROOF = {"lookup": {"sql": {"query": "SELECT id, email, role, active FROM users WHERE login = :login"}}}
PEOPLE: list[tuple[dict[str, Any], bool, str]] = [
    ({}, True, "account-bound-to-another"),
    ({"provision": {"account": {"existing": "link_verified"}}}, True, "account-bound-to-another"),
    ({"provision": {"account": {"other_login": "join_verified"}}}, False, "account-bound-to-another"),
    ({"provision": {"account": {"other_login": "join_verified"}}}, True, ""),
]


@pytest.mark.parametrize(("changes", "is_verified", "reason"), PEOPLE)
async def test_t67_the_same_person_by_openid_connect_has_the_same_account_only_where_that_is_wanted_and_verified(
    request: pytest.FixtureRequest,
    world: World,
    keycloak: KeycloakServer,
    page: Page,
    changes: dict[str, Any],
    is_verified: bool,
    reason: str,
) -> None:
    port = free_port()
    secret = keycloak.oidc_client("wiki", [f"http://localhost:{port}/-/callback/corp"])
    saml = {"type": "saml", "preset": "keycloak", "metadata": keycloak.metadata_url, "domains": ["example.com"]}
    two = await replicas_of(
        world,
        await users_on(request, "postgres"),
        request.getfixturevalue("redis_url"),
        merged({"logins": {"corp": {"domains": ["example.org"]}, "saml": saml}, "provision": PROOF}, changes),
        issuer=keycloak.issuer,
        secret=secret,
        port=port,
    )
    keycloak.saml_client(await two.own_metadata("saml"), attributes={"saml.client.signature": "false"})
    keycloak.change_person("ada", emailVerified=is_verified)
    # Home realm: each provider may speak for one domain only, so the first sign-in is by OpenID Connect.
    await page.goto(f"{two.url}/-/login?with=corp&to=/first")
    await enter(page, "ada")
    assert (await shown(page))["path"] == "/first"
    made = await two.rows()

    await page.context.clear_cookies()
    await page.goto(f"{two.url}/-/login?with=saml&to=/second")
    await enter(page, "ada")
    if reason:
        await page.get_by_text(reason).first.wait_for()
    else:
        assert (await shown(page))["path"] == "/second"
        assert "account-linked" in two.changes()
    assert await two.rows() == made
