"""One connection to the application: sends bytes, and parses what comes back for one request at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp.streams import StreamReader

from sidecar.faults import Unavailable
from sidecar.reason import Reason
from sidecar.upstream.answer import MAX_HEAD, bad_answer
from sidecar.upstream.parser import BUFFER, has_leftover, new_parser
from sidecar.upstream.plain import Plain, plain_answer

# Head of an answer: aiohttp's parser makes other objects in C than in Python.
Message = Any
# What transports say that are closed or being closed, or cannot pause.
_CANNOT = AttributeError, NotImplementedError, RuntimeError
_MAX_INTERIM = 16
_CONTINUE = 100
_SWITCHING = 101
_FIRST_FINAL_STATUS = 200


class Connection:
    """A keep-alive connection; ``begin``, ``send``, ``message``, read ``payload``, ``finish``.

    Parsed by aiohttp's parser (in C where it is there), which is kept from request to request. Reading pauses at the
    transport when ``payload`` holds 128 KiB, so memory stays flat. To the event loop this is a protocol as
    asyncio's, to the parser and ``payload`` one as aiohttp's; it is a child of neither, as compiled code wants no
    foreign parents.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[Connection], None]) -> None:
        """Wait to be connected; *on_lost* is told when the connection has ended."""
        self._loop = loop
        self._on_lost = on_lost
        self._on_writable: Callable[[], None] | None = None
        self._on_word: Callable[[], None] | None = None
        self._on_interim: Callable[[Message], None] | None = None
        # Interim answers that came before somebody took them.
        self._early: tuple[Message, ...] = ()
        self._parser: Any = None
        self._for_head: Any = None
        self._for_others: Any = None
        self._message: Message = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._interim = 0
        self._size = 0
        self._is_at_work = False
        self._is_spoilt = False
        self._reading_paused = False  # payload looks at it
        self.transport: Any = None
        self.payload: StreamReader | None = None
        self.plain: Plain | None = None
        self.writing_paused = False
        self.is_upgraded = False  # True once the application has switched to raw bytes, which are then the payload
        self.has_received = False
        self.has_served = False
        self.holds_slot = False
        self.is_sent = True
        self.idle_since = 0.0
        self.touched = time.monotonic()

    # What an exchange does with it

    def begin(self, *, for_head: bool) -> None:
        """Make ready for one request; *for_head* when its answer has no body whatever it says."""
        self._parser = self._parser_for(for_head=for_head)
        self._message = self.payload = self.plain = None
        self._interim = self._size = 0
        self._early = ()
        self.has_received = self.is_sent = False
        self._is_at_work = True

    def send(self, data: bytes) -> None:
        """Write *data*; raises Unavailable(UPSTREAM_DOWN, 502) when the connection is gone."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise self._error or _lost()
        self.touched = time.monotonic()
        transport.write(data)

    async def drain(self) -> None:
        """Wait until the application has taken what was sent; raises Unavailable when it goes away."""
        if self.writing_paused and self.transport is not None:
            self._drained = self._drained or self._loop.create_future()
            await self._drained
        if self.transport is None:
            raise self._error or _lost()

    def tell(self, callback: Callable[[], None] | None) -> None:
        """Call *callback* once, when the answer begins or has failed to; ``message`` gives it without waiting then.

        Who says so before anything came gets an answer that is plain and whole as ``plain``, and no ``message``.
        An interim answer is a beginning, too.
        """
        self._on_word = callback

    @property
    def at_hand(self) -> Message | None:
        """Head of the final answer if all of that answer has come, and nothing is wrong with it."""
        message, payload = self._message, self.payload
        if message is None or payload is None or self._error is not None or self._is_spoilt or self._early:
            return None
        return message if payload.is_eof() and message.code != _SWITCHING else None

    def hurry(self) -> None:
        """Call whom ``tell`` was given now, although the answer has not begun."""
        self._speak()

    def _speak(self) -> None:
        callback, self._on_word = self._on_word, None
        if callback is not None:
            callback()

    def watch_interim(self, callback: Callable[[Message], None]) -> None:
        """Give *callback* each interim answer, but for 100, in time before the final one; it may raise Unavailable."""
        self._on_interim = callback
        for message in self._early:
            callback(message)

    async def message(self) -> Message:
        """Head of the final answer (or of a 101); raises Unavailable, or what ``fail`` was given."""
        if self._message is None:
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._message

    def finish(self, *, may_be_shared: bool) -> bool:
        """End the request; True when the connection is fit for another one, else it is closed."""
        if self.plain is not None:
            return self._finish_plain(may_be_shared=may_be_shared)
        message, payload = self._message, self.payload
        is_complete = self.is_sent and message is not None and payload is not None and payload.is_eof()
        is_fit = is_complete and may_be_shared and not self._is_dirty()
        parser, self._parser = self._parser, None
        if message is not None and message.chunked:
            # It makes the trailers of this answer lines of the next head, which may be another person's.
            self._for_others = None
        self._is_at_work = False
        self._on_word = self._on_interim = None
        self._message = self.payload = None
        self.has_served = True
        if is_fit and not has_leftover(parser) and self.is_open:
            return True
        if is_complete:
            self.close()
        else:
            self.abort()
        return False

    def _finish_plain(self, *, may_be_shared: bool) -> bool:
        self.plain = self._parser = None
        self._is_at_work = False
        self.has_served = True
        if may_be_shared and self.is_open:
            return True
        self.close()
        return False

    def _is_dirty(self) -> bool:
        message = self._message
        return (
            self._is_spoilt
            or message is None
            or bool(message.should_close)
            or bool(message.upgrade)
            or message.code == _SWITCHING
        )

    def fail(self, error: Exception) -> None:
        """Give up: whoever waits for this connection gets *error*; the first one counts."""
        self._error = self._error or error
        waiter, payload = self._waiter, self.payload
        if waiter is not None and not waiter.done():
            waiter.set_exception(self._error)
        if payload is not None and not payload.is_eof():
            payload.set_exception(self._error)
        self.abort()
        self._speak()

    @property
    def is_open(self) -> bool:
        """True while nobody has begun to close it."""
        return self.transport is not None and not self.transport.is_closing()

    def close(self) -> None:
        """Close once everything is sent."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    def watch_writable(self, callback: Callable[[], None] | None) -> None:
        """Call *callback* whenever the application takes data again after a pause."""
        self._on_writable = callback

    # What the event loop and aiohttp's parser do with it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the event loop has switched off Nagle's algorithm."""
        self.transport = transport

    @property
    def connected(self) -> bool:
        """True while there is a connection; ``payload`` asks."""
        return self.transport is not None

    def data_received(self, data: bytes) -> None:
        """Parse what came; bytes that nobody asked for end the connection."""
        self.touched = time.monotonic()
        if self.is_upgraded:
            self._feed_tunnel(data)
        elif self._parser is None:
            self.abort()
        elif not self._takes_plain(data):
            self.has_received = True
            try:
                self._parse(data)
            except Unavailable as fault:
                self.fail(fault)
            except Exception as error:  # noqa: BLE001 - whatever a parser trips over is a bad answer
                self.fail(bad_answer(type(error).__name__))
            # Only when all that came has been looked at: it may hold a second answer.
            if self._on_word is not None and (self._message is not None or self._early):
                self._speak()

    def _takes_plain(self, data: bytes) -> bool:
        # What an answer to HEAD says of a body is not there, and what is there nobody may get.
        if self._on_word is None or self.has_received or self._parser is self._for_head:
            return False
        self.plain = plain_answer(data)
        if self.plain is None:
            return False
        self.has_received = True
        self._speak()
        return True

    def _parse(self, data: bytes) -> None:
        if self._parser is self._for_head:
            self._parse_bodiless(data)
        else:
            self._feed(data)
        if self._message is None and self._error is None:
            self._size += len(data)
            if self._size > MAX_HEAD:
                self.fail(bad_answer(f"no end of the head within {MAX_HEAD} bytes"))

    def _parse_bodiless(self, data: bytes) -> None:
        # Some applications send a body with an answer to HEAD; the parser would take it for the next answer.
        while data and self._message is None:
            end = data.find(b"\r\n\r\n") + 4
            piece, data = (data[:end], data[end:]) if end > 3 else (data, b"")
            self._feed(piece)
        if data:
            self._is_spoilt = True

    def _feed(self, data: bytes) -> None:
        parser: Any = self._parser
        messages, is_upgraded, tail = parser.feed_data(data)
        for message, payload in messages:
            self._take(message, payload)
        if is_upgraded:
            self._switch(tail)

    def _take(self, message: Message, payload: StreamReader) -> None:
        if self._message is not None:
            # A second answer to one request: somebody smuggles, and nobody shall get it.
            self._is_spoilt = True
        elif _CONTINUE <= message.code < _FIRST_FINAL_STATUS and message.code != _SWITCHING:
            self._take_interim(message)
        else:
            self._message = message
            self.payload = payload
            waiter = self._waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _take_interim(self, message: Message) -> None:
        self._interim += 1
        if self._interim > _MAX_INTERIM:
            raise bad_answer("too many interim answers")
        if message.code == _CONTINUE:
            # Whoever asked for it has got it from us.
            return
        if self._on_interim is None:
            self._early = (*self._early, message)
        else:
            self._on_interim(message)

    def _switch(self, tail: bytes) -> None:
        self._is_spoilt = True
        if self._message is not None and self._message.code == _SWITCHING:
            self.is_upgraded = True
            as_protocol: Any = self
            self.payload = StreamReader(as_protocol, BUFFER, loop=self._loop)
            self._feed_tunnel(tail)

    def _feed_tunnel(self, data: bytes) -> None:
        if data and self.payload is not None and not self.payload.is_eof():
            self.payload.feed_data(data)

    def eof_received(self) -> bool:
        """Nothing more comes: close it."""
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell everybody who waits: the end of a body that ends so, or the loss of one that does not."""
        self.transport = None
        self._go_on_writing()
        self._on_lost(self)
        if not self._is_at_work:
            return
        payload = self.payload
        if exc is None and self._error is None and payload is not None and not payload.is_eof():
            self._end_payload(payload)
        self.fail(self._error or _lost())

    def _end_payload(self, payload: StreamReader) -> None:
        if self.is_upgraded:
            payload.feed_eof()
            return
        parser: Any = self._parser
        try:
            parser.feed_eof()
        except Exception:  # noqa: BLE001 - a body that was cut short; the caller says so
            return

    def pause_writing(self) -> None:
        """The application takes no more data for now."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """The application takes data again."""
        self.writing_paused = False
        self._go_on_writing()
        if self._on_writable is not None:
            self._on_writable()

    def _go_on_writing(self) -> None:
        waiter, self._drained = self._drained, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def pause_reading(self) -> None:
        """Stop at the transport only: what has been read is parsed, so that the parser never holds a tail."""
        if not self._reading_paused:
            self._reading_paused = True
            with suppress(*_CANNOT):
                self.transport.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 - aiohttp's signature
        """Go on reading."""
        if self._reading_paused:
            self._reading_paused = False
            with suppress(*_CANNOT):
                self.transport.resume_reading()

    def _parser_for(self, *, for_head: bool) -> Any:
        if for_head:
            # Made anew: whether an answer to HEAD left bytes behind is not worth knowing.
            self._for_head = new_parser(self, self._loop, with_body=False)
            return self._for_head
        if self._for_others is None:
            self._for_others = new_parser(self, self._loop, with_body=True)
        return self._for_others


def _lost() -> Unavailable:
    return Unavailable(Reason.UPSTREAM_DOWN, "the connection was closed before the answer was complete", 502)
