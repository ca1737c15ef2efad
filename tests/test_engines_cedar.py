"""Cedar inside the sidecar: policies decide, the audit names the one that did, and files that are wrong are named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.cedar_files import read_policies
from sidecar.config.engines import CedarEngine
from sidecar.engines.cedar import Cedar
from sidecar.faults import Refused
from sidecar.foresight import Question, foresee
from sidecar.reason import Reason
from tests.configurations import problems, text_of
from tests.forger import running_forger, sign
from tests.test_cli import ADA
from tests.test_engines import decisions
from tests.world import World

POLICIES = """// Who may do what to folders; a "quote and ; here
@id("readers")
permit (principal in Group::"wiki-readers", action == Action::"View", resource);

permit (principal in Role::"editor", action, resource)
when { resource.id != "; // no end of a policy" };
@id("archived")
forbid (principal, action == Action::"Change", resource in Folder::"archive");
"""
SCHEMA = """
entity Group;
entity Role;
entity User in [Group, Role] { username: String, department?: String };
entity Folder in [Folder] { id: String };
action View, Change appliesTo { principal: [User], resource: [Folder], context: { address: String } };
"""
FOLDERS = [
    {"uid": {"type": "Folder", "id": "archive"}, "attrs": {"id": "archive"}, "parents": []},
    {
        "uid": {"type": "Folder", "id": "2019"},
        "attrs": {"id": "2019"},
        "parents": [{"type": "Folder", "id": "archive"}],
    },
    {"uid": {"type": "Folder", "id": "new"}, "attrs": {"id": "new"}, "parents": []},
]
RULES = [
    {
        "path": "/folders/*",
        "allow": "signed_in",
        "engine": {
            "name": "it",
            "action": "{{ 'View' if request.method == 'GET' else 'Change' }}",
            "resource": {"type": "Folder", "id": "{{ request.captured[0] }}"},
            "context": {"address": "{{ request.client }}"},
        },
    },
    {"path": "/**", "allow": "signed_in"},
]


def files(folder: Path, policies: str = POLICIES, schema: str = SCHEMA, entities: str = "") -> dict[str, Any]:
    """Write the files, and give the section that names them."""
    (folder / "wiki.cedar").write_text(policies)
    (folder / "wiki.cedarschema").write_text(schema)
    (folder / "folders.json").write_text(entities or json.dumps(FOLDERS, indent=1))
    return {
        "type": "cedar",
        "policies": str(folder / "wiki.cedar"),
        "entities": str(folder / "folders.json"),
        "attributes": {"username": "{{ user.username }}", "department": "{{ claims.department }}"},
        **({"schema": str(folder / "wiki.cedarschema")} if schema else {}),
    }


async def test_policies_decide_and_the_audit_names_the_one_that_did(world: World, tmp_path: Path) -> None:
    running = await world({"access": RULES, "engines": {"it": files(tmp_path)}})
    async with running.browser() as grace, running.browser() as alan, running.browser() as mallory:
        for browser, name in ((grace, "grace"), (alan, "alan"), (mallory, "mallory")):
            await browser.sign_in(name, "/")
        said = {
            (name, method, folder): (await browser.fetch(f"/folders/{folder}", method)).status
            for name, browser in (("grace", grace), ("alan", alan), ("mallory", mallory))
            for method in ("GET", "POST")
            for folder in ("new", "2019")
        }
        # A path is never more than an id.
        nasty = await mallory.fetch('/folders/new"%20in%20Folder::"x'.replace('"', "%22"))
        assert nasty.status == 403
    assert {case for case, status in said.items() if status == 200} == {
        ("grace", "GET", "new"),
        ("grace", "GET", "2019"),
        ("grace", "POST", "new"),
        ("alan", "GET", "new"),
        ("alan", "GET", "2019"),
    }
    lines = decisions(running, "/folders/2019")
    by = {(line["person"], line["method"]): line.get("policy", "") for line in lines}
    assert by == {
        ("grace", "GET"): "wiki.cedar:5",
        ("grace", "POST"): "archived",
        ("alan", "GET"): "readers",
        ("alan", "POST"): "archived",
        ("mallory", "GET"): "",
        ("mallory", "POST"): "archived",
    }
    question = Question("corp", {**ADA, "groups": ["wiki-editors"]}, "POST", "/folders/2019")
    seen = await foresee(running.sidecar.config, question, lookup=False)
    assert seen.engine is not None
    assert (seen.engine.has, seen.decision.reason) == ("denies, by archived", Reason.ENGINE_DENIES)


async def test_t71_a_claim_is_never_taken_for_an_entity(world: World, tmp_path: Path) -> None:
    admins = 'Group::"wiki-admins"'
    wants = f"context.teams.contains({admins}) || context.written == {admins} || principal.department in {admins}"
    section = files(tmp_path, f"permit (principal, action, resource) when {{ {wants} }};", schema="")
    context = {"teams": ["{{ claims.team }}"], "written": {"__entity": {"type": "Group", "id": "{{ claims.id }}"}}}
    asked = {"name": "it", "action": "View", "resource": {"type": "Folder", "id": "new"}, "context": context}
    rules = [{"path": "/**", "allow": {"bearer": "corp"}, "engine": asked}]
    async with running_forger() as forger:
        logins = {"corp": {"bearer": {"audience": "api"}}}
        running = await world({"access": rules, "engines": {"it": section}, "logins": logins}, issuer=forger.issuer)

        async def shown(**claims: Any) -> int:
            claims = {"department": "it", "team": "it", "id": "it", **claims}
            token = sign(forger.standard_claims(aud="api", client_id="x", **claims), typ="at+jwt")
            async with running.browser() as program:
                return (await program.fetch("/x", headers={"Authorization": f"Bearer {token}"})).status

        entity = {"__entity": {"type": "Group", "id": "wiki-admins"}}
        address = {"__extn": {"fn": "ip", "arg": "10.0.0.1"}}
        for claims in ({"department": entity}, {"team": entity}, {"department": {"x": [address]}}):
            assert await shown(**claims) == 403
            assert "take for something else" in decisions(running, "/x")[-1]["detail"]
        # What the operator wrote into the question may be one, and an object without such names is no more than that.
        assert await shown(department={"x": 1}, id="wiki-admins") == 200
        assert await shown(department={"x": 1}) == 403
        assert "take for" not in decisions(running, "/x")[-1].get("detail", "")


def question(**changes: Any) -> dict[str, Any]:
    principal = {"uid": {"type": "User", "id": "ada"}, "attrs": {"username": "ada"}, "parents": []}
    return {
        "principal": principal,
        "action": {"type": "Action", "id": "View"},
        "resource": {"type": "Folder", "id": "new"},
        "context": {"address": "10.0.0.1"},
        **changes,
    }


async def test_a_policy_that_cannot_be_evaluated_denies_for_it_may_forbid(tmp_path: Path) -> None:
    text = 'permit (principal, action, resource);\n@id("leavers")\nforbid (principal, action, resource) when { %s };'
    engine = Cedar("it", CedarEngine.model_validate(files(tmp_path, text % "principal.leaving", schema="")))
    ruling = await engine.ask(question())
    assert (ruling.allowed, ruling.policy) == (False, "leavers (cannot be evaluated)")
    here = {**question()["principal"], "attrs": {"leaving": False}}
    assert (await engine.ask(question(principal=here))).allowed


@pytest.mark.parametrize(
    "changes",
    [
        {"action": {"type": "Action", "id": "Burn"}},
        {"context": {}},
        {"context": {"address": 1}},
        {"resource": {"type": "Elsewhere", "id": "x"}},
        {"principal": {"uid": {"type": "User", "id": "ada"}, "attrs": {"username": 7}, "parents": []}},
        {"principal": {"uid": {"type": "User", "id": "ada"}, "attrs": {}, "parents": []}},
    ],
)
async def test_what_does_not_fit_the_schema_is_not_asked(tmp_path: Path, changes: dict[str, Any]) -> None:
    engine = Cedar("it", CedarEngine.model_validate(files(tmp_path)))
    with pytest.raises(Refused) as refused:
        await engine.ask(question(**changes))
    assert refused.value.reason is Reason.ENGINE_NOT_ASKED
    assert await engine.probe() == "3 policies with a schema"


MISTAKES = [
    ({"policies": POLICIES + "permit (principal action);"}, "wiki.cedar", 9, "unexpected token `action`"),
    ({"policies": POLICIES + "\n\npermit (principal, action"}, "wiki.cedar", 11, "unexpected end"),
    (
        {"policies": POLICIES + '@id("readers") forbid (principal, action, resource);'},
        "wiki.cedar",
        9,
        "another policy",
    ),
    ({"policies": "permit (principal == ?principal, action, resource);"}, "wiki.cedar", 1, "a template"),
    ({"policies": "// nothing"}, "wiki.cedar", 1, "everything is denied"),
    (
        {"policies": POLICIES + "forbid (principal, action, resource) when { principal.nmae == 1 };"},
        "wiki.cedar",
        9,
        "`nmae`",
    ),
    ({"schema": SCHEMA + "entity Page in [Shelf];"}, "wiki.cedarschema", 7, "Shelf"),
    ({"schema": "{"}, "wiki.cedarschema", 1, ""),
    ({"entities": "[\n{]"}, "folders.json", 2, "not JSON"),
    ({"entities": "{}"}, "folders.json", 1, "list of entities"),
    (
        {"entities": '[\n{"uid": {"type": "Folder", "id": "a"}, "attrs": {}, "parents": []}]'},
        "folders.json",
        2,
        "schema",
    ),
    (
        {"entities": '[\n\n{"uid": {"type": "User", "id": "a"}, "attrs": {"username": "a"}, "parents": []}]'},
        "folders.json",
        3,
        "made of the sign-in",
    ),
]


@pytest.mark.parametrize(("wrong", "file", "line", "word"), MISTAKES, ids=[mistake[3] for mistake in MISTAKES])
def test_check_names_file_and_line_of_what_is_wrong(
    tmp_path: Path, wrong: dict[str, str], file: str, line: int, word: str
) -> None:
    section = files(tmp_path, **wrong)
    rules = f"access: {json.dumps(RULES)}"
    found = problems(tmp_path, text_of(access=rules, engines=f"engines: {json.dumps({'it': section})}"))
    assert any(
        problem.severity == "error" and problem.file.endswith(file) and problem.line == line and word in problem.message
        for problem in found
    ), [str(problem) for problem in found]
    with pytest.raises(ValueError, match=file):
        Cedar("it", CedarEngine.model_validate(section))


def test_a_file_that_is_right_passes_without_a_word(tmp_path: Path) -> None:
    rules = f"access: {json.dumps(RULES)}"
    text = text_of(access=rules, engines=f"engines: {json.dumps({'it': files(tmp_path)})}")
    assert problems(tmp_path, text) == ()
    assert read_policies(CedarEngine.model_validate(files(tmp_path))).faults == ()


def test_without_the_library_check_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cedarpy", None)
    found = problems(
        tmp_path,
        text_of(access=f"access: {json.dumps(RULES)}", engines=f"engines: {json.dumps({'it': files(tmp_path)})}"),
    )
    assert [(problem.path, problem.fix) for problem in found] == [
        ("engines.it", "In the sidecar's source: pip install '.[cedar]'")
    ]
