"""Read the directives of mod_auth_mellon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.convert.apache import Directive, Site, directives_of, is_on, leave_unread, one_site
from sidecar.convert.barriers import above_and, barrier_at, barriers_of
from sidecar.convert.draft import Draft, duration_of, holds

_LOGIN = "corp"
_AT = f"logins.{_LOGIN}"
_NOT_CARRIED = {
    "mellonidppublickeyfile": "certificates come from the provider's metadata",
    "mellonidpcafile": "certificates come from the provider's metadata",
    "mellonspmetadatafile": "our metadata is made: `sidecar saml metadata`",
    "mellonendpointpath": "our addresses are below /-/saml/; give the provider our metadata",
    "mellondefaultloginpath": "sign-ins that begin at the provider are refused, unless `unsolicited` is true",
    "mellonsessiondump": "what the provider said is not handed to the application whole",
    "mellonsamlresponsedump": "what the provider said is not handed to the application whole",
    "mellonnocookieerrorpage": "a page says which cookie is missing",
    "mellonnosuccesserrorpage": "a page says why",
    "mellonpostreplay": "a form that met an expired session is kept anyhow",
    "mellonsubjectconfirmationdataaddresscheck": "addresses change on the way; they are not compared",
    "mellonredirectdomains": "people are sent back to this application only",
    "mellonprobediscoverytimeout": "there is a page to choose from, and domains of e-mail addresses choose, too",
    "mellondiscoveryurl": "there is a page to choose from, and domains of e-mail addresses choose, too",
    "mellonsignaturemethod": "requests are signed with SHA-256",
    "mellonmergeenvvars": "attributes with several values are lists",
    "mellonenvvarsindexstart": "attributes with several values are lists",
    "mellonenvprefix": "headers have the names that you give them",
    "mellonuseridentityprovider": "write `login: NAME` in a rule",
    "mellonvariable": "the cookie is sessions.cookie.name",
}
_IMPLIED = frozenset([
    "mellonenable", "mellonlock", "melloncachesize", "melloncacheentrysize", "melloncookiepath", "mellonidp",
    "mellonpostdirectory", "mellonpostttl", "mellonpostsize", "mellonpostcount", "mellonsecurecookie",
    "mellondiagnosticsfile", "mellondiagnosticsenable", "mellonsendcachecontrolheader", "mellonrequest",
    "mellonsetenv", "mellonsetenvnoprefix", "melloncond", "mellonrequire",
])  # fmt: skip
# What `Require valid-user` asks for, which MellonEnable asks for anyhow.
_SIGNED_IN = "signed in"
# NameID and what mellon itself makes of it.
_NAME_ID = "NAME_ID"


def read_mellon(text: str) -> Draft:
    """Read *text*. Raises ValueError, which names the line."""
    draft, site = Draft("mod_auth_mellon"), Site()
    directives = one_site(directives_of(text), _is_ours, draft)
    draft.put(f"{_AT}.type", "saml")
    draft.put(f"{_AT}.metadata", "idp-metadata.xml")
    site.read(directives, draft)
    names = _attributes(directives, draft)
    for one in directives:
        if not one.key.startswith("mellon") or one.key in _IMPLIED:
            continue
        handler = _HANDLERS.get(one.key)
        if handler is not None:
            handler(one, draft)
        else:
            draft.leave(one.where, one.name, _NOT_CARRIED.get(one.key, "has no counterpart here"))
    _keys(directives, draft)
    _identity(directives, draft, names)
    _access(directives, draft, names)
    _headers(directives, draft, names)
    leave_unread(
        directives,
        lambda one: one.line in site.taken or one.key.startswith("mellon") or one.key in {"require", "requestheader"},
        draft,
    )
    site.finish(draft)
    origin = draft.get("server.public_url")
    draft.todo.append(f"give the provider our new metadata: {origin}/-/saml/{_LOGIN}/metadata")
    return draft


def _is_ours(one: Directive) -> bool:
    return one.key.startswith("mellon") or (one.key == "authtype" and one.value.lower() == "mellon")


def _attributes(directives: Sequence[Directive], draft: Draft) -> Mapping[str, str]:
    """What MellonSetEnv calls attributes: name in the environment → name in claims."""
    names: dict[str, str] = {}
    for one in directives:
        if one.key not in {"mellonsetenv", "mellonsetenvnoprefix"} or len(one.words) < 2:
            continue
        name = _claim(one.words[0])
        prefix = "" if one.key.endswith("noprefix") else "MELLON_"
        names[prefix + one.words[0]] = names[one.words[0]] = names[one.words[1]] = name
        draft.put(f"{_AT}.attributes", {**(draft.get(f"{_AT}.attributes") or {}), name: one.words[1]})
    return names


def _claim(name: str) -> str:
    clean = "".join(sign if sign.isalnum() and sign.isascii() else "_" for sign in name.lower()).strip("_")
    return clean if clean.isidentifier() else f"a_{clean}"


def _keys(directives: Sequence[Directive], draft: Draft) -> None:
    files = {one.key: one.value for one in directives}
    if (certificate := files.get("mellonspcertfile")) and files.get("mellonspprivatekeyfile"):
        draft.put(f"{_AT}.keys", [{"certificate": certificate, "key": {"file": files["mellonspprivatekeyfile"]}}])


def _identity(directives: Sequence[Directive], draft: Draft, names: Mapping[str, str]) -> None:
    user = next((one.value for one in directives if one.key == "mellonuser"), _NAME_ID)
    if user == _NAME_ID:
        draft.put("identity.username", "{{ claims.name_id }}")
        draft.put(f"{_AT}.name_id", "persistent", "must be the same each time; else name an attribute: subject")
    else:
        draft.put("identity.username", f"{{{{ claims.{_named(user, names, draft)} }}}}")
    for part, wanted in (
        ("email", ("mail", "email")),
        ("name", ("displayname", "cn", "name")),
        ("groups", ("groups", "memberof")),
    ):
        # By what either side calls them.
        known = next((name for theirs, name in names.items() if {name, theirs.lower()} & set(wanted)), "")
        if known:
            draft.put(f"identity.{part}", f"{{{{ claims.{known} }}}}")


def _named(attribute: str, names: Mapping[str, str], draft: Draft) -> str:
    """Name in claims of an attribute that mellon knows by *attribute*; it is mapped when nobody has."""
    known = names.get(attribute)
    if known is None:
        known = _claim(attribute.rsplit("/", 1)[-1].rsplit(":", 1)[-1])
        draft.put(f"{_AT}.attributes", {**(draft.get(f"{_AT}.attributes") or {}), known: attribute})
    return known


@dataclass(slots=True)
class _Asked:
    """What each path's own section asks for; one without conditions, or a Require, has those of the one around it."""

    barriers: Mapping[str, Directive]
    required: Mapping[str, str]
    closed: dict[str, str]
    conditions: dict[str, list[str]] = field(default_factory=dict)
    modes: dict[str, str] = field(default_factory=dict)

    @property
    def paths(self) -> list[str]:
        """All that something is asked for, the longest first."""
        found = {*self.modes, *self.conditions, *self.closed, *self.required, *self.barriers, "/**"}
        return sorted(found, key=lambda path: (-path.count("/"), -len(path), path))

    def why_closed(self, path: str) -> str:
        """What cannot be carried over there; "" when all can."""
        barrier = barrier_at(path, self.barriers)
        if barrier is not None:
            return f"{barrier.where}: {barrier.said}"
        nearest = _nearest(path, {**dict.fromkeys(self.conditions, ""), **self.closed})
        demand = _nearest(path, self.required)
        return nearest or ("" if demand == _SIGNED_IN else demand)

    def rule(self, path: str, draft: Draft) -> None:
        """Write the rule for *path*."""
        mode, tests = _nearest(path, self.modes), self.conditions.get(path)
        if mode not in {"info", "off"}:
            tests = _nearest(path, self.conditions) or None
        if why := self.why_closed(path):
            draft.closed(path, why)
        elif tests:
            draft.rule({"path": path, "allow": {"when": f"{{{{ {' and '.join(tests)} }}}}"}})
        elif mode == "auth" or (mode and _nearest(path, self.required) == _SIGNED_IN):
            draft.rule({"path": path, "allow": "signed_in"})
        elif mode:
            draft.rule({"path": path, "allow": "anyone"}, f"MellonEnable {mode}")
        else:
            note = "no section asks for a sign-in here: open what should be open"
            draft.rule({"path": path, "allow": "nobody"}, note)


def _nearest(path: str, said: Mapping[str, Any]) -> Any:
    return next((said[above] for above in above_and(path) if above in said), "")


def _access(directives: Sequence[Directive], draft: Draft, names: Mapping[str, str]) -> None:
    closed, required = _required(directives, draft)
    asked = _Asked(barriers_of(directives), required, closed)
    for one in asked.barriers.values():
        draft.leave(one.where, one.said, "write a rule that says the same")
    for one in directives:
        if one.key not in {"mellonenable", "mellonrequire", "melloncond"}:
            continue
        path = one.location
        if one.key == "mellonenable" and path is not None:
            asked.modes[path] = one.value.lower()
            continue
        test = _test(one, draft, names)
        if path is None or test is None:
            draft.leave(one.where, one.said, "write a rule that says the same")
            closed[path or "/**"] = f"{one.where}: {one.said}"
        else:
            asked.conditions.setdefault(path, []).append(test)
    for path in asked.paths:
        asked.rule(path, draft)


def _required(directives: Sequence[Directive], draft: Draft) -> tuple[dict[str, str], dict[str, str]]:
    """What is closed whatever stands below it; and each section with a ``Require``: what closes it, if anything."""
    closed: dict[str, str] = {}
    required: dict[str, str] = {}
    for one in directives:
        if one.key != "require":
            continue
        words, path = [word.lower() for word in one.words], one.location
        if one.is_beside:
            draft.leave(one.where, one.said, "is not about paths of the application")
            continue
        if words in (["valid-user"], ["all", "granted"]) and not one.is_negated:
            if path is not None:
                required.setdefault(path, _SIGNED_IN if words == ["valid-user"] else "")
            continue
        draft.leave(one.where, one.said, "write a rule that says the same")
        if path is None:
            closed[one.around or "/**"] = f"{one.where}: {one.said}"
        else:
            required[path] = f"{one.where}: {one.said}"
    return closed, required


def _test(one: Directive, draft: Draft, names: Mapping[str, str]) -> str | None:
    """What MellonRequire or MellonCond asks for, as an expression; None when it is not plain."""
    if len(one.words) < 2 or any("'" in word or "\\" in word for word in one.words[1:]):
        return None
    if one.key == "mellonrequire":
        claim = _named(one.value, names, draft)
        return f"({' or '.join(holds(claim, value) for value in one.words[1:])})"
    flags = set(one.words[2].strip("[]").upper().split(",")) if len(one.words) > 2 else set()
    if one.key != "melloncond" or flags - {"NOT", "MAP"} or len(one.words) > 3:
        return None
    test = holds(_named(one.words[0], names, draft), one.words[1])
    return f"not {test}" if "NOT" in flags else test


def _headers(directives: Sequence[Directive], draft: Draft, names: Mapping[str, str]) -> None:
    for one in directives:
        if one.key != "requestheader" or len(one.words) < 3 or one.value.lower() not in {"set", "add", "append"}:
            continue
        variable = one.words[2].removeprefix("expr=").removeprefix("%{").split("}")[0]
        if variable in names:
            draft.header(one.words[1], f"{{{{ claims.{names[variable]} }}}}")
        elif variable == "REMOTE_USER":
            draft.header(one.words[1], "{{ user.username }}")
        else:
            draft.leave(one.where, f"RequestHeader {one.words[1]}", "write it as a line of `headers`")
    if not draft.get("headers"):
        draft.header("X-Remote-User", "{{ user.username }}")


def _text(path: str) -> Callable[[Directive, Draft], None]:
    return lambda one, draft: draft.put(path, one.value)


def _length(one: Directive, draft: Draft) -> None:
    if one.value.isascii() and one.value.isdecimal():
        draft.put("sessions.absolute", duration_of(int(one.value)))


def _idle(one: Directive, draft: Draft) -> None:
    if one.value.isascii() and one.value.isdecimal() and int(one.value):
        draft.put("sessions.idle", duration_of(int(one.value)))


def _classes(one: Directive, draft: Draft) -> None:
    draft.put(f"{_AT}.authn_context", [*(draft.get(f"{_AT}.authn_context") or []), *one.words])


def _force(one: Directive, draft: Draft) -> None:
    draft.put(f"{_AT}.force_authn", is_on(one))


def _domain(one: Directive, draft: Draft) -> None:
    draft.put("sessions.cookie.domain", one.value.lstrip("."))


def _same_site(one: Directive, draft: Draft) -> None:
    draft.put("sessions.cookie.same_site", one.value.lower())


def _implied(_one: Directive, _draft: Draft) -> None:
    return


_HANDLERS: Mapping[str, Callable[[Directive, Draft], None]] = {
    "mellonidpmetadatafile": _text(f"{_AT}.metadata"),
    "mellonspentityid": _text(f"{_AT}.entity_id"),
    "mellonsessionlength": _length,
    "mellonsessionidletimeout": _idle,
    "mellonauthncontextclassref": _classes,
    "mellonforceauthn": _force,
    "melloncookiedomain": _domain,
    "melloncookiesamesite": _same_site,
    "mellonspprivatekeyfile": _implied,
    "mellonspcertfile": _implied,
    "mellonuser": _implied,
}
