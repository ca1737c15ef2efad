"""Read the directives of mod_auth_mellon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sidecar.convert.apache import Directive, Site, directives_of, is_on
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
# NameID and what mellon itself makes of it.
_NAME_ID = "NAME_ID"


def read_mellon(text: str) -> Draft:
    """Read *text*. Raises ValueError, which names the line."""
    directives = directives_of(text)
    draft, site = Draft("mod_auth_mellon"), Site()
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
    site.finish(draft)
    origin = draft.get("server.public_url")
    draft.todo.append(f"give the provider our new metadata: {origin}/-/saml/{_LOGIN}/metadata")
    return draft


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
    for field, wanted in (
        ("email", ("mail", "email")),
        ("name", ("displayname", "cn", "name")),
        ("groups", ("groups", "memberof")),
    ):
        known = next((name for name in names.values() if name in wanted), "")
        if known:
            draft.put(f"identity.{field}", f"{{{{ claims.{known} }}}}")


def _named(attribute: str, names: Mapping[str, str], draft: Draft) -> str:
    """Name in claims of an attribute that mellon knows by *attribute*; it is mapped when nobody has."""
    known = names.get(attribute)
    if known is None:
        known = _claim(attribute.rsplit("/", 1)[-1].rsplit(":", 1)[-1])
        draft.put(f"{_AT}.attributes", {**(draft.get(f"{_AT}.attributes") or {}), known: attribute})
    return known


def _access(directives: Sequence[Directive], draft: Draft, names: Mapping[str, str]) -> None:
    conditions: dict[str, list[str]] = {}
    modes: dict[str, str] = {}
    closed: dict[str, str] = {}
    for one in directives:
        if one.key not in {"mellonenable", "mellonrequire", "melloncond"}:
            continue
        path = one.location
        if one.key == "mellonenable" and path is not None:
            modes[path] = one.value.lower()
            continue
        test = _test(one, draft, names)
        if path is None or test is None:
            said = " ".join((one.name, *one.words))
            draft.leave(one.where, said, "write a rule that says the same")
            closed[path or "/**"] = f"{one.where}: {said}"
        else:
            conditions.setdefault(path, []).append(test)
    for path in sorted({*modes, *conditions, *closed, "/**"}, key=lambda path: (-path.count("/"), -len(path), path)):
        if path in closed:
            draft.closed(path, closed[path])
        elif path in conditions:
            draft.rule({"path": path, "allow": {"when": f"{{{{ {' and '.join(conditions[path])} }}}}"}})
        elif modes.get(path) == "auth":
            draft.rule({"path": path, "allow": "signed_in"})
        elif path in modes:
            draft.rule({"path": path, "allow": "anyone"}, f"MellonEnable {modes[path]}")
        else:
            draft.rule(
                {"path": path, "allow": "nobody"}, "no section asks for a sign-in here: open what should be open"
            )


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
        variable = one.words[2].removeprefix("%{").split("}")[0]
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
