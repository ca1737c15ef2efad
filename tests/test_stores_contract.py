"""The contract of Store, which memory and every kind of Redis keep."""

# ruff: noqa: ASYNC110 - what is waited for happens in another process

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sidecar.config.service import Sessions
from sidecar.faults import Unavailable
from sidecar.sessions.memory import MemoryStore
from sidecar.sessions.opening import open_store
from sidecar.sessions.store import Store
from tests.sessions_world import CLUSTERS, KINDS, WATCHED, Time, eventually, opened, section, sections

HOUR = 3600.0
BLINK = 0.05


@pytest.fixture(scope="module", params=KINDS)
def settings(request: pytest.FixtureRequest) -> Iterator[Sessions]:
    with TemporaryDirectory(prefix="sidecar-") as folder, sections(request.param, Path(folder)) as found:
        yield found


@pytest.fixture
async def store(
    settings: Sessions, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Store]:
    # A prefix of its own is what keeps the tests apart, as it keeps applications apart.
    prefix = f"sidecar:{abs(hash(request.node.nodeid))}:"
    # What is kept here does not depend on how busy the machine is.
    monkeypatch.setattr("sidecar.sessions.redis_watch._PATIENCE", 30.0)
    own = settings.model_copy(update={"prefix": prefix, "timeout": timedelta(seconds=20)})
    async with opened(own) as found:
        yield found


async def test_what_is_not_there_is_none(store: Store) -> None:
    assert await store.get("a") is None
    assert await store.take("a") is None
    assert await store.members("a") == frozenset()


@pytest.mark.parametrize("value", [b"", b"plain", bytes(range(256)), b"\r\n$-1\r\n" * 4000])
async def test_bytes_come_back_as_they_were(store: Store, value: bytes) -> None:
    await store.put("a", value, HOUR)
    assert await store.get("a") == value
    assert await store.take("a") == value


async def test_names_are_those_that_begin_so_and_are_there(store: Store) -> None:
    keys = {f"session:{number}" for number in range(1200)}
    others = ["session:gone", "sessions", "other:session:1"]
    await asyncio.gather(*(store.put(key, b"1", HOUR) for key in [*keys, *others]))
    await store.delete("session:gone")
    assert await store.names("session:") == keys
    assert await store.names("sess*:") == await store.names("session[:]") == frozenset()


async def test_it_says_how_many_keys_begin_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    others = ["sessions", "other:session:1"]
    await asyncio.gather(*(store.put(key, b"1", HOUR) for key in [*(f"session:{n}" for n in range(900)), *others]))
    await store.put("session:gone", b"1", BLINK)
    await asyncio.sleep(2 * BLINK)
    assert await store.number("session:") == 900
    assert (await store.number("sess"), await store.number("session:1"), await store.number("x:")) == (901, 111, 0)
    # Where it does not look at all of them it is about right.
    monkeypatch.setattr("sidecar.sessions.redis._SAMPLED", 500)
    monkeypatch.setattr("sidecar.sessions.redis._MOST_NAMES", 100)
    assert 600 < await store.number("session:") < 1300


async def test_a_later_value_takes_the_place_of_an_earlier_one(store: Store) -> None:
    await store.put("a", b"1", HOUR)
    await store.put("a", b"2", HOUR)
    assert await store.get("a") == b"2"


async def test_a_value_is_gone_after_its_time(store: Store) -> None:
    await store.put("short", b"1", BLINK)
    await store.put("long", b"1", HOUR)
    async with asyncio.timeout(5):
        while await store.get("short") is not None:
            await asyncio.sleep(0.01)
    assert await store.get("long") == b"1"


async def test_a_replacement_has_its_own_time(store: Store) -> None:
    async def is_replaced(lifetime: float) -> bool:
        await store.put("a", b"1", lifetime)
        return await store.replace("a", b"2", HOUR)

    # On a busy machine a short life may be over before it is replaced.
    lifetime = BLINK
    while not await is_replaced(lifetime):
        lifetime *= 4
        assert lifetime < 10
    await store.put("b", b"1", lifetime)
    async with asyncio.timeout(10):
        while await store.get("b") is not None:
            await asyncio.sleep(0.01)
    assert await store.get("a") == b"2"


async def test_what_has_ended_is_not_revived_by_replacing(store: Store) -> None:
    await store.put("a", b"1", HOUR)
    await store.delete("a")
    assert not await store.replace("a", b"2", HOUR)
    assert await store.get("a") is None


async def test_only_what_is_still_as_it_was_is_exchanged(store: Store) -> None:
    assert not await store.exchange("a", b"", b"2", HOUR)
    await store.put("a", b"1", HOUR)
    won = await asyncio.gather(*(store.exchange("a", b"1", b"2", HOUR) for _ in range(10)))
    assert won.count(True) == 1
    assert await store.get("a") == b"2"
    await store.delete("a")
    assert not await store.exchange("a", b"2", b"3", HOUR)
    assert await store.get("a") is None


async def test_of_many_who_take_only_one_gets_it(store: Store) -> None:
    await store.put("a", b"1", HOUR)
    taken = await asyncio.gather(*(store.take("a") for _ in range(20)))
    assert sorted(taken, key=bool) == [None] * 19 + [b"1"]


async def test_the_first_claim_wins(store: Store) -> None:
    won = await asyncio.gather(*(store.claim("a", str(number).encode(), HOUR) for number in range(20)))
    assert won.count(True) == 1
    assert await store.get("a") == str(won.index(True)).encode()


async def test_a_claim_can_be_made_again_after_its_time(store: Store) -> None:
    assert await store.claim("a", b"1", BLINK)
    async with asyncio.timeout(5):
        while not await store.claim("a", b"2", HOUR):
            await asyncio.sleep(0.01)


async def test_only_who_holds_a_claim_releases_it(store: Store) -> None:
    await store.claim("a", b"mine", HOUR)
    assert not await store.release("a", b"yours")
    assert await store.get("a") == b"mine"
    assert await store.release("a", b"mine")
    assert not await store.release("a", b"mine")
    assert await store.claim("a", b"yours", HOUR)


async def test_many_keys_are_deleted_and_those_not_there_do_no_harm(store: Store) -> None:
    await store.put("a", b"1", HOUR)
    await store.put("b", b"1", HOUR)
    await store.delete("a", "b", "c")
    await store.delete()
    assert [await store.get(key) for key in "abc"] == [None] * 3


async def test_a_set_holds_each_member_once(store: Store) -> None:
    for member in ("x", "y", "x", "ünï"):
        await store.add("s", member, HOUR)
    await store.discard("s", "y")
    await store.discard("s", "never there")
    await store.discard("no set", "x")
    assert await store.members("s") == {"x", "ünï"}


async def test_each_member_of_a_set_has_its_own_time(store: Store) -> None:
    await store.add("s", "short", BLINK)
    await store.add("s", "long", HOUR)
    await store.add("s", "longer", BLINK)
    await store.add("s", "longer", HOUR)
    await store.add("s", "not shorter", HOUR)
    await store.add("s", "not shorter", BLINK)
    async with asyncio.timeout(5):
        while "short" in await store.members("s"):
            await asyncio.sleep(0.01)
    assert await store.members("s") == {"long", "longer", "not shorter"}


async def test_everybody_is_counted_once(store: Store) -> None:
    counts = await asyncio.gather(*(store.count("n", HOUR) for _ in range(20)))
    assert sorted(counts) == list(range(1, 21))


async def test_counting_on_does_not_put_off_the_start_over(store: Store) -> None:
    assert await store.count("n", 0.2) == 1
    async with asyncio.timeout(5):
        while await store.count("n", HOUR) > 1:
            await asyncio.sleep(0.02)


async def test_a_hundred_at_once_are_all_answered(store: Store) -> None:
    await asyncio.gather(*(store.put(f"k{number}", str(number).encode(), HOUR) for number in range(150)))
    values = await asyncio.gather(*(store.get(f"k{number}") for number in range(150)))
    assert values == [str(number).encode() for number in range(150)]


@pytest.mark.parametrize("settings", [kind for kind in KINDS if kind.startswith("tls-")], indirect=True)
async def test_the_certificates_are_read_once_for_all_connections(
    settings: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each of 64 that are opened at once, that stopped everything else for three seconds."""
    made: list[ssl.SSLContext] = []
    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **options: made.append(make(**options)) or made[-1])
    async with opened(settings.model_copy(update={"timeout": timedelta(seconds=20)})) as store:
        await asyncio.gather(*(store.put(f"k{number}", b"1", HOUR) for number in range(100)))
    assert len(made) == 1


def test_a_file_that_holds_no_certificate_is_found_at_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    with pytest.raises(ValueError, match=r"ca\.pem cannot be used: no certificate or crl found"):
        open_store(section("rediss://redis/0", redis_ca=broken), Time())


async def test_it_says_what_it_is(store: Store, settings: Sessions) -> None:
    assert (await store.ping()).startswith("redis" if settings.redis else "memory")


@pytest.mark.parametrize("settings", WATCHED, indirect=True)
async def test_every_change_by_another_process_is_heard_of(settings: Sessions, store: Store) -> None:
    heard: list[str] = []
    await store.watch("w:", heard.append, heard.clear)
    assert store.is_watching
    async with _second(settings, store) as other:
        await other.put("w:put", b"1", HOUR)
        await eventually(lambda: "w:put" in heard)
        for change in (
            lambda: other.replace("w:put", b"2", HOUR),
            lambda: other.release("w:put", b"2"),
            lambda: other.claim("w:put", b"3", HOUR),
            lambda: other.take("w:put"),
            lambda: other.put("w:put", b"4", HOUR),
            lambda: other.delete("w:put"),
        ):
            heard.clear()
            await change()
            await eventually(lambda: heard == ["w:put"])
        heard.clear()
        await other.put("elsewhere", b"1", HOUR)
        await other.put("w:last", b"1", HOUR)
        await eventually(lambda: bool(heard))
        assert heard == ["w:last"]


@pytest.mark.parametrize("settings", WATCHED, indirect=True)
async def test_expiry_is_heard_of_at_the_latest_when_somebody_looks(settings: Sessions, store: Store) -> None:
    heard: list[str] = []
    await store.watch("w:", heard.append, lambda: None)
    await store.put("w:short", b"1", BLINK)
    async with asyncio.timeout(5):
        while await store.get("w:short") is not None:
            await asyncio.sleep(0.01)
    # The write, and its end.
    await eventually(lambda: heard == ["w:short"] * 2)


@pytest.mark.parametrize("settings", WATCHED, indirect=True)
async def test_two_watches_stand_side_by_side(settings: Sessions, store: Store) -> None:
    one: list[str] = []
    two: list[str] = []
    await store.watch("w:", one.append, lambda: None)
    await store.watch("w:deep:", two.append, lambda: None)
    assert store.is_watching
    await store.put("w:x", b"1", HOUR)
    await store.put("w:deep:y", b"1", HOUR)
    await eventually(lambda: one == ["w:x", "w:deep:y"] and two == ["w:deep:y"])


@pytest.mark.parametrize("settings", CLUSTERS, indirect=True)
async def test_a_cluster_never_says_that_it_is_watched(settings: Sessions, store: Store) -> None:
    await store.watch("w:", lambda _: None, lambda: None)
    assert not store.is_watching


@pytest.fixture
def clock() -> Time:
    return Time()


async def test_memory_forgets_at_the_very_moment(clock: Time) -> None:
    store = MemoryStore(clock)
    await store.put("a", b"1", 10)
    clock.now += 9.999
    assert await store.get("a") == b"1"
    clock.now += 0.001
    assert await store.get("a") is None


async def test_memory_lets_go_of_what_nobody_asks_for_again(clock: Time) -> None:
    store = MemoryStore(clock)
    for number in range(1000):
        await store.put(f"login:{number}", b"1", 10)
    clock.now += 11
    await store.put("one more", b"1", 10)
    assert await store.ping() == "memory, 1 entries"


async def test_sign_ins_that_nobody_finishes_do_not_eat_the_memory_of_others(clock: Time) -> None:
    store = MemoryStore(clock)
    await store.put("session:ada", b"1", HOUR)
    with suppress(Unavailable):
        for number in range(4000):
            await store.put(f"form:{number}", bytes(64 * 1024), HOUR)
    held = sum([len(await store.get(f"form:{number}") or b"") for number in range(4000)])
    assert held <= 128 * 1024 * 1024
    assert await store.get("session:ada") == b"1"
    await store.put("session:bob", b"1", HOUR)


def _second(settings: Sessions, store: Store) -> object:
    """Another process's view of the same data; memory has none but itself."""
    if settings.redis is None:
        return _itself(store)
    own = {"prefix": store._prefix, "timeout": timedelta(seconds=20)}  # type: ignore[attr-defined]
    return opened(settings.model_copy(update=own))


class _itself:  # noqa: N801 - reads as a word
    def __init__(self, store: Store) -> None:
        self._store = store

    async def __aenter__(self) -> Store:
        return self._store

    async def __aexit__(self, *_: object) -> None:
        return None
