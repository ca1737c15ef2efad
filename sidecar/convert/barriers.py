"""Find what else keeps people out in Apache: whatever cannot be said here closes its paths, and those below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sidecar.convert.apache import Directive
from sidecar.convert.draft import pattern_of

# A certificate that only `optional` asks for keeps nobody out.
_CERTIFICATES = frozenset(["require", "optional_no_ca"])
_FORBIDS = frozenset(["F", "FORBIDDEN", "G", "GONE"])


def barriers_of(directives: Sequence[Directive]) -> Mapping[str, Directive]:
    """Path pattern → the directive because of which nobody may come there until somebody has read it."""
    found: dict[str, Directive] = {}
    former: Directive | None = None
    for one in directives:
        # What forbids under a condition only (TRACE, an old browser) is named among what is not read.
        is_conditional = former is not None and former.key == "rewritecond"
        if not one.is_about_files and not is_conditional and (path := _barred(one, directives)) is not None:
            found.setdefault(path, one)
        former = one
    return found


def barrier_at(path: str, barriers: Mapping[str, Directive]) -> Directive | None:
    """What bars *path* or something that it is below of; None when nothing does."""
    return next((barriers[above] for above in above_and(path) if above in barriers), None)


def above_and(path: str) -> Iterator[str]:
    """The pattern *path*, then those that hold it, the nearest first."""
    yield path
    rest = path.removesuffix("/**")
    while "/" in rest:
        rest = rest.rpartition("/")[0]
        yield f"{rest}/**"


def _barred(one: Directive, all_of_them: Sequence[Directive]) -> str | None:
    words = [word.lower() for word in one.words]
    if one.key == "deny" or (one.key == "allow" and words[:2] != ["from", "all"]):
        return one.around or "/**"
    if one.key == "order" and "".join(words).startswith("allow,deny"):
        is_open = any(
            other.key == "allow" and other.sections == one.sections and other.host == one.host for other in all_of_them
        )
        return None if is_open else one.around or "/**"
    if one.key == "sslrequire" or (one.key == "sslverifyclient" and words[:1] and words[0] in _CERTIFICATES):
        return one.around or "/**"
    if one.key == "rewriterule" and _flags(one) & _FORBIDS:
        # Where it stands in a section, the expression is for what comes behind its path.
        within = one.around
        return pattern_of(one.value) or "/**" if within == "/**" else within or "/**"
    return None


def _flags(one: Directive) -> set[str]:
    said = one.words[2].strip("[]") if len(one.words) > 2 else ""
    return {flag.strip().upper() for flag in said.split(",")}
