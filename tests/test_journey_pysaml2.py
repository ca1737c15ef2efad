"""A second, independent SAML provider (pysaml2), in a real browser: what Keycloak does otherwise, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page
from yarl import URL

from tests.replicas_world import Replicas, replicas_of, shown, users_on
from tests.services.certificates import make_self_signed
from tests.services.saml import SamlProvider
from tests.world import World, until

GROUPS = "urn:oid:1.3.6.1.4.1.5923.1.1.1.7"


class Place:
    """The provider, and where replicas that sign in there are started."""

    def __init__(self, request: pytest.FixtureRequest, world: World, provider: SamlProvider, folder: Path) -> None:
        self._request, self._world, self._folder = request, world, folder
        self.provider = provider

    async def __call__(self, lines: Mapping[str, Any] | None = None, *, keys: bool = False) -> Replicas:
        """Start replicas with these *lines* in their login, and let each side know the other."""
        pair = make_self_signed(self._folder, "ours") if keys else None
        login = {
            "type": "saml",
            "preset": "shibboleth",
            "metadata": self.provider.metadata_url,
            "domains": ["example.com"],
            "name_id": "persistent",
            "subject": "{{ claims.name_id }}",
            "attributes": {"preferred_username": "uid", "groups": GROUPS},
            "keys": [{"certificate": str(pair.certificate), "key": {"file": str(pair.key)}}] if pair else [],
            **(lines or {}),
        }
        users = await users_on(self._request, "mariadb")
        redis_url: str = self._request.getfixturevalue("redis_url")
        replicas = await replicas_of(self._world, users, redis_url, {"logins": {"corp": None, "saml": login}})
        self.provider.register(await replicas.own_metadata("saml"))
        return replicas


@pytest.fixture
def place(request: pytest.FixtureRequest, world: World, saml_provider: SamlProvider, tmp_path: Path) -> Place:
    """Where a test starts its replicas."""
    return Place(request, world, saml_provider, tmp_path)


async def enter(page: Page, login: str = "ada") -> None:
    """Fill in the provider's form."""
    await page.fill("[name=login]", login)
    await page.click("button")


async def signed_in(page: Page, replicas: Replicas, login: str = "ada", path: str = "/") -> dict[str, Any]:
    """Sign in at the provider, and come back."""
    await page.goto(f"{replicas.url}{path}")
    await enter(page, login)
    return await shown(page)


async def is_refused(page: Page, reason: str) -> None:
    """The page says why the sign-in did not work."""
    await page.get_by_text("Reason", exact=True).wait_for()
    assert reason in (await page.inner_text("body")).split()


async def test_a_person_signs_in_gets_an_account_and_changes_nothing_the_second_time(place: Place, page: Page) -> None:
    two = await place()
    assert (await signed_in(page, two, path="/wiki"))["path"] == "/wiki"
    assert await two.rows() == [("ada", "ada@example.com", "admin")]
    assert two.one.application.seen[-1].values("X-App-Name") == ["Ada Lovelace"]
    assert place.provider.seen() == ["unsigned"]
    made = two.changes()
    await page.context.clear_cookies()
    await signed_in(page, two)
    assert two.changes() == made


@pytest.mark.parametrize(("response", "assertion"), [(True, False), (False, True), (True, True)])
async def test_either_signature_is_enough_and_none_is_not(
    place: Place, page: Page, response: bool, assertion: bool
) -> None:
    two = await place()
    place.provider.configure(sign_response=response, sign_assertion=assertion)
    await signed_in(page, two)
    await page.context.clear_cookies()
    place.provider.configure(sign_response=False, sign_assertion=False)
    await page.goto(two.url)
    await enter(page)
    await is_refused(page, "token-invalid")


@pytest.mark.parametrize("binding", ["redirect", "post"])
async def test_the_provider_finds_our_signature_good(place: Place, page: Page, binding: str) -> None:
    place.provider.configure(wants_signed_requests=True)
    two = await place({"binding": binding}, keys=True)
    await signed_in(page, two)
    assert place.provider.seen() == ["signed"]


async def test_somebody_with_a_new_name_each_time_is_known_by_an_attribute(place: Place, page: Page) -> None:
    place.provider.configure(name_id="transient")
    two = await place({"name_id": "transient", "subject": "{{ claims.preferred_username }}"})
    for _ in range(2):
        await page.context.clear_cookies()
        await signed_in(page, two)
    assert await two.rows() == [("ada", "ada@example.com", "admin")]


async def test_somebody_with_nothing_but_a_new_name_each_time_is_refused(place: Place, page: Page) -> None:
    place.provider.configure(name_id="transient")
    two = await place({"preset": None, "subject": None, "name_id": None, "attributes": {"email": "mail"}})
    await page.goto(two.url)
    await enter(page)
    await is_refused(page, "identity-incomplete")
    assert await two.rows() == []


async def test_t46_signatures_with_an_outdated_digest_are_refused(place: Place, page: Page) -> None:
    place.provider.configure(digest="sha1")
    two = await place()
    await page.goto(two.url)
    await enter(page)
    await is_refused(page, "token-algorithm")
    assert await two.rows() == []


async def test_an_outdated_digest_that_is_named_is_accepted(place: Place, page: Page) -> None:
    place.provider.configure(digest="sha1")
    two = await place({"weak": ["sha1"]})
    await signed_in(page, two)


async def test_t46_encryption_with_an_outdated_cipher_is_refused(place: Place, page: Page) -> None:
    # All that pysaml2 knows is Triple DES.
    two = await place(keys=True)
    place.provider.configure(encrypt=True)
    await page.goto(two.url)
    await enter(page)
    await is_refused(page, "token-algorithm")
    assert await two.rows() == []


async def test_a_sign_in_that_begins_there_goes_to_a_page_of_ours_and_nowhere_else(place: Place, page: Page) -> None:
    two = await place({"unsolicited": True})
    start = URL(f"{place.provider.url}/start")
    entity = f"{two.url}/-/saml/saml/metadata"
    await page.goto(str(start.with_query(sp=entity, relay="/wiki/start")))
    await enter(page)
    assert (await shown(page))["path"] == "/wiki/start"
    for evil in ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"):
        await page.context.clear_cookies()
        await page.goto(str(start.with_query(sp=entity, relay=evil)))
        await enter(page)
        assert (await shown(page))["path"] == "/"
        assert page.url == f"{two.url}/"


async def test_t44_a_sign_in_that_begins_there_is_refused_by_default(place: Place, page: Page) -> None:
    two = await place()
    await page.goto(str(URL(f"{place.provider.url}/start").with_query(sp=f"{two.url}/-/saml/saml/metadata")))
    await enter(page)
    await is_refused(page, "login-state-unknown")
    assert await two.rows() == []


async def test_signing_out_here_tells_the_provider_whose_session_it_was(place: Place, page: Page) -> None:
    two = await place(keys=True)
    await signed_in(page, two)
    await page.goto(f"{two.url}/-/logout")
    # Not `?partial`: our request was understood, and the answer's signature was good.
    await page.wait_for_url(f"{two.url}/-/signed-out")
    asked, signed = place.provider.seen()[1:]
    assert asked.startswith("logout asked: pairwise-ada ['")
    assert signed == "signed"
    await page.goto(two.url)
    assert await page.is_visible("[name=login]")


async def test_signing_out_here_works_when_the_provider_never_answers(place: Place, page: Page) -> None:
    two = await place(keys=True)
    place.provider.configure(answers_logout=False)
    await signed_in(page, two)
    cookies = await page.context.cookies(two.url)
    await page.goto(f"{two.url}/-/logout")
    await page.get_by_text("says nothing more").wait_for()
    await page.context.add_cookies([{"name": c["name"], "value": c["value"], "url": two.url} for c in cookies])
    await until(partial(two.both_answer, 401, page))


@pytest.mark.parametrize("binding", ["redirect", "post"])
async def test_signing_out_there_ends_the_session_at_both_replicas(place: Place, page: Page, binding: str) -> None:
    two = await place(keys=True)
    await signed_in(page, two)
    assert await two.statuses(page) == [200, 200]
    ending = URL(f"{place.provider.url}/end").with_query(sp=f"{two.url}/-/saml/saml/metadata", binding=binding)
    await page.goto(str(ending))
    await page.get_by_text("You are signed out everywhere").wait_for()
    await until(partial(two.both_answer, 401, page))
    assert place.provider.seen()[-1] == "logout answered: Success"
