"""Remember sign-ins under way: one record each, bound to the browser that began it, taken once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from sidecar.core.cookies import values_of
from sidecar.faults import Refused
from sidecar.model import NOTHING_NEEDED, Requirement, Visit
from sidecar.portal.room import Room
from sidecar.portal.site import Site
from sidecar.reason import Reason
from sidecar.sessions.store import Store
from sidecar.sessions.turn import once
from sidecar.sessions.vault import Vault

_BROWSER_LENGTH = 43
# Anybody can begin sign-ins: what their return targets may take of the store together, beyond the usual length.
_MOST_BYTES = 16 * 1024 * 1024
_USUAL = 256
# What was used once is remembered for so many seconds longer than it is good: by the clock of another replica it may be
# good for longer.
CLOCKS_APART = 3600.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sign-in under way. ``kept`` is what the login wants back; ``browser`` the hash of the binding cookie.

    ``came`` is where it began, as ``came_by`` says it; ``needs`` is what the page that it is for asks of a sign-in.
    ``invitation`` is the id of the one that it answers, "" for none.
    """

    login: str
    to: str
    browser: str
    kept: Mapping[str, str]
    came: str = ""
    needs: Requirement = NOTHING_NEEDED
    invitation: str = ""


def browser_of(visit: Visit, site: Site) -> str:
    """Value of the binding cookie that this browser sends, "" when it sends none that could be ours."""
    for value in values_of(visit.cookies, site.browser_cookie):
        if len(value) == _BROWSER_LENGTH and value.replace("-", "a").replace("_", "a").isalnum() and value.isascii():
            return value
    return ""


def came_by(visit: Visit) -> str:
    """The address bar's scheme and host, as far as they can be known."""
    return f"{visit.scheme or 'unknown'}://{visit.host}"


def new_browser() -> str:
    """Fresh value for the binding cookie: 256 bits."""
    return secrets.token_urlsafe(32)


def _hashed(browser: str) -> str:
    return hashlib.sha256(browser.encode()).hexdigest()


class Attempts:
    """Keeps attempts sealed in the store until their answer comes."""

    def __init__(self, vault: Vault, store: Store, lifetime: float) -> None:
        """Seal in *vault*; an attempt may take *lifetime* seconds."""
        self._vault = vault
        self._store = store
        self._lifetime = lifetime
        self._room = Room(_MOST_BYTES, lifetime)

    def new_state(self) -> str:
        """Random state: the record's only key."""
        return self._vault.token()

    async def keep(self, state: str, attempt: Attempt) -> None:
        """Store *attempt* under *state*; its ``browser`` is the cookie's value, of which only the hash is kept.

        While very many with long return targets are under way, further ones lead to the start page.
        """
        to = attempt.to if len(attempt.to) <= _USUAL or self._room.take(len(attempt.to)) else "/"
        needs = attempt.needs
        record = {
            "l": attempt.login,
            "t": to,
            "b": _hashed(attempt.browser),
            "k": dict(attempt.kept),
            "c": attempt.came,
            "n": (needs.max_age, needs.acr, needs.amr),
            "i": attempt.invitation,
        }
        await self._vault.put(state, json.dumps(record).encode(), self._lifetime)

    async def peek(self, state: str) -> Attempt:
        """Read an attempt without using it up; Refused(LOGIN_STATE_UNKNOWN) when there is none."""
        return _read(await self._vault.get(state))

    async def use(self, state: str, login: str, browser: str, came: str) -> Attempt:
        """Use an attempt up: this login's, this browser's, and only once.

        Raises Refused: LOGIN_STATE_UNKNOWN, LOGIN_ISSUER_MIXED (the answer came to another login's callback),
        LOGIN_COOKIE_MISSING, or LOGIN_ADDRESS when it began elsewhere than it *came* back to. A wrong browser does not
        use the attempt up, so nobody can spoil another's sign-in.
        """
        attempt = await self.peek(state)
        if attempt.login != login:
            raise Refused(Reason.LOGIN_ISSUER_MIXED, 400, f"begun with {attempt.login}, answered to {login}")
        if not browser or not secrets.compare_digest(attempt.browser, _hashed(browser)):
            if attempt.came != came:
                raise Refused(Reason.LOGIN_ADDRESS, 400, f"begun at {attempt.came}, answered at {came}")
            raise Refused(Reason.LOGIN_COOKIE_MISSING, 400, "no binding cookie" if not browser else "another browser")
        return _read(await self._vault.take(state))

    async def never_again(self, login: str, messages: Sequence[tuple[str, float]], now: float) -> None:
        """Remember message ids until the given times; Refused(LOGIN_ANSWER_INVALID) for one that was used before."""
        for name, until in messages:
            if not await self._store.claim(_used(login, name), b"1", max(0.0, until - now) + CLOCKS_APART):
                raise _used_before()

    @contextlib.asynccontextmanager
    async def acting_once(self, login: str, name: str, until: float, now: float) -> AsyncIterator[None]:
        """Act inside on a message whose id counts once until that time; one that failed half way may come again.

        Raises Refused(LOGIN_ANSWER_INVALID) for one that was acted on before.
        """
        async with once(self._store, _used(login, name), max(0.0, until - now) + CLOCKS_APART) as is_first:
            if not is_first:
                raise _used_before()
            yield


def _used(login: str, name: str) -> str:
    return f"once:{hashlib.sha256(f'{len(login)}:{login}{name}'.encode()).hexdigest()}"


def _used_before() -> Refused:
    return Refused(Reason.LOGIN_ANSWER_INVALID, 400, "used before")


def _read(raw: bytes | None) -> Attempt:
    if raw is None:
        raise Refused(Reason.LOGIN_STATE_UNKNOWN, 400)
    record = json.loads(raw)
    age, classes, methods = record["n"]
    needs = Requirement(age, tuple(classes), tuple(methods))
    return Attempt(record["l"], record["t"], record["b"], record["k"], record["c"], needs, record.get("i", ""))
