"""Read oauth2-proxy's configuration file (TOML) or its alpha configuration (YAML)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from sidecar.convert.draft import Draft, go_duration, issuer_of, origin_of, pattern_of

_LOGIN = "corp"
# What an address without a host means to Go.
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - the operator said so
_OIDC = ("oidc", "keycloak-oidc", "google", "entra-id", "azure", "adfs", "cidaas")
_ISSUERS = {"google": "https://accounts.google.com"}
Set = Mapping[str, Any]
# Settings that say who may come, in words that there are none for here.
_WHO = frozenset(["authenticated_emails_file", "google_group"])
_WHOSE = ("github_", "gitlab_", "bitbucket_", "keycloak_group", "entra_id_allowed", "azure_tenant", "google_groups")

_DISCOVERED = "endpoints and keys are discovered from the issuer; `logins.corp.discovery` names another document"
_PAGES = "pages are ours; `pages.templates` changes them, see docs/pages.md"
_ON_PURPOSE = "tokens of people are not handed to applications; `assertion` tells who somebody is, signed"
# Setting → why it has no counterpart.
_NOT_CARRIED = {
    "cookie_secret": "sessions are sealed with a secret of their own",
    "pass_access_token": _ON_PURPOSE,
    "pass_authorization_header": _ON_PURPOSE,
    "set_authorization_header": _ON_PURPOSE,
    "ssl_insecure_skip_verify": "certificates of providers are always verified; `logins.corp.ca` names an authority",
    "htpasswd_file": "there are no passwords here",
    "authenticated_emails_file": "put the people into a group at the provider, and write `allow: {group: …}`",
    "google_admin_email": "groups of Google come by its SAML app, or by SCIM; see docs/scim.md",
    "google_service_account_json": "groups of Google come by its SAML app, or by SCIM; see docs/scim.md",
    "google_group": "groups of Google come by its SAML app, or by SCIM; see docs/scim.md",
    "custom_templates_dir": "templates differ; see docs/pages.md",
    "insecure_oidc_skip_issuer_verification": "the issuer is always verified",
    "insecure_oidc_skip_nonce": "the nonce is always verified",
    "whitelist_domains": "people are sent back to this application only",
    "skip_jwt_bearer_tokens": "write `bearer` at the login, with the audience of the tokens",
    "extra_jwt_issuers": "write a login for each issuer, with `bearer`",
    "cookie_path": "sessions are for the whole host",
    "signature_key": "write `assertion`: a signed JWT instead of a signature over the request",
    "basic_auth_password": "write headers.Authorization.basic; see docs/headers.md",
    "ping_path": "probes ask /-/live",
    "ready_path": "probes ask /-/ready",
    "validate_url": "tokens are verified by their signature",
    "backend_logout_url": "signing out at the provider follows its end_session_endpoint",
    "allow_query_parameter": "a sign-in cannot be steered by parameters",
    "pass_basic_auth": "write headers.Authorization.basic; see docs/headers.md",
    "skip_oidc_discovery": _DISCOVERED,
    "login_url": _DISCOVERED,
    "redeem_url": _DISCOVERED,
    "profile_url": _DISCOVERED,
    "oidc_jwks_url": _DISCOVERED,
    "cookie_refresh": "claims are kept fresh by themselves, where the provider gives a refresh token",
    "proxy_prefix": "our own pages are below /-; server.prefix changes that",
    "relative_redirect_url": "the address to return to follows from server.public_url",
    "metrics_secure_address": "metrics are served without TLS; keep server.metrics on this machine",
    "request_id_header": "each request has a reference of its own, in the audit lines and on pages that refuse",
    "banner": _PAGES,
    "footer": _PAGES,
    "api_routes": "programs get 401 and people a sign-in, by what they accept",
    "force_json_errors": "programs get JSON and people pages, by what they accept",
    "logging_filename": "the log goes to standard error, audit lines where `audit` says",
    "redis_password": "the password is a part of the address in secrets/redis-url",
    "redis_username": "the name is a part of the address in secrets/redis-url",
    "redis_sentinel_password": "write sessions.sentinel.password",
}
# Setting → why nothing needs to be said.
_IMPLIED = frozenset([
    "code_challenge_method", "cookie_httponly", "cookie_csrf_per_request", "proxy_websockets", "skip_provider_button",
    "flush_interval", "provider_display_name", "request_logging", "auth_logging", "standard_logging",
    "logging_max_size", "logging_max_age", "logging_max_backups", "logging_local_time", "logging_compress",
    "silence_ping_logging", "encode_state", "exclude_logging_paths", "request_logging_format", "auth_logging_format",
    "standard_logging_format", "errors_to_info_log", "show_debug_on_error", "set_xauthrequest", "pass_user_headers",
    "skip_auth_strip_headers", "session_store_type", "cookie_secure", "reverse_proxy", "provider",
    "skip_auth_preflight", "pass_host_header", "prefer_email_to_user", "redis_use_sentinel", "redis_use_cluster",
    "allowed_roles", "redis_sentinel_master_name", "tls_key_file",
])  # fmt: skip


def read_oauth2_proxy(text: str) -> Draft:
    """Read *text*. Raises ValueError that says where it is neither of the two."""
    try:
        said: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = _yaml(text, error)
    said = {str(name).replace("-", "_"): value for name, value in said.items()}
    draft = Draft("oauth2-proxy")
    if "providers" in said or "upstreamConfig" in said or "injectRequestHeaders" in said:
        said = dict(_flattened(said, draft))
    _convert(said, draft)
    return draft


def _yaml(text: str, problem: Exception) -> Any:
    try:
        said = yaml.safe_load(text)
    except yaml.YAMLError:
        said = None
    if not isinstance(said, dict):
        message = f"this is neither TOML ({problem}) nor a YAML mapping"
        raise ValueError(message)  # noqa: TRY004 - a file that is something else
    return said


def _flattened(said: Set, draft: Draft) -> Iterator[tuple[str, Any]]:
    """The alpha configuration in the words of the older one."""
    providers = said.get("providers") or [{}]
    for other in providers[1:]:
        draft.leave("providers", str(other.get("id", "")), "only the first is carried over; add a login for it")
    provider = providers[0]
    oidc = provider.get("oidcConfig") or {}
    yield "provider", provider.get("provider", "")
    yield "client_id", provider.get("clientID", "")
    yield "client_secret", provider.get("clientSecret") or provider.get("clientSecretFile") or ""
    yield "scope", provider.get("scope", "")
    yield "allowed_groups", provider.get("allowedGroups", [])
    names = {"issuerURL": "oidc_issuer_url", "emailClaim": "oidc_email_claim", "groupsClaim": "oidc_groups_claim"}
    names["userIDClaim"] = "user_id_claim"
    for theirs, ours in names.items():
        if theirs in oidc:
            yield ours, oidc[theirs]
    # Each kind of provider has its own ways to say who may come.
    if any(inner.endswith("Config") and inner != "oidcConfig" and section for inner, section in provider.items()):
        yield "authenticated_emails_file", "the provider's own section"
    upstreams = (said.get("upstreamConfig") or {}).get("upstreams") or []
    yield (
        "upstreams",
        [f"{one.get('uri', '')}{one['path'] if one.get('path', '/') != '/' else ''}" for one in upstreams],
    )
    if address := (said.get("server") or {}).get("BindAddress") or (said.get("server") or {}).get("bindAddress"):
        yield "http_address", address
    for header in said.get("injectRequestHeaders") or []:
        for value in header.get("values") or []:
            expression = _CLAIMS.get(str(value.get("claim")))
            if expression is not None:
                draft.header(header.get("name", ""), expression)
            else:
                draft.leave("injectRequestHeaders", str(header.get("name")), _ON_PURPOSE)
    if "injectResponseHeaders" in said:
        draft.leave("injectResponseHeaders", "all", "answers of the application pass as they are")


_CLAIMS = {
    "user": "{{ claims.sub }}",
    "email": "{{ user.email }}",
    "preferred_username": "{{ user.username }}",
    "groups": "{{ groups | join(',') }}",
}


def _convert(said: Set, draft: Draft) -> None:
    _server(said, draft)
    _application(said, draft)
    _login(said, draft)
    _access(said, draft)
    _headers(said, draft)
    _sessions(said, draft)
    draft.put("audit.stdout", value=True)
    for name in said:
        if name in _NOT_CARRIED and said[name]:
            draft.leave("file", name, _NOT_CARRIED[name])
        elif name not in _READ and name not in _IMPLIED and name not in _NOT_CARRIED:
            draft.leave("file", name, "is not known here")


def _server(said: Set, draft: Draft) -> None:
    address = said.get("https_address") if said.get("tls_cert_file") else said.get("http_address", "127.0.0.1:4180")
    address = str(address).removeprefix("http://")
    draft.put("server.listen", f"{_EVERYWHERE}{address}" if address.startswith(":") else address)
    public = origin_of(str(said.get("redirect_url", "")))
    if not public:
        public = "https://wiki.example.com"
        draft.todo.append("server.public_url: write the address that people type")
    draft.put("server.public_url", public, f"register at the provider: {public}/-/callback/{_LOGIN}")
    if said.get("tls_cert_file"):
        draft.put("server.tls", {"certificate": said["tls_cert_file"], "key": said.get("tls_key_file", "")})
    if said.get("reverse_proxy"):
        draft.put(
            "server.trusted_proxies", _many(said.get("trusted_proxy_ips")) or ["127.0.0.0/8"],
            "whose X-Forwarded-For is believed: name your proxies; oauth2-proxy believes everybody by default",
        )  # fmt: skip
    told_by = str(said.get("real_client_ip_header", "X-Real-IP"))
    if said.get("reverse_proxy") and told_by.lower() != "x-forwarded-for":
        draft.leave("file", f"real_client_ip_header {told_by}", "let your proxy set X-Forwarded-For: that is read")
    if said.get("metrics_address"):
        draft.put("server.metrics", said["metrics_address"])


def _application(said: Set, draft: Draft) -> None:
    upstreams = [str(one) for one in _many(said.get("upstreams"))]
    usable = [one for one in upstreams if one.startswith(("http://", "https://", "unix:"))]
    is_asked = not usable and any(one.startswith("static://") for one in upstreams)
    if is_asked:
        _front_proxy(draft)
    for one in upstreams:
        if one not in usable and not (is_asked and one.startswith("static://")):
            draft.leave("upstreams", one, "files and fixed answers are for a web server behind this")
    if not usable:
        usable = ["http://127.0.0.1:3000"]
        draft.todo.append("app.upstream: write where the application is")
    first = origin_of(usable[0]) or usable[0]
    draft.put("app.upstream", first)
    for one in usable:
        if one.rstrip("/") != first:
            draft.leave("upstreams", one, "one application stands behind this, with its paths as they are")
    if said.get("ssl_upstream_insecure_skip_verify"):
        draft.put("app.tls.verify", value=False, note="better: app.tls.ca")
    if said.get("pass_host_header") is False:
        draft.put("app.host", "upstream")
    if timeout := go_duration(str(said.get("upstream_timeout", ""))):
        draft.put("app.answer_timeout", timeout)


def _front_proxy(draft: Draft) -> None:
    """Nothing but a fixed answer stands behind: a front proxy asks about each request, and carries it itself."""
    proxies = draft.get("server.trusted_proxies") or ["127.0.0.1"]
    draft.put("server.trusted_proxies", proxies)
    draft.put(
        "forward_auth", {"dialect": "nginx", "from": proxies}, "static:// alone: your front proxy asks, at /-/auth"
    )
    draft.todo.append("forward_auth: name the kind of your front proxy and its address; see docs/forward-auth.md")


def _login(said: Set, draft: Draft) -> None:
    at, kind = f"logins.{_LOGIN}", str(said.get("provider", "google"))
    draft.put(f"{at}.type", "oidc")
    if title := said.get("provider_display_name"):
        draft.put(f"{at}.title", title)
    issuer = str(said.get("oidc_issuer_url") or _ISSUERS.get(kind, ""))
    if kind not in _OIDC:
        draft.leave("provider", kind, "is not OpenID Connect; put a provider such as Keycloak or Dex in between")
    if not issuer:
        issuer = "https://id.example.com"
        draft.todo.append(f"{at}.issuer: write the issuer of your provider")
    draft.put(f"{at}.issuer", issuer_of(issuer))
    draft.put(f"{at}.client_id", said.get("client_id", ""))
    if file := said.get("client_secret_file"):
        draft.put(f"{at}.client_secret", {"file": file})
    else:
        draft.secret(f"{at}.client_secret", "oidc", "client_secret")
    if scope := said.get("scope"):
        draft.put(f"{at}.scopes", str(scope).split())
    wished = {name: said[name] for name in ("prompt", "acr_values") if said.get(name)}
    if wished:
        draft.put(f"{at}.parameters", wished)
    if said.get("insecure_oidc_allow_unverified_email"):
        draft.put(f"{at}.trust_email", value=True, note="addresses that nobody verified are believed, as before")
    if ca := _many(said.get("provider_ca_files")):
        draft.put(f"{at}.ca", ca[0])
    email, groups = said.get("oidc_email_claim", "email"), said.get("oidc_groups_claim", "groups")
    user = said.get("user_id_claim") or ("email" if said.get("prefer_email_to_user") else "preferred_username")
    draft.put("identity.username", f"{{{{ claims.{user} }}}}")
    draft.put("identity.email", f"{{{{ claims.{email} }}}}")
    draft.put("identity.name", "{{ claims.name }}")
    draft.put("identity.groups", f"{{{{ claims.{groups} }}}}")


def _access(said: Set, draft: Draft) -> None:
    for text in (*_many(said.get("skip_auth_routes")), *_many(said.get("skip_auth_regex"))):
        method, _, regex = str(text).rpartition("=") if "=" in str(text) else ("", "", str(text))
        if method.endswith("!"):
            draft.leave("skip_auth_routes", text, "a rule for all methods but one is written as several rules")
            continue
        pattern = pattern_of(regex)
        if pattern is None:
            draft.leave("skip_auth_routes", text, "write a rule whose path says the same, with allow: anyone")
            continue
        draft.rule({"path": pattern, **({"methods": [method]} if method else {}), "allow": "anyone"})
    if said.get("skip_auth_preflight"):
        draft.rule({"path": "/**", "methods": ["OPTIONS"], "allow": "anyone"}, "skip_auth_preflight")
    allow: dict[str, Any] = {}
    if groups := [*_many(said.get("allowed_groups")), *_many(said.get("allowed_roles"))]:
        allow["group"] = groups
    domains = [str(one) for one in _many(said.get("email_domains"))]
    if domains and "*" not in domains:
        tests = (_ends(one) for one in domains if "'" not in one)
        allow["when"] = f"{{{{ {' or '.join(tests)} }}}}"
    people = [name for name in said if said[name] and (name in _WHO or name.startswith(_WHOSE))]
    if people:
        draft.closed("/**", f"{people[0]}, which says who may come")
    elif not domains:
        # It does not start without: this was said by a flag or in the environment, and may be one domain only.
        draft.closed("/**", "email_domains, which says who may come, is not in this file")
        draft.todo.append("access: email_domains is not in this file: add it there and convert again, or write a rule")
    elif networks := _many(said.get("trusted_ips")):
        # The first rule that fits a path decides: what is enough for it stands in one rule.
        ways = [{"who": "anyone", "network": networks}, allow or {"who": "signed_in"}]
        draft.rule({"path": "/**", "allow": ways}, "trusted_ips: nobody signs in from there")
    else:
        draft.rule({"path": "/**", "allow": allow or "signed_in"})


def _ends(domain: str) -> str:
    """The condition that somebody's address is in *domain*; with a dot before it, in one below."""
    end = domain.lower() if domain.startswith(".") else f"@{domain.lstrip('@').lower()}"
    return f"user.email.endswith('{end}')"


def _headers(said: Set, draft: Draft) -> None:
    if said.get("pass_user_headers", True) and "injectRequestHeaders" not in said and not draft.get("headers"):
        for name, expression in (
            ("X-Forwarded-User", "{{ claims.sub }}"),
            ("X-Forwarded-Email", "{{ user.email }}"),
            ("X-Forwarded-Preferred-Username", "{{ user.username }}"),
            ("X-Forwarded-Groups", "{{ groups | join(',') }}"),
        ):
            draft.header(name, expression)
    if said.get("set_xauthrequest"):
        # What a front proxy copies out of the answer to its question.
        for name in ("user", "email", "preferred_username", "groups"):
            draft.header(f"X-Auth-Request-{name.replace('_', '-').title()}", _CLAIMS[name])


def _sessions(said: Set, draft: Draft) -> None:
    if said.get("session_store_type") == "redis":
        url = str(said.get("redis_connection_url", "redis://127.0.0.1:6379"))
        draft.secret("sessions.redis", "redis-url", "redis_connection_url, with its password,")
        if said.get("redis_use_sentinel"):
            nodes = [
                origin.split("://", 1)[-1].rstrip("/") for origin in _many(said.get("redis_sentinel_connection_urls"))
            ]
            draft.put("sessions.sentinel", {"master": said.get("redis_sentinel_master_name", ""), "nodes": nodes})
        if said.get("redis_use_cluster"):
            draft.put("sessions.cluster", value=True)
        if ca := said.get("redis_ca_path"):
            draft.put("sessions.redis_ca", ca)
        if url.startswith("redis://") and "127.0.0.1" not in url:
            draft.todo.append("sessions.redis: rediss:// keeps sessions from being read on the way")
    else:
        draft.leave(
            "session_store_type", "cookie", "sessions live in Redis, or in memory without it; cookies hold a token"
        )
    draft.put("sessions.secrets", [{"file": "secrets/session"}])
    draft.todo.append("openssl rand -base64 32 > secrets/session")
    if lifetime := go_duration(str(said.get("cookie_expire", "168h"))):
        draft.put("sessions.absolute", lifetime)
        draft.put("sessions.idle", lifetime, "oauth2-proxy ends no session for being idle; 30m would be usual")
    _cookies(said, draft)


def _cookies(said: Set, draft: Draft) -> None:
    if patience := go_duration(str(said.get("cookie_csrf_expire", ""))):
        draft.put("sessions.login", patience)
    if name := said.get("cookie_name"):
        draft.put("sessions.cookie.name", str(name).removeprefix("__Host-").removeprefix("__Secure-"))
    if domains := _many(said.get("cookie_domains")):
        draft.put("sessions.cookie.domain", str(domains[0]).lstrip(".").split(":")[0])
    if said.get("cookie_samesite") in {"lax", "strict", "none"}:
        draft.put("sessions.cookie.same_site", said["cookie_samesite"])


def _many(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list) else [value]


_READ = frozenset([
    "https_address", "http_address", "redirect_url", "tls_cert_file", "trusted_proxy_ips", "metrics_address",
    "upstreams", "ssl_upstream_insecure_skip_verify", "upstream_timeout", "oidc_issuer_url", "client_id",
    "client_secret", "scope", "prompt", "acr_values", "insecure_oidc_allow_unverified_email", "provider_ca_files",
    "oidc_email_claim", "oidc_groups_claim", "user_id_claim", "trusted_ips", "skip_auth_routes", "skip_auth_regex",
    "allowed_groups", "email_domains", "client_secret_file", "cookie_csrf_expire", "real_client_ip_header",
    "redis_connection_url", "redis_sentinel_connection_urls", "redis_ca_path",
    "cookie_expire", "cookie_name", "cookie_domains", "cookie_samesite",
])  # fmt: skip
