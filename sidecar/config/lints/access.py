"""Check the rules: that each can be reached, says what it seems to say, and names what exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from sidecar.config.access import AccessRule, Allow
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
        if not isinstance(rule.allow, Allow):
            if rule.allow != "signed_in" and (rule.require.max_age is not None or rule.require.acr):
                message = f"has no effect with allow: {rule.allow}"
                yield document.warning((*place, "require"), message, "Write allow: signed_in")
            continue
        allow = rule.allow
        if not (allow.role or allow.group or allow.login or allow.bearer):
            yield document.error((*place, "allow"), "says nobody and nothing", "Write signed_in, or who: {role: admin}")
        for key, given, known in (
            ("role", allow.role, config.roles),
            ("login", allow.login, config.logins),
            ("bearer", allow.bearer, config.logins),
        ):
            for item, name in enumerate(given):
                if name not in known:
                    here = (*place, "allow", key, item)
                    kind = "role" if key == "role" else "login"
                    shown = document.quoted(here, name)
                    fix = closest(name, known, f"There are the {kind}s") or f"Define it under {kind}s"
                    yield document.error(here, f"there is no {kind} {shown}", fix)
                elif key == "bearer" and not _takes_bearer(config, name):
                    message = f"logins.{name} does not accept bearer tokens"
                    fix = f"Add bearer: {{audience: …}} to logins.{name}"
                    yield document.error((*place, "allow", key, item), message, fix)


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
        if rule.allow == "anyone" and _segments(rule.path) == ["**"]:
            message = "ANYONE may open EVERYTHING that no earlier rule covers, without signing in"
            yield document.warning(("access", number), message, "Write allow: signed_in, unless that is really meant")
    is_complete = any(_segments(rule.path) == ["**"] and not rule.methods and not rule.host for rule in config.access)
    if not is_complete:
        message = "what no rule covers is refused"
        fix = "To say so, or to allow it, end with {path: /**, allow: nobody} or {path: /**, allow: signed_in}"
        yield document.warning(("access",), message, fix)


def order(config: Config, document: Document) -> Iterator[Problem]:
    """A rule behind another one that covers it never decides anything."""
    folds = config.app.ignore_case
    for number, later in enumerate(config.access):
        for place, earlier in enumerate(config.access[:number]):
            if not _covers(earlier, later, folds=folds):
                continue
            shown = f"rule {place + 1} ({document.quoted(('access', place, 'path'), earlier.path)})"
            if _covers(later, earlier, folds=folds):
                yield document.error(("access", number), f"{shown} says the same path, methods and hosts", "Remove one")
            else:
                message = f"is never reached, because {shown} covers all of it"
                yield document.error(("access", number), message, "Put the narrower rule first")
            break


def depth(config: Config, document: Document) -> Iterator[Problem]:
    """A page that is guarded, while what is below it is not: to many applications both are the same page."""
    for number, rule in enumerate(config.access):
        if _segments(rule.path)[-1] in ("**", ""):
            continue
        below = rule.model_copy(update={"path": rule.path + "/**", "methods": rule.methods or ("GET",)})
        place = next(
            (n for n, one in enumerate(config.access) if _covers(one, below, folds=config.app.ignore_case)), -1
        )
        if place >= 0 and _strictness(config.access[place]) < _strictness(rule):
            where: Location = ("access", number, "path")
            looser = document.quoted(("access", place, "path"), config.access[place].path)
            message = f"guards one page, and rule {place + 1} ({looser}) lets more people to {rule.path}/anything"
            fix = "many applications serve that as the same page: write /prefix/** for both"
            yield document.warning(where, message if not document.refers(where) else "guards one page only", fix)


def _strictness(rule: AccessRule) -> float:
    """How many a rule keeps out; rules that name people are not compared with each other."""
    kind = 2 if isinstance(rule.allow, Allow) else ("anyone", "signed_in", "", "nobody").index(rule.allow)
    return kind + (0.5 if rule.allow == "signed_in" and (rule.require.max_age or rule.require.acr) else 0.0)


def bearer_use(config: Config, document: Document) -> Iterator[Problem]:
    """A login that accepts tokens nobody may use."""
    used = {name for rule in config.access if isinstance(rule.allow, Allow) for name in rule.allow.bearer}
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
    paths = (earlier.path.lower(), later.path.lower()) if folds else (earlier.path, later.path)
    return _path_covers(_segments(paths[0]), _segments(paths[1]))


def _spoken(rule: AccessRule) -> frozenset[str] | None:
    """Methods that the rule speaks about; None for all."""
    if rule.methods:
        return frozenset(rule.methods)
    return ORDINARY_METHODS if rule.allow == "anyone" else None


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
