"""Post signed messages to a receiver: in order, at least once, patiently, from a spool that survives a kill."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp
import structlog

from sidecar import __version__
from sidecar.cancelling import cancelled
from sidecar.config.audit import Webhook
from sidecar.core.unaccepted import certificate_fault
from sidecar.telemetry.aside import Aside
from sidecar.telemetry.spool import Spool

_log = structlog.get_logger("webhook")
_LOOK = 0.1
_ADOPT_EVERY = 15.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
# What will not be different the next time; still tried a few times, because receivers are being set up.
_FOR_GOOD = frozenset([400, 413, 415, 422])
# About who sends it, or how often; others may be about what stands in the message.
_FOR_NOW = frozenset([401, 407, 408, 425, 429])
_MOST_REFUSALS = 5
_MOST_LINES, _MOST_BYTES = 500, 256 * 1024
_LEAVING = 2.0


def _is_good(status: int) -> bool:
    return 200 <= status < 300


def signature(secret: bytes, moment: int, body: bytes) -> str:
    """What ``Sidecar-Signature`` says: when it was sent, and HMAC-SHA256 over that, a dot and the body."""
    made = hmac.new(secret, b"%d." % moment + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={made}"


class Sender:
    """Delivers what is put into it, from a loop of its own."""

    def __init__(
        self, section: Webhook, purpose: str, clock: Callable[[], float] = time.time, setting: str = "webhook"
    ) -> None:
        """Send by *section*; *purpose* tells its spool from others. Raises OSError that names the *setting*."""
        self._url = section.url.reveal()
        self._secret = section.secret.reveal().encode()
        self._timeout = section.timeout.total_seconds()
        self._clock = clock
        self._spool = Spool(section.spool, purpose, section.spool_size)
        self._tls = trust_of(section, setting)
        self._aside = Aside(f"webhook-{purpose}")
        self._is_closing = False
        self._work: asyncio.Task[None] | None = None
        self._fault = ""
        self._refusals = 0
        self.delivered = 0

    def start(self) -> None:
        """Begin to deliver, also what processes before us left."""
        if self._work is None:
            self._aside.do(self._begin(), 5)

    async def _begin(self) -> None:
        self._work = asyncio.create_task(self._deliver())

    def put(self, kind: str, lines: Sequence[bytes]) -> None:
        """Have *lines*, JSON objects, delivered as one message. Raises OSError when they cannot be kept."""
        name = self._spool.next_id().encode()
        self._spool.put(b'{"id":"%s","kind":"%s","lines":[%s]}' % (name, kind.encode(), b",".join(lines)))
        self.start()

    async def _deliver(self) -> None:
        async with self._session() as session:
            adopted, pause = float("-inf"), 0.0
            while not self._is_closing:
                try:
                    if time.monotonic() - adopted > _ADOPT_EVERY:
                        self._spool.adopt()
                        adopted = time.monotonic()
                    pause = await self._deliver_all(session, pause)
                except OSError as error:
                    pause = self._paused(pause, f"the spool: {error.strerror}")
                # Many that wait for the same receiver shall not come back at once.
                await asyncio.sleep(max(pause * random.uniform(0.5, 1), _LOOK))  # noqa: S311 - no secret

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # No proxy, no netrc, no cookie that somebody else gave us.
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=1),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            auto_decompress=False,
            headers={"User-Agent": f"sidecar/{__version__}"},
        )

    async def _deliver_all(self, session: aiohttp.ClientSession, pause: float) -> float:
        """Send until nothing waits; the pause before the next attempt, 0 when all went well."""
        waiting = deque(self._spool.waiting())
        while waiting and not self._is_closing:
            name, path = waiting.popleft()
            status, says = await self._tried(session, name, path)
            if _is_good(status):
                pause = 0.0
                continue
            self._refusals += 400 <= status < 500 and status not in _FOR_NOW
            if self._refusals >= _MOST_REFUSALS and await self._is_hopeless(session, (name, path), waiting, status):
                self._spool.put_aside(path)
                self._refusals = 0
                _log.error("a message was refused for good and put aside", message=name, status=status)
            elif path.exists():
                return self._paused(pause, says)
        return 0.0

    async def _is_hopeless(
        self,
        session: aiohttp.ClientSession,
        refused: tuple[str, Path],
        waiting: deque[tuple[str, Path]],
        status: int,
    ) -> bool:
        """True when what is *refused* with *status* will be the next time, too.

        Strangers choose what stands in lines, and a firewall before the receiver may take some for an attack: that must
        not stop all others. Where the next one is taken, and this one still is not, it is this very message.
        """
        if status in _FOR_GOOD or not waiting:
            return status in _FOR_GOOD
        is_next_taken = _is_good((await self._tried(session, *waiting.popleft()))[0])
        return is_next_taken and (await self._tried(session, *refused))[0] == status

    async def _tried(self, session: aiohttp.ClientSession, name: str, path: Path) -> tuple[int, str]:
        status, says = await self._sent(session, name, path.read_bytes())  # noqa: ASYNC240 - a loop of its own
        if _is_good(status):
            self._spool.done(path)
            self._well()
        return status, says

    async def _sent(self, session: aiohttp.ClientSession, name: str, body: bytes) -> tuple[int, str]:
        """(status, what to say of it); status 0 when there was no answer."""
        head = {
            "Content-Type": "application/json",
            "Sidecar-Message": name,
            "Sidecar-Signature": signature(self._secret, int(self._clock()), body),
        }
        try:
            async with session.post(self._url, data=body, headers=head, allow_redirects=False) as answer:
                # What it says besides is nobody's business here, however long it is.
                answer.close()
                return answer.status, f"status {answer.status}"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                return 0, "no answer in time"
            return 0, certificate_fault(error) or type(error).__name__

    def _paused(self, pause: float, fault: str) -> float:
        if not self._fault:
            _log.error("messages cannot be delivered, they are kept", because=fault)
        self._fault = fault
        return min(max(_FIRST_PAUSE, pause * 2), _LONGEST_PAUSE)

    def _well(self) -> None:
        self.delivered += 1
        self._refusals = 0
        if self._fault:
            _log.info("messages are delivered again")
        self._fault = ""

    @property
    def complaint(self) -> str:
        """Why nothing is delivered; "" while all is well."""
        return self._fault

    @property
    def _is_idle(self) -> bool:
        return self._work is None or bool(self._fault) or next(iter(self._spool.waiting()), None) is None

    def close(self) -> None:
        """Deliver the rest for a moment; what is left is delivered by whoever comes next."""
        end = time.monotonic() + _LEAVING
        while not self._is_idle and time.monotonic() < end:
            time.sleep(0.01)
        self._is_closing = True
        if self._work is not None:
            self._aside.do(self._ended(self._work), self._timeout + 5)
        self._aside.end()
        self._spool.close()

    async def _ended(self, work: asyncio.Task[None]) -> None:
        # What is under way may have arrived; it is sent again by whoever comes next.
        await cancelled([work])


class WebhookSink:
    """A sink of audit lines: what it takes is on disk, and delivered from there."""

    def __init__(self, sender: Sender) -> None:
        """Deliver by *sender*."""
        self._sender = sender

    @property
    def complaint(self) -> str:
        """Why the receiver gets nothing; what it should have got is kept in the spool."""
        fault = self._sender.complaint
        return f"not delivered, kept in the spool: {fault}" if fault else ""

    def place(self) -> str:
        """Nothing can be read back there."""
        return ""

    def write(self, lines: bytes) -> int:
        """Keep *lines* in messages of a size that receivers take. Raises OSError when the spool takes none."""
        taken, some, size = 0, list[bytes](), 0
        for line in lines.splitlines(keepends=True):
            if some and (len(some) >= _MOST_LINES or size + len(line) > _MOST_BYTES):
                if not self._kept(some, taken):
                    return taken
                taken, some, size = taken + size, [], 0
            some.append(line)
            size += len(line)
        return taken + size if self._kept(some, taken) else taken

    def _kept(self, lines: Sequence[bytes], taken: int) -> bool:
        try:
            self._sender.put("audit", [line.rstrip(b"\n") for line in lines])
        except OSError:
            if not taken:
                raise
            return False
        return True

    def close(self) -> None:
        """Deliver the rest, for a moment."""
        self._sender.close()


def trust_of(section: Webhook, setting: str) -> ssl.SSLContext | bool:
    """What verifies the receiver. Raises OSError that names the *setting*."""
    if section.ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=section.ca)
    except OSError as error:
        message = f"{setting}.ca: {section.ca}: {error.strerror or error}"
        raise OSError(message) from None
