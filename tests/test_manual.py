"""Operators add people, switch them off and on, give accounts away and end sessions while the sidecar runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from sidecar.core.patience import pause_after
from sidecar.core.roster import entry_of, read_roster
from tests.manual_world import Terminal, beside
from tests.world import World, until


@pytest.fixture
async def terminal(world: World, redis_url: str, tmp_path: Path) -> Terminal:
    return await beside(world, tmp_path, REDIS_URL=redis_url)


async def test_somebody_added_before_their_first_sign_in_has_an_account_and_is_found(terminal: Terminal) -> None:
    ada = ("users", "add", "countess", "--email", "Ada@example.com", "--name", "Countess", "--group", "wiki-admins")
    planned = await terminal.good(*ada, "--dry-run")
    assert (planned["change"], planned["dry_run"]) == ("added", True)
    assert (await terminal.good("users", "list"))["total"] == 0
    made = await terminal.good(*ada)
    await terminal.has_row("countess")
    again = await terminal.good(*ada)
    assert (again["change"], again["id"]) == ("unchanged", made["id"])

    async def owes_nothing() -> bool:
        return bool((await terminal.good("outbox", "list"))["items"] == [])

    await until(owes_nothing)
    async with terminal.running.browser() as browser:
        assert (await browser.sign_in("ada", "/admin/x")).status == 200
        assert terminal.running.application.seen[-1].values("X-App-Name") == ["Countess"]
        assert [row[:3] for row in terminal.rows()] == [("countess", "ada@example.com", "admin")]
        (joined,) = terminal.events("people-joined")
        assert (joined["person"], joined["username"]) == (made["id"], "ada")
        # A change is there with the next request of the open session.
        await terminal.good("users", "add", "countess", "--email", "ada@example.com", "--name", "Lady")
        await browser.page("/")
        assert terminal.running.application.seen[-1].values("X-App-Name") == ["Lady"]
        await terminal.good("users", "provision", "countess")
        shown = await terminal.good("users", "show", "ada@example.com")
        assert (shown["account"], shown["state"], len(shown["sessions"])) == ("countess", "provisioned", 1)
        assert {one["source"] for one in shown["sources"]} == {"manual", "corp"}
        assert shown["sessions"][0] not in browser.cookie()
    text = await terminal("users", "show", "countess")
    assert "known to corp (sign-in) as ada" in text.out


async def test_an_address_that_the_provider_did_not_verify_joins_nobody(world: World, tmp_path: Path) -> None:
    terminal = await beside(world, tmp_path, {"identity": {"email": "{{ 'ada@example.com' }}"}})
    made = await terminal.good("users", "add", "victim", "--email", "ada@example.com")
    async with terminal.running.browser() as browser:
        assert (await browser.sign_in("alan")).status == 200
    assert [row[0] for row in terminal.rows() if row[0] != "victim"] == ["alan"]
    assert [one["source"] for one in (await terminal.good("users", "show", made["id"]))["sources"]] == ["manual"]
    assert terminal.events("people-joined") == []


async def test_disabling_ends_sessions_and_sockets_and_enabling_opens_again(terminal: Terminal) -> None:
    running = terminal.running
    async with running.browser() as browser, aiohttp.ClientSession() as http:
        assert (await browser.sign_in("ada")).status == 200
        await terminal.has_row("ada")
        headers = {"Cookie": f"sidecar={browser.cookie()}"}
        socket = await http.ws_connect(f"{running.url}/ws", headers=headers)
        would = await terminal.good("users", "disable", "ada", "--dry-run")
        assert (would["sessions_ended"], would["active"]) == (1, True)
        assert (await browser.page("/")).status == 200
        done = await terminal.good("users", "disable", "ada")
        assert (done["sessions_ended"], done["active"], done["disabled_by"]) == (1, False, "manual")
        message = await socket.receive(5)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)
        assert (await browser.fetch("/")).status == 401
        browser.forget_provider()
        assert (await browser.sign_in("ada")).status == 403
        await terminal.has_row("ada", active=0)
        assert (await terminal.good("users", "disable", "ada"))["disabled_by"] == "manual"
        await terminal.good("users", "enable", "ada")
        browser.forget_provider()
        assert (await browser.sign_in("ada")).status == 200
        assert terminal.rows()[0][3] == 1
    lines = terminal.events("person-disabled", "person-enabled")
    assert lines[0]["event"] == "person-disabled"
    assert lines[-1]["event"] == "person-enabled"


async def test_whom_somebody_else_switched_off_no_operator_switches_on(terminal: Terminal) -> None:
    made = await terminal.good("users", "add", "ada", "--email", "ada@example.com")
    provisioner = terminal.running.sidecar.condition.accounts.provisioner
    assert provisioner is not None
    await provisioner.disable(made["id"], "sync:hr", 1.0)
    for words in (("users", "enable", "ada"), ("users", "enable", "ada", "--dry-run")):
        said = await terminal(*words)
        assert said.code == 1
        assert "sync:hr" in said.err
    assert (await terminal("users", "provision", "ada")).code == 1
    # An operator's own word counts beside it, and is the operator's to lift.
    await terminal.good("users", "disable", "ada")
    assert (await terminal.good("users", "show", "ada"))["off_by"] == ["sync:hr", "manual"]
    assert "off, by sync:hr, manual" in (await terminal("users", "show", "ada")).out
    still = await terminal("users", "enable", "ada")
    assert (still.code, "sync:hr" in still.err, "manual" in still.err) == (1, True, False)
    await terminal.good("users", "disable", "ada")
    assert not (await provisioner.enable(made["id"], "sync:hr", 2.0)).active
    assert (await terminal.good("users", "enable", "ada"))["active"] is True


async def test_t69_whoever_is_deleted_is_gone_and_their_name_inherits_nothing(terminal: Terminal) -> None:
    first = await terminal.good("users", "add", "ada", "--email", "ada@example.com")
    await terminal.has_row("ada")
    async with terminal.running.browser() as browser:
        assert (await browser.sign_in("ada")).status == 200
        assert (await terminal("users", "delete", "ada")).code == 2
        assert (await terminal.good("users", "delete", "ada", "--dry-run"))["active"] is True
        await terminal.good("users", "delete", "ada", "--yes")
        assert (await browser.fetch("/")).status == 401
        await terminal.has_row("ada", active=0)
        assert (await terminal("users", "show", "ada")).code == 1
        assert (await terminal.good("users", "show", first["id"]))["deleted"] is True
        assert (await terminal("users", "enable", first["id"])).code == 1
        second = await terminal.good("users", "add", "ada", "--email", "ada@example.com")
        assert second["id"] != first["id"]
        browser.forget_provider()
        # The sign-in is still that of the first one.
        assert (await browser.sign_in("ada")).status == 403

    async def is_refused() -> bool:
        return bool((await terminal.good("users", "show", second["id"]))["error"] == "account-bound-to-another")

    await until(is_refused)
    assert [one["id"] for one in (await terminal.good("users", "list", "--deleted"))["people"]] == [first["id"]]


async def test_an_account_moves_to_another_person_and_never_has_two_owners(terminal: Terminal) -> None:
    async with terminal.running.browser() as ada, terminal.running.browser() as grace:
        await ada.sign_in("ada")
        await grace.sign_in("grace")
        assert (await terminal("users", "relink", "ada", "--to", "grace", "--yes")).code == 1
        assert (await terminal("users", "relink", "ada", "--to", "ada", "--yes")).code == 1
        assert (await terminal("users", "relink", "ada", "--yes")).code == 2
        assert (await terminal("users", "relink", "ada", "--unlink")).code == 2
        assert (await ada.fetch("/")).status == 200
        freed = await terminal.good("users", "relink", "grace", "--unlink", "--yes")
        assert (freed["account"], freed["to"]) == ("grace", None)
        assert (await grace.fetch("/")).status == 401
        would = await terminal.good("users", "relink", "ada", "--to", "grace", "--dry-run")
        assert (would["account"], (await ada.fetch("/")).status) == ("ada", 200)
        await terminal.good("users", "relink", "ada", "--to", "grace", "--yes")
        assert (await ada.fetch("/")).status == 401
        grace.forget_provider()
        await grace.sign_in("grace")
        assert (await terminal.good("users", "show", "grace"))["account"] == "ada"
        # Whoever lost it does not come back into it by their name.
        ada.forget_provider()
        assert (await ada.sign_in("ada")).status == 403
    assert [row[0] for row in terminal.rows()] == ["ada", "grace"]
    (line,) = terminal.events("account-relinked")
    assert (line["account"], line["username"], line["by"]) == ("ada", "grace", "command")
    assert [one["account"] for one in terminal.events("account-unlinked")] == ["grace"]


async def test_a_file_is_taken_whole_or_not_at_all_and_twice_changes_nothing(
    terminal: Terminal, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(
        "username,email,groups,department\nada,ada@example.com,wiki-admins;staff,Numbers\n,x@y.example,,\nbob,no,,\n"
    )
    said = await terminal("users", "import", str(bad), "--json")
    assert said.code == 1
    assert [(one["line"], one["problem"]) for one in said.json["problems"]] == [
        (3, "username is missing"),
        (4, "email is no address"),
    ]
    assert (await terminal.good("users", "list"))["total"] == 0
    said = await terminal("users", "import", str(bad), "--skip-invalid", "--json")
    assert (said.code, said.json["added"]) == (1, 1)
    await terminal.has_row("ada")
    good = tmp_path / "good.jsonl"
    good.write_text(
        '{"username": "ada", "email": "ada@example.com", "groups": ["staff"], "department": "Letters"}\n\n'
        '{"username": "bea", "id": "4711", "active": false}\n'
    )
    assert (await terminal.good("users", "import", str(good), "--dry-run"))["changed"] == 1
    first = await terminal.good("users", "import", str(good))
    assert (first["added"], first["changed"], first["unchanged"]) == (1, 1, 0)
    second = await terminal.good("users", "import", str(good))
    assert (second["added"], second["changed"], second["unchanged"]) == (0, 0, 2)
    off = await terminal.good("users", "list", "--state", "off")
    assert [one["username"] for one in off["people"]] == ["bea"]
    good.write_text('{"username": "beate", "id": "4711", "active": true}\n')
    assert (await terminal.good("users", "import", str(good)))["changed"] == 1
    assert (await terminal.good("users", "show", "beate"))["active"] is True
    # Off in the list is the operator's word, also about somebody whom others have off already.
    beate = (await terminal.good("users", "show", "beate"))["id"]
    directory = terminal.running.sidecar.condition.accounts.directory
    assert directory is not None
    await directory.disable(beate, "sync:hr", 1.0)
    good.write_text('{"username": "beate", "id": "4711", "active": false}\n')
    assert (await terminal.good("users", "import", str(good), "--dry-run"))["changed"] == 1
    assert (await terminal.good("users", "import", str(good)))["changed"] == 1
    assert (await terminal.good("users", "show", "beate"))["off_by"] == ["sync:hr", "manual"]
    assert (await terminal.good("users", "import", str(good)))["unchanged"] == 1
    assert (await terminal("users", "import", str(tmp_path / "users.db"))).code == 2


@pytest.mark.parametrize(
    ("text", "form", "flaws"),
    [
        ("email\na@b.example\n", "csv", [(1, "the first line names")]),
        ("username,username\n", "csv", [(1, "the first line names")]),
        ('username,name\nada,"two\nlines"\nbob\n', "csv", [(2, "name is too long or has"), (4, "has 1 fields")]),
        ("username\nada\nADA\n", "csv", [(3, "id stands in line 2 already")]),
        ("username,email\na,x@y.example\nb,X@y.example\n", "csv", [(3, "email stands in line 2 already")]),
        ('username\n"ada\n', "csv", [(2, "is no CSV")]),
        ('{"username": "a"}\nnull\n{"username": 1}', "jsonl", [(2, "is no JSON object"), (3, "username is no text")]),
        ('{"username": "a", "groups": [1]}\n{\n', "jsonl", [(1, "groups is no list"), (2, "is no JSON")]),
        ('{"username": "b", "active": "perhaps"}', "jsonl", [(1, "active is neither")]),
    ],
)  # fmt: skip
def test_every_flaw_of_a_file_is_named_with_its_line(text: str, form: str, flaws: list[tuple[int, str]]) -> None:
    found = read_roster(text.encode(), form).flaws
    assert [one.line for one in found] == [line for line, _ in flaws]
    assert all(one.problem.startswith(problem) for one, (_, problem) in zip(found, flaws, strict=True))


def test_bytes_that_are_no_text_are_named_with_their_line_and_a_mark_at_the_beginning_is_none() -> None:
    assert [str(one) for one in read_roster(b"username\nad\xe4\n", "csv").flaws] == ["line 2: is not UTF-8"]
    roster = read_roster("\ufeffusername,groups\nada,b; a;b\n".encode(), "csv")
    assert (roster.entries[0][1].groups, roster.flaws) == (("b", "a"), [])
    with pytest.raises(ValueError, match="username"):
        entry_of({"email": "a@b.example"})


async def test_sessions_are_listed_and_ended_by_person_by_id_and_all_at_once(terminal: Terminal) -> None:
    running = terminal.running
    async with running.browser() as ada, running.browser() as other, running.browser() as grace:
        for browser, who in ((ada, "ada"), (other, "ada"), (grace, "grace")):
            await browser.sign_in(who)
        everybody = (await terminal.good("sessions", "list"))["sessions"]
        theirs = (await terminal.good("sessions", "list", "--person", "ada"))["sessions"]
        assert (len(everybody), len(theirs), set(theirs) < set(everybody)) == (3, 2, True)
        assert (await terminal.good("sessions", "end", "--id", theirs[0], "--dry-run"))["ended"] == 1
        assert (await terminal.good("sessions", "end", "--id", theirs[0]))["ended"] == 1
        assert (await terminal("sessions", "end", "--id", theirs[0])).code == 1
        assert sorted([(await ada.fetch("/")).status, (await other.fetch("/")).status]) == [200, 401]
        assert (await terminal.good("sessions", "end", "--person", "ada"))["ended"] == 1
        assert ((await ada.fetch("/")).status, (await other.fetch("/")).status) == (401, 401)
        assert (await grace.fetch("/")).status == 200
        assert (await terminal("sessions", "end", "--all")).code == 2
        assert (await terminal("sessions", "end")).code == 2
        assert (await terminal.good("sessions", "end", "--all", "--yes"))["ended"] == 1
        assert (await grace.fetch("/")).status == 401
    assert [line["ended"] for line in terminal.events("sessions-ended")] == [1, 1, 1]


async def test_with_sessions_in_memory_the_running_sidecar_ends_them_and_says_so(world: World, tmp_path: Path) -> None:
    terminal = await beside(world, tmp_path)
    async with terminal.running.browser() as browser:
        await browser.sign_in("ada")
        said = await terminal("users", "disable", "ada")
        assert "within 5 seconds" in said.out

        async def is_out() -> bool:
            return (await browser.fetch("/")).status == 401

        await until(is_out)
    said = await terminal("sessions", "list")
    assert (said.code, "Redis" in said.err) == (2, True)


async def test_what_fails_for_good_is_put_aside_warned_of_tried_again_or_dropped(
    world: World, redis_url: str, tmp_path: Path
) -> None:
    changes = {"provision": {"outbox": {"attempts": "2", "pause": "50ms", "longest": "100ms"}}}
    terminal = await beside(world, tmp_path, changes, REDIS_URL=redis_url)
    watch = terminal.running.sidecar.condition.accounts.backlog
    assert watch is not None
    with closing(sqlite3.connect(terminal.users)) as connection, connection:
        connection.execute("ALTER TABLE users RENAME TO away")
    made = await terminal.good("users", "add", "ada", "--email", "ada@example.com")

    async def is_aside() -> bool:
        terminal.running.sidecar.condition.accounts.provisioner.outbox.wake()  # type: ignore[union-attr]
        return bool((await terminal.good("outbox", "list", "--dead"))["dead"] == 1)

    await until(is_aside)
    await watch.look()
    assert "1 put aside" in (await terminal.running.sidecar.condition.readiness())["outbox"]
    assert b'sidecar_outbox{state="dead"} 1.0' in terminal.running.sidecar.metrics.render()
    (item,) = (await terminal.good("outbox", "list"))["items"]
    assert (item["state"], item["duty"], item["person_id"], item["tries"]) == ("dead", "settle", made["id"], 2)
    shown = await terminal.good("outbox", "show", item["id"])
    assert shown["error"].startswith("provisioning-unavailable")
    assert [line["item"] for line in terminal.events("duty-put-aside")] == [item["id"]]
    assert (await terminal("outbox", "show", "nothing")).code == 1
    assert (await terminal.good("outbox", "retry", "dead", "--dry-run"))["tried_again"] == 1
    assert (await terminal("outbox", "drop", "dead")).code == 2
    with closing(sqlite3.connect(terminal.users)) as connection, connection:
        connection.execute("ALTER TABLE away RENAME TO users")
    assert (await terminal.good("outbox", "retry", item["id"]))["tried_again"] == 1
    await terminal.has_row("ada")

    async def is_done() -> bool:
        return bool((await terminal.good("outbox", "show", item["id"]))["state"] == "done")

    await until(is_done)
    await watch.look()
    assert "outbox" not in await terminal.running.sidecar.condition.readiness()
    assert (await terminal("outbox", "drop", item["id"], "--yes")).code == 1


async def test_a_duty_that_is_dropped_is_done_by_nobody(world: World, redis_url: str, tmp_path: Path) -> None:
    terminal = await beside(world, tmp_path, REDIS_URL=redis_url)
    async with terminal.running.browser() as browser:
        await browser.sign_in("ada")
    with closing(sqlite3.connect(terminal.users)) as connection, connection:
        connection.execute("ALTER TABLE users RENAME TO away")
    await terminal.good("users", "disable", "ada")
    (item,) = (await terminal.good("outbox", "list", "--person", "ada"))["items"]
    said = await terminal("outbox", "drop", item["id"], "--dry-run")
    assert "1 of them leave an account as it is" in said.out
    await terminal.good("outbox", "drop", item["id"], "--yes")
    with closing(sqlite3.connect(terminal.users)) as connection, connection:
        connection.execute("ALTER TABLE away RENAME TO users")
    provisioner = terminal.running.sidecar.condition.accounts.provisioner
    assert provisioner is not None
    world.clock.ahead = 7200
    await provisioner.outbox.work_off()
    assert terminal.rows()[0][3] == 1
    assert [line["change"] for line in terminal.events("duty-dropped")] == ["deactivate"]


async def test_an_account_is_looked_at_again_on_demand_and_the_command_waits_for_it(terminal: Terminal) -> None:
    await terminal.good("users", "add", "ada", "--email", "ada@example.com", "--group", "wiki-editors")
    await terminal.has_row("ada")
    with closing(sqlite3.connect(terminal.users)) as connection, connection:
        connection.execute("UPDATE users SET role = 'reader'")
    would = await terminal.good("users", "provision", "ada", "--dry-run")
    assert would["calls"][0]["does"].startswith("SELECT")
    done = await terminal.good("users", "provision", "ada")
    assert done["state"] == "provisioned"
    assert terminal.rows()[0][2] == "editor"
    with closing(sqlite3.connect(terminal.users)) as connection, connection:
        connection.execute("ALTER TABLE users RENAME TO away")
    assert (await terminal("users", "provision", "ada", "--wait", "0.2")).code == 3


@pytest.mark.parametrize("words", [("users", "list"), ("outbox", "list"), ("users", "add", "ada")])
async def test_without_accounts_or_people_the_commands_say_what_is_missing(
    world: World, tmp_path: Path, words: tuple[str, ...]
) -> None:
    terminal = await beside(world, tmp_path, {"people": None, **({} if "add" in words else {"provision": None})})
    said = await terminal(*words)
    assert said.code == 2
    assert ("people" if "add" in words else "provision") in said.err


def test_pauses_double_up_to_the_longest_and_luck_only_shortens_them() -> None:
    assert [pause_after(failures, 5, 60, 0) for failures in range(1, 6)] == [5, 10, 20, 40, 60]
    assert pause_after(1, 4, 60, 1) == 3
    assert pause_after(10_000, 5, 60, 0) == 60
