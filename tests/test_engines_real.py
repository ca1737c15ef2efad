"""The real OpenFGA and the real OPA behind rules: what they know decides, and while they are away nobody gets in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.config.engines import OpaEngine, OpenFgaEngine
from sidecar.config.values import Secret
from sidecar.engines.opa import Opa as OpaAsked
from sidecar.engines.openfga import OpenFga as OpenFgaAsked
from sidecar.faults import Unavailable
from tests.services.engines import KEY, Opa, OpenFga
from tests.services.process import start_on_free_port
from tests.test_engines import decisions
from tests.world import World

DIRECT: dict[str, Any] = {"this": {}}
MODEL = {
    "schema_version": "1.1",
    "type_definitions": [
        {"type": "user"},
        {
            "type": "group",
            "relations": {"member": DIRECT},
            "metadata": {"relations": {"member": {"directly_related_user_types": [{"type": "user"}]}}},
        },
        {
            "type": "document",
            "relations": {
                "editor": DIRECT,
                "viewer": {"union": {"child": [DIRECT, {"computedUserset": {"relation": "editor"}}]}},
            },
            "metadata": {
                "relations": {
                    "editor": {"directly_related_user_types": [{"type": "user"}]},
                    "viewer": {
                        "directly_related_user_types": [{"type": "user"}, {"type": "group", "relation": "member"}]
                    },
                }
            },
        },
    ],
}
DOCUMENTS = [
    {
        "path": "/documents/*/**",
        "allow": "signed_in",
        "engine": {
            "name": "it",
            "tuple": {
                "user": "user:{{ user.username }}",
                "relation": "{{ 'viewer' if request.method == 'GET' else 'editor' }}",
                "object": "document:{{ request.captured[0] }}",
            },
            "contextual": {
                "each": "{{ groups }}",
                "user": "user:{{ user.username }}",
                "relation": "member",
                "object": "group:{{ item }}",
            },
        },
    },
    {"path": "/**", "allow": "signed_in"},
]


@pytest.fixture(scope="module")
def fga() -> Iterator[OpenFga]:
    server = start_on_free_port(OpenFga)
    yield server
    server.discard()


@pytest.fixture(scope="module")
def opa() -> Iterator[Opa]:
    server = start_on_free_port(Opa)
    yield server
    server.discard()


def section(fga: OpenFga, store: str, model: str, **changes: str) -> dict[str, Any]:
    token = {"env": "ENGINE_TOKEN"}
    return {
        "type": "openfga",
        "url": fga.url,
        "store": store,
        "model": model,
        "token": token,
        "remember": "0s",
        **changes,
    }


async def test_relationships_in_openfga_decide(world: World, fga: OpenFga) -> None:
    store, model = fga.store(
        MODEL,
        ("user:grace", "editor", "document:1"),
        ("user:alan", "viewer", "document:1"),
        ("group:wiki-admins#member", "viewer", "document:2"),
    )
    running = await world(
        {"access": DOCUMENTS, "engines": {"it": section(fga, store, model)}}, environment={"ENGINE_TOKEN": KEY}
    )
    people = {name: running.browser() for name in ("ada", "grace", "alan")}
    try:
        for name, browser in people.items():
            await browser.sign_in(name, "/")
        allowed = {
            (name, method, number)
            for name, browser in people.items()
            for method in ("GET", "POST")
            for number in ("1", "2", "3")
            if (await browser.fetch(f"/documents/{number}/x", method)).status == 200
        }
        assert allowed == {
            ("grace", "GET", "1"),
            ("grace", "POST", "1"),
            ("alan", "GET", "1"),
            # By the groups of the sign-in, which OpenFGA does not know.
            ("ada", "GET", "2"),
        }
        alan = people["alan"]
        for nasty in ("1%23viewer", "2:1", "*", "1%20"):
            assert (await alan.fetch(f"/documents/{nasty}")).status == 403
            assert decisions(running, f"/documents/{nasty}".replace("%23", "#").replace("%20", " "))[-1]["reason"] == (
                "engine-not-asked"
            )
        fga.write(store, ("user:alan", "editor", "document:3"))
        assert (await alan.fetch("/documents/3", "POST")).status == 200
        fga.pause()
        assert (await alan.fetch("/documents/3")).status == 503
        fga.resume()
        assert (await alan.fetch("/documents/3")).status == 200
        # It comes back with an empty store: nobody gets in by what was true before.
        fga.stop()
        assert (await alan.fetch("/documents/3")).status == 503
        fga.start()
        assert (await alan.fetch("/documents/3")).status == 503
    finally:
        for browser in people.values():
            await browser.http.close()


async def test_a_probe_of_openfga_finds_store_model_and_key(fga: OpenFga) -> None:
    store, model = fga.store(MODEL)
    known = {"type": "openfga", "url": fga.url, "store": store, "model": model, "token": Secret(KEY)}
    assert await probed(known) == f"answers, store {store} has model {model}"
    for changes, fault in (
        ({"model": store}, "status [45]"),
        ({"store": model}, "status [45]"),
        ({"token": Secret("another")}, "status 401"),
        ({"url": "http://127.0.0.1:9"}, "Connect"),
    ):
        with pytest.raises(Unavailable, match=fault):
            await probed({**known, **changes})


async def probed(known: dict[str, Any]) -> str:
    engine = OpenFgaAsked("it", OpenFgaEngine.model_validate(known))
    try:
        return await engine.probe()
    finally:
        await engine.close()


POLICY = """package wiki
import rego.v1

default allow := false

allow if {
    "editor" in input.roles
    input.path[0] == "invoices"
}

told := {"allow": allow, "policy": "invoices for editors"}

text := "true"
"""


async def test_a_decision_of_opa_decides(world: World, opa: Opa) -> None:
    opa.post("/v1/policies/wiki", POLICY, "PUT")
    asked = {"user": "{{ user.username }}", "roles": "{{ roles }}", "path": "{{ request.segments }}"}
    decided = {"yes": "wiki/allow", "told": "wiki/told", "undefined": "wiki/nothing", "text": "wiki/text"}
    rules = [
        {"path": f"/invoices/{name}", "allow": "signed_in", "engine": {"name": name, "input": asked}}
        for name in decided
    ]
    engines = {name: {"type": "opa", "url": opa.url, "path": path} for name, path in decided.items()}
    running = await world({"access": [*rules, {"path": "/**", "allow": "signed_in"}], "engines": engines})
    async with running.browser() as grace, running.browser() as alan:
        await grace.sign_in("grace", "/")
        await alan.sign_in("alan", "/")
        said = {name: (await grace.fetch(f"/invoices/{name}")).status for name in decided}
        assert said == {"yes": 200, "told": 200, "undefined": 403, "text": 503}
        assert (await alan.fetch("/invoices/yes")).status == 403
        assert decisions(running, "/invoices/told")[-1]["policy"] == "invoices for editors"
    engine = OpaAsked("it", OpaEngine.model_validate({"type": "opa", "url": opa.url, "path": "wiki/nothing"}))
    assert await engine.probe() == "answers, wiki/nothing is undefined for an empty input"
    await engine.close()
