"""Find the few rules that can speak about a path, however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from sidecar.core.policy import Rule

_Beginning = tuple[str, ...]
_DEPTH = 2


class RuleBook(tuple[Rule, ...]):  # noqa: SLOT001 - a tuple with an index cannot have slots
    """Rules in their order, which also knows them by the first two segments of their paths.

    A rule is left out for a path only when it begins with plain segments and the path with others: everything else is
    up to its pattern, as ever.
    """

    _by_beginning: Mapping[_Beginning, tuple[Rule, ...]]

    def __new__(cls, rules: Iterable[Rule] = ()) -> Self:
        """Index *rules*."""
        book = super().__new__(cls, rules)
        beginnings = [_beginning(rule) for rule in book]
        known = {beginning[:depth] for beginning in beginnings for depth in range(len(beginning) + 1)}
        book._by_beginning = {
            asked: tuple(rule for rule, begins in zip(book, beginnings, strict=True) if asked[: len(begins)] == begins)
            for asked in {(), *known}
        }
        return book

    def about(self, path: str) -> tuple[Rule, ...]:
        """Rules that may speak about the canonical *path*, in their order."""
        if not path.isascii():
            # Where case does not count, letters beyond ASCII may stand for plain ones (U+017F for s).
            return self
        segments = tuple(path.lower().split("/", _DEPTH + 1)[1 : _DEPTH + 1])
        found = self._by_beginning.get(segments)
        if found is None:
            found = self._by_beginning.get(segments[:1])
        return self._by_beginning[()] if found is None else found


def _beginning(rule: Rule) -> _Beginning:
    """Plain segments, in lower case, that every path of *rule* begins with."""
    plain: list[str] = []
    for segment in rule.text.split("/")[1 : _DEPTH + 1]:
        if "*" in segment or not segment.isascii():
            break
        plain.append(segment.lower())
    return tuple(plain)


def match(rules: RuleBook, method: str, host: str, path: str) -> Rule | None:
    """First rule that speaks about this request; HEAD follows GET."""
    asked = "GET" if method == "HEAD" else method
    for rule in rules.about(path):
        if rule.fits(asked, host, path):
            return rule
    return None
