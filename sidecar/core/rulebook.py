"""Find the rules that speak about a request without reading the whole list: an index of paths, segment by segment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sidecar.core.patterns import compile_segment, read_pattern
from sidecar.core.policy import Rule, asked_method, fitting
from sidecar.faults import Refused
from sidecar.model import Visit
from sidecar.reason import Reason


@dataclass(slots=True)
class _Node:
    """A place in the tree of paths: rules that end here, rules for all below, and the ways on."""

    here: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)
    literal: dict[str, _Node] = field(default_factory=dict)
    starred: list[tuple[re.Pattern[str] | None, str, _Node]] = field(default_factory=list)


def _below(node: _Node, segments: Sequence[str]) -> list[int]:
    """Numbers of the rules that fit *segments* below *node*, where several ways may lead on from each place."""
    nodes, found = [node], list[int]()
    for segment in segments:
        ways: list[_Node] = []
        for one in nodes:
            if segment in one.literal:
                ways.append(one.literal[segment])
            ways += [after for pattern, _, after in one.starred if pattern is None or pattern.fullmatch(segment)]
        for one in ways:
            found += one.below
        nodes = ways
    for one in nodes:
        found += one.here
    return found


class Rulebook:
    """The rules in their order, with an index over their paths. Its answers are those of the plain list."""

    def __init__(self, rules: Sequence[Rule], *, ignore_case: bool = False) -> None:
        """Index *rules*; with *ignore_case* their patterns were compiled so."""
        self.rules = tuple(rules)
        self._ignore_case = ignore_case
        self._root = _Node()
        for number, rule in enumerate(self.rules):
            self._add(number, rule)

    def __iter__(self) -> Iterator[Rule]:
        """Iterate over the rules in their order."""
        return iter(self.rules)

    def fitting(self, method: str, host: str, path: str) -> tuple[Rule, ...]:
        """Rules that speak about this request, up to the first that does not only deny; see policy.fitting."""
        if self._ignore_case:
            if not path.isascii():
                # Which letters beyond ASCII are one when case does not matter, only the regular expressions know.
                return fitting(self.rules, method, host, path)
            path = path.lower()
        asked = asked_method(method)
        chain: tuple[Rule, ...] = ()
        for number in self._candidates(path):
            rule = self.rules[number]
            if rule.speaks_of(asked, host):
                if not rule.only_denies:
                    return (*chain, rule) if chain else (rule,)
                chain = (*chain, rule)
        return chain

    def about(self, visit: Visit) -> tuple[Rule, ...]:
        """Rules that speak about *visit*; Refused(PATH_AMBIGUOUS) when the path's parameters would change them."""
        rules = self.fitting(visit.method, visit.host, visit.path)
        if visit.literal != visit.path and self.fitting(visit.method, visit.host, visit.literal) != rules:
            # Servers differ on ;parameters: where that would change the rule, nobody can say which one holds.
            raise Refused(Reason.PATH_AMBIGUOUS, 400, "parameters change the rule")
        return rules

    def _candidates(self, path: str) -> list[int]:
        """Numbers of the rules whose pattern fits *path*, in order."""
        segments = path[1:].split("/")
        node = self._root
        found = node.below.copy()
        for depth, segment in enumerate(segments):
            child = node.literal.get(segment)
            if node.starred:
                if child is not None or len(node.starred) > 1:
                    found += _below(node, segments[depth:])
                    break
                pattern, _, after = node.starred[0]
                child = after if pattern is None or pattern.fullmatch(segment) else None
            if child is None:
                break
            node = child
            if node.below:
                found += node.below
        else:
            found += node.here
        if len(found) > 1:
            found.sort()
        return found

    def _add(self, number: int, rule: Rule) -> None:
        pattern = read_pattern(rule.text)
        node = self._root
        for segment in pattern.segments:
            node = self._way(node, segment)
        (node.below if pattern.open_end else node.here).append(number)

    def _way(self, node: _Node, segment: str) -> _Node:
        plain = "*" not in segment and (segment.isascii() or not self._ignore_case)
        if plain:
            return node.literal.setdefault(segment.lower() if self._ignore_case else segment, _Node())
        for _, text, after in node.starred:
            if text == segment:
                return after
        compiled = None if segment == "*" else compile_segment(segment, ignore_case=self._ignore_case)
        node.starred.append((compiled, segment, _Node()))
        return node.starred[-1][2]
