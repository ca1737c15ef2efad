"""Say when something is due: every so often, or by the five fields of cron, in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NICKNAMES = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
# The 29th of February comes back after eight years at the latest.
_FARTHEST = timedelta(days=8 * 366)


@dataclass(frozen=True, slots=True)
class Cron:
    """The five fields as sets of numbers; ``any_day`` and ``any_weekday`` say that the field was a star."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    def has_day(self, day: datetime) -> bool:
        """True when something is due on this day: by either of day and weekday where both are given."""
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday

    def after(self, moment: float) -> float:
        """The first time after *moment* (epoch seconds). Raises ValueError when there is none."""
        start = datetime.fromtimestamp(moment, UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        day, last = start.replace(hour=0, minute=0), start + _FARTHEST
        while day <= last:
            if day.month in self.months and self.has_day(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        found = day.replace(hour=hour, minute=minute)
                        if found >= start:
                            return found.timestamp()
            day += timedelta(days=1)
        message = "this day never comes"
        raise ValueError(message)


def parse_cron(text: str) -> Cron:
    """Read ``minute hour day month weekday``; raises ValueError that says what is wrong."""
    words = _NICKNAMES.get(text.strip().lower(), text).lower().split()
    if len(words) != len(_FIELDS):
        message = "cron is written like 30 2 * * mon-fri: minute hour day month weekday"
        raise ValueError(message)
    sets = [_numbers(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
    weekdays = frozenset(number % 7 for number in sets[4])
    return Cron(sets[0], sets[1], sets[2], sets[3], weekdays, words[2].startswith("*"), words[4].startswith("*"))


def _numbers(word: str, name: str, least: int, most: int) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        span, _, step_text = part.partition("/")
        step = _number(step_text, name, 1, most) if "/" in part else 1
        if span == "*":
            first, last = least, 6 if name == "weekday" else most
        elif "-" in span:
            low, _, high = span.partition("-")
            first, last = _number(low, name, least, most), _number(high, name, least, most)
        else:
            first = _number(span, name, least, most)
            last = most if "/" in part else first
        if first > last:
            message = f"{name}: {span} goes backwards"
            raise ValueError(message)
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(word: str, name: str, least: int, most: int) -> int:
    names = {"month": _MONTHS, "weekday": _DAYS}.get(name, ())
    if word in names:
        return names.index(word) + (1 if name == "month" else 0)
    if not (word.isascii() and word.isdigit() and len(word) <= 2 and least <= int(word) <= most):
        message = f"{name}: {word!r} is no number from {least} to {most}"
        raise ValueError(message)
    return int(word)


@dataclass(frozen=True, slots=True)
class Timetable:
    """``every`` seconds, or by ``cron``; each time up to ``jitter`` seconds later. Neither: never by itself."""

    every: float | None = None
    cron: Cron | None = None
    jitter: float = 0.0

    def after(self, moment: float, chance: float) -> float | None:
        """When it is due next after *moment*, None for never; *chance* from 0 to 1 chooses within the jitter."""
        late = self.jitter * chance
        if self.cron is not None:
            return self.cron.after(moment) + late
        return None if self.every is None else moment + self.every + late
