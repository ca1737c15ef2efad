"""Read the directives of mod_auth_openidc, with the <Location> sections that use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.convert.apache import Directive, Site, directives_of, leave_unread, one_site
from sidecar.convert.barriers import barrier_at, barriers_of
from sidecar.convert.draft import Draft, duration_of, holds, issuer_of, origin_of

_LOGIN = "corp"
_AT = f"logins.{_LOGIN}"
_AUTH = {"client_secret_basic", "client_secret_post", "private_key_jwt"}
_DISCOVERED = "is discovered from the issuer"
_NOT_CARRIED = {
    "oidccryptopassphrase": "sessions are sealed with a secret of their own",
    "oidcsslvalidateserver": f"certificates of providers are always verified; `{_AT}.ca` names an authority",
    "oidcoauthsslvalidateserver": "certificates of providers are always verified",
    "oidcmetadatadir": "write a login for each provider",
    "oidcresponsetype": "the authorization code flow is used",
    "oidcresponsemode": "the provider's answer comes as query",
    "oidcunauthaction": "programs get 401, pages a sign-in; rules say who may come without one",
    "oidcunautzaction": "whoever may not gets a page that says why; `require` asks for a stronger sign-in",
    "oidcpassidtokenas": "tokens of people are not handed to applications; `assertion` tells who somebody is, signed",
    "oidcpassrefreshtoken": "tokens of people are not handed to applications",
    "oidcpassaccesstoken": "tokens of people are not handed to applications",
    "oidcpassuserinfoas": "write the claims that the application needs as `headers`",
    "oidcclientjwksuri": "keys come from discovery",
    "oidcstripcookies": "our own cookies never reach the application",
    "oidcpreservepost": "a form that met an expired session is kept anyhow",
    "oidcoauthclientid": "write `bearer` at the login, with the audience of the tokens",
    "oidcoauthintrospectionendpoint": "see docs/api-callers.md",
    "oidcoauthverifyjwksuri": "write `bearer` at the login, with the audience of the tokens",
    "oidchtmlerrortemplate": "templates differ; see docs/pages.md",
    "oidcdefaulturl": "sign-ins that begin elsewhere are refused",
    "oidcdefaultloggedouturl": "there is a page that says so",
    "oidcproviderregistrationendpointjson": "clients are registered by hand",
    "oidcclientname": "clients are registered by hand",
}
_PROVIDER = ("issuer", "authorizationendpoint", "tokenendpoint", "userinfoendpoint", "jwksuri", "endsessionendpoint")


def read_mod_auth_openidc(text: str) -> Draft:
    """Read *text*. Raises ValueError, which names the line."""
    draft, site = Draft("mod_auth_openidc"), Site()
    directives = one_site(directives_of(text), _is_ours, draft)
    draft.put(f"{_AT}.type", "oidc")
    site.read(directives, draft)
    for one in directives:
        if one.line not in site.taken and one.key.startswith("oidc"):
            _oidc(one, draft)
    if draft.get(f"{_AT}.issuer") is None:
        draft.put(f"{_AT}.issuer", "https://id.example.com")
        draft.todo.append(f"{_AT}.issuer: write the issuer of your provider")
    if draft.get("identity.username") is None:
        draft.put(
            "identity.username", "{{ claims.sub }}", "mod_auth_openidc's REMOTE_USER is sub and issuer by default"
        )
    for name in ("email", "name", "groups"):
        draft.put(f"identity.{name}", f"{{{{ claims.{name} }}}}")
    _access(directives, draft)
    _headers(directives, draft)
    leave_unread(
        directives,
        lambda one: one.line in site.taken or one.key.startswith("oidc") or one.key in {"require", "requestheader"},
        draft,
    )
    public = draft.values.pop("_public", "")
    site.finish(draft, public)
    draft.notes.setdefault(("server", "public_url"), []).append(
        f"register at the provider: {draft.get('server.public_url')}/-/callback/{_LOGIN}"
    )
    return draft


def _is_ours(one: Directive) -> bool:
    return one.key.startswith("oidc") or (one.key == "authtype" and one.value.lower() in {"openid-connect", "oauth20"})


def _oidc(one: Directive, draft: Draft) -> None:
    handler = _HANDLERS.get(one.key)
    if handler is not None:
        handler(one, draft)
    elif one.key in _NOT_CARRIED:
        draft.leave(one.where, one.name, _NOT_CARRIED[one.key])
    elif one.key.removeprefix("oidcprovider") in _PROVIDER:
        if one.key == "oidcproviderissuer":
            draft.put(f"{_AT}.issuer", one.value)
    else:
        draft.leave(one.where, one.name, "has no counterpart here")


def _metadata(one: Directive, draft: Draft) -> None:
    issuer = issuer_of(one.value)
    draft.put(f"{_AT}.issuer", issuer)
    if issuer == one.value:
        draft.put(f"{_AT}.discovery", one.value)


def _secret(one: Directive, draft: Draft) -> None:
    draft.secret(f"{_AT}.client_secret", "oidc", one.name)


def _redirect(one: Directive, draft: Draft) -> None:
    draft.values["_public"] = origin_of(one.value)


def _remote_user(one: Directive, draft: Draft) -> None:
    claim = one.value.split("@")[0]
    draft.put("identity.username", f"{{{{ claims.{claim} }}}}")
    if len(one.words) > 1:
        draft.leave(one.where, one.name, "the pattern: write it as an expression in identity.username")


def _cache(one: Directive, draft: Draft) -> None:
    if one.value.lower() != "redis":
        draft.leave(one.where, f"{one.name} {one.value}", "sessions live in Redis, or in memory without it")


def _redis(one: Directive, draft: Draft) -> None:
    draft.secret("sessions.redis", "redis-url", f"redis://{one.value}/0, with its password,")


def _redis_password(one: Directive, draft: Draft) -> None:
    draft.leave(one.where, one.name, "the password is a part of the address in secrets/redis-url")


def _seconds(path: str) -> Callable[[Directive, Draft], None]:
    def put(one: Directive, draft: Draft) -> None:
        if one.value.isascii() and one.value.isdecimal() and int(one.value):
            draft.put(path, duration_of(int(one.value)))
        else:
            draft.leave(one.where, one.name, "0 and none: sessions always end here")

    return put


def _text(path: str) -> Callable[[Directive, Draft], None]:
    return lambda one, draft: draft.put(path, one.value)


def _client_auth(one: Directive, draft: Draft) -> None:
    if one.value in _AUTH:
        draft.put(f"{_AT}.client_auth", one.value)
    else:
        draft.leave(one.where, one.name, "client_secret_basic, client_secret_post, private_key_jwt and none are known")


def _parameters(one: Directive, draft: Draft) -> None:
    pairs = dict(part.split("=", 1) for part in one.value.split("&") if "=" in part)
    if pairs:
        draft.put(f"{_AT}.parameters", pairs)


def _cookie_domain(one: Directive, draft: Draft) -> None:
    draft.put("sessions.cookie.domain", one.value.lstrip("."))


def _same_site(one: Directive, draft: Draft) -> None:
    draft.put("sessions.cookie.same_site", {"on": "lax", "off": "none"}.get(one.value.lower(), one.value.lower()))


def _user_header(one: Directive, draft: Draft) -> None:
    draft.header(one.value, "{{ user.username }}")


def _pkce(one: Directive, draft: Draft) -> None:
    if one.value.lower() != "s256":
        draft.leave(one.where, f"{one.name} {one.value}", "PKCE with S256 is always used")


_HANDLERS: Mapping[str, Callable[[Directive, Draft], None]] = {
    "oidcprovidermetadataurl": _metadata,
    "oidcclientid": _text(f"{_AT}.client_id"),
    "oidcclientsecret": _secret,
    "oidcredirecturi": _redirect,
    "oidcremoteuserclaim": _remote_user,
    "oidcscope": lambda one, draft: draft.put(f"{_AT}.scopes", one.value.split()),
    "oidccachetype": _cache,
    "oidcrediscacheserver": _redis,
    "oidcrediscachepassword": _redis_password,
    "oidcsessioninactivitytimeout": _seconds("sessions.idle"),
    "oidcsessionmaxduration": _seconds("sessions.absolute"),
    "oidcstatetimeout": _seconds("sessions.login"),
    "oidchttptimeoutlong": _seconds(f"{_AT}.timeout"),
    "oidcidtokeniatslack": _seconds(f"{_AT}.leeway"),
    "oidccookie": _text("sessions.cookie.name"),
    "oidccookiedomain": _cookie_domain,
    "oidccookiesamesite": _same_site,
    "oidccabundlepath": _text(f"{_AT}.ca"),
    "oidcprovidertokenendpointauth": _client_auth,
    "oidcauthrequestparams": _parameters,
    "oidcauthnheader": _user_header,
    "oidcpkcemethod": _pkce,
    "oidcproviderpkcemethod": _pkce,
}


def _access(directives: Sequence[Directive], draft: Draft) -> None:
    """One rule for each section that asks for something, the longest paths first, as Apache's last one wins."""
    allowed: dict[str, list[Any]] = {}
    barriers = barriers_of(directives)
    closed = {path: f"{one.where}: {one.said}" for path, one in barriers.items()}
    for one in barriers.values():
        draft.leave(one.where, one.said, "write a rule that says the same")
    for one in directives:
        if one.key == "require":
            _require(one, allowed, closed, draft)
    for path in sorted({*allowed, *closed, "/**"}, key=lambda path: (-path.count("/"), -len(path), path)):
        barrier = barrier_at(path, barriers)
        if path in closed or barrier is not None:
            draft.closed(path, closed.get(path) or (f"{barrier.where}: {barrier.said}" if barrier is not None else ""))
        elif path not in allowed:
            draft.rule(
                {"path": path, "allow": "nobody"}, "no section asks for a sign-in here: open what should be open"
            )
        elif len(allowed[path]) == 1:
            draft.rule({"path": path, "allow": allowed[path][0]})
        else:
            # Several Require lines: one of them is enough.
            ways = [one if isinstance(one, dict) else {"who": one} for one in allowed[path]]
            draft.rule({"path": path, "allow": ways})


def _require(one: Directive, allowed: dict[str, list[Any]], closed: dict[str, str], draft: Draft) -> None:
    """Add whom *one* lets in to *allowed*, or what it is about to *closed*."""
    path, allow = one.location, allowed_by(one)
    if one.is_beside:
        draft.leave(one.where, one.said, "is not about paths of the application")
    elif path is not None and allow is not None:
        allowed.setdefault(path, []).append(allow)
    else:
        draft.leave(one.where, one.said, "write a rule that says the same")
        # Where it cannot be said what it is about, nobody gets in at all until somebody has read it. What only opens
        # something stays as closed as what is around it.
        if allow != "anyone" or one.is_negated:
            closed[path or one.around or "/**"] = f"{one.where}: {one.said}"


def allowed_by(one: Directive) -> Any:
    """Whom a ``Require`` lets in, as a rule's ``allow``; None where that cannot be said for certain."""
    words = list(one.words)
    kind = words[0].lower() if words else ""
    if kind == "valid-user":
        return "signed_in"
    if kind == "all":
        return "anyone" if words[-1].lower() == "granted" else "nobody"
    if kind == "ip":
        return {"who": "anyone", "network": words[1:]}
    if kind == "claim":
        tests = [_test(word) for word in words[1:]]
        if all(tests):
            return {"when": f"{{{{ {' or '.join(filter(None, tests))} }}}}"}
    if kind == "user" and all("'" not in word for word in words[1:]):
        return {"when": f"{{{{ user.username in {words[1:]!r} }}}}"}
    return None


def _test(word: str) -> str | None:
    """``groups:admin`` as a condition; None for patterns and paths into claims."""
    claim, found, value = word.partition(":")
    if not found or "'" in value or not claim.isidentifier():
        return None
    return holds(claim, value)


def _headers(directives: Sequence[Directive], draft: Draft) -> None:
    for one in directives:
        if one.key != "requestheader" or one.value.lower() not in {"set", "add", "append"} or len(one.words) < 3:
            continue
        name, value = one.words[1], one.words[2].removeprefix("expr=")
        claim = next(
            (value[len(head) : -2] for head in ("%{OIDC_CLAIM_", "%{HTTP_OIDC_CLAIM_") if value.startswith(head)), ""
        )
        if claim.isidentifier():
            draft.header(name, f"{{{{ claims.{claim} }}}}")
        elif value.startswith("%{REMOTE_USER}"):
            draft.header(name, "{{ user.username }}")
        else:
            draft.leave(one.where, f"RequestHeader {name}", "write it as a line of `headers`")
    if not draft.get("headers"):
        draft.header("X-Remote-User", "{{ user.username }}", "every claim was a header OIDC_CLAIM_…: name those in use")
