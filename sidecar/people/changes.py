"""Tell every worker and replica that what is known of a person has changed."""

from __future__ import annotations

from collections.abc import Callable, Collection

from sidecar.sessions.store import Store

_PREFIX = "person-changed:"
_EVERYBODY = "*"
_FOR = 60.0
# From here on one word for all is cheaper: everybody is looked up anew once.
_MANY = 50


class Changes:
    """Word of changed people, by way of the session store."""

    def __init__(self, store: Store) -> None:
        """Speak and listen through *store*."""
        self._store = store
        self._listeners: list[tuple[Callable[[str], None], Callable[[], None]]] = []
        self._has_watch = False

    @property
    def is_heard(self) -> bool:
        """True while word of every change is sure to come: only then may anything be remembered."""
        return self._has_watch and self._store.is_watching

    def listen(self, forget: Callable[[str], None], clear: Callable[[], None]) -> None:
        """Call *forget(person id)* for every change, *clear()* when anything may have changed."""
        self._listeners.append((forget, clear))

    async def watch(self) -> None:
        """Begin to hear; the first call does it. Raises Unavailable."""
        if self._has_watch:
            return
        self._has_watch = True
        try:
            await self._store.watch(_PREFIX, self._changed, self._clear)
        except BaseException:
            self._has_watch = False
            raise
        # What was learnt before the watch stood may be out of date already.
        self._clear()

    async def announce(self, person_ids: Collection[str]) -> None:
        """Say that these people changed; nobody remembers the old state once this returns here. Raises Unavailable."""
        names = sorted(set(person_ids)) if len(person_ids) < _MANY else [_EVERYBODY]
        for name in names:
            self._changed(_PREFIX + name)
            await self._store.put(_PREFIX + name, b"1", _FOR)

    def _changed(self, key: str) -> None:
        name = key.removeprefix(_PREFIX)
        if name == _EVERYBODY:
            self._clear()
            return
        for forget, _ in self._listeners:
            forget(name)

    def _clear(self) -> None:
        for _, clear in self._listeners:
            clear()
