"""The console's pages about tokens: what there is, whose it is, and its end; never the token itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.directory import Directory
from sidecar.directory.tokens import ApiToken, Kind, Standing
from sidecar.model import Identity
from sidecar.people import Changes
from sidecar.tokens import Issuer, Order
from tests.console_world import Consoled, a_console, act
from tests.test_console import HOSTILE, person_of
from tests.world import World, until

DAY = 86400.0
SCIM = {"clients": {"hr": {"token": [{"env": "HR_ONE"}, {"value": {"env": "HR_TWO"}, "expires": "2031-02-03"}]}}}
SECRETS = {"HR_ONE": "leak-scim-token-one-which-is-long-enough", "HR_TWO": "leak-scim-token-two-which-is-long-enough"}


async def issued(console: Consoled, **order: Any) -> tuple[str, ApiToken]:
    """Issue a token as the command does."""
    sidecar = console.running.sidecar
    directory = sidecar.condition.accounts.directory
    assert directory is not None
    issuer = Issuer(directory, Changes(sidecar.condition.store), sidecar.audit.record, ("all",), ("editor",))
    return await issuer.issue(Order(**{"name": "nightly", "lifetime": DAY, **order}), "cli:root", console.clock())


async def a_world(world: World, folder: Path) -> Consoled:
    rules = [{"path": "/**", "allow": [{"role": ["admin", "editor", "reader"]}, {"bearer": "tokens"}]}]
    return await a_console(world, folder, {"tokens": {}, "scim": SCIM, "access": rules}, environment=SECRETS)


async def test_tokens_are_listed_found_and_revoked_within_a_second(world: World, tmp_path: Path) -> None:
    console = await a_world(world, tmp_path)
    directory = console.running.sidecar.condition.accounts.directory
    assert directory is not None
    async with console.running.browser() as person:
        await person.sign_in("grace")
    grace = await directory.person(await person_of(console, "grace"))
    secret, made = await issued(console, person=grace, scope=("GET /wiki/**",))
    robot, _ = await issued(console, name=HOSTILE, subject="robot", roles=("editor",))
    async with console.running.browser() as program, await console.operator("ada") as admin:
        bearer = {"Authorization": f"Bearer {secret}"}
        assert (await program.fetch("/wiki/1", headers=bearer)).status == 200
        page = await (await admin.page("/tokens")).text()
        for words in ("nightly", "grace", "GET /wiki/**", "robot", "sidecar tokens create", "number 2", "2031-02-03"):
            assert words in page, words

        async def is_noted() -> bool:
            return "127.0.0.1" in await (await admin.page(f"/tokens/{made.id}")).text()

        await until(is_noted)
        one = await (await admin.page(f"/tokens/{made.id}")).text()
        assert "cli:root" in one
        texts = [page, one, await (await admin.page("/audit?event=token-created")).text()]
        for text in texts:
            assert "<script" not in text
            for hidden in (secret, robot, *SECRETS.values()):
                assert hidden not in text
        assert "robot <span" in page
        assert "robot <span" not in await (await admin.page("/tokens?q=gra")).text()
        assert "There is no such token" in await (await admin.page("/tokens?show=revoked")).text()

        assert (await act(admin, "revoke-token", made.id)).status == 303
        assert (await program.fetch("/wiki/1", headers=bearer)).status == 401
        assert (await act(admin, "revoke-token", made.id)).status == 409
        assert "console:ada" in await (await admin.page(f"/tokens/{made.id}")).text()
        assert "nightly" in await (await admin.page("/tokens?show=revoked")).text()
        for missing in ("/tokens/x", f"/tokens/{'0' * 32}", "/tokens?show=x", "/tokens?after=x"):
            assert (await admin.page(missing)).status == 404, missing
    (line,) = console.audited("token-revoked")
    assert (line["token"], line["by"]) == (made.id, "console:ada")


async def test_whoever_may_only_look_or_operate_revokes_nothing(world: World, tmp_path: Path) -> None:
    console = await a_world(world, tmp_path)
    _, made = await issued(console, subject="robot")
    for login in ("alan", "grace"):
        async with await console.operator(login) as browser:
            assert "Revoke this token" not in await (await browser.page(f"/tokens/{made.id}")).text()
            assert (await act(browser, "revoke-token", made.id)).status == 403
    assert console.audited("token-revoked") == []


@pytest.mark.parametrize("text", ["", "same", "%"])
async def test_tokens_come_page_by_page_the_newest_first(database_url: str, text: str) -> None:
    directory = await Directory.open(database_url, "app")
    try:
        owner = await directory.admit(Identity("corp", "i", "s", "Owner", "o@example.com"), 1.0)
        for number in range(10):
            revoked = 5.0 if number == 3 else None
            expires = 2.0 if number == 4 else 100.0
            who = {"person_id": owner.id, "subject": ""} if number % 2 else {"person_id": None, "subject": "same"}
            kind = Kind.PERSONAL if number % 2 else Kind.SERVICE
            made = ApiToken(
                id=f"{number:032x}", kind=kind, name="same", roles=(), scope=(), created=float(number // 3),
                created_by="x", expires=expires, revoked=revoked, **who,
            )  # fmt: skip
            await directory.tokens.add(made, f"{number:064x}")
        tokens, seen, after = directory.tokens, [], None
        while page := await tokens.page(None, text, after, 4, 10.0):
            seen += [one.token.id for one in page]
            after = (page[-1].token.created, page[-1].token.id)
        assert seen == ([] if text == "%" else [f"{number:032x}" for number in reversed(range(10))])
        assert {one.owner for one in await tokens.page(None, "owN", None, 9, 10.0)} == {"Owner"}
        counts = [len(await tokens.page(standing, "", None, 99, 10.0)) for standing in Standing]
        assert counts == [8, 1, 1]
        assert len(await tokens.page(None, f"{7:032x}", None, 9, 10.0)) == 1
    finally:
        await directory.close()
