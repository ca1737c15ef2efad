"""``sidecar doctor`` as a whole: nothing takes it down, nothing secret comes out, and its catalogue is in the docs."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import sys
from pathlib import Path

import pytest

from sidecar.config.secret import Secret
from sidecar.config.within import within
from sidecar.doctor import examination
from sidecar.doctor.catalogue import CATALOGUE, table
from sidecar.doctor.examination import CHECKS, NAMES, examine, wanted_checks
from sidecar.doctor.finding import Probe
from sidecar.doctor.patient import Patient
from sidecar.faults import Unavailable
from sidecar.reason import Reason
from tests.doctor_world import FAILURE, OK, VARIABLES, WARNING, commanded, examined, one, patient_of, written
from tests.services.redis import AclUser, RedisServers
from tests.world import World

ROOT = Path(__file__).parent.parent


async def hanging(patient: Patient) -> Probe:
    yield patient.ok("workers", "seen before it hangs")
    await asyncio.Event().wait()


async def broken(patient: Patient) -> Probe:
    yield patient.ok("dns", "seen before it breaks")
    message = "a token: hidden-client-secret"
    raise RuntimeError(message)


async def unavailable(patient: Patient) -> Probe:
    raise Unavailable(Reason.STORE_DOWN, "redis: ConnectionError")
    yield patient.ok("dns", "never")  # type: ignore[unreachable]


async def talkative(patient: Patient) -> Probe:
    yield patient.failure("dns", "the server answered: bad secret hidden-client-secret")


def cannot_begin(_patient: Patient) -> list[Probe]:
    message = "hidden-client-secret"
    raise ValueError(message)


async def test_a_check_that_hangs_or_breaks_is_a_finding_and_the_others_go_on(tmp_path: Path) -> None:
    began = asyncio.get_running_loop().time()
    found = await examine(
        patient_of(written(tmp_path)),
        patience=3,
        checks={
            "one": lambda patient: [hanging(patient), broken(patient), unavailable(patient)],
            "two": lambda patient: [talkative(patient), hanging(patient)],
            "three": cannot_begin,
        },
    )
    # All at once: two that hang take as long as one.
    assert asyncio.get_running_loop().time() - began < 5.9
    assert [finding.seen for finding in found if finding.name == "examination"] == [
        "broke off: ValueError",
        "no answer within 3 s",
        "broke off: RuntimeError",
        "broke off: redis: ConnectionError",
        "no answer within 3 s",
    ]
    assert all(finding.severity is FAILURE for finding in found if finding.name == "examination")
    assert [finding.seen for finding in found if finding.severity is OK].count("seen before it hangs") == 2
    assert "hidden" not in str(found)


async def test_no_secret_of_the_configuration_comes_out(tmp_path: Path) -> None:
    patient = patient_of(
        written(tmp_path, {"sessions": {"redis": {"env": "REDIS_URL"}}}),
        {"REDIS_URL": "redis://app:hidden-redis-password@127.0.0.1:1/0"},
    )

    async def tells(patient: Patient) -> Probe:
        for _, secret in within(patient.config, Secret):
            yield patient.failure("dns", f"it is {secret.reveal()}")
        yield patient.failure("dns", "and hidden-redis-password alone")

    found = await examine(patient, checks={"one": lambda patient: [tells(patient)]})
    assert len(found) >= 4
    assert "hidden" not in str(found)
    assert VARIABLES["SESSION_SECRET"] not in str(found)


async def test_some_checks_alone_and_some_left_out(tmp_path: Path) -> None:
    assert {finding.name for finding in await examined(tmp_path, {}, "machine")} == {"descriptors", "workers"}
    assert {finding.name for finding in await examined(tmp_path, {}, "workers")} == {"workers"}
    patient = patient_of(written(tmp_path))
    found = await examine(patient, only=["machine", "files"], skip=["workers", "files"])
    assert {finding.name for finding in found} == {"descriptors"}
    assert wanted_checks((), ("redis",)) == [name for name in CHECKS if name != "redis"]


def test_each_finding_has_a_check_and_is_provoked_by_a_test() -> None:
    assert {subject.check for subject in CATALOGUE.values()} <= {*CHECKS, "examination"}
    assert set(CATALOGUE) <= set(NAMES)
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_doctor*.py"))
    provoked = {name for name in CATALOGUE if f'"{name}"' in tests}
    assert provoked == set(CATALOGUE)


def test_each_finding_is_in_the_docs() -> None:
    assert table() in (ROOT / "docs" / "doctor.md").read_text()


async def test_the_command_says_it_to_people_and_programs(
    tmp_path: Path, redis_servers: RedisServers, world: World
) -> None:
    running = await world()
    server = redis_servers("--maxmemory-policy", "allkeys-lru", acl=AclUser(password="hidden-redis-password"))
    changes = {
        "server": {"listen": f"127.0.0.1:{running.port}", "public_url": running.url},
        "app": {"upstream": f"http://127.0.0.1:{running.application.port}"},
        "sessions": {"redis": {"env": "REDIS_URL"}},
    }
    environment = {"ISSUER": running.provider.issuer, "OIDC_SECRET": "a client secret", "REDIS_URL": server.url}
    file = written(tmp_path, changes)
    code, out = await commanded(file, "--json", "--skip", "tls", **environment)
    said = json.loads(out)
    wrong = {finding["name"]: finding for finding in said["findings"] if finding["severity"] in ("warning", "failure")}
    assert (code, said["ok"], set(wrong)) == (0, True, {"redis-eviction"}), wrong
    finding = wrong["redis-eviction"]
    assert (finding["path"], finding["file"], finding["line"] > 0) == ("sessions.redis", str(file), True)
    assert finding["why"]
    assert finding["change"]

    code, text = await commanded(file, "--strict", **environment)
    assert code == 1
    assert re.search(
        rf"warning +redis-eviction\n.*allkeys-lru.*\n +{file}:\d+: sessions.redis\n +Why: .*\n +Do: ", text
    )
    assert "1 to look at" in text.splitlines()[-1]
    # Colour and progress are for terminals.
    assert "\x1b" not in out + text
    assert "hidden" not in out + text

    code, text = await commanded(file, "--only", "redis", **{**environment, "REDIS_URL": server.url + "?x=1"})
    assert "hidden" not in text
    code, text = await commanded(file, "--only", "connection", **{**environment, "ISSUER": "http://localhost:1/id"})
    assert (code, "1 failed" in text) == (1, True), text


async def test_on_a_terminal_there_is_colour(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "doctor", str(written(tmp_path)), "--only", "machine"),
        stdout=theirs,
        stderr=theirs,
        env={**{name: value for name, value in os.environ.items() if name != "NO_COLOR"}, **VARIABLES, "TERM": "xterm"},
    )
    os.close(theirs)
    out = b""
    loop = asyncio.get_running_loop()
    try:
        while piece := await loop.run_in_executor(None, os.read, ours, 65536):
            out += piece
    except OSError:
        # The other end is closed.
        pass
    assert await process.wait() == 0
    os.close(ours)
    assert b"\x1b[32m" in out


async def test_a_configuration_that_does_not_load_is_a_finding(tmp_path: Path) -> None:
    file = written(tmp_path, {"server": {"prefix": "/"}})
    code, out = await commanded(file, "--json")
    finding, rest = json.loads(out)["findings"]
    assert (code, finding["name"], finding["path"]) == (1, "configuration", "server.prefix")
    # Nobody shall think that all else is well.
    assert (rest["severity"], "nothing else" in rest["seen"]) == ("skipped", True)


async def test_warnings_of_the_configuration_are_findings(tmp_path: Path) -> None:
    found = await examined(tmp_path, {"app": {"sticky": "true"}}, "configuration")
    assert (one(found, "configuration").severity, one(found, "configuration").path) == (WARNING, "app.sticky")


@pytest.mark.parametrize(("words", "wanted"), [("sidecar do", "doctor"), ("sidecar doctor --only red", "redis")])
async def test_the_shell_completes_commands_and_checks(words: str, wanted: str) -> None:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "sidecar"),
        stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "_SIDECAR_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
    )
    out, _ = await process.communicate()
    assert wanted in out.decode()


def test_there_is_nothing_that_waits_for_ever() -> None:
    assert 0 < examination.PATIENCE <= 30
