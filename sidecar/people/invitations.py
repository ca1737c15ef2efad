"""Make links by which somebody takes the place that was made for them, and know our own again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from collections.abc import Callable, Mapping, Sequence

from sidecar.core.audit import Event
from sidecar.directory import Directory
from sidecar.directory.invitations import Invitation
from sidecar.faults import Refused
from sidecar.model import Identity, Person
from sidecar.people.changes import Changes
from sidecar.reason import Reason

_PURPOSE = b"sidecar invitation 1\n"
_BODY = struct.Struct(">16sq")
_SEAL = 32
_LONGEST = 128

Record = Callable[[Event, Mapping[str, object]], None]


class Invitations:
    """Invitations, each signed, for one use, for a while. Every coroutine raises Unavailable."""

    def __init__(
        self, directory: Directory, changes: Changes, secrets: Sequence[bytes], lifetime: float, record: Record, *,
        strict: bool,
    ) -> None:  # fmt: skip
        """Sign with the first of *secrets*, believe all; *lifetime* in seconds; *strict*: only for that address."""
        self._directory = directory
        self._changes = changes
        self._keys = [hmac.digest(secret, _PURPOSE, "sha256") for secret in secrets]
        self._lifetime = lifetime
        self._record = record
        self._strict = strict

    async def invite(
        self, person: Person, email: str, now: float, lifetime: float | None = None, login: str = ""
    ) -> tuple[str, Invitation]:
        """Invite somebody: (code for the link, invitation). Earlier links of theirs end.

        With *login* the code opens nothing at any other.

        Raises Refused: PERSON_DISABLED, and IDENTITY_INCOMPLETE without an address where that must be compared.
        """
        if self._strict and not email:
            raise Refused(Reason.IDENTITY_INCOMPLETE, 409, "who has no e-mail address cannot be invited strictly")
        made = await self._directory.invitations.make(person.id, email, now, lifetime or self._lifetime)
        self._record(Event.PERSON_INVITED, {"person": person.id, "username": person.username, "until": made.expires})
        return self._code(made, login), made

    def _code(self, made: Invitation, login: str) -> str:
        body = _BODY.pack(bytes.fromhex(made.id), int(made.expires))
        return base64.urlsafe_b64encode(body + _seal(self._keys[0], body, login)).decode().rstrip("=")

    async def opened(self, code: str, login: str, now: float) -> str:
        """Id of the invitation that *code* opens at *login*; it is not used up by that.

        Raises Refused: INVITATION_INVALID, INVITATION_EXPIRED, INVITATION_USED.
        """
        invitation_id, expires = self._read(code, login)
        if now >= expires:
            raise Refused(Reason.INVITATION_EXPIRED, 403, "too old")
        return (await self._directory.invitations.usable(invitation_id, now)).id

    def _read(self, code: str, login: str) -> tuple[str, int]:
        try:
            raw = base64.b64decode(code + "=" * (-len(code) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raw = b""
        body, seal = raw[:-_SEAL], raw[-_SEAL:]
        # Signed before anything is looked up, so that nobody fills the database with questions.
        # Those that name no login are of a time when there was one, or when logins were not signed.
        due = [_seal(key, body, name) for key in self._keys for name in (login, "")]
        if len(code) > _LONGEST or len(body) != _BODY.size or not any(hmac.compare_digest(seal, one) for one in due):
            raise Refused(Reason.INVITATION_INVALID, 403, "not signed by us, or for another login")
        number, expires = _BODY.unpack(body)
        return number.hex(), int(expires)

    async def accept(self, invitation_id: str, who: Identity, now: float) -> None:
        """Make who signed in the person who was invited. Raises Refused as ``InvitationBook.accept``."""
        person_id = await self._directory.invitations.accept(invitation_id, who, now, strict=self._strict)
        fields = {"person": person_id, "provider": who.provider, "issuer": who.issuer, "subject": who.subject}
        self._record(Event.INVITATION_ACCEPTED, {**fields, "username": who.username})
        await self._changes.announce([person_id])


def _seal(key: bytes, body: bytes, login: str) -> bytes:
    return hmac.digest(key, hashlib.sha256(body).digest() + login.encode(errors="replace"), "sha256")
