"""The operators' console: who gets in, who may do what, and nothing by a form from elsewhere."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sidecar.console.acts import NEEDS, Act
from sidecar.console.operators import Level
from sidecar.directory import Owed
from sidecar.directory.sync_runs import PlannedItem, RunRecord
from sidecar.faults import Refused
from sidecar.insights.alerts import remember
from sidecar.model import Duty, identity_key
from sidecar.people import Changes
from sidecar.tokens import Issuer, Order
from tests.console_world import a_console, act, seal_of
from tests.scim_world import TOKEN, ScimClient, client_section
from tests.world import World, free_port, until

DRIFT = {"list": {"csv": "accounts.csv"}, "account": {"key": "{{ row.login }}"}}
HOSTILE = "<script>alert(1)</script>\"'></textarea><img src=x onerror=alert(2)>"
PAGES = ("/", "/people", "/owed", "/sessions", "/access", "/audit", "/why", "/health", "/configuration")


async def person_of(console: Any, login: str) -> str:
    """Id of somebody who has been at the application."""
    directory = console.running.sidecar.condition.accounts.directory
    (person,) = await directory.find(login)
    return str(person.id)


async def test_there_is_no_console_unless_it_is_configured(world: World) -> None:
    running = await world()
    assert running.sidecar.console is None


async def test_every_page_is_shown_to_whoever_may_look_and_to_nobody_else(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with console.browser() as stranger:
        for page in PAGES:
            assert (await stranger.page(page)).status == 302
            assert (await stranger.fetch(page)).status == 401
    async with await console.operator("alan") as viewer:
        for page in PAGES:
            answer = await viewer.page(page)
            assert answer.status == 200, page
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "script" not in policy
            assert "<script" not in await answer.text()
            assert answer.headers["Cache-Control"] == "no-store"
        assert (await viewer.page("/no-such-page")).status == 404
        assert (await viewer.page("/-/me")).status == 404
    async with await console.operator("mallory") as nobody:
        for page in PAGES:
            assert (await nobody.page(page)).status == 403, page
    assert {line["reason"] for line in console.audited("console-refused")} == {"role-missing"}


async def test_nobody_may_do_what_their_level_is_too_low_for(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    assert set(NEEDS) == set(Act)
    for login, level in (("alan", Level.VIEW), ("grace", Level.OPERATE), ("ada", Level.ADMINISTER)):
        async with await console.operator(login) as browser:
            for one in Act:
                status = (await act(browser, one.value, "0" * 32)).status
                assert (status == 403) is (level < NEEDS[one]), (login, one, status)
            page = await (await browser.page("/people")).text()
            assert f"<em>{level.word}</em>" in page
    refused = [(line["person"], line["act"]) for line in console.audited("console-refused")]
    assert sorted(refused) == sorted(
        (login, one.value)
        for login, level in (("alan", Level.VIEW), ("grace", Level.OPERATE))
        for one in Act
        if level < NEEDS[one]
    )
    done = [line for line in console.audited("console-act") if line["person"] == "ada"]
    assert {line["act"] for line in done} == {one.value for one in Act}
    assert all(line.get("result") or line.get("reason") for line in done)


async def test_t73_a_form_from_elsewhere_changes_nothing(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with console.running.browser() as person:
        await person.sign_in("grace")
        target = await person_of(console, "grace")
        async with await console.operator("ada") as admin, await console.operator("grace") as other:
            foreign = await seal_of(other)
            cases: list[dict[str, Any]] = [
                {"headers": {"Sec-Fetch-Site": "cross-site"}},
                {"headers": {"Sec-Fetch-Site": "same-site"}},
                {"headers": {"Sec-Fetch-Site": "none"}},
                {"data": {"seal": ""}},
                {"data": {"seal": foreign}},
                {"data": {"seal": "é"}},
            ]
            for case in cases:
                for one in Act:
                    assert (await act(admin, one.value, target, **case)).status == 403, (one, case)
            # Browsers without Fetch Metadata tell by Origin.
            data = {"seal": await seal_of(admin), "act": "end-sessions", "target": target}
            for origin in ({}, {"Origin": "null"}, {"Origin": console.running.url}):
                answer = await admin.http.post(console.url + "/act", data=data, headers=origin, allow_redirects=False)
                assert answer.status == 403, origin
            for method in ("GET", "PUT", "DELETE"):
                answer = await admin.page("/act?act=end-sessions&target=" + target, method)
                assert answer.status in (404, 405), method
            assert (await person.page("/x")).status == 200
            reasons = {line["reason"] for line in console.audited("console-refused")}
            assert reasons == {"csrf", "method-refused"}
            good = {"Origin": console.url}
            answer = await admin.http.post(console.url + "/act", data=data, headers=good, allow_redirects=False)
            assert answer.status == 303
            assert (await person.page("/x")).status == 302


async def test_t73_no_page_shows_a_secret(world: World, tmp_path: Path) -> None:
    secrets = {"OIDC_SECRET": "a client secret", "API_TOKEN": "leak-api-token", "SHARED": "leak-shared-with-the-app"}
    connections = {"api": {"rest": {"base_url": "http://localhost:9", "bearer": {"env": "API_TOKEN"}}}}
    changes = {"headers": {"X-Shared": {"env": "SHARED"}}, "provision": {"connections": connections}}
    console = await a_console(world, tmp_path, changes, environment=secrets)
    async with console.running.browser() as person:
        await person.sign_in("grace")
        token = person.cookie()
    directory = console.running.sidecar.condition.accounts.directory
    assert directory is not None
    (grace,) = await directory.find("grace")
    assert grace.account is not None
    outputs = type(grace.account)(grace.account.key, grace.account.id, {"password": "leak-output"})
    await directory.record(grace, outputs, fingerprint="f", roles=(), now=1.0)
    form = {"method": "GET", "target": "/x", "login": "corp", "claims": json.dumps({"sub": "1", **CLAIMS})}
    async with await console.operator("ada") as admin:
        texts = [await (await admin.page(page)).text() for page in (*PAGES, f"/people/{grace.id}", "/audit?text=a")]
        form["seal"] = await seal_of(admin)
        texts.append(await (await admin.page("/access", "POST", data=form)).text())
        assert "X-Shared: (secret)" in texts[-1]
        for text in texts:
            for secret in (
                *secrets.values(),
                "leak-output",
                token,
                "a session secret",
                admin.cookie("sidecar-console"),
            ):
                assert secret not in text


CLAIMS = {"preferred_username": "grace", "email": "g@example.com", "groups": ["wiki-editors"], "name": "G"}


async def test_t73_another_host_name_and_another_cookie_open_nothing(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with await console.operator("ada") as admin:
        answer = await admin.page("/", headers={"Host": "evil.example"})
        assert answer.status == 421
        token = admin.cookie("sidecar-console")
    async with console.running.browser() as person:
        # The application never gets to see the console's cookie, and it opens nothing there.
        answer = await person.page("/public/x", headers={"Cookie": f"sidecar-console={token}; mine=1"})
        assert answer.status == 200
        assert console.running.application.seen[-1].values("Cookie") == ["mine=1"]
        assert (await person.page("/x", headers={"Cookie": f"sidecar={token}"})).status == 302
        await person.sign_in("ada")
        theirs = person.cookie()
    async with console.browser() as stranger:
        answer = await stranger.page("/", headers={"Cookie": f"sidecar-console={theirs}; sidecar={theirs}"})
        assert answer.status == 302


async def test_t73_neither_kind_of_session_opens_the_other_s_door(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    sidecar = console.running.sidecar
    async with console.running.browser() as person, await console.operator("ada"):
        await person.sign_in("ada")
        (line,) = [line for line in console.audited("login-succeeded") if line["provider"] == "corp"][1:]
        key = identity_key(line["issuer"], line["subject"])
        keeper = sidecar.front.portal.keeper
        assert await keeper.list_person(key) == (line["session"],)
        # Somebody who can write to the store moves a record over: it is sealed for another door.
        store = sidecar.condition.store
        sealed = await store.get(f"session:{line['session']}")
        assert sealed is not None
        await store.put(f"console:session:{line['session']}", sealed, 60.0)
        async with console.browser() as stranger:
            moved = await stranger.page("/", headers={"Cookie": f"sidecar-console={person.cookie()}"})
            assert moved.status == 302


async def test_t74_what_strangers_write_is_text_on_every_page(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    directory = console.running.sidecar.condition.accounts.directory
    assert directory is not None
    from sidecar.model import Identity  # noqa: PLC0415

    claims = {"a": HOSTILE}
    who = Identity("corp", HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, (HOSTILE,), claims)
    person = await directory.admit(who, 1.0)
    await directory.profiles.signed_in(person, who, {}, 1.0)
    await directory.outbox.enqueue(Owed(person.id, Duty.DEACTIVATE, 9e9, "x"))
    async with console.running.browser() as stranger:
        await stranger.page("/x", headers={"User-Agent": HOSTILE, "Referer": HOSTILE})
        await stranger.page("/-/callback/corp?error=x&error_description=" + "%3Cscript%3Ealert(1)%3C/script%3E")
    async with await console.operator("ada") as admin:
        quoted = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%22%27%3E"
        asked = [
            *PAGES,
            f"/people/{person.id}",
            f"/access?person={person.id}",
            f"/people?q={quoted}",
            f"/why?reference={quoted}",
            f"/sessions?id={quoted}&subject={quoted}&login={quoted}",
            f"/audit?text={quoted}&until={quoted}&from={quoted}",
            f"/?done={quoted}",
        ]
        texts = [await (await admin.page(page)).text() for page in asked]
        form = {"seal": await seal_of(admin), "target": "/" + HOSTILE, "claims": json.dumps(claims), "method": HOSTILE}
        texts.append(await (await admin.page("/access", "POST", data=form)).text())
        texts.append(await (await admin.page("/access", "POST", data={**form, "claims": HOSTILE})).text())
        assert any("&lt;script&gt;" in text for text in texts)
        for page, text in zip([*asked, "access", "access"], texts, strict=True):
            assert "<script" not in text, page
            assert "<img" not in text, page


async def test_an_act_that_sends_back_elsewhere_stays_here(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with await console.operator("grace") as operator:
        for back in ("https://evil.example/", "//evil.example", "/\\evil.example", "/-/logout"):
            answer = await act(operator, "end-session", "x", data={"back": back})
            assert answer.headers["Location"] == "/?done=end-session"


async def test_an_operator_who_is_switched_off_is_out_at_once(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with console.running.browser() as person:
        await person.sign_in("grace")
    target = await person_of(console, "grace")
    async with await console.operator("grace") as operator, await console.operator("ada") as admin:
        assert (await operator.page("/")).status == 200
        assert (await act(admin, "disable", target)).status == 303
        assert (await operator.page("/")).status == 403
        page = await (await admin.page(f"/people/{target}")).text()
        assert "Switch on again" in page
        assert (await act(admin, "enable", target)).status == 303
        assert (await operator.page("/")).status == 200
    lines = [(line["act"], line["username"], line["person"]) for line in console.audited("console-act")]
    assert lines == [("disable", "grace", "ada"), ("enable", "grace", "ada")]


async def test_t56_an_operator_whose_role_is_taken_away_is_out_with_the_next_request(
    world: World, tmp_path: Path
) -> None:
    client = client_section(groups="replace", join={"corp": "{{ claims.preferred_username }}"}, on="userName")
    changes = {"scim": {"clients": {"okta": client}}}
    console = await a_console(world, tmp_path, changes, environment={"SCIM_TOKEN": TOKEN})
    async with ScimClient(console.running) as scim:
        grace = await scim.make("grace")
        admins = await scim.group("wiki-admins", grace["id"])
        readers = await scim.group("wiki-readers", grace["id"])
        async with await console.operator("grace") as operator:
            assert "<em>administer</em>" in await (await operator.page("/")).text()
            seal = await seal_of(operator)
            none = {"op": "remove", "path": "members"}
            assert (await scim.patch(f"/Groups/{admins['id']}", none)).status == 200
            data = {"seal": seal, "act": "disable", "target": "0" * 32}
            assert (await operator.page("/act", "POST", data=data)).status == 403
            assert "<em>view</em>" in await (await operator.page("/")).text()
            assert (await scim.patch(f"/Groups/{readers['id']}", none)).status == 200
            for page in PAGES:
                assert (await operator.page(page)).status == 403, page
            for one in Act:
                assert (await operator.page("/act", "POST", data={**data, "act": one.value})).status == 403, one
    assert {line["act"] for line in console.audited("console-act")} == set()


# What could end a header, leave an attribute, or turn the words around it.
STRANGE = (
    HOSTILE,
    "a\r\nSet-Cookie: x=1",
    "ada\u202eecarg",
    "a\u200bda",
    "\u2066x",
    "{{ 7 * 7 }}",
    "' onclick='x",
    "&quot;",
)


async def test_t74_names_neither_turn_the_page_around_nor_end_a_header(world: World, tmp_path: Path) -> None:
    changes = {"drift": DRIFT, "insights": {}, "tokens": {}}
    console = await a_console(world, tmp_path, changes)
    directory = console.running.sidecar.condition.accounts.directory
    assert directory is not None
    store = console.running.sidecar.lasting.lender.lend()
    changed = Changes(console.running.sidecar.condition.store)
    issuer = Issuer(directory, changed, console.running.sidecar.audit.record, ("all",), ("editor",))
    for number, name in enumerate(STRANGE):
        made = RunRecord(f"{number:032x}", "drift", name, "quarantined", number, 1.0, name, name, {"why": name})
        await directory.sync.begin(made)
        found = {"finding": "orphan", "account": name, "username": name, "person_id": "", "there": name, "here": name}
        item = PlannedItem(0, "orphan", "h", "", json.dumps({**found, "seen": None}))
        await directory.sync.add_items(made.id, [item])
        said = datetime.fromtimestamp(console.clock(), UTC).isoformat(timespec="milliseconds")
        alert = {"time": said, "insight": "silent-token", "token": name, "person": name}
        await remember(store, alert, console.clock())
        with suppress(Refused, ValueError):
            order = Order(name=name, lifetime=60.0, subject="robot", roles=("editor",))
            await issuer.issue(order, name, console.clock())
    async with await console.operator("ada") as admin:
        runs = [f"/drift/{number:032x}" for number in range(len(STRANGE))]
        for path in ("/drift", *runs, "/insights", "/tokens"):
            answer = await admin.page(path)
            assert answer.status == 200, path
            text = await answer.text()
            assert not re.search("[\r\u200b\u202e\u2066]", text), path
            assert "<script" not in text, path
            assert "<img" not in text, path
            assert "' onclick='x" not in text, path
            assert "49" not in re.findall(r"<td[^>]*>([^<]*)</td>", text), path
        assert "ada⟨U+202E⟩ecarg" in await (await admin.page(runs[2])).text()
        for one in Act:
            for name in STRANGE:
                answer = await act(admin, one.value, name, data={"back": f"/people?q={name}"})
                assert "Set-Cookie" not in answer.headers, (one, name)
                assert not re.search("[\r\n]", answer.headers.get("Location", "")), (one, name)
                text = await answer.text()
                assert "<script" not in text, (one, name)
                assert "\u202e" not in re.sub(r'href="[^"]*"', "", text), (one, name)


async def test_an_operators_word_holds_beside_those_of_others(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with console.running.browser() as person:
        await person.sign_in("alan")
    target = await person_of(console, "alan")
    accounts = console.running.sidecar.condition.accounts
    assert accounts.directory is not None
    assert accounts.provisioner is not None
    await accounts.provisioner.disable(target, "sync:hr", 1.0)
    async with await console.operator("ada") as admin:

        async def shown() -> str:
            return await (await admin.page(f"/people/{target}")).text()

        assert "sync:hr switched this person off" in await shown()
        assert "Switch on again" not in await shown()
        assert (await act(admin, "enable", target)).status == 409
        assert (await act(admin, "disable", target)).status == 303
        assert "They stay off while sync:hr holds." in await shown()
        # The source changes its mind, and nobody comes in.
        assert not (await accounts.provisioner.enable(target, "sync:hr", 2.0)).active
        assert (await act(admin, "enable", target)).status == 303
        known = await accounts.directory.person(target)
        assert known is not None
        assert known.active


async def test_nobody_switches_themselves_off(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with console.running.browser() as person:
        await person.sign_in("ada")
    async with await console.operator("ada") as admin:
        assert (await act(admin, "disable", await person_of(console, "ada"))).status == 409


async def test_sessions_of_somebody_are_listed_and_end_one_by_one_and_all(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with console.running.browser() as one, console.running.browser() as two:
        await one.sign_in("alan")
        await two.sign_in("alan")
        target = await person_of(console, "alan")
        console.running.sidecar.audit.flush()
        async with await console.operator("grace") as operator:
            page = await (await operator.page(f"/people/{target}")).text()
            ids = [line["session"] for line in console.audited("login-succeeded") if line["person"] == "alan"]
            assert len(ids) == 2
            assert all(session in page for session in ids)
            assert page.count(" at corp from 127.0.0.1") == 2
            assert ids[0] in await (await operator.page(f"/sessions?id={ids[0]}")).text()
            assert (await act(operator, "end-session", ids[0])).status == 303
            assert [(await browser.page("/x")).status for browser in (one, two)] == [302, 200]
            assert (await act(operator, "end-sessions", target)).status == 303
            assert (await two.page("/x")).status == 302
            lines = console.audited("console-act")
            assert [(line["act"], line["ended"]) for line in lines] == [("end-session", 1), ("end-sessions", 1)]


async def test_what_is_owed_is_tried_again_and_cancelled(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with console.running.browser() as person:
        await person.sign_in("alan")
    target = await person_of(console, "alan")
    directory = console.running.sidecar.condition.accounts.directory
    assert directory is not None
    from sidecar.directory import Owed  # noqa: PLC0415

    for once in ("a", "b"):
        await directory.outbox.enqueue(Owed(target, Duty.DEACTIVATE, 9e9, once))
    first, second = await directory.browsing.owed("due", None, 10)
    assert await directory.browsing.owed("due", (first.due, first.id), 10) == (second,)
    async with await console.operator("ada") as admin:
        assert first.id in await (await admin.page("/owed")).text()
        assert (await act(admin, "cancel", first.id)).status == 303
        assert (await act(admin, "cancel", first.id)).status == 404
        assert (await act(admin, "retry", second.id)).status == 303
        assert "cancelled by an operator" in await (await admin.page("/owed?state=done")).text()
        assert (await admin.page("/owed?state=none")).status == 404
        assert (await admin.page("/owed?after=x")).status == 404


@pytest.mark.parametrize("act", ["retry", "cancel"])
async def test_what_is_being_worked_on_is_left_alone(world: World, tmp_path: Path, act: str) -> None:
    from sidecar.directory import Directory, Owed  # noqa: PLC0415
    from sidecar.faults import Refused  # noqa: PLC0415
    from sidecar.model import Identity  # noqa: PLC0415
    from sidecar.reason import Reason  # noqa: PLC0415

    directory = await Directory.open(f"sqlite:///{tmp_path}/d.db", "app")
    try:
        person = await directory.admit(Identity("corp", "i", "s", "u"), 1.0)
        await directory.outbox.enqueue(Owed(person.id, Duty.SETTLE, 1.0, "x"))
        (item,) = await directory.outbox.due(2.0, 100.0)
        with pytest.raises(Refused) as caught:
            await getattr(directory.browsing, act)(item.id, 50.0)
        assert caught.value.reason is Reason.CONFLICT
        await getattr(directory.browsing, act)(item.id, 200.0)
    finally:
        await directory.close()


async def test_access_is_explained_as_the_gate_decides(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with await console.operator("alan") as viewer:
        form = {
            "seal": await seal_of(viewer),
            "method": "GET",
            "login": "corp",
            "claims": json.dumps({"sub": "1", **CLAIMS}),
        }
        allowed = await (await viewer.page("/access", "POST", data={**form, "target": "/wiki"})).text()
        assert "<strong>allow</strong>" in allowed
        assert "X-App-User: grace" in allowed
        denied = await (await viewer.page("/access", "POST", data={**form, "target": "/admin/x"})).text()
        assert "<strong>deny</strong>" in denied
        assert "role-missing" in denied
        for claims, words in (("{", "no JSON"), ("[1]", "JSON object")):
            answer = await (await viewer.page("/access", "POST", data={**form, "claims": claims})).text()
            assert words in answer
    assert console.audited("console-read")


async def test_a_reference_leads_to_the_story(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    async with console.running.browser() as person:
        refused = await person.sign_in("mallory")
        assert refused.status == 403
    (line,) = [line for line in console.audited("decision") if line.get("effect") == "deny"]
    async with await console.operator("alan") as viewer:
        story = await (await viewer.page(f"/why?reference={line['reference']}")).text()
        assert "You do not have access" in story
        assert "login-succeeded" in story
        assert line["reference"] in await (await viewer.page("/")).text()
        found = await (await viewer.page("/audit?person=mallory&event=login-succeeded")).text()
        assert "login-succeeded</span>" in found
        assert "Nothing fits" in await (await viewer.page("/audit?person=nobody")).text()


async def test_an_operator_s_sign_in_must_be_as_strong_as_is_asked(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path, {"console": {"require": {"amr": ["hwk"]}}})
    async with console.browser() as browser:
        answer = await browser.sign_in("ada")
        assert answer.status == 403
        assert "step-up-unmet" in await answer.text()
        assert (await browser.page("/people")).status == 302


async def test_the_configuration_page_tells_what_changed_and_when(world: World, tmp_path: Path) -> None:
    from sidecar.core.audit import Event  # noqa: PLC0415

    console = await a_console(world, tmp_path)
    fields = {"digest": "abc", "trigger": "signal", "changes": ["access[2].allow", "<script>"]}
    console.running.sidecar.audit.record(Event.CONFIGURATION_LOADED, fields)
    async with await console.operator("alan") as viewer:

        async def is_told() -> bool:
            page = await (await viewer.page("/configuration")).text()
            assert "<script" not in page
            return "access[2].allow, &lt;script&gt;" in page and "signal" in page

        await until(is_told)


async def test_the_overview_says_what_needs_attention_and_where_to_look(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {
        "type": "oidc",
        "issuer": f"http://127.0.0.1:{free_port()}",
        "client_id": "x",
        "client_secret": {"env": "S"},
    }
    console = await a_console(world, tmp_path, {"logins": {"other": away}}, environment={"S": "a client secret"})
    accounts = console.running.sidecar.condition.accounts
    assert accounts.backlog is not None
    assert accounts.directory is not None
    async with console.running.browser() as person, await console.operator("alan", "corp") as viewer:
        assert (await person.sign_in("grace", "/-/login?to=/&with=corp")).status == 200
        assert "All is well" in await (await viewer.page("/")).text()
        await accounts.directory.outbox.enqueue(Owed(await person_of(console, "grace"), Duty.DEACTIVATE, 1.0, "x"))
        monkeypatch.setattr(accounts.backlog, "_overdue", 0.0)
        await accounts.backlog.look()
        assert (await person.page("/-/login?to=/&with=other")).status == 503
        await console.running.application.stop()
        for _ in range(5):
            assert (await person.page("/")).status == 502

        async def is_noted() -> bool:
            return "cannot be reached" in await (await viewer.page("/")).text()

        await until(is_noted)
        for page in ("/", "/health"):
            text = await (await viewer.page(page)).text()
            assert "All is well" not in text
            assert "the oldest of 1 waits" in text
            for part, link in (("outbox", "/owed"), ("provider.other", "/health"), ("application", "/health")):
                assert f'<a href="{link}"><code>{part}</code>' in text, (page, part)
        # What does not answer stands before what does.
        first = text.index('data-label="State"')
        assert "not well" in text[first : text.index("</tr>", first)]
