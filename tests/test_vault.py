"""Nothing in the store can be read without its token, or made without our secret."""

from __future__ import annotations

import time

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from sidecar.sessions.memory import MemoryStore
from sidecar.sessions.vault import Vault, is_token

NEW, OLD, OTHER = b"n" * 32, b"o" * 32, b"x" * 32
LONG = 60.0


def a_vault(*secrets: bytes, kind: str = "session", store: MemoryStore | None = None) -> Vault:
    return Vault(store or MemoryStore(time.time), secrets or (NEW,), kind)


async def test_what_is_put_is_read_by_its_token_only() -> None:
    vault, token = a_vault(), Vault.token()
    await vault.put(token, b"payload", LONG)
    assert await vault.get(token) == b"payload"
    assert await vault.get(Vault.token()) is None
    assert await vault.take(token) == b"payload"
    assert await vault.take(token) is None
    await vault.put(token, b"payload", LONG)
    await vault.delete(token)
    assert await vault.get(token) is None


def test_tokens_are_256_random_bits() -> None:
    tokens = {Vault.token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(is_token(token) for token in tokens)


@pytest.mark.parametrize(
    "text", ["", "a", "a" * 42, "a" * 44, "a" * 42 + "=", "a" * 42 + "é", "a" * 42 + "\n", "+" * 43]
)
def test_nothing_else_is_a_token(text: str) -> None:
    assert not is_token(text)


async def test_the_store_is_not_asked_for_what_cannot_be_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    vault = a_vault()
    monkeypatch.setattr(vault, "_store", None)
    assert await vault.get("../../etc/passwd") is None
    assert await vault.take("\udc80" * 43) is None


@pytest.mark.parametrize("secrets", [(), (b"",), (NEW, b"")])
def test_a_vault_without_a_secret_is_refused(secrets: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="secret"):
        Vault(MemoryStore(time.time), secrets, "session")


def test_the_same_payload_is_never_sealed_the_same_way() -> None:
    vault, token = a_vault(), Vault.token()
    assert vault.seal(token, b"payload") != vault.seal(token, b"payload")


@given(payload=st.binary(max_size=200), position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_record_with_any_bit_changed_does_not_open(payload: bytes, position: int, bit: int) -> None:
    vault, token = a_vault(), Vault.token()
    sealed = bytearray(vault.seal(token, payload))
    assert vault.open(token, bytes(sealed)) == payload
    sealed[position % len(sealed)] ^= 1 << bit
    assert vault.open(token, bytes(sealed)) is None


def test_a_record_cut_anywhere_does_not_open() -> None:
    vault, token = a_vault(), Vault.token()
    sealed = vault.seal(token, b"payload")
    for end in range(len(sealed)):
        assert vault.open(token, sealed[:end]) is None
    assert vault.open(token, sealed + b"\0") is None


def test_a_record_opens_for_its_own_token_kind_and_secret_only() -> None:
    token = Vault.token()
    sealed = a_vault().seal(token, b"payload")
    assert a_vault().open(Vault.token(), sealed) is None
    assert a_vault(kind="grant").open(token, sealed) is None
    assert a_vault(OTHER).open(token, sealed) is None


async def test_a_record_copied_under_another_key_does_not_open() -> None:
    store = MemoryStore(time.time)
    vault, mine, theirs = a_vault(store=store), Vault.token(), Vault.token()
    await vault.put(theirs, b"theirs", LONG)
    record = await store.get(vault.key_of(Vault.id_of(theirs)))
    assert record is not None
    await store.put(vault.key_of(Vault.id_of(mine)), record, LONG)
    with structlog.testing.capture_logs() as logs:
        assert await vault.get(mine) is None
    assert [line["kind"] for line in logs] == ["session"]
    assert mine not in str(logs)


def test_the_store_key_is_bound_into_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    vault, token = a_vault(), Vault.token()
    sealed = vault.seal(token, b"payload")
    # Same token, secret and kind, so the same encryption key; only the place in the store differs.
    monkeypatch.setattr(Vault, "key_of", lambda _, token_id: f"elsewhere:{token_id}")
    assert vault.open(token, sealed) is None


async def test_a_new_secret_seals_while_old_ones_still_open() -> None:
    store, token = MemoryStore(time.time), Vault.token()
    before, during, after = (a_vault(*secrets, store=store) for secrets in ((OLD,), (NEW, OLD), (NEW,)))
    await before.put(token, b"payload", LONG)
    assert await during.get(token) == b"payload"
    assert await after.get(token) is None
    # Whatever is written is sealed by the new one from now on.
    assert await during.change(token, lambda payload: (payload + b"!", LONG))
    assert await after.get(token) == b"payload!"
    assert await before.get(token) is None


async def test_a_change_never_undoes_what_somebody_else_wrote_meanwhile() -> None:
    store, token = MemoryStore(time.time), Vault.token()
    vault = a_vault(store=store)
    key = vault.key_of(Vault.id_of(token))
    assert not await vault.change(token, lambda payload: (payload, LONG))
    await vault.put(token, b"old", LONG)
    assert not await vault.change(token, lambda _: None)
    theirs = vault.seal(token, b"theirs")

    def overtaken(payload: bytes) -> tuple[bytes, float]:
        store._put(key, theirs, LONG)
        return payload + b" and mine", LONG

    assert not await vault.change(token, overtaken)
    assert await vault.get(token) == b"theirs"


async def test_a_record_that_does_not_open_is_not_changed() -> None:
    store, token = MemoryStore(time.time), Vault.token()
    await a_vault(OTHER, store=store).put(token, b"payload", LONG)
    assert not await a_vault(store=store).change(token, lambda payload: (payload, LONG))


async def test_what_is_gone_is_not_replaced() -> None:
    vault, token = a_vault(), Vault.token()
    assert not await vault.replace(token, b"payload", LONG)
    await vault.put(token, b"old", LONG)
    assert await vault.replace(token, b"new", LONG)
    assert await vault.get(token) == b"new"
