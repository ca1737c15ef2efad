"""Groups that overflow a token are fetched from the configured place, or unknown: never empty, never from elsewhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from sidecar.config.login import GroupsSource
from sidecar.core.claims import is_overflowing
from sidecar.faults import Unavailable
from sidecar.logins.groups_source import Groups
from sidecar.logins.login import Ask
from sidecar.logins.oidc import OpenIdLogin
from sidecar.reason import Reason
from tests.forger import REDIRECT, Forger, plan, query, running_forger, section, sign_in

OVERFLOW = {
    "groups": None,
    "_claim_names": {"groups": "src1"},
    "_claim_sources": {"src1": {"endpoint": "http://evil/"}},
}


class Graph:
    """A directory that gives pages; each test says which."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {}
        self.asked: list[tuple[str, str]] = []
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.asked.append((request.raw_path, request.headers.get("Authorization", "")))
        page = self.pages.get(request.raw_path)
        if isinstance(page, web.Response):
            return page
        return web.Response(text=json.dumps(page), content_type="application/json", status=200 if page else 404)


@pytest.fixture
async def graph() -> AsyncIterator[Graph]:
    made = Graph()
    runner = web.ServerRunner(web.Server(made.handle, access_log=None), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def source(graph: Graph, **fields: Any) -> GroupsSource:
    return GroupsSource(url=f"{graph.url}/me?$select=id", scope=("graph/read",), **fields)


async def fetched(graph: Graph, **fields: Any) -> Any:
    groups = Groups("corp", source(graph, **fields))
    try:
        return await groups.completed({"sub": "1", "_claim_names": {"groups": "src1", "other": "s"}}, "at-1")
    finally:
        await groups.close()


def page(*names: str, following: str | None = None) -> dict[str, Any]:
    return {"value": [{"id": name} for name in names], **({"@odata.nextLink": following} if following else {})}


async def test_all_pages_are_read_with_the_access_token(graph: Graph) -> None:
    graph.pages = {"/me?$select=id": page("a", "b", following=f"{graph.url}/2"), "/2": page("b", "c")}
    assert await fetched(graph) == {"sub": "1", "groups": ["a", "b", "c"], "_claim_names": {"other": "s"}}
    assert graph.asked == [("/me?$select=id", "Bearer at-1"), ("/2", "Bearer at-1")]


async def test_nothing_is_asked_when_the_groups_are_there(graph: Graph) -> None:
    groups = Groups("corp", source(graph))
    assert await groups.completed({"groups": ["a"]}, "at-1") == {"groups": ["a"]}
    await groups.close()
    assert graph.asked == []


def unusable(url: str) -> list[Any]:
    """Answers that are not surely all groups."""
    return [
        page("a", following=url.replace("127.0.0.1", "localhost") + "/2"),
        page("a", following=url.replace("http", "https") + "/2"),
        page("a", following="/relative"),
        page("a", following=url.replace("//", "//evil@") + "/2"),
        {"value": [{"id": "a"}], "@odata.nextLink": 5},
        page("a", following=f"{url}/me?$select=id"),
        {"value": [{"id": "a"}, {"name": "without an id"}]},
        {"value": [{"id": ""}]},
        {"value": "a"},
        {"other": []},
        page(*map(str, range(5001))),
        web.Response(status=302, headers={"Location": f"{url}/2"}),
        web.Response(status=403, text="{}"),
        web.Response(text="x" * (2 << 20)),
        web.Response(text="[]"),
    ]


@pytest.mark.parametrize("number", range(15))
async def test_an_answer_that_is_not_surely_all_groups_makes_them_unknown(graph: Graph, number: int) -> None:
    answers = unusable(graph.url)
    assert len(answers) == 15
    graph.pages = {"/me?$select=id": answers[number], "/2": page("z")}
    with pytest.raises(Unavailable) as caught:
        await fetched(graph, pages=3)
    assert caught.value.reason is Reason.PROVIDER_DOWN
    assert {path for path, _ in graph.asked} == {"/me?$select=id"}


@pytest.fixture
async def forger() -> AsyncIterator[Forger]:
    async with running_forger() as started:
        yield started


async def test_a_sign_in_takes_the_groups_from_the_configured_place_and_never_from_the_token(
    forger: Forger, graph: Graph
) -> None:
    graph.pages = {"/me?$select=id": page("wiki-admins", "staff")}
    forger.claims = OVERFLOW
    login = OpenIdLogin(
        "corp", section(forger.issuer, userinfo="never", groups_source=source(graph)), REDIRECT, plan=plan()
    )
    begun = await login.begin("state-1", Ask())
    assert "graph/read" in query(begun.url)["scope"].split()
    assert (await sign_in(login, forger)).identity.groups == ("wiki-admins", "staff")
    # A place that is down makes them unknown, which is not none; the sign-in goes on.
    graph.pages = {}
    assert (await sign_in(login, forger)).identity.groups is None
    await login.close()


@pytest.mark.parametrize(
    ("claims", "overflows"),
    [
        ({"groups": ["a"]}, False),
        ({"_claim_names": {"groups": "s"}}, True),
        ({"_claim_names": {"other": "s"}}, False),
        ({"_claim_names": "groups"}, False),
        ({"hasgroups": True}, True),
        ({"hasgroups": "true"}, True),
        ({"hasgroups": False}, False),
        ({"http://schemas.microsoft.com/claims/groups.link": "https://graph"}, True),
    ],
)
def test_t56_what_stands_for_groups_is_no_list_of_them(claims: dict[str, Any], *, overflows: bool) -> None:
    assert is_overflowing(claims, frozenset(["groups"])) is overflows
