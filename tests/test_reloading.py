"""A changed configuration is put in force while serving: whole or not at all, and nobody notices but by its effect."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from sidecar.cli.watching import Watch, Watched
from sidecar.config.loader import load
from sidecar.hooks.passwords import FILTERS
from sidecar.reloading import Reloading
from sidecar.telemetry.log import LOGGERS
from tests.configurations import SECRETS, example_in
from tests.console_world import a_console, act
from tests.services.certificates import SelfSigned, make_self_signed
from tests.world import SECRET, Running, World, free_port, merged, until


@dataclass
class Reloadable:
    """A sidecar that runs, and what can reload its configuration."""

    running: Running
    reloading: Reloading
    file: Path

    def write(self, changes: dict[str, Any]) -> None:
        """Lay *changes* over the file."""
        config = yaml.load(self.file.read_text(), Loader=yaml.BaseLoader)  # noqa: S506 - of our own
        self.file.write_text(yaml.safe_dump(merged(config, changes), sort_keys=False))

    async def change(self, changes: dict[str, Any], **options: Any) -> Any:
        """Lay *changes* over the file, and reload."""
        self.write(changes)
        return await self.reloading.reload("signal", **options)

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The audit lines of these events."""
        return [line for line in self.running.audit() if line["event"] in names]

    async def stop(self) -> None:
        """Stop what runs by now."""
        await self.reloading.sidecar.stop()


async def reloadable(world: World, changes: dict[str, Any] | None = None, **options: Any) -> Reloadable:
    """Start a sidecar that can be reloaded; the world stops what runs at the end."""
    running = await world(changes, **options)
    file = running.folder / "config.yaml"
    variables = {
        **os.environ,
        "ISSUER": running.provider.issuer,
        "OIDC_SECRET": "a client secret",
        "SESSION_SECRET": SECRET,
        **options.get("environment", {}),
    }
    loaded = load(file, environment=variables, filters=FILTERS)
    made = Reloadable(running, Reloading(file, loaded, running.sidecar, variables), file)
    # What began has handed over its listener; whoever has it by then is to be stopped.
    world.closing(running.sidecar.stop, made.stop)
    return made


def rule(path: str, allow: Any) -> dict[str, Any]:
    """Access rules that begin with one for *path*."""
    return {"access": [{"path": path, "allow": allow}, {"path": "/**", "allow": {"role": ["admin", "reader"]}}]}


async def test_a_changed_rule_is_in_force_and_sessions_in_memory_live_on(world: World) -> None:
    one = await reloadable(world)
    async with one.running.browser() as browser:
        assert (await browser.sign_in("ada", "/admin/x")).status == 200
        outcome = await one.change(rule("/admin/**", "nobody"))
        assert outcome.is_loaded
        assert (await browser.page("/page")).status == 200
        assert (await browser.page("/admin/x")).status == 403
        # The session that began before can be ended afterwards.
        assert (await browser.page("/-/logout", "POST")).status in (200, 303, 302)
    (line,) = one.events("configuration-loaded")
    assert line["trigger"] == "signal"
    assert line["digest"] == outcome.digest
    assert any(change.startswith("access[0]") for change in line["changes"])


async def test_a_look_at_files_that_came_to_nothing_is_not_counted(world: World) -> None:
    one = await reloadable(world)
    loads = one.running.sidecar.metrics.configurations.labels("loaded")
    before = loads._value.get()
    assert (await one.reloading.reload("watch")).is_loaded
    assert loads._value.get() == before
    one.write(rule("/admin/**", "nobody"))
    assert (await one.reloading.reload("watch")).is_loaded
    assert loads._value.get() == before + 1


async def test_a_sign_in_that_is_under_way_survives(world: World) -> None:
    one = await reloadable(world, {"sessions": {"secrets": None}})
    async with one.running.browser() as browser:
        page = await browser.at_provider("/page")
        assert (await one.change(rule("/admin/**", "nobody"))).is_loaded
        back = await browser.choose(page, "ada")
        assert (await browser.follow(back)).status == 200


async def test_a_websocket_lives_on_until_its_session_ends(world: World) -> None:
    one = await reloadable(world)
    async with one.running.browser() as browser:
        await browser.sign_in("ada")
        headers = {"Origin": one.running.url}
        async with browser.http.ws_connect(f"{one.running.url}/ws", headers=headers) as ws:
            for number in range(3):
                assert (await one.change({"pages": {"support": f"number {number}"}})).is_loaded
                await ws.send_str(f"hello {number}")
                assert await ws.receive_str(timeout=5) == f"echo hello {number}"
            await until(lambda: _former(one, 1))
            session = (await one.reloading.sidecar.front.gate.keeper.list_all())[0]
            await one.reloading.sidecar.front.gate.keeper.end_id(session)
            async with asyncio.timeout(5):
                assert (await ws.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        await until(lambda: _former(one, 0))


async def _former(one: Reloadable, number: int) -> bool:
    return one.reloading.sidecar.former == number


async def test_a_request_under_way_ends_with_the_plan_that_it_began_with(world: World) -> None:
    one = await reloadable(world)
    goes_on, began = asyncio.Event(), asyncio.Event()

    async def slowly(_request: web.BaseRequest) -> web.StreamResponse:
        began.set()
        await goes_on.wait()
        return web.Response(text="done")

    one.running.application.answer = slowly
    async with aiohttp.ClientSession() as http:
        first = asyncio.create_task(http.get(f"{one.running.url}/public/x"))
        await began.wait()
        assert (await one.change(rule("/public/**", "nobody"))).is_loaded
        goes_on.set()
        assert (await first).status == 200
        async with http.get(f"{one.running.url}/public/x") as answer:
            assert answer.status in (401, 403)


async def test_what_cannot_change_is_named_and_nothing_else_changes_either(world: World) -> None:
    one = await reloadable(world)
    changes = {**rule("/public/**", "nobody"), "server": {"listen": "127.0.0.1:1", "max_header": "1KiB"}}
    outcome = await one.change(changes)
    assert not outcome.is_loaded
    text = " ".join(outcome.problems)
    assert "server.listen" in text
    assert "server.max_header" in text
    async with one.running.browser() as browser:
        assert (await browser.page("/public/x")).status == 200
    parts = await one.reloading.sidecar.condition.readiness()
    assert "refused" in parts["configuration"]
    (line,) = one.events("configuration-refused")
    assert "config.yaml" in line["problems"][0]
    assert b"sidecar_configuration_refused 1.0" in one.reloading.sidecar.metrics.render()
    # Taken back, all is well again.
    one.write({"server": {"listen": f"127.0.0.1:{one.running.port}", "max_header": None}})
    assert (await one.reloading.reload("signal")).is_loaded
    assert "configuration" not in await one.reloading.sidecar.condition.readiness()
    assert b"sidecar_configuration_refused 0.0" in one.reloading.sidecar.metrics.render()


async def test_what_fails_only_when_it_is_built_changes_nothing(world: World) -> None:
    one = await reloadable(world)
    before = one.reloading.sidecar
    outcome = await one.change({"audit": {"file": "/proc/nowhere/audit.jsonl"}})
    assert not outcome.is_loaded
    assert "audit.file" in outcome.problems[0]
    assert one.reloading.sidecar is before


async def test_neither_lines_nor_problems_hold_a_secret_that_changed(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2-the-first")
    changes = {"logins": {"corp": {"client_secret": {"file": str(tmp_path / "secret")}}}}
    one = await reloadable(world, changes)
    (tmp_path / "secret").write_text("hunter2-the-second")
    outcome = await one.reloading.reload("signal")
    assert [str(change) for change in outcome.changes] == ["logins.corp.client_secret: changed"]
    # A secret that went astray into a place that is no secret, and is wrong there.
    refused = await one.change({"server": {"hosts": ["hunter2 the third"]}})
    assert not refused.is_loaded
    assert "server.hosts" in " ".join(refused.problems)
    assert "hunter2" not in one.running.audit_file.read_text() + str(refused.problems) + str(outcome)


async def test_parts_that_did_not_change_are_kept_and_others_are_not(world: World) -> None:
    one = await reloadable(world)
    before = one.reloading.sidecar
    assert (await one.change({"pages": {"support": "somebody"}})).is_loaded
    after = one.reloading.sidecar
    assert after.upstream is before.upstream
    assert after.audit is before.audit
    assert (await one.change({"app": {"idle_timeout": "7m"}})).is_loaded
    assert one.reloading.sidecar.upstream is not before.upstream
    await until(lambda: _former(one, 0))
    async with one.running.browser() as browser:
        assert (await browser.sign_in("ada")).status == 200


async def test_a_renewed_certificate_is_shown_to_whoever_connects_next(world: World, tmp_path: Path) -> None:
    first, second = (make_self_signed(_made(tmp_path / name), name) for name in ("one", "two"))
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls-key.pem"

    def put(pair: SelfSigned) -> None:
        certificate.write_bytes(pair.certificate.read_bytes())
        key.write_bytes(pair.key.read_bytes())

    put(first)
    port = free_port()
    url = f"https://localhost:{port}"
    tls = {"tls": {"certificate": str(certificate), "key": str(key)}, "public_url": url}
    one = await reloadable(world, {"server": tls}, port=port)

    async def shown() -> str:
        # By address: a client that names no host is served the same.
        return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))

    assert (await shown()).split() == first.certificate.read_text().split()
    put(second)
    outcome = await one.reloading.reload("signal")
    assert outcome.is_loaded, outcome
    assert (await shown()).split() == second.certificate.read_text().split()
    # A pair that does not fit is refused, and the good one stays.
    certificate.write_bytes(first.certificate.read_bytes())
    assert not (await one.reloading.reload("signal")).is_loaded
    assert (await shown()).split() == second.certificate.read_text().split()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def test_an_administrator_reloads_at_the_console_and_nobody_else(world: World, tmp_path: Path) -> None:
    console = await a_console(world, tmp_path)
    running = console.running
    variables = {**os.environ, "ISSUER": running.provider.issuer, "OIDC_SECRET": "a client secret"}
    variables |= {"SESSION_SECRET": SECRET, "USERS_DB": f"sqlite:///{console.users}"}
    file = running.folder / "config.yaml"
    made = Reloadable(
        running, Reloading(file, load(file, environment=variables, filters=FILTERS), running.sidecar, variables), file
    )
    world.closing(running.sidecar.stop, made.stop)
    running.sidecar.lasting.reload = made.reloading.reload
    made.write({"pages": {"support": "somebody else"}})
    async with await console.operator("grace") as operator:
        assert (await act(operator, "reload", "configuration")).status == 403
        assert "Read the files again" not in await (await operator.page("/configuration")).text()
    async with await console.operator("ada") as administrator:
        assert (await act(administrator, "reload", "configuration")).status == 303
        assert made.reloading.config.pages.support == "somebody else"
        # Of the same session, by the configuration that took over.
        page = await (await administrator.page("/configuration")).text()
        assert "Read the files again" in page
        made.file.write_text(made.file.read_text() + "nonsense: 1\n")
        assert (await act(administrator, "reload", "configuration")).status == 303
        assert "Not in force" in await (await administrator.page("/configuration")).text()
    (line,) = made.events("configuration-loaded")
    assert (line["trigger"], line["by"]) == ("console", "ada")
    assert [line.get("result") for line in made.events("console-act")] == ["done", "refused"]


async def test_what_changed_before_the_first_look_is_not_missed(tmp_path: Path) -> None:
    file = tmp_path / "support"
    file.write_text("changed after it was read")
    told: list[bool] = []

    async def changed() -> None:
        told.append(True)

    watching = asyncio.create_task(Watch(lambda: Watched([file], 0.005, is_on=True), changed).run())

    async def is_told() -> bool:
        return bool(told)

    await until(is_told)
    await asyncio.sleep(0.1)
    assert told == [True]
    watching.cancel()


def test_every_logger_of_ours_has_a_name_that_a_level_can_be_set_for() -> None:
    texts = [path.read_text() for path in (Path(__file__).parents[1] / "sidecar").rglob("*.py")]
    assert {name for text in texts for name in re.findall(r'get_logger\("(\w+)"\)', text)} == set(LOGGERS)


_NAMES = """
import os, sys
from pathlib import Path
from sidecar.config.comparing import digest_of, fingerprint_of, laid_out
from sidecar.config.loader import load
from sidecar.hooks.passwords import FILTERS
config = load(Path(sys.argv[1]), environment=os.environ, filters=FILTERS).config
print(digest_of(config), fingerprint_of(laid_out(config)))
"""


def test_a_configuration_has_the_same_names_in_every_process(tmp_path: Path) -> None:
    """Workers refuse to serve with another configuration than their parent's."""
    file = example_in(tmp_path)
    text = file.read_text().replace(
        "  on_failure: serve", "  events: {stdout: ['!decision', '!audit-anchor']}\n  on_failure: serve"
    )
    assert "!decision" in text
    file.write_text(text)
    said = {
        subprocess.run(
            [sys.executable, "-c", _NAMES, str(file)],
            env={**os.environ, **SECRETS, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
