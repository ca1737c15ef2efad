"""Single logout in both directions, over HTTP with a running sidecar: who ends, who does not, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from lxml import etree
from yarl import URL

from sidecar.faults import Refused
from sidecar.logins.login import Brought
from sidecar.logins.saml.carried import unpack
from sidecar.logins.saml.grammar import tag
from tests.saml_farewells import (
    Farewell,
    Partners,
    is_schema_valid,
    partners_of,
    posted,
    redirected,
    section,
)
from tests.saml_forger import ENTITY, PERSISTENT, instant, pair, recipe, sign
from tests.saml_metadata import SLO, described
from tests.services.process import free_port
from tests.world import Browser, World, until

WAYS = ["redirect", "post"]


@pytest.fixture
async def partners(world: World, tmp_path: Path) -> Partners:
    """A sidecar whose provider takes part in single logout."""
    return await partners_of(world, tmp_path)


@pytest.fixture
async def browser(partners: Partners) -> AsyncIterator[Browser]:
    """Somebody who is signed in."""
    async with partners.running.browser() as opened:
        await partners.sign_in(opened)
        assert await partners.is_in(opened)
        yield opened


# Signing out here


async def test_signing_out_asks_the_provider_by_a_signed_redirect(partners: Partners, browser: Browser) -> None:
    token = browser.cookie()
    answer = await browser.page("/-/logout")
    assert answer.status == 303
    assert answer.headers["Location"].startswith(f"{SLO}?SAMLRequest=")
    asked, fields = redirected(answer.headers["Location"])
    assert is_schema_valid(asked, "saml-schema-protocol-2.0.xsd")
    assert asked.get("Destination") == SLO
    assert asked.findtext(tag("a:Issuer")) == partners.entity
    assert asked.findtext(tag("a:NameID")) == "8f14e45f-ada"
    assert asked.find(tag("a:NameID")).get("Format") == PERSISTENT
    assert asked.findtext(tag("p:SessionIndex")) == "_session-7"
    assert len(fields["RelayState"]) == 43
    # The session is over before the browser leaves, whatever the provider does.
    again = await browser.http.get(f"{partners.running.url}/", headers={"Cookie": f"sidecar={token}"})
    assert again.status == 401


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("status", "page", "result"),
    [
        (("Success",), "/-/signed-out", {"result": "complete"}),
        (("Success", "PartialLogout"), "/-/signed-out?partial", {"result": "partial"}),
        (("Responder", "PartialLogout"), "/-/signed-out?partial", {"result": "partial"}),
        (("Responder",), "/-/signed-out?partial", {"reason": "login-provider-error"}),
    ],
)
async def test_the_answer_of_the_provider_is_told(
    partners: Partners, browser: Browser, way: str, status: tuple[str, ...], page: str, result: dict[str, str]
) -> None:
    asked, fields = redirected((await browser.page("/-/logout")).headers["Location"])
    answer = partners.farewell(kind="LogoutResponse", status=status, attributes={"InResponseTo": asked.get("ID")})
    response = await partners.send(answer, way, fields["RelayState"])
    assert (response.status, response.headers["Location"]) == (303, page)
    [line] = partners.events("provider-signed-out")
    assert result.items() <= line.items()
    text = await (await browser.page(page)).text()
    assert ("not everywhere" in text) == (page != "/-/signed-out")
    # It counts once.
    assert (await partners.send(answer, way, fields["RelayState"])).status == 400


BAD_ANSWERS: dict[str, tuple[dict[str, Any], str]] = {
    "unsigned": ({"key": None}, "token-invalid"),
    "signed by a stranger": ({"key": pair("evil")}, "token-invalid"),
    "to another request": ({"attributes": {"InResponseTo": "_other"}}, "token-nonce"),
    "to no request": ({}, "token-nonce"),
    "for another place": ({"attributes": {"Destination": "https://other.example/"}}, "token-audience"),
    "of another provider": ({"issuer": "https://other.example"}, "token-issuer"),
    "old": ({"attributes": {"IssueInstant": "2020-01-01T00:00:00Z"}}, "token-expired"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_an_answer_that_cannot_be_believed_is_told_as_unconfirmed(
    partners: Partners, browser: Browser, way: str, name: str
) -> None:
    asked, fields = redirected((await browser.page("/-/logout")).headers["Location"])
    changes, reason = BAD_ANSWERS[name]
    attributes = {"InResponseTo": asked.get("ID"), **changes.get("attributes", {})}
    if name == "to no request":
        attributes = {}
    answer = partners.farewell(**{**changes, "kind": "LogoutResponse", "attributes": attributes})
    response = await partners.send(answer, way, fields["RelayState"])
    assert response.headers["Location"] == "/-/signed-out?partial"
    assert partners.events("provider-signed-out")[0]["reason"] == reason


async def test_an_answer_that_nobody_asked_for_is_refused(partners: Partners, browser: Browser) -> None:
    answer = partners.farewell(kind="LogoutResponse", attributes={"InResponseTo": "_1"})
    for state in ("", "x" * 43, "/wiki"):
        assert (await partners.send(answer, "post", state)).status == 400
    assert await partners.is_in(browser)


async def test_signing_out_by_post_is_a_page_that_sends_a_signed_form(world: World, tmp_path: Path) -> None:
    partners = await partners_of(world, tmp_path, binding="post")
    async with partners.running.browser() as browser:
        await partners.sign_in(browser)
        page = await browser.page("/-/logout")
        goodbye, fields, action = posted(await page.text())
        assert action == SLO
        assert is_schema_valid(goodbye, "saml-schema-protocol-2.0.xsd")
        assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
        assert not await partners.is_in(browser)
        done = partners.farewell(kind="LogoutResponse", attributes={"InResponseTo": goodbye.get("ID")})
        assert (await partners.send(done, "post", fields["RelayState"])).headers["Location"] == "/-/signed-out"


@pytest.mark.parametrize("why", ["no sign-out there", "no key of ours", "switched off", "no metadata any more"])
async def test_signing_out_works_where_the_provider_takes_no_part(world: World, tmp_path: Path, why: str) -> None:
    lines: dict[str, Any] = {"no key of ours": {"keys": []}, "switched off": {"sign_out": "false"}}.get(why, {})
    until = f'validUntil="{instant(world.clock() + 3600)}"'
    text = described(slo="" if why == "no sign-out there" else SLO, entity_attributes=until)
    partners = await partners_of(world, tmp_path, text, **lines)
    async with partners.running.browser() as browser:
        await partners.sign_in(browser)
        if why == "no metadata any more":
            world.clock.ahead = 3601
            partners.running.sidecar.front.portal.keeper._idle = 7200
        answer = await browser.page("/-/logout")
        assert answer.headers["Location"] == "/-/signed-out"
        assert not await partners.is_in(browser)


# Signing out there


@pytest.mark.parametrize("way", WAYS)
async def test_the_provider_ends_exactly_the_session_that_it_names(partners: Partners, way: str) -> None:
    running = partners.running
    async with running.browser() as one, running.browser() as two, running.browser() as grace:
        await partners.sign_in(one, session="s1")
        await partners.sign_in(two, session="s2")
        await partners.sign_in(grace, session="s1", name_id="grace")
        message = partners.farewell(sessions=["s1"])
        answer = await partners.send(message, way, "their state & <more>")
        assert not await partners.is_in(one)
        assert await partners.is_in(two)
        assert await partners.is_in(grace)
    if way == "redirect":
        assert answer.headers["Location"].startswith(f"{SLO}?SAMLResponse=")
        said, fields = redirected(answer.headers["Location"])
    else:
        page = await answer.text()
        # T47: nothing that came is markup on our page.
        assert "<more>" not in page
        said, fields, action = posted(page)
        assert action == SLO
    assert is_schema_valid(said, "saml-schema-protocol-2.0.xsd")
    assert said.tag == tag("p:LogoutResponse")
    assert said.get("Destination") == SLO
    assert said.find(f".//{tag('p:StatusCode')}").get("Value").endswith(":Success")
    assert fields["RelayState"] == "their state & <more>"
    [line] = partners.events("provider-logout")
    assert (line["provider"], line["issuer"], line["ended"]) == ("partners", f"saml:{ENTITY}", 1)


async def test_the_answer_names_the_question(partners: Partners, browser: Browser) -> None:
    message = partners.farewell(attributes={"ID": "_their-question"})
    said, _ = redirected((await partners.send(message, "redirect")).headers["Location"])
    assert said.get("InResponseTo") == "_their-question"
    assert not await partners.is_in(browser)


@pytest.mark.parametrize("way", WAYS)
async def test_without_a_session_index_all_sessions_of_that_name_end(partners: Partners, way: str) -> None:
    running = partners.running
    async with running.browser() as one, running.browser() as two, running.browser() as grace:
        await partners.sign_in(one, session="s1")
        await partners.sign_in(two, session="s2")
        await partners.sign_in(grace, name_id="grace")
        await partners.send(partners.farewell(), way)
        assert [await partners.is_in(each) for each in (one, two, grace)] == [False, False, True]


async def test_a_session_that_the_provider_never_numbered_ends_with_any_that_it_names(partners: Partners) -> None:
    running = partners.running
    async with running.browser() as numbered, running.browser() as other, running.browser() as grace:
        await partners.sign_in(numbered, session="s1")
        await partners.sign_in(other, session="")
        await partners.sign_in(grace, session="", name_id="grace")
        await partners.send(partners.farewell(sessions=["s2"]), "post")
        assert [await partners.is_in(each) for each in (numbered, other, grace)] == [True, False, True]


async def test_several_session_indexes_end_those_sessions(partners: Partners) -> None:
    running = partners.running
    async with running.browser() as one, running.browser() as two, running.browser() as three:
        for number, each in enumerate((one, two, three)):
            await partners.sign_in(each, session=f"s{number}")
        await partners.send(partners.farewell(sessions=["s0", "s2", "nobody's"]), "post")
        assert [await partners.is_in(each) for each in (one, two, three)] == [False, True, False]


@pytest.mark.parametrize("way", WAYS)
async def test_a_name_that_is_encrypted_for_us_is_read(partners: Partners, browser: Browser, way: str) -> None:
    await partners.send(partners.farewell(hidden=pair("ours")), way)
    assert not await partners.is_in(browser)


async def test_a_browser_that_comes_along_loses_its_cookies(partners: Partners, browser: Browser) -> None:
    query = partners.farewell().query()
    answer = await browser.page(f"{partners.slo}?{query}")
    assert answer.status == 303
    assert browser.cookie() == ""


async def test_a_browser_with_another_session_keeps_its_cookies(partners: Partners, browser: Browser) -> None:
    query = partners.farewell(name_id="grace").query()
    assert (await browser.page(f"{partners.slo}?{query}")).status == 303
    assert await partners.is_in(browser)


async def test_the_signature_of_a_redirect_is_over_the_octets_that_were_sent(
    partners: Partners, browser: Browser
) -> None:
    query = partners.farewell().query("state", lower=True)
    assert "%2f" in query
    answer = await browser.http.get(URL(f"{partners.slo}?{query}", encoded=True), allow_redirects=False)
    assert answer.status == 303
    assert not await partners.is_in(browser)


async def test_a_session_that_subject_names_otherwise_ends_too(world: World, tmp_path: Path) -> None:
    partners = await partners_of(world, tmp_path, subject="{{ claims.mail }}")
    for sessions in ([], ["_session-7"]):
        async with partners.running.browser() as browser:
            await partners.sign_in(browser)
            await partners.send(partners.farewell(sessions=sessions), "post")
            assert not await partners.is_in(browser)


# T45


def with_a_signed_assertion(root: Any) -> None:
    """Put somebody's genuinely signed assertion into the message."""
    answer = recipe().build()
    root.insert(1, answer.find(tag("a:Assertion")))


def with_one_in_extensions(root: Any) -> None:
    extensions = etree.Element(tag("p:Extensions"))
    extensions.append(recipe().build().find(tag("a:Assertion")))
    root.insert(1, extensions)


def with_the_signature_of_an_assertion(root: Any) -> None:
    assertion = recipe().build().find(tag("a:Assertion"))
    root.insert(1, assertion.find(tag("d:Signature")))


def about_somebody_else(root: Any) -> None:
    root.find(tag("a:NameID")).text = "8f14e45f-ada"


def around_a_genuine_one(root: Any) -> None:
    """Keep a genuine message inside, with its signature moved to the outer one."""
    genuine = etree.fromstring(etree.tostring(root))
    sign(genuine, pair())
    signature = genuine.find(tag("d:Signature"))
    root.insert(1, signature)
    extensions = etree.Element(tag("p:Extensions"))
    extensions.append(genuine)
    root.insert(2, extensions)
    root.set("ID", "_outer")


def with_a_comment(root: Any) -> None:
    root.find(tag("a:NameID")).append(etree.Comment("x"))


FORGED: dict[str, dict[str, Any]] = {
    "unsigned": {"key": None},
    "signed by a stranger": {"key": pair("evil")},
    "unsigned with a signed assertion": {"key": None, "after": with_a_signed_assertion},
    "unsigned with a signed assertion in extensions": {"key": None, "after": with_one_in_extensions},
    "with the signature of an assertion": {"key": None, "after": with_the_signature_of_an_assertion},
    "around a genuine one": {"key": None, "after": around_a_genuine_one},
    "changed after it was signed": {"name_id": "somebody else", "after": about_somebody_else},
    "with a comment in the name": {"before": with_a_comment},
}


@pytest.mark.parametrize("name", FORGED)
async def test_t45_a_logout_request_by_post_that_is_not_signed_itself_ends_nothing(
    partners: Partners, browser: Browser, name: str
) -> None:
    answer = await partners.send(partners.farewell(**FORGED[name]), "post")
    assert answer.status in (400, 403)
    assert await partners.is_in(browser)
    [line] = partners.events("provider-logout")
    assert line["reason"] in ("token-invalid", "login-answer-invalid")


def resigned(root: Any) -> None:
    sign(root, pair())


@pytest.mark.parametrize(
    "changes",
    [{"key": None}, {"key": pair("evil")}, {"key": None, "after": resigned}, {"after": resigned}],
    ids=["unsigned", "by a stranger", "signed inside only", "signed twice"],
)
async def test_t45_a_logout_request_by_redirect_needs_the_signature_of_its_query(
    partners: Partners, browser: Browser, changes: dict[str, Any]
) -> None:
    answer = await partners.send(partners.farewell(**changes), "redirect")
    assert answer.status in (400, 403)
    assert await partners.is_in(browser)


async def test_t45_no_part_of_a_signed_query_can_be_changed(partners: Partners, browser: Browser) -> None:
    good = partners.farewell().query("state")
    parts = dict(part.split("=", 1) for part in good.split("&"))
    other = dict(part.split("=", 1) for part in partners.farewell(name_id="x").query("state").split("&"))

    def joined(**changes: str) -> str:
        return "&".join(f"{name}={value}" for name, value in {**parts, **changes}.items())

    without = "&".join(f"{name}={value}" for name, value in parts.items() if name != "RelayState")
    sha1 = "http%3A%2F%2Fwww.w3.org%2F2000%2F09%2Fxmldsig%23rsa-sha1"
    bad = [
        joined(RelayState="other"),
        without,
        joined(Signature=other["Signature"]),
        joined(SigAlg=sha1),
        joined(SigAlg="none"),
        joined(Signature=""),
        f"{good}&SAMLRequest={other['SAMLRequest']}",
        f"{good}&SAML%52equest={other['SAMLRequest']}",
        f"{good}&SAMLResponse={other['SAMLRequest']}",
        joined(SAMLRequest=parts["SAMLRequest"].replace("%2B", "%2b", 1)) if "%2B" in good else joined(Signature="AA"),
        "",
    ]
    for query in bad:
        answer = await browser.http.get(URL(f"{partners.slo}?{query}", encoded=True), allow_redirects=False)
        assert answer.status in (400, 403), query
        assert await partners.is_in(browser)
    assert (await browser.page(f"{partners.slo}?{good}")).status == 303
    assert not await partners.is_in(browser)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another destination": ({"attributes": {"Destination": "https://other.example/slo"}}, "token-audience"),
    "no destination": ({"attributes": {"Destination": None}}, "token-audience"),
    "another issuer": ({"issuer": "https://other.example"}, "token-issuer"),
    "ended": ({"attributes": {"NotOnOrAfter": "2020-01-01T00:00:00Z"}}, "token-expired"),
    "old": ({"attributes": {"IssueInstant": "2020-01-01T00:00:00Z"}}, "token-expired"),
    "from the future": ({"attributes": {"IssueInstant": "2099-01-01T00:00:00Z"}}, "token-time"),
    "an empty index": ({"sessions": [""]}, "token-claim"),
    "another version": ({"attributes": {"Version": "1.1"}}, "token-claim"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", WRONG)
async def test_t45_a_signed_logout_request_must_fit_in_every_respect(
    partners: Partners, browser: Browser, way: str, name: str
) -> None:
    changes, reason = WRONG[name]
    answer = await partners.send(partners.farewell(**changes), way)
    assert answer.status in (400, 403)
    assert await partners.is_in(browser)
    assert partners.events("provider-logout")[0]["reason"] == reason


@pytest.mark.parametrize("way", WAYS)
async def test_t45_a_logout_request_counts_once(partners: Partners, way: str) -> None:
    message = partners.farewell(attributes={"ID": "_once"})
    async with partners.running.browser() as browser:
        await partners.sign_in(browser)
        assert (await partners.send(message, way)).status in (200, 303)
        await partners.sign_in(browser)
        assert (await partners.send(message, way)).status == 400
        assert await partners.is_in(browser)


async def test_t43_a_message_about_signing_out_is_bounded(partners: Partners, browser: Browser) -> None:
    async with aiohttp.ClientSession() as http:
        answer = await http.post(partners.slo, data={"SAMLRequest": "A" * 600_000}, allow_redirects=False)
        assert answer.status == 413
        answer = await http.post(partners.slo, data={"SAMLRequest": "A" * 500_000}, allow_redirects=False)
        assert answer.status == 413
    bomb = partners.farewell(before=lambda root: root.set("Consent", "x" * 3_000_000))
    assert (await partners.send(bomb, "redirect")).status == 413
    assert await partners.is_in(browser)


async def test_pages_that_do_not_exist_are_not_found(partners: Partners) -> None:
    async with partners.running.browser() as browser:
        assert (await browser.page("/-/saml/nobody/metadata")).status == 404
        assert (await browser.page("/-/saml/partners/other")).status == 404
        assert (await browser.page("/-/saml")).status == 404
        assert (await browser.page("/-/saml/partners/metadata", "POST")).status == 405
        assert (await browser.page("/-/saml/partners/logout")).status == 400


async def test_a_new_key_of_the_provider_is_fetched_when_a_message_is_signed_with_it(
    partners: Partners, browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "idp.xml").write_text(described(ENTITY, pair("two")))
    await partners.send(partners.farewell(key=pair("two")), "post")
    assert not await partners.is_in(browser)


@pytest.mark.parametrize("way", WAYS)
async def test_a_sign_out_at_the_provider_ends_the_session_at_both_replicas(
    world: World, redis_url: str, tmp_path: Path, way: str
) -> None:
    port = free_port()
    url = f"http://localhost:{port}"
    changes = {
        "server": {"public_url": url},
        "sessions": {"redis": {"env": "REDIS_URL"}},
        "logins": {"corp": None, "partners": section(tmp_path)},
    }
    environment = {"REDIS_URL": redis_url}
    one = Partners(await world(changes, environment=environment, port=port), world)
    other = await world(changes, environment=environment)

    async def status(browser: Browser) -> int:
        headers = {"Host": f"localhost:{port}", "Cookie": f"sidecar={token}", "Accept": "application/json"}
        async with aiohttp.ClientSession() as http:
            return (await http.get(f"http://127.0.0.1:{other.port}/", headers=headers)).status

    async with one.running.browser() as browser:
        await one.sign_in(browser)
        token = browser.cookie()
        assert await status(browser) == 200
        message: Farewell = one.farewell(sessions=["_session-7"])
        await one.send(message, way)
        assert not await one.is_in(browser)

        async def is_out() -> bool:
            return await status(browser) == 401

        await until(is_out, within=3)
        # What one replica took, the other does not take again.
        async with aiohttp.ClientSession() as http:
            again = f"http://127.0.0.1:{other.port}/-/saml/partners/logout"
            headers = {"Host": f"localhost:{port}"}
            replayed = one.farewell(attributes={"ID": "_replayed"})
            assert (await one.send(replayed, way)).status in (200, 303)
            if way == "post":
                answer = await http.post(again, data=replayed.form(), headers=headers, allow_redirects=False)
            else:
                target = URL(f"{again}?{replayed.query()}", encoded=True)
                answer = await http.get(target, headers=headers, allow_redirects=False)
            assert answer.status == 400


@pytest.mark.parametrize("query", ["SAMLRequest=a&SAML%52equest=b", "SAML%52equest=b", "SAMLRequest=a&SAMLRequest=a"])
def test_t45_a_parameter_in_disguise_or_there_twice_is_no_message(query: str) -> None:
    with pytest.raises(Refused, match="there twice, or in disguise"):
        unpack(Brought(query=query))
