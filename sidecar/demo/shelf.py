"""Keep values in memory for a limited time and in a limited number."""

from collections.abc import Callable, Iterator
from secrets import token_urlsafe
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Shelf(Generic[Value]):
    """Values under random 256-bit names; the oldest gives way when the shelf is full."""

    def __init__(self, lifetime: float, clock: Callable[[], float], capacity: int = 10_000) -> None:
        """`lifetime` in seconds of `clock`."""
        self._lifetime = lifetime
        self._clock = clock
        self._capacity = capacity
        self._values: dict[str, tuple[float, Value]] = {}

    def put(self, value: Value) -> str:
        """Store `value` and return the name that finds it."""
        while len(self._values) >= self._capacity:
            del self._values[next(iter(self._values))]
        name = token_urlsafe(32)
        self._values[name] = (self._clock() + self._lifetime, value)
        return name

    def get(self, name: str) -> Value | None:
        """Return the value, or None when it was never there, is gone or is too old."""
        until, value = self._values.get(name, (0.0, None))
        return value if until > self._clock() else None

    def take(self, name: str) -> Value | None:
        """Return the value and remove it: only the first caller gets it."""
        value = self.get(name)
        self._values.pop(name, None)
        return value

    def discard(self, unwanted: Callable[[Value], bool]) -> None:
        """Remove every value that `unwanted` is true of."""
        self._values = {name: kept for name, kept in self._values.items() if not unwanted(kept[1])}

    def __iter__(self) -> Iterator[Value]:
        """Yield the values that are still live."""
        now = self._clock()
        return iter([value for until, value in self._values.values() if until > now])
