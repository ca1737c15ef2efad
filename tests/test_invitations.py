"""Whoever is invited takes the place that was made for them: once, in time, and nobody in their stead."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from sidecar.directory import Directory
from sidecar.faults import Refused
from sidecar.model import Identity
from sidecar.reason import Reason
from tests.manual_world import Terminal, beside
from tests.services.process import free_port
from tests.world import SECRET, Browser, World, until

ADA = Identity("corp", "https://id.example.com", "a1", "ada", "ada@example.com")


@pytest.fixture
async def terminal(world: World, redis_url: str, tmp_path: Path) -> Terminal:
    # Nobody joins by what they are called: only by the link.
    return await beside(world, tmp_path, {"people": {"join": {}}}, REDIS_URL=redis_url)


async def link_for(terminal: Terminal, name: str, email: str, *words: str) -> str:
    """Add somebody and invite them; the path of the link."""
    said = await terminal.good("users", "add", name, "--email", email, "--group", "wiki-admins", "--invite", *words)
    link: str = said["link"]
    return link.removeprefix(terminal.running.url)


async def take(browser: Browser, link: str, login: str) -> aiohttp.ClientResponse:
    """Follow the link, sign in as *login*: the last answer."""
    page = await browser.follow(await browser.page(link))
    return await browser.follow(await browser.choose(page, login))


async def test_the_link_binds_the_sign_in_to_the_person_who_was_made_before(terminal: Terminal) -> None:
    link = await link_for(terminal, "countess", "ada@example.com")
    await terminal.has_row("countess")
    async with terminal.running.browser() as browser, terminal.running.browser() as scanner:
        # Mail programs look at links before people do: that uses nothing up.
        for _ in range(3):
            assert (await scanner.page(link)).status == 302
        assert (await take(browser, link, "ada")).status == 200
        assert (await browser.page("/admin/x")).status == 200
    async with terminal.running.browser() as browser:
        assert (await browser.sign_in("ada", "/admin/x")).status == 200
    assert [row[0] for row in terminal.rows()] == ["countess"]
    (line,) = terminal.events("invitation-accepted")
    assert (line["username"], line["provider"]) == ("ada", "corp")
    shown = await terminal.good("users", "show", "countess")
    assert (shown["id"], shown["invitations"][0]["used"] is not None) == (line["person"], True)
    code = link.partition("code=")[2]
    assert code not in terminal.running.audit_file.read_text()


async def test_a_link_that_was_used_opens_nothing_for_anybody(terminal: Terminal) -> None:
    link = await link_for(terminal, "countess", "ada@example.com")
    async with terminal.running.browser() as ada, terminal.running.browser() as other:
        # Begun while it was still good, and ended after somebody else had used it.
        begun = await other.follow(await other.page(link))
        assert (await take(ada, link, "ada")).status == 200
        assert "invitation-used" in await (await ada.page(link)).text()
        late = await other.follow(await other.choose(begun, "ada"))
        assert (late.status, "invitation-used" in await late.text()) == (403, True)
        assert other.cookie() == ""


async def test_only_who_was_invited_can_use_the_link(terminal: Terminal) -> None:
    link = await link_for(terminal, "countess", "ada@example.com")
    async with terminal.running.browser() as browser:
        refused = await take(browser, link, "grace")
        assert (refused.status, "invitation-for-somebody-else" in await refused.text()) == (403, True)
        assert browser.cookie() == ""
        browser.forget_provider()
        assert (await take(browser, link, "ada")).status == 200


async def test_where_it_is_not_strict_whoever_has_the_link_may_use_it(world: World, tmp_path: Path) -> None:
    terminal = await beside(world, tmp_path, {"people": {"join": {}, "invitations": {"strict": "false"}}})
    link = await link_for(terminal, "countess", "somebody@else.example")
    async with terminal.running.browser() as browser:
        assert (await take(browser, link, "grace")).status == 200
    assert "countess" in [row[0] for row in terminal.rows()]


async def test_a_link_leads_to_the_login_that_the_operator_meant_and_to_no_other(world: World, tmp_path: Path) -> None:
    other = {"type": "oidc", "issuer": {"env": "OTHER"}, "client_id": "wiki", "client_secret": {"env": "OIDC_SECRET"}}
    port = free_port()
    providers = [await world.provider(f"http://localhost:{port}") for _ in range(2)]
    shared = {"logins": {"other": other}, "people": {"on": "email", "join": {}, "invitations": {"strict": "false"}}}
    variables = {"OTHER": providers[1].issuer}
    terminal = await beside(world, tmp_path, shared, provider=providers[0], port=port, **variables)
    link = await link_for(terminal, "countess", "ada@example.com", "--login", "corp")
    assert link.endswith("&with=corp")
    old_code = older(link.partition("code=")[2].partition("&")[0])
    async with terminal.running.browser() as browser:
        for changed in ("&with=other", "", "&with=", "&with=nowhere"):
            answer = await browser.page(link.replace("&with=corp", changed))
            assert (answer.status, "invitation-invalid" in await answer.text()) == (403, True), changed
        assert (await take(browser, link, "ada")).status == 200
        assert terminal.events("invitation-accepted")[0]["provider"] == "corp"
        # Links from before logins were signed are out still.
        assert "invitation-used" in await (await browser.page(f"/-/invitation?code={old_code}&with=corp")).text()


def older(code: str) -> str:
    """The same invitation, signed as it was before its login was."""
    body = base64.urlsafe_b64decode(code + "=" * (-len(code) % 4))[:-32]
    key = hmac.digest(SECRET.encode(), b"sidecar invitation 1\n", "sha256")
    seal = hmac.digest(key, hashlib.sha256(body).digest(), "sha256")
    return base64.urlsafe_b64encode(body + seal).decode().rstrip("=")


async def test_t75_a_link_is_no_way_round_the_limit_of_sign_ins(world: World, tmp_path: Path) -> None:
    terminal = await beside(world, tmp_path, {"people": {"join": {}}, "limits": {"sign_in": "3/1h"}})
    link = await link_for(terminal, "countess", "ada@example.com")
    async with terminal.running.browser() as browser:
        assert [(await browser.page(link)).status for _ in range(5)] == [302, 302, 302, 429, 429]
        assert (await browser.page("/-/login")).status == 429


async def test_links_that_are_too_old_changed_or_followed_by_a_newer_one_do_not_open(
    terminal: Terminal, world: World
) -> None:
    first = await link_for(terminal, "countess", "ada@example.com")
    said = await terminal.good("users", "invite", "countess", "--lifetime", "1h")
    second: str = said["link"].removeprefix(terminal.running.url)
    raw = bytearray(base64.urlsafe_b64decode(second.partition("code=")[2] + "=="))
    raw[20] ^= 1
    changed = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    async with terminal.running.browser() as browser:
        for link, why in [
            (first, "invitation-expired"),
            (f"/-/invitation?code={changed}", "invitation-invalid"),
            ("/-/invitation?code=" + "A" * 75, "invitation-invalid"),
            ("/-/invitation?code=%C3%A9", "invitation-invalid"),
            ("/-/invitation", "invitation-invalid"),
            (second + "A" * 5000, "invitation-invalid"),
        ]:
            assert why in await (await browser.page(link)).text(), link[:80]
        begun = await browser.follow(await browser.page(second))
        world.clock.ahead = 3601
        assert "invitation-expired" in await (await browser.page(second)).text()
        late = await browser.follow(await browser.choose(begun, "ada"))
        assert late.status in (400, 403)
        assert browser.cookie() == ""


async def test_nobody_is_invited_who_is_switched_off_or_has_no_address(terminal: Terminal) -> None:
    link = await link_for(terminal, "countess", "ada@example.com")
    await terminal.good("users", "add", "nameless")
    assert (await terminal("users", "invite", "nameless")).code == 1
    assert (await terminal("users", "invite", "countess", "--login", "nowhere")).code == 2
    assert (await terminal("users", "invite", "countess", "--lifetime", "soon")).code == 2
    assert "link" not in await terminal.good("users", "invite", "countess", "--dry-run")
    await terminal.good("users", "disable", "countess")
    assert (await terminal("users", "invite", "countess")).code == 1
    async with terminal.running.browser() as browser:
        refused = await take(browser, link, "ada")
        assert (refused.status, "person-disabled" in await refused.text()) == (403, True)


async def test_t69_whoever_is_somebody_already_is_not_made_somebody_else(terminal: Terminal) -> None:
    async with terminal.running.browser() as browser:
        assert (await browser.sign_in("ada")).status == 200

        async def has_record() -> bool:
            return (await terminal("users", "show", "ada")).code == 0

        await until(has_record)
        link = await link_for(terminal, "countess", "ada@example.com")
        browser.forget_provider()
        refused = await take(browser, link, "ada")
        assert (refused.status, "account-bound-to-another" in await refused.text()) == (403, True)


@pytest.fixture
async def directory(database_url: str) -> Directory:
    return await Directory.open(database_url, "wiki", 15)


async def test_the_book_of_invitations_holds_on_every_database(directory: Directory) -> None:
    told = await directory.profiles.told(Identity("manual", "manual", "c", "countess"), [], 1.0)
    book = directory.invitations
    made = await book.make(told.person_id, "Ada@example.com", 1.0, 100.0)

    async def refusal(who: Identity, now: float, *, strict: bool = True) -> Reason:
        with pytest.raises(Refused) as end:
            await book.accept(made.id, who, now, strict=strict)
        return end.value.reason

    assert await refusal(replace(ADA, email=""), 2.0) is Reason.INVITATION_OTHER
    assert await refusal(replace(ADA, email="grace@example.com"), 2.0) is Reason.INVITATION_OTHER
    assert await refusal(ADA, 101.0) is Reason.INVITATION_EXPIRED
    other = await directory.admit(replace(ADA, subject="other"), 1.0)
    assert await refusal(replace(ADA, subject="other"), 2.0) is Reason.ACCOUNT_BOUND
    # What was refused has used nothing up.
    assert (await book.usable(made.id, 2.0)).used is None
    assert await book.accept(made.id, ADA, 2.0, strict=True) == told.person_id
    assert await refusal(ADA, 3.0) is Reason.INVITATION_USED
    again = await book.make(told.person_id, "ada@example.com", 4.0, 100.0)
    # One provider, one subject: a name that was given away again takes nobody's place.
    with pytest.raises(Refused) as end:
        await book.accept(again.id, replace(ADA, subject="a2"), 5.0, strict=True)
    assert end.value.reason is Reason.ACCOUNT_BOUND
    known = await directory.person_by_identity(ADA.key)
    assert known is not None
    assert known.id == told.person_id != other.id
    with pytest.raises(Refused):
        await book.usable("0" * 32, 1.0)
    # The one who sends a newer one may have a clock that is ahead of that of the one who is shown the older.
    former = await book.make(other.id, "bob@example.com", 600.0, 100.0)
    await book.make(other.id, "bob@example.com", 601.0, 100.0)
    with pytest.raises(Refused) as end:
        await book.usable(former.id, 5.0)
    assert end.value.reason is Reason.INVITATION_EXPIRED
    await directory.close()
