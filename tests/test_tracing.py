"""Traced requests become spans at a collector, and the application's spans belong to them; others take their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar.config.tracing import Tracing as Section
from sidecar.telemetry.spans import step
from tests.station import ASKED, station_of
from tests.test_journey import users_table
from tests.world import Running, World

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@dataclass
class Collector:
    """What an OpenTelemetry collector is to a sender: it takes spans by OTLP over HTTP."""

    url: str = ""
    spans: list[Any] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    status: int = 200

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Take what is sent."""
        self.asked.append((request.path, request.headers.get("x-key", "")))
        message = ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})

    def named(self, name: str) -> list[dict[str, Any]]:
        """Attributes of the spans of that name."""
        return [_attributes(span) for span in self.spans if span.name == name]


def _attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@asynccontextmanager
async def a_collector() -> AsyncIterator[Collector]:
    """A collector that listens, as long as the block lasts."""
    made = Collector()
    runner = web.ServerRunner(web.Server(made.handle, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """A collector that listens."""
    async with a_collector() as made:
        yield made


def tracing(collector: Collector, sample: float = 1, **rest: Any) -> dict[str, Any]:
    return {"tracing": {"otlp": collector.url, "sample": sample, **rest}}


async def sent(running: Running) -> None:
    """Send what waits."""
    tracing: Any = running.sidecar.front.tracing
    await asyncio.to_thread(tracing._provider.force_flush)


async def test_a_sign_in_and_its_first_page_are_one_story(world: World, collector: Collector, tmp_path: Path) -> None:
    changes = tracing(collector, headers={"x-key": {"env": "KEY"}})
    environment = {"USERS_DB": users_table(tmp_path / "users.db"), "KEY": "a key of the collector"}
    running = await world(changes, provision=True, environment=environment)
    async with running.browser() as browser:
        await browser.sign_in("ada", "/page?secret=1")
    await sent(running)
    roots = [span for span in collector.spans if _attributes(span).get("url.path") == "/page"]
    arrived = next(span for span in roots if _attributes(span)["http.response.status_code"] == 200)
    inside = {span.name: span for span in collector.spans if span.parent_span_id == arrived.span_id}
    assert inside.keys() == {"identify", "decide", "account", "application"}
    assert _attributes(inside["decide"])["sidecar.effect"] == "allow"
    hooks = [span for span in collector.spans if span.parent_span_id == inside["account"].span_id]
    assert [_attributes(span)["sidecar.step"] for span in hooks] == [
        "lookup[0]",
        "create[0]",
        "create[1]",
        "lookup[0]",
        "set_roles[0]",
    ]
    # The application was told whose part it is.
    [told] = running.application.seen[-1].values("traceparent")
    assert told.startswith(f"00-{arrived.trace_id.hex()}-{inside['application'].span_id.hex()}-")
    assert int(told[-2:], 16) & 1
    exchanged = [tuple(named.values()) for named in collector.named("provider")]
    assert ("corp", "POST", 200) in exchanged
    assert set(collector.asked) == {("/v1/traces", "a key of the collector")}
    # The reference leads to the audit lines.
    assert _attributes(arrived)["sidecar.reference"] in {line.get("reference") for line in running.audit()}


async def test_t73_no_span_holds_a_token_a_code_or_a_query(world: World, collector: Collector) -> None:
    running = await world(tracing(collector))
    async with running.browser() as browser:
        back = await browser.choose(await browser.at_provider("/page?secret=1"), "ada")
        await browser.follow(back)
        secrets = [
            browser.cookie(),
            browser.cookie("sidecar-browser"),
            *back.headers["Location"].split("?")[1].split("&"),
        ]
        await browser.page("/page?secret=1", headers={"Authorization": "Bearer abcdef"})
    await sent(running)
    text = "".join(span.SerializeToString().decode("latin-1") for span in collector.spans)
    assert len(collector.spans) > 10
    assert not [secret for secret in (*secrets, "secret=1", "abcdef") if secret in text]


async def test_a_trace_that_came_is_continued(world: World, collector: Collector) -> None:
    running = await world(tracing(collector))
    async with running.browser() as browser:
        await browser.page("/public/x", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        await browser.page("/public/y", headers={"traceparent": f"00-{TRACE}-{'0' * 16}-01"})
    await sent(running)
    [one, other] = [span for span in collector.spans if span.name == "GET"]
    assert (one.trace_id.hex(), one.parent_span_id.hex()) == (TRACE, PARENT)
    assert other.trace_id.hex() != TRACE
    assert running.application.seen[0].values("traceparent")[0].split("-")[1] == TRACE


async def test_whether_it_is_recorded_is_said_by_trusted_proxies_alone(world: World, collector: Collector) -> None:
    asked = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    stranger = await world(tracing(collector, 0))
    trusted = await world({**tracing(collector, 0), "server": {"trusted_proxies": ["127.0.0.1/32", "::1/128"]}})
    for running in (stranger, trusted):
        async with running.browser() as browser:
            for _ in range(3):
                await browser.page("/public/x", headers=asked)
    await sent(stranger)
    assert collector.spans == []
    # What is not recorded passes on as it came.
    assert stranger.application.seen[-1].values("traceparent") == [asked["traceparent"]]
    await sent(trusted)
    assert len([span for span in collector.spans if span.name == "GET"]) == 3


async def test_refusals_and_faults_say_why(world: World, collector: Collector) -> None:
    running = await world({**tracing(collector), "app": {"upstream": "http://127.0.0.1:1"}})
    async with running.browser() as browser:
        await browser.sign_in("alan", "/page")
        assert (await browser.page("/admin/x")).status == 403
        assert (await browser.page("/page")).status == 502
    await sent(running)
    reasons = [named.get("sidecar.reason") for named in collector.named("GET")]
    assert "application-unavailable" in reasons
    assert ("deny", "role-missing") in {
        (named["sidecar.effect"], named["sidecar.reason"]) for named in collector.named("decide")
    }
    failed = [span for span in collector.spans if span.name == "application"]
    assert {(_attributes(span)["error.type"], span.status.code) for span in failed} == {("application-unavailable", 2)}


async def test_of_many_requests_on_one_connection_the_share_is_traced(world: World, collector: Collector) -> None:
    """Also of those that take the shortest way, which never sees a span."""
    async with station_of(world, tracing(collector, 0)) as station, station.regular() as link:
        lots = iter([0.9, 0.9, 0.1, 0.9, 0.1] * 4)
        chooser: Any = station.running.sidecar.front.tracing
        chooser._share = 0.5
        chooser._draw = lambda: next(lots)
        for _ in range(20):
            assert b"200 OK" in await link.ask(station.request())
        assert station.again.count(True) == 12
    await sent(station.running)
    # Whatever way a request takes, one lot is drawn for it.
    assert len([span for span in collector.spans if span.name == "GET"]) == 8
    assert not list(lots)


@pytest.mark.parametrize("name", ["traceparent", "TraceParent", "TRACEPARENT"])
async def test_a_trusted_proxy_is_heard_in_any_spelling_although_its_lines_came_before(
    world: World, collector: Collector, name: str
) -> None:
    changes = {**tracing(collector, 0), "server": {"trusted_proxies": ["127.0.0.1/32", "::1/128"]}}
    async with station_of(world, changes) as station:
        lines = (*ASKED, f"{name}: 00-{TRACE}-{PARENT}-00")
        async with station.regular(*lines) as link:
            sampled = station.request(*lines[:-1], f"{name}: 00-{TRACE}-{PARENT}-01")
            assert b"200 OK" in await link.ask(sampled)
    await sent(station.running)
    assert [span.trace_id.hex() for span in collector.spans if span.name == "GET"] == [TRACE]


@pytest.mark.parametrize("status", [503, 307])
async def test_a_collector_that_fails_stops_nobody(world: World, collector: Collector, status: int) -> None:
    collector.status = status
    running = await world(tracing(collector, timeout="1s"))
    async with running.browser() as browser:
        for _ in range(5):
            assert (await browser.page("/public/x")).status == 200
    async with asyncio.timeout(10):
        await sent(running)
        await world.close()
    assert {path for path, _ in collector.asked} == {"/v1/traces"}


async def test_a_collector_that_is_away_stops_nobody(world: World) -> None:
    running = await world({"tracing": {"otlp": "http://127.0.0.1:1", "sample": 1, "timeout": "1s"}})
    async with running.browser() as browser:
        assert (await browser.page("/public/x")).status == 200
    async with asyncio.timeout(10):
        await world.close()


def test_a_step_outside_a_traced_request_is_nothing() -> None:
    with step("hook") as span:
        assert span is None


@pytest.mark.parametrize("otlp", ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"])
def test_the_collector_may_be_named_with_or_without_the_path(otlp: str) -> None:
    assert Section(otlp=otlp).address == "http://c:4318/v1/traces"
