"""Check the rules: that each can be reached, says what it seems to say, and names what exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from sidecar.config.access import AccessRule, Allow, Deny, Require
from sidecar.config.callers import CERTIFICATES, TOKENS
from sidecar.config.document import Document, Location
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.wording import closest
from sidecar.core.policy import ORDINARY_METHODS, REFUSED_METHODS

# Character → why no path can match it: patterns are compared with the decoded path, which has none of these.
_NEVER = {
    "?": "a query (?…) is no part of the path",
    "#": "a fragment (#…) never reaches a server",
    "%": "patterns are compared with the decoded path",
    "\\": "paths with a backslash are refused",
}
_REGEX = re.compile(r"^\^|\$$|\.\*(?![\w*])|\.\+|\(\?|\([^)]*\||\[\^?[^\]]*-[^\]]*\]|\[\^|\{\d+,?\d*\}")
_PATTERNS = "Patterns are /exact, /prefix/** and * for one segment"


def patterns(config: Config, document: Document) -> Iterator[Problem]:
    """A pattern that no path can match, or that looks like something else."""
    paths = {rule.path for rule in config.access}
    for number, rule in enumerate(config.access):
        place: Location = ("access", number, "path")
        problem = _pattern_problem(rule.path)
        if problem:
            yield document.error(place, problem, _PATTERNS)
        elif rule.path.endswith("/") and rule.path != "/" and rule.path.rstrip("/") not in paths:
            bare = rule.path.rstrip("/")
            message = "fits only with the slash at its end, not what is below it"
            fix = f"Write {bare}/** for all of it" if not document.refers(place) else "Write /prefix/** for all of it"
            yield document.warning(place, message, fix)


def _pattern_problem(path: str) -> str:
    if _REGEX.search(path):
        return "looks like a regular expression, which it is not"
    for sign, reason in _NEVER.items():
        if sign in path:
            return reason
    segments = path.split("/")[1:]
    if "" in segments[:-1]:
        return "paths with // are refused, so it never fits"
    if "." in segments or ".." in segments:
        return "paths with . or .. are refused, so it never fits"
    return "" if path.isprintable() else "control characters never reach a path"


def names(config: Config, document: Document) -> Iterator[Problem]:
    """Roles, logins and methods that exist, and words that say something."""
    for number, rule in enumerate(config.access):
        place: Location = ("access", number)
        yield from _methods(rule, (*place, "methods"), document)
        if rule.require != Require() and (rule.is_public or not rule.alternatives):
            message = f"has no effect with allow: {rule.allow}" if rule.allow else "has no effect without allow"
            message = "has no effect where nobody signs in" if rule.is_public and rule.allow != "anyone" else message
            yield document.warning((*place, "require"), message, "Write allow: signed_in")
        for item, one in enumerate(rule.alternatives):
            yield from _allowed(one, (*place, "allow", item), document)
            yield from _names_of(one, (*place, "allow", item), config, document)
        for item, denied in enumerate(rule.deny):
            if denied == Deny():
                fix = "Write who, such as {group: contractors}, or allow: nobody"
                yield document.error((*place, "deny", item), "says nobody and nothing", fix)
            yield from _names_of(denied, (*place, "deny", item), config, document)


def _allowed(allow: Allow, place: Location, document: Document) -> Iterator[Problem]:
    if allow == Allow() and "who" not in allow.model_fields_set:
        yield document.error(place, "says nobody and nothing", "Write signed_in, or who: {role: admin}")
    if allow.who == "anyone":
        for key in ("role", "group", "login", "bearer", "when"):
            if getattr(allow, key):
                message = "is about people, but with who: anyone nobody is asked who they are"
                yield document.error((*place, key), message, "Remove who: anyone, or this line")


def _names_of(lines: Allow | Deny, place: Location, config: Config, document: Document) -> Iterator[Problem]:
    for key, given, known in (
        ("role", lines.role, config.roles),
        ("login", lines.login, config.logins),
        ("bearer", lines.bearer, config.logins),
    ):
        for item, name in enumerate(given):
            here = (*place, key, item)
            if key == "bearer" and name in (TOKENS, CERTIFICATES) and name not in config.logins:
                if getattr(config, name) is None:
                    yield document.error(here, f"there is no section {name}", f"Add {name}:")
            elif name not in known:
                kind = "role" if key == "role" else "login"
                shown = document.quoted(here, name)
                fix = closest(name, known, f"There are the {kind}s") or f"Define it under {kind}s"
                yield document.error(here, f"there is no {kind} {shown}", fix)
            elif key == "bearer" and not _takes_bearer(config, name):
                message = f"logins.{name} does not accept bearer tokens"
                yield document.error(here, message, f"Add bearer: {{audience: …}} to logins.{name}")


def roles(config: Config, document: Document) -> Iterator[Problem]:
    """Roles include roles that exist, come through logins that exist, and are not everybody's by accident."""
    for name, line in config.roles.items():
        for key, given, known in (("includes", line.includes, config.roles), ("login", line.login, config.logins)):
            for item, other in enumerate(given):
                here: Location = ("roles", name, key, item)
                kind = "role" if key == "includes" else "login"
                if other not in known:
                    fix = closest(other, known, f"There are the {kind}s")
                    yield document.error(here, f"there is no {kind} {document.quoted(here, other)}", fix)
                elif other == name and key == "includes":
                    yield document.warning(here, "includes itself", "Remove it")


def _takes_bearer(config: Config, name: str) -> bool:
    login = config.oidc_logins.get(name)
    return login is not None and login.bearer is not None


def _methods(rule: AccessRule, place: Location, document: Document) -> Iterator[Problem]:
    for item, method in enumerate(rule.methods):
        if method in REFUSED_METHODS:
            yield document.warning((*place, item), f"{method} is refused in any case", "Remove it")
        elif method == "HEAD":
            message = "HEAD follows the rule for GET, so it never decides here"
            yield document.warning((*place, item), message, "Write GET")


def hosts(config: Config, document: Document) -> Iterator[Problem]:
    """Hosts that are asked for at all."""
    address = urlsplit(config.server.public_url) if "://" in config.server.public_url else None
    known = {(address.hostname or "") if address else "", *(host.lower() for host in config.server.hosts)}
    for number, rule in enumerate(config.access):
        for item, host in enumerate(rule.host):
            if host.lower() not in known:
                place: Location = ("access", number, "host", item)
                message = f"{document.quoted(place, host)} is no host of this sidecar, so the rule never fits"
                yield document.warning(place, message, "Add it to server.hosts")


def openness(config: Config, document: Document) -> Iterator[Problem]:
    """The two ends: everything open, and everything else closed."""
    for number, rule in enumerate(config.access):
        is_open = any(one.who == "anyone" and not one.network for one in rule.alternatives)
        if is_open and _segments(rule.path) == ["**"]:
            message = "ANYONE may open EVERYTHING that no earlier rule covers, without signing in"
            yield document.warning(("access", number), message, "Write allow: signed_in, unless that is really meant")
    is_complete = any(
        _segments(rule.path) == ["**"] and not rule.methods and not rule.host and not rule.only_denies
        for rule in config.access
    )
    if not is_complete:
        message = "what no rule covers is refused"
        fix = "To say so, or to allow it, end with {path: /**, allow: nobody} or {path: /**, allow: signed_in}"
        yield document.warning(("access",), message, fix)


def order(config: Config, document: Document) -> Iterator[Problem]:
    """A rule behind another one that covers it never decides anything; one that is covered in part decides the rest."""
    folds = config.app.ignore_case
    for number, later in enumerate(config.access):
        for place, earlier in enumerate(config.access[:number]):
            # One that only denies leaves the others to the rules after it.
            if earlier.only_denies:
                continue
            shown = f"rule {place + 1} ({document.quoted(('access', place, 'path'), earlier.path)})"
            if _covers(earlier, later, folds=folds):
                yield _unreachable(document, number, shown, is_same=_covers(later, earlier, folds=folds))
                break
            part = _part_taken(earlier, later, folds=folds)
            if part:
                message = f"does not decide {part}: {shown} comes first and is about all these paths"
                yield document.warning(("access", number), message, "Put the narrower rule first, unless this is meant")
                break


def _unreachable(document: Document, number: int, shown: str, *, is_same: bool) -> Problem:
    if is_same:
        return document.error(("access", number), f"{shown} says the same path, methods and hosts", "Remove one")
    message = f"is never reached, because {shown} covers all of it"
    return document.error(("access", number), message, "Put the narrower rule first")


def _part_taken(earlier: AccessRule, later: AccessRule, *, folds: bool) -> str:
    """Methods or hosts of *later* that the wider path of *earlier* takes from it; "" for none."""
    if not _path_covers(*_folded(earlier, later, folds=folds)) or _path_covers(*_folded(later, earlier, folds=folds)):
        return ""
    mine, theirs = _spoken(earlier), _spoken(later)
    methods = mine if theirs is None else theirs if mine is None else mine & theirs
    hosts = {host.lower() for host in earlier.host} or None
    others = {host.lower() for host in later.host} or None
    common = hosts if others is None else others if hosts is None else hosts & others
    if (methods is not None and not methods) or (common is not None and not common):
        return ""
    named = [] if methods is None or methods == ORDINARY_METHODS else [", ".join(sorted(methods))]
    named += [f"at {', '.join(sorted(common))}"] if common and hosts is not None else []
    return " ".join(named) or "the ordinary methods"


def meet(one: AccessRule, other: AccessRule, *, folds: bool) -> bool:
    """True when the paths of one of them are among those of the other, at a host of both."""
    hosts, others = {host.lower() for host in one.host}, {host.lower() for host in other.host}
    if hosts and others and not hosts & others:
        return False
    wide, narrow = _folded(one, other, folds=folds)
    return _path_covers(wide, narrow) or _path_covers(narrow, wide)


def _folded(one: AccessRule, other: AccessRule, *, folds: bool) -> tuple[list[str], list[str]]:
    paths = (one.path.lower(), other.path.lower()) if folds else (one.path, other.path)
    return _segments(paths[0]), _segments(paths[1])


def depth(config: Config, document: Document) -> Iterator[Problem]:
    """A page that is guarded, while what is below it is not: to many applications both are the same page."""
    for number, rule in enumerate(config.access):
        if _segments(rule.path)[-1] in ("**", "") or rule.only_denies:
            continue
        below = rule.model_copy(update={"path": rule.path + "/**", "methods": rule.methods or ("GET",)})
        place = next(
            (
                n
                for n, one in enumerate(config.access)
                if not one.only_denies and _covers(one, below, folds=config.app.ignore_case)
            ),
            -1,
        )
        if place >= 0 and _strictness(config.access[place]) < _strictness(rule):
            where: Location = ("access", number, "path")
            looser = document.quoted(("access", place, "path"), config.access[place].path)
            message = f"guards one page, and rule {place + 1} ({looser}) lets more people to {rule.path}/anything"
            fix = "many applications serve that as the same page: write /prefix/** for both"
            yield document.warning(where, message if not document.refers(where) else "guards one page only", fix)


def _strictness(rule: AccessRule) -> float:
    """How many a rule keeps out; rules that name people are not compared with each other."""
    if rule.allow == "nobody":
        return 3
    if rule.is_public:
        return 0
    asks_little = any(one in (Allow(), Allow(who="anyone")) for one in rule.alternatives)
    return (1 if asks_little else 2) + (0.5 if asks_little and rule.require != Require() else 0.0)


def bearer_use(config: Config, document: Document) -> Iterator[Problem]:
    """A login that accepts tokens nobody may use."""
    used = {name for rule in config.access for one in rule.alternatives for name in one.bearer}
    for name, login in config.oidc_logins.items():
        if login.bearer is not None and name not in used:
            fix = f"Add a rule such as {{path: /api/**, allow: {{bearer: {name}}}}}"
            yield document.warning(("logins", name, "bearer"), "no access rule accepts these tokens", fix)


def _covers(earlier: AccessRule, later: AccessRule, *, folds: bool) -> bool:
    """True when every request that *later* speaks about is one that *earlier* speaks about."""
    if earlier.host and not (later.host and {host.lower() for host in later.host} <= {h.lower() for h in earlier.host}):
        return False
    mine, theirs = _spoken(earlier), _spoken(later)
    if mine is not None and (theirs is None or not theirs <= mine):
        return False
    return _path_covers(*_folded(earlier, later, folds=folds))


def _spoken(rule: AccessRule) -> frozenset[str] | None:
    """Methods that the rule speaks about; None for all."""
    if rule.methods:
        return frozenset(rule.methods)
    return ORDINARY_METHODS if rule.is_public else None


def _segments(path: str) -> list[str]:
    return path.split("/")[1:]


def _path_covers(wide: list[str], narrow: list[str]) -> bool:
    if wide[-1] != "**":
        return len(wide) == len(narrow) and narrow[-1] != "**" and _all_cover(wide, narrow)
    fixed = wide[:-1]
    rest = narrow[:-1] if narrow[-1] == "**" else narrow
    return len(rest) >= len(fixed) and _all_cover(fixed, rest)


def _all_cover(wide: list[str], narrow: list[str]) -> bool:
    return all(_segment_covers(one, other) for one, other in zip(wide, narrow, strict=False))


def _segment_covers(wide: str, narrow: str) -> bool:
    # A star in the narrow one stands for any text; a character that no pattern has can only meet a star.
    expression = "[^/]*".join(map(re.escape, wide.split("*")))
    return re.fullmatch(expression, narrow.replace("*", "\0"), re.DOTALL) is not None
