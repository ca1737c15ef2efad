"""The end of a session, as something that open streams and WebSockets can wait for."""

from __future__ import annotations

from collections.abc import Callable

Callback = Callable[[], None]


class Ending:
    """One per live session: whoever ends the session calls ``end()``, everything that streams for it watches.

    Not thread-safe: it belongs to one event loop.
    """

    __slots__ = ("__weakref__", "_watchers", "is_over")

    def __init__(self) -> None:
        """Begin with a session that lives."""
        self.is_over = False
        self._watchers: set[Callback] = set()

    def watch(self, callback: Callback) -> None:
        """Call *callback* once when the session ends; at once when it has ended already."""
        if self.is_over:
            callback()
        else:
            self._watchers.add(callback)

    def unwatch(self, callback: Callback) -> None:
        """Forget *callback*."""
        self._watchers.discard(callback)

    def end(self) -> None:
        """Say that the session is over; a second time changes nothing."""
        self.is_over = True
        watchers, self._watchers = self._watchers, set()
        for callback in watchers:
            callback()
