"""Configurations of other proxies become ours: what they let in is let in, and nobody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cli import main
from sidecar.config.loader import ConfigError, load
from sidecar.convert import KINDS
from sidecar.convert.draft import Draft, go_duration, holds, pattern_of
from sidecar.hooks.passwords import FILTERS

OAUTH2_PROXY = """
http_address = ":4180"
reverse_proxy = true
trusted_proxy_ips = ["10.0.0.0/24"]
redirect_url = "https://internal.example.com/oauth2/callback"
provider = "keycloak-oidc"
provider_display_name = "Company"
oidc_issuer_url = "https://id.example.com/realms/main"
client_id = "internal"
client_secret = "DO-NOT-COPY-1"
cookie_secret = "DO-NOT-COPY-2"
scope = "openid email profile groups"
prompt = "login"
upstreams = ["http://127.0.0.1:8080/", "http://127.0.0.1:9090/api/", "file:///var/www#/static"]
email_domains = ["example.com", "example.org"]
allowed_groups = ["/staff", "admins"]
skip_auth_routes = ["GET=^/probe$", "^/metrics", "POST=^/hooks/[a-z]+$", "!=^/x"]
session_store_type = "redis"
redis_connection_url = "redis://:DO-NOT-COPY-3@redis.example.com:6379"
cookie_name = "__Host-internal"
cookie_expire = "12h0m0s"
cookie_samesite = "lax"
ssl_insecure_skip_verify = true
pass_access_token = true
something_new = 1
"""

ALPHA = """
upstreamConfig: {upstreams: [{id: app, path: /, uri: "http://127.0.0.1:8080"}]}
injectRequestHeaders:
  - {name: X-Forwarded-Groups, values: [{claim: groups}]}
  - {name: X-Token, values: [{claim: access_token}]}
providers:
  - id: company
    provider: oidc
    clientID: internal
    clientSecret: DO-NOT-COPY-4
    oidcConfig: {issuerURL: "https://id.example.com", emailClaim: mail}
  - {id: other, provider: github}
"""

OPENIDC = r"""
ServerName wiki.example.com
<VirtualHost *:443>
  SSLEngine on
  OIDCProviderMetadataURL https://id.example.com/realms/main/.well-known/openid-configuration
  OIDCClientID wiki
  OIDCClientSecret "DO-NOT-COPY-5"
  OIDCRedirectURI https://wiki.example.com/secure/redirect_uri
  OIDCCryptoPassphrase DO-NOT-COPY-6
  OIDCRemoteUserClaim preferred_username
  OIDCScope "openid email \
     groups"
  OIDCCacheType redis
  OIDCRedisCacheServer redis.example.com:6379
  OIDCRedisCachePassword DO-NOT-COPY-7
  OIDCSessionInactivityTimeout 1800
  OIDCSessionMaxDuration 28800
  OIDCPassIDTokenAs serialized
  OIDCAuthRequestParams prompt=login&hd=example.com
  ProxyPass /wiki http://127.0.0.1:3000/wiki
  <Location />
    AuthType openid-connect
    Require valid-user
  </Location>
  <Location /admin/>
    Require claim groups:admins
    Require ip 10.0.0.0/8
  </Location>
  <Location /board>
    <RequireAll>
      Require claim groups:board
      Require ip 10.0.0.0/8
    </RequireAll>
  </Location>
  <LocationMatch "^/public/">
    Require all granted
  </LocationMatch>
  RequestHeader set X-Mail %{OIDC_CLAIM_email}e
</VirtualHost>
"""

MELLON = r"""
<Location />
  MellonEnable info
  MellonIdPMetadataFile idp.xml
  MellonSPentityId urn:example:wiki
  MellonEndpointPath /mellon
  MellonSetEnv "mail" "urn:oid:0.9.2342.19200300.100.1.3"
  MellonSetEnvNoPrefix "groups" "memberOf"
  MellonUser "urn:oid:0.9.2342.19200300.100.1.3"
  MellonSessionLength 7200
  MellonAuthnContextClassRef urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport
  RequestHeader set X-Remote-Mail "%{MELLON_mail}e"
</Location>
<Location /wiki>
  MellonEnable "auth"
</Location>
<Location /wiki/admin>
  MellonEnable "auth"
  MellonCond "memberOf" "admins" [MAP]
  MellonRequire "mail" "ada@example.com" "grace@example.com"
</Location>
<Location /wiki/secret>
  MellonEnable "auth"
  MellonCond "mail" "@example\.com$" [REG,OR]
</Location>
"""

SAMPLES = {"oauth2-proxy": [OAUTH2_PROXY, ALPHA, ""], "mod_auth_openidc": [OPENIDC, ""], "mellon": [MELLON, ""]}


def converted(kind: str, text: str) -> tuple[Draft, dict[str, Any]]:
    draft = KINDS[kind](text)
    return draft, yaml.safe_load(draft.written())


def loaded(text: str, folder: Path) -> list[str]:
    """Load what was written, with the secrets that it asks for; what is wrong with it."""
    (folder / "secrets").mkdir(exist_ok=True)
    for name, value in {"oidc": "x" * 40, "session": "y" * 40, "redis-url": "redis://127.0.0.1:6379/0"}.items():
        (folder / "secrets" / name).write_text(value)
    path = folder / "config.yaml"
    path.write_text(text)
    try:
        load(path, environment={}, filters=FILTERS)
    except ConfigError as error:
        return [str(problem) for problem in error.problems if problem.severity == "error"]
    return []


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, number) for kind, texts in SAMPLES.items() for number in range(len(texts))]
)
def test_what_is_written_is_a_configuration(kind: str, number: int, tmp_path: Path) -> None:
    draft, _ = converted(kind, SAMPLES[kind][number])
    assert "DO-NOT-COPY" not in draft.written()
    (tmp_path / "idp.xml").write_text("")
    (tmp_path / "idp-metadata.xml").write_text("")
    # A client id, and the provider's metadata, are what only the operator has.
    mine = [
        problem
        for problem in loaded(draft.written(), tmp_path)
        if "client_id" not in problem and "metadata" not in problem
    ]
    assert mine == []


def test_oauth2_proxy() -> None:
    draft, made = converted("oauth2-proxy", OAUTH2_PROXY)
    assert made["server"] == {
        "listen": "0.0.0.0:4180",
        "public_url": "https://internal.example.com",
        "trusted_proxies": ["10.0.0.0/24"],
    }
    assert made["app"] == {"upstream": "http://127.0.0.1:8080"}
    assert made["logins"]["corp"] == {
        "type": "oidc",
        "title": "Company",
        "issuer": "https://id.example.com/realms/main",
        "client_id": "internal",
        "client_secret": {"file": "secrets/oidc"},
        "scopes": ["openid", "email", "profile", "groups"],
        "parameters": {"prompt": "login"},
    }
    assert made["access"] == [
        {"path": "/probe", "methods": ["GET"], "allow": "anyone"},
        {"path": "/metrics/**", "allow": "anyone"},
        {
            "path": "/**",
            "allow": {
                "group": ["/staff", "admins"],
                "when": "{{ user.email.endswith('@example.com') or user.email.endswith('@example.org') }}",
            },
        },
    ]
    assert made["sessions"]["absolute"] == "12h"
    assert made["sessions"]["cookie"] == {"name": "internal", "same_site": "lax"}
    left = {one.setting for one in draft.left}
    assert left >= {
        "http://127.0.0.1:9090/api/",
        "file:///var/www#/static",
        "POST=^/hooks/[a-z]+$",
        "!=^/x",
        "cookie_secret",
        "ssl_insecure_skip_verify",
        "pass_access_token",
        "something_new",
    }
    assert made["headers"]["X-Forwarded-Email"] == "{{ user.email }}"


def test_oauth2_proxy_that_a_front_proxy_asks(tmp_path: Path) -> None:
    text = 'reverse_proxy = true\nset_xauthrequest = true\nupstreams = ["static://202"]\nclient_id = "internal"'
    draft, made = converted("oauth2-proxy", text)
    assert made["forward_auth"] == {"dialect": "nginx", "from": ["127.0.0.0/8"]}
    assert made["server"]["trusted_proxies"] == ["127.0.0.0/8"]
    assert (
        made["headers"]
        | {
            "X-Auth-Request-User": "{{ claims.sub }}",
            "X-Auth-Request-Email": "{{ user.email }}",
            "X-Auth-Request-Preferred-Username": "{{ user.username }}",
            "X-Auth-Request-Groups": "{{ groups | join(',') }}",
        }
        == made["headers"]
    )
    assert any("forward_auth" in one for one in draft.todo)
    assert "static://202" not in {one.setting for one in draft.left}
    assert loaded(draft.written(), tmp_path) == []


def test_the_alpha_configuration_of_oauth2_proxy() -> None:
    draft, made = converted("oauth2-proxy", ALPHA)
    assert made["app"] == {"upstream": "http://127.0.0.1:8080"}
    assert made["logins"]["corp"]["issuer"] == "https://id.example.com"
    assert made["identity"]["email"] == "{{ claims.mail }}"
    assert made["headers"] == {"X-Forwarded-Groups": "{{ groups | join(',') }}"}
    assert {one.setting for one in draft.left} >= {"other", "X-Token"}


def test_mod_auth_openidc() -> None:
    draft, made = converted("mod_auth_openidc", OPENIDC)
    assert made["server"]["public_url"] == "https://wiki.example.com"
    assert made["app"] == {"upstream": "http://127.0.0.1:3000"}
    login = made["logins"]["corp"]
    assert login["issuer"] == "https://id.example.com/realms/main"
    assert login["scopes"] == ["openid", "email", "groups"]
    assert login["parameters"] == {"prompt": "login", "hd": "example.com"}
    assert made["identity"]["username"] == "{{ claims.preferred_username }}"
    assert (made["sessions"]["idle"], made["sessions"]["absolute"]) == ("30m", "8h")
    assert made["headers"] == {"X-Mail": "{{ claims.email }}"}
    assert made["access"] == [
        {"path": "/public/**", "allow": "anyone"},
        {
            "path": "/admin/**",
            "allow": [{"when": f"{{{{ {holds('groups', 'admins')} }}}}"}, {"who": "anyone", "network": ["10.0.0.0/8"]}],
        },
        # All of two conditions is not one of them: closed until somebody has written it.
        {"path": "/board/**", "allow": "nobody"},
        {"path": "/**", "allow": "signed_in"},
    ]
    assert {one.setting for one in draft.left} >= {
        "OIDCPassIDTokenAs",
        "OIDCCryptoPassphrase",
        "Require claim groups:board",
    }


def test_mellon() -> None:
    draft, made = converted("mellon", MELLON)
    login = made["logins"]["corp"]
    assert (login["metadata"], login["entity_id"]) == ("idp.xml", "urn:example:wiki")
    assert login["attributes"] == {"mail": "urn:oid:0.9.2342.19200300.100.1.3", "groups": "memberOf"}
    assert made["identity"] == {
        "username": "{{ claims.mail }}",
        "email": "{{ claims.mail }}",
        "groups": "{{ claims.groups }}",
    }
    assert made["access"] == [
        {"path": "/wiki/secret/**", "allow": "nobody"},
        {
            "path": "/wiki/admin/**",
            "allow": {
                "when": f"{{{{ {holds('groups', 'admins')} and "
                f"({holds('mail', 'ada@example.com')} or {holds('mail', 'grace@example.com')}) }}}}"
            },
        },
        {"path": "/wiki/**", "allow": "signed_in"},
        {"path": "/**", "allow": "anyone"},
    ]
    assert made["headers"] == {"X-Remote-Mail": "{{ claims.mail }}"}
    assert made["sessions"]["absolute"] == "2h"
    assert any("MellonCond mail" in one.setting for one in draft.left)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("oauth2-proxy", 'email_domains = ["*"]\nauthenticated_emails_file = "people"'),
        ("oauth2-proxy", 'email_domains = ["*"]\ngithub_org = "ours"'),
        # Which domains may come was said by a flag, as it does not start without.
        ("oauth2-proxy", 'allowed_groups = ["staff"]'),
        ("oauth2-proxy", "providers: [{provider: keycloak, keycloakConfig: {groups: [a]}}]"),
        ("mod_auth_openidc", '<LocationMatch "^/(a|b)">\nRequire claim groups:x\n</LocationMatch>\nRequire valid-user'),
        ("mod_auth_openidc", "<Directory /var/www>\nRequire claim groups:x\n</Directory>\nRequire valid-user"),
        ("mod_auth_openidc", "Require claim groups~^adm"),
        ("mod_auth_openidc", '<Location "~ ^/x">\nRequire valid-user\n</Location>'),
        (
            "mellon",
            '<LocationMatch "^/(a|b)">\nMellonCond mail x\n</LocationMatch>\nMellonEnable auth',
        ),
        ("mellon", "<Location /a>\nMellonEnable auth\n</Location>"),
    ],
)
def test_what_is_not_understood_stays_closed(kind: str, text: str) -> None:
    _, made = converted(kind, text)
    assert made["access"][-1] == {"path": "/**", "allow": "nobody"}


@pytest.mark.parametrize(
    ("regex", "pattern"),
    [
        ("^/metrics", "/metrics/**"),
        ("^/metrics$", "/metrics"),
        ("^/a/.*", "/a/**"),
        ("^/a\\.css$", "/a.css"),
        ("^/", "/**"),
        ("^/$", "/"),
        ("/metrics", None),
        ("^/a.css$", None),
        ("^/(a|b)", None),
        ("^/a+$", None),
        ("^(?i)/a", None),
    ],
)
def test_plain_regular_expressions_are_patterns(regex: str, pattern: str | None) -> None:
    assert pattern_of(regex) == pattern


@pytest.mark.parametrize(
    ("go", "ours"), [("168h0m0s", "7d"), ("1h30m", "90m"), ("500ms", "500ms"), ("0s", "0ms"), ("7d", None)]
)
def test_durations_of_go(go: str, ours: str | None) -> None:
    assert go_duration(go) == ours


@given(st.text(max_size=300), st.sampled_from(sorted(KINDS)))
def test_no_text_makes_a_comment_that_is_no_comment(text: str, kind: str) -> None:
    try:
        draft = KINDS[kind](f"{text}\n")
    except ValueError:
        return
    draft.leave("line 1", text, text)
    draft.todo.append(text)
    draft.put("server.note", text, text)
    made = yaml.safe_load(draft.written())
    assert set(made) <= {"server", "app", "logins", "identity", "access", "headers", "sessions", "audit"}
    assert made["server"]["note"] == text or not text.isprintable()


def run(*arguments: str | Path, **options: Any) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)], **options)


def test_the_command(tmp_path: Path) -> None:
    source, target = tmp_path / "wiki.conf", tmp_path / "config.yaml"
    source.write_text(OPENIDC)
    result = run("mod_auth_openidc", source, "--output", target)
    assert result.exit_code == 0, result.output
    assert "not carried over" in result.output
    assert target.read_text().startswith("# Made from a configuration of mod_auth_openidc.")
    assert run("mod_auth_openidc", source, "--output", target).exit_code == 2
    told = json.loads(run("mod_auth_openidc", source, "--json").output)
    assert told["left"]
    assert run("oauth2-proxy", "-", input="a: [").exit_code == 1
    broken = run("mellon", "-", input="<Location />\n</Directory>")
    assert broken.exit_code == 1
    assert "line 2" in broken.output
    assert run("mellon", "-", input=b"\xff").exit_code == 1


@pytest.mark.parametrize("path", sorted(Path("/etc/apache2/mods-available").glob("auth_openidc.conf")), ids=str)
def test_the_sample_that_debian_ships(path: Path) -> None:
    draft, made = converted("mod_auth_openidc", path.read_text())
    assert made["access"] == [{"path": "/**", "allow": "nobody"}]
    assert draft.written()
