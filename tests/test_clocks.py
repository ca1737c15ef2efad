"""Replicas whose clocks differ: what was asked for holds at once on all, and what was used once stays used."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.config.break_glass import BreakGlassAccount
from sidecar.config.secret import Secret
from sidecar.core.totp import totp_code, totp_key
from sidecar.faults import Refused
from sidecar.portal.attempts import Attempts
from sidecar.portal.vetting import Vetting, hashed
from sidecar.reason import Reason
from sidecar.sessions.marks import Mark
from sidecar.sessions.vault import Vault
from tests.sessions_world import NOW, SECRET, Time, keeping, memory, signed_in

TOTP = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
BEHIND = 600.0


async def test_a_session_that_a_replica_ahead_of_us_marks_is_to_be_refreshed_at_once() -> None:
    store, clock = memory(), Time()
    async with keeping(store, clock=Time(NOW + BEHIND)) as ahead, keeping(store, clock=clock) as ours:
        ahead.take_marks()
        ours.take_marks()
        token, session = await ours.open(replace(signed_in(), refresh_at=NOW + 9000), NOW)
        await ahead.mark_person(session.identity.key, Mark.REFRESH, NOW + BEHIND)
        marked = await ours.reread(token, NOW)
        assert marked is not None
        assert 0 < marked.refresh_at < NOW, "it is due, also for who has waited for a turn"
        # Marked again while it is being refreshed: that mark stays.
        await ahead.mark_person(session.identity.key, Mark.REFRESH, NOW + BEHIND + 1)
        assert await ours.renew(token, marked, replace(signed_in(), refresh_at=NOW + 9000), NOW) is not None
        again = await ours.reread(token, NOW)
        assert again is not None
        assert again.refresh_at < NOW
        assert await ours.renew(token, again, replace(signed_in(), refresh_at=NOW + 9000), NOW) is not None
        fresh = await ours.reread(token, NOW)
        assert fresh is not None
        assert fresh.refresh_at == NOW + 9000


async def test_an_answer_that_was_used_stays_used_where_the_clock_is_behind() -> None:
    clock = Time()
    store = memory(clock)
    attempts = Attempts(Vault(store, (SECRET,), "login"), store, 600)
    until = NOW + 300
    await attempts.never_again("saml", [("an id", until)], NOW)
    # By another replica's clock it is good for ten minutes longer.
    clock.now = until + BEHIND - 1
    with pytest.raises(Refused) as caught:
        await attempts.never_again("saml", [("an id", until)], clock.now - BEHIND)
    assert caught.value.reason is Reason.LOGIN_ANSWER_INVALID


async def test_a_code_that_was_used_stays_used_where_the_clock_is_behind() -> None:
    clock = Time()
    account = BreakGlassAccount.model_construct(hash=Secret(hashed("a password")), totp=Secret(TOTP))
    vetting = Vetting({"ops": account}, memory(clock))
    code = totp_code(totp_key(TOTP), int(NOW) // 30)
    assert (await vetting.vetted("ops", "a password", code, NOW))[0] is account
    clock.now = NOW + BEHIND
    found, why = await vetting.vetted("ops", "a password", code, clock.now - BEHIND)
    assert (found, why) == (None, "the password is right, but the code was used before")
    await vetting.close()
