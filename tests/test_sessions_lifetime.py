"""Sessions as a person has them: opened, used, ended, never longer than they may live."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from sidecar.model import Grant, Identity, Session, identity_key
from sidecar.sessions.codec import read_session, write_session
from sidecar.sessions.keeper import SessionKeeper
from sidecar.sessions.vault import Vault
from tests.sessions_world import (
    ISSUER,
    NOW,
    OLD_SECRET,
    SECRET,
    Time,
    Watched,
    eventually,
    keeping,
    memory,
    signed_in,
)

MINUTE = 60.0
IDLE = 30 * MINUTE
ABSOLUTE = 12 * 60 * MINUTE
ADA = identity_key(ISSUER, "ada")


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def store(clock: Time) -> Watched:
    return memory(clock)


@pytest.fixture
async def keeper(store: Watched, clock: Time) -> AsyncIterator[SessionKeeper]:
    async with keeping(store, clock=clock) as made:
        yield made


async def _settled(keeper: SessionKeeper) -> None:
    """Let what runs in the background come to its end."""
    while keeper._tasks:
        await asyncio.gather(*keeper._tasks)


async def test_the_token_of_a_session_finds_it(keeper: SessionKeeper) -> None:
    signed = signed_in("ada", sid="p1", acr="mfa", amr=("otp",), refresh_at=NOW + 300)
    token, session = await keeper.open(signed, NOW)
    assert await keeper.find(token, NOW) == session
    assert session == Session(
        id=session.id,
        identity=signed.identity,
        created=NOW,
        expires=NOW + ABSOLUTE,
        seen=NOW,
        auth_time=NOW,
        acr="mfa",
        amr=("otp",),
        sid="p1",
        refresh_at=NOW + 300,
    )
    assert await keeper.grant(token) == Grant("an id token", "a refresh token")


async def test_every_sign_in_gets_a_new_token_and_ends_the_one_before(keeper: SessionKeeper) -> None:
    """T50: whatever token a browser brought to the sign-in is worthless after it."""
    first, one = await keeper.open(signed_in("ada"), NOW)
    second, two = await keeper.open(signed_in("ada"), NOW, first)
    third, _ = await keeper.open(signed_in("bob"), NOW, second)
    assert len({first, second, third}) == 3
    assert one.id != two.id
    assert await keeper.find(first, NOW) is None
    assert await keeper.find(second, NOW) is None
    assert await keeper.find(third, NOW) is not None


async def test_a_token_that_somebody_planted_before_the_sign_in_opens_nothing(keeper: SessionKeeper) -> None:
    """T50: session fixation."""
    planted = Vault.token()
    token, _ = await keeper.open(signed_in("ada"), NOW, planted)
    assert token != planted
    assert await keeper.find(planted, NOW) is None


@pytest.mark.parametrize("token", ["", "x", "a" * 42, "a" * 44, "a" * 42 + "é", "../" * 14 + "a", "a" * 100_000])
async def test_what_is_no_token_costs_no_look_up(keeper: SessionKeeper, store: Watched, token: str) -> None:
    assert await keeper.find(token, NOW) is None
    assert await keeper.end(token) == 0
    assert store.asked == []


async def test_an_unused_session_ends_after_the_idle_time(keeper: SessionKeeper, clock: Time) -> None:
    """T51."""
    token, _ = await keeper.open(signed_in(), NOW)
    clock.now += IDLE - 1
    assert await keeper.find(token, clock.now) is not None
    clock.now += IDLE
    assert await keeper.find(token, clock.now) is None


async def test_a_remembered_session_ends_after_the_idle_time_too(keeper: SessionKeeper) -> None:
    """T51: the cache asks for the time, whatever the store still holds."""
    token, _ = await keeper.open(signed_in(), NOW)
    assert await keeper.find(token, NOW) is not None
    assert await keeper.find(token, NOW + IDLE) is None


async def test_a_session_in_use_ends_after_the_absolute_time(keeper: SessionKeeper, clock: Time) -> None:
    """T51: use does not put it off."""
    token, _ = await keeper.open(signed_in(), NOW)
    while clock.now < NOW + ABSOLUTE - 5 * MINUTE:
        clock.now += 5 * MINUTE
        assert await keeper.find(token, clock.now) is not None
        await _settled(keeper)
    clock.now = NOW + ABSOLUTE
    assert await keeper.find(token, clock.now) is None
    assert await keeper.find(token, NOW) is None, "the store itself has let it go"


async def test_a_cookie_from_before_the_sign_out_opens_nothing(keeper: SessionKeeper) -> None:
    """T51."""
    token, session = await keeper.open(signed_in(), NOW)
    assert await keeper.find(token, NOW) is not None
    assert await keeper.end(token) == 1
    assert await keeper.find(token, NOW) is None
    assert await keeper.grant(token) == Grant()
    assert await keeper.renew(token, session, signed_in(), NOW) is None
    assert await keeper.find(token, NOW) is None
    assert await keeper.grant(token) == Grant()
    assert await keeper.end(token) == 0


async def test_use_is_written_down_once_in_a_while(keeper: SessionKeeper, store: Watched, clock: Time) -> None:
    token, _ = await keeper.open(signed_in(), NOW)
    await _settled(keeper)
    for _ in range(600):
        clock.now += 1
        assert await keeper.find(token, clock.now) is not None
        await _settled(keeper)
    writes = store.count("exchange", "session:") + store.count("replace", "session:")
    assert 9 <= writes <= 10


async def test_noting_use_never_revives_an_ended_session(keeper: SessionKeeper, store: Watched, clock: Time) -> None:
    token, session = await keeper.open(signed_in(), NOW)
    await keeper.find(token, NOW)
    await _settled(keeper)
    clock.now += 2 * MINUTE
    store.gate = asyncio.Event()
    assert await keeper.find(token, clock.now) is not None
    await eventually(lambda: store.waiting == 1)
    assert await keeper.end_id(session.id) == 1
    store.gate.set()
    await _settled(keeper)
    assert await keeper.find(token, clock.now) is None


async def test_noting_use_does_not_undo_a_renewal(keeper: SessionKeeper, store: Watched, clock: Time) -> None:
    token, session = await keeper.open(signed_in(refresh_at=NOW + 100), NOW)
    await keeper.find(token, NOW)
    await _settled(keeper)
    clock.now += 2 * MINUTE
    gate = store.gate = asyncio.Event()
    await keeper.find(token, clock.now)
    await eventually(lambda: store.waiting == 1)
    store.gate = None
    fresh = signed_in(username="ada lovelace", refresh_at=NOW + 1000)
    assert await keeper.renew(token, session, fresh, clock.now) is not None
    gate.set()
    await _settled(keeper)
    found = await keeper.find(token, clock.now)
    assert found is not None
    assert (found.identity.username, found.refresh_at) == ("ada lovelace", NOW + 1000)


async def test_a_renewal_keeps_token_age_and_id(keeper: SessionKeeper, clock: Time) -> None:
    token, session = await keeper.open(signed_in(refresh_at=NOW + 100), NOW)
    clock.now += MINUTE
    fresh = signed_in(username="ada lovelace", refresh_at=NOW + 400, grant=Grant("new", "newer"))
    renewed = await keeper.renew(token, session, fresh, clock.now)
    assert renewed == replace(session, identity=fresh.identity, refresh_at=NOW + 400, seen=clock.now)
    assert await keeper.find(token, clock.now) == renewed
    assert await keeper.grant(token) == Grant("new", "newer")


async def test_use_right_before_the_idle_time_counts(keeper: SessionKeeper, clock: Time) -> None:
    token, _ = await keeper.open(signed_in(), NOW)
    await keeper.find(token, NOW)
    clock.now += IDLE - 0.001
    assert await keeper.find(token, clock.now) is not None
    clock.now += 1
    assert await keeper.find(token, clock.now) is not None


async def test_a_person_is_ended_everywhere_and_nobody_else(keeper: SessionKeeper) -> None:
    mine = [(await keeper.open(signed_in("ada"), NOW))[0] for _ in range(3)]
    yours, _ = await keeper.open(signed_in("ada", issuer="https://other.example"), NOW)
    his, _ = await keeper.open(signed_in("bob"), NOW)
    assert len(await keeper.list_person(ADA)) == 3
    assert await keeper.end_person(ADA) == 3
    assert [await keeper.find(token, NOW) for token in mine] == [None] * 3
    assert await keeper.list_person(ADA) == ()
    assert await keeper.end_person(ADA) == 0
    assert await keeper.find(yours, NOW) is not None
    assert await keeper.find(his, NOW) is not None


async def test_a_logout_that_names_a_subject_only_ends_all_of_its_sessions(keeper: SessionKeeper) -> None:
    mine = [(await keeper.open(signed_in("ada", sid=sid), NOW))[0] for sid in ("p1", "p2", "")]
    assert await keeper.end_subject(ISSUER, "ada") == 3
    assert [await keeper.find(token, NOW) for token in mine] == [None] * 3


async def test_a_logout_that_names_a_session_ends_that_one_only(keeper: SessionKeeper) -> None:
    one, _ = await keeper.open(signed_in("ada", sid="p1"), NOW)
    two, _ = await keeper.open(signed_in("ada", sid="p2"), NOW)
    other, _ = await keeper.open(signed_in("ada", sid="p1", issuer="https://other.example"), NOW)
    assert await keeper.end_provider_session(ISSUER, "p1") == 1
    assert await keeper.find(one, NOW) is None
    assert await keeper.find(two, NOW) is not None
    assert await keeper.find(other, NOW) is not None


@pytest.mark.parametrize(("issuer", "subject"), [("https://a", "b1:c"), ("https://a1", ":b1:c"), ("https://", "ab1:c")])
async def test_no_two_people_share_an_index(keeper: SessionKeeper, issuer: str, subject: str) -> None:
    token, _ = await keeper.open(signed_in("1:c", issuer="https://ab"), NOW)
    assert await keeper.end_subject(issuer, subject) == 0
    assert await keeper.find(token, NOW) is not None


async def test_a_session_opened_while_others_are_ended_stays_known(keeper: SessionKeeper, store: Watched) -> None:
    """Whoever signs in during a logout can still be ended by the next one."""
    await keeper.open(signed_in("ada"), NOW)
    await _settled(keeper)
    inner, tokens = store.inner.members, []

    async def members(key: str) -> frozenset[str]:
        found = await inner(key)
        store.inner.members = inner  # type: ignore[method-assign]
        tokens.append((await keeper.open(signed_in("ada"), NOW))[0])
        return found

    store.inner.members = members  # type: ignore[method-assign]
    assert await keeper.end_person(ADA) == 1
    assert await keeper.find(tokens[0], NOW) is not None
    assert await keeper.end_person(ADA) == 1
    assert await keeper.find(tokens[0], NOW) is None


async def test_somebody_who_signs_in_all_the_time_leaves_no_heap(
    keeper: SessionKeeper, store: Watched, clock: Time
) -> None:
    for _ in range(60):
        await keeper.open(signed_in("robot"), clock.now)
        clock.now += ABSOLUTE / 4
    index = next(key for verb, key in store.asked if verb == "add")
    assert len(await store.members(index)) <= 4


async def test_older_secrets_sign_nobody_out(store: Watched, clock: Time) -> None:
    async with keeping(store, secrets=(OLD_SECRET,), clock=clock) as before:
        token, session = await before.open(signed_in("ada", sid="p1"), NOW)
    async with keeping(store, secrets=(SECRET, OLD_SECRET), clock=clock) as after:
        assert await after.find(token, NOW) == session
        assert (await after.grant(token)).refresh_token == "a refresh token"
        assert await after.end_provider_session(ISSUER, "p1") == 1


async def test_a_secret_that_is_gone_means_signing_in_again_not_a_fault(store: Watched, clock: Time) -> None:
    async with keeping(store, secrets=(OLD_SECRET,), clock=clock) as before:
        token, _ = await before.open(signed_in(), NOW)
    async with keeping(store, clock=clock) as after:
        assert await after.find(token, NOW) is None
        await after.end(token)
    async with keeping(store, secrets=(OLD_SECRET,), clock=clock) as before:
        assert await before.find(token, NOW) is None, "what was signed out comes back with no secret"


def test_a_typical_session_is_small_and_comes_back_as_it_was() -> None:
    claims = {
        name: f"a claim of some length for {name}" for name in ("sub", "department", "title", "locale", "zoneinfo")
    }
    identity = Identity("corp", ISSUER, "ada", "ada", "ada@example.com", "Ada Lovelace", ("staff",) * 10, claims)
    session = Session("id", identity, NOW, NOW + 1, NOW, NOW, "mfa", ("otp",), "sid", NOW + 5)
    raw = write_session(session)
    assert len(raw) <= 1024
    assert read_session(raw, "id") == session


@pytest.mark.parametrize("groups", [None, (), ("a", "ünï")])
def test_unknown_groups_are_not_the_same_as_none(groups: tuple[str, ...] | None) -> None:
    session = Session("id", Identity("corp", ISSUER, "a", "a", groups=groups), NOW, NOW + 1, NOW, NOW)
    assert read_session(write_session(session), "id") == session


def test_fields_of_a_newer_program_are_passed_over() -> None:
    session = Session("id", Identity("corp", ISSUER, "a", "a"), NOW, NOW + 1, NOW, NOW)
    newer = json.dumps({**json.loads(write_session(session)), "zz": [1]}).encode()
    assert read_session(newer, "id") == session
