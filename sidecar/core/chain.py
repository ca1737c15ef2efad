"""Chain audit lines, so that none can be changed, moved or taken away unnoticed; and follow such chains again.

A chained line carries three more fields: ``chain`` (one process and one sink), ``n`` (its number there, from 1) and
``hash``: SHA-256 over the hash of the line before it and all of this line that stands before the hash. Now and then
comes an *anchor*, a line of its own whose ``signature`` (Ed25519, RFC 8032) covers what its hash would without it, and
whose ``after`` names the line that stood last in the file, whoever wrote it: so chains hold on to each other. Its
``before`` repeats the hash of the line before it, so that a chain whose old lines are gone can begin with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sidecar.core.audit import Event

ANCHOR = Event.AUDIT_ANCHOR.value
_TAIL = re.compile(
    rb',"chain":"([0-9a-f]{16})","n":([1-9][0-9]{0,18})(?:,"signature":"([A-Za-z0-9+/=]{88})")?,"hash":"([0-9a-f]{64})"}\Z'
)
_AFTER = re.compile(r"([0-9a-f]{16}):([1-9][0-9]{0,18}):([0-9a-f]{64})")
_ANCHOR_FIELD = f'"event":"{ANCHOR}"'.encode()
_HASH, _END = b',"hash":"', b'"}\n'
# How far back the line may stand that another chain's anchor names.
_REMEMBERED = 4096
Sign = Callable[[bytes], bytes]
# Takes signature and message.
Verify = Callable[[bytes, bytes], bool]


def beginning(chain: str) -> bytes:
    """What the first line of *chain* takes for the hash of the line before it."""
    return hashlib.sha256(b"sidecar audit chain " + chain.encode()).digest()


def linked(line: bytes, chain: str, number: int, last: bytes, sign: Sign | None = None) -> tuple[bytes, bytes]:
    """*line* (a JSON object and a line feed) as number *number* of *chain* after the hash *last*; and its own hash."""
    (text,), digest = linked_all((line,), chain, number, last, sign)
    return text, digest


def linked_all(
    lines: Iterable[bytes], chain: str, number: int, last: bytes, sign: Sign | None = None
) -> tuple[list[bytes], bytes]:
    """*lines* as ``linked`` would have each, from *number* on after the hash *last*; and the hash of the last one."""
    sealed = []
    between = f',"chain":"{chain}","n":'.encode()
    for place, line in enumerate(lines, number):
        body = b"".join((line[:-2], between, str(place).encode()))
        if sign is not None:
            body += b',"signature":"%b"' % base64.b64encode(sign(last + body))
        last = hashlib.sha256(last + body).digest()
        sealed.append(b"".join((body, _HASH, binascii.hexlify(last), _END)))
    return sealed, last


@dataclass(frozen=True, slots=True)
class Place:
    """Which line of which chain, and its hash in hexadecimal."""

    chain: str
    number: int
    hash: str

    def __str__(self) -> str:
        """As an anchor's ``after`` has it."""
        return f"{self.chain}:{self.number}:{self.hash}"


def place_of(line: bytes) -> Place | None:
    """Where *line*, without its line feed, says that it stands; None when it is in no chain."""
    found = _TAIL.search(line)
    return None if found is None else Place(found[1].decode(), int(found[2]), found[4].decode())


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a chain: a problem, or a note that one should know."""

    kind: Literal["problem", "note"]
    where: str
    says: str


@dataclass(slots=True)
class _Chain:
    name: str
    number: int
    last: bytes
    where: str
    since_anchor: int = 0
    anchors: int = 0
    is_ended: bool = False
    recent: deque[bytes] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def hash_at(self, number: int) -> bytes | None:
        """Hash of line *number*; None when it is too long ago."""
        back = self.number - number
        return self.recent[-1 - back] if 0 <= back < len(self.recent) else None


class Verifier:
    """Follows all chains through the lines of one or more files, in the order in which they were written."""

    def __init__(self, verify: Verify | None, *, is_partial: bool, pruned_before: float | None = None) -> None:
        """Check anchors by *verify*, None when they are not signed; *is_partial*: what came before may be elsewhere.

        A chain may also begin with an anchor from before *pruned_before* (epoch seconds), None for never.
        """
        self._pruned_before = pruned_before
        self._verify = verify
        self._is_partial = is_partial
        self._chains: dict[str, _Chain] = {}
        self.lines = 0
        self.anchors = 0

    @property
    def chains(self) -> int:
        """How many chains were met."""
        return len(self._chains)

    def read(self, where: str, line: bytes) -> Iterator[Finding]:
        """Follow *line*, without its line feed, which stands at *where*."""
        self.lines += 1
        found = _TAIL.search(line)
        if found is None:
            yield Finding("problem", where, "is in no chain: it was put in, cut short, or written without one")
            return
        name, number, signature, stated = found[1].decode(), int(found[2]), found[3], bytes.fromhex(found[4].decode())
        chain = self._chains.get(name)
        if chain is None:
            chain = self._chains[name] = _Chain(name, 0, beginning(name), where)
            if number > 1 and self._is_partial:
                chain.number, chain.last = number - 1, b""
            elif number > 1 and (before := self._pruned(line)) is not None:
                chain.number, chain.last = number - 1, before
        if chain.is_ended:
            yield Finding("problem", where, f"stands after the end of chain {name}")
        yield from self._in_order(chain, number, where)
        body = line[: found.start(4) - len(b',"hash":"')]
        # After a gap the hash before is not known: what the line says of itself is where the chain goes on.
        if chain.last and hashlib.sha256(chain.last + body).digest() != stated:
            yield Finding("problem", where, f"line {number} of chain {name} was changed, or the one before it")
        if signature is not None or _ANCHOR_FIELD in line:
            yield from self._anchor(chain, line, line[: found.start(3) - len(b',"signature":"')], signature, where)
        else:
            chain.since_anchor += 1
        chain.number, chain.last, chain.where = max(number, chain.number), stated, where
        chain.recent.append(stated)

    def _pruned(self, line: bytes) -> bytes | None:
        """The hash before the anchor *line*, when all before it may have been deleted."""
        said = _object(line)
        if said is None or said.get("event") != ANCHOR or not self._is_old(said):
            return None
        return _hash_in(said) or None

    def _is_old(self, said: Mapping[str, object]) -> bool:
        if self._pruned_before is None:
            return False
        try:
            return datetime.fromisoformat(str(said.get("time", ""))).timestamp() <= self._pruned_before
        except ValueError:
            return False

    @staticmethod
    def _in_order(chain: _Chain, number: int, where: str) -> Iterator[Finding]:
        wanted = chain.number + 1
        if number == wanted:
            return
        chain.last = b""
        chain.recent.clear()
        if number < wanted:
            yield Finding(
                "problem", where, f"line {number} of chain {chain.name} is not where it was written, or twice"
            )
        else:
            lost = f"line {wanted} is" if number == wanted + 1 else f"lines {wanted} to {number - 1} are"
            # Nothing of the chain was met before: old files may have been deleted by those who may.
            meant = "" if chain.number else "; --partial, if older files were deleted on purpose"
            yield Finding("problem", where, f"{lost} missing before it in chain {chain.name}{meant}")

    def _anchor(
        self, chain: _Chain, line: bytes, body: bytes, signature: bytes | None, where: str
    ) -> Iterator[Finding]:
        self.anchors += 1
        said = _object(line)
        if said is None or said.get("event") != ANCHOR:
            yield Finding("problem", where, "carries a signature and is no anchor")
            return
        if self._verify is None:
            chain.anchors += 1
        else:
            # Where a chain begins in the middle, what came before is known by the anchor alone: it is signed, too.
            before = chain.last or _hash_in(said)
            if signature is None:
                yield Finding("problem", where, f"the anchor of chain {chain.name} is not signed")
            elif before and not self._verify(_decoded(signature), before + body):
                yield Finding("problem", where, f"the anchor of chain {chain.name} is not signed by this key")
            else:
                chain.anchors += bool(before)
        chain.since_anchor = 0
        chain.is_ended = said.get("kind") == "last"
        if said.get("lost"):
            yield Finding("note", where, f"says that {said['lost']} lines could not be written and were lost")
        yield from self._holds(str(said.get("after", "")), where, is_old=self._is_old(said))

    def _holds(self, after: str, where: str, *, is_old: bool) -> Iterator[Finding]:
        """The line that stood last in the file when an anchor was written must have been met."""
        found = _AFTER.fullmatch(after)
        if found is None:
            return
        name, number, stated = found[1], int(found[2]), bytes.fromhex(found[3])
        other = self._chains.get(name)
        if other is None:
            if not self._is_partial and not is_old:
                yield Finding("problem", where, f"chain {name}, which stood before it, is missing")
        elif other.number < number and not is_old:
            yield Finding(
                "problem", where, f"lines {other.number + 1} to {number} of chain {name} were cut off before it"
            )
        elif other.hash_at(number) not in (None, stated):
            yield Finding("problem", where, f"line {number} of chain {name}, which stood before it, was changed")

    def finish(self, anchors: Iterable[bytes] = ()) -> Iterator[Finding]:
        """What is left to say at the end; *anchors* are the copies that were kept elsewhere, each without line feed."""
        yield from self._compared(anchors)
        for chain in self._chains.values():
            if self._verify is not None and not chain.anchors:
                yield Finding("problem", chain.where, f"chain {chain.name} has no anchor that could be verified")
            elif not chain.is_ended:
                rest = f"; its last {chain.since_anchor} lines are under no anchor yet" if chain.since_anchor else ""
                yield Finding("note", chain.where, f"chain {chain.name} has not ended: it runs, or was killed{rest}")

    def _compared(self, anchors: Iterable[bytes]) -> Iterator[Finding]:
        """What copies of anchors say of the chains; what is missing is said once, however many of them knew it."""
        missing: dict[str, None] = {}
        last: dict[str, int] = {}
        for line in anchors:
            place = place_of(line)
            if place is None:
                yield Finding("problem", "anchors", "a copy of an anchor is not readable")
                continue
            chain, is_old = self._chains.get(place.chain), self._is_old(_object(line) or {})
            if chain is None:
                if not self._is_partial and not is_old:
                    missing[place.chain] = None
            elif chain.number < place.number and not is_old:
                last[place.chain] = max(place.number, last.get(place.chain, 0))
            elif chain.hash_at(place.number) not in (None, bytes.fromhex(place.hash)):
                yield Finding("problem", chain.where, f"line {place.number} of chain {place.chain} was changed")
        for name in missing:
            yield Finding("problem", "anchors", f"chain {name} is missing")
        for name, number in last.items():
            chain = self._chains[name]
            lost = f"lines {chain.number + 1} to {number}"
            yield Finding("problem", chain.where, f"{lost} of chain {name} were cut off")


def _object(line: bytes) -> Mapping[str, object] | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _hash_in(said: Mapping[str, object]) -> bytes:
    """What an anchor says that the hash before it is; b"" when it says nothing."""
    before = str(said.get("before", ""))
    return bytes.fromhex(before) if re.fullmatch("[0-9a-f]{64}", before) else b""


def _decoded(signature: bytes) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except binascii.Error:
        return b""
