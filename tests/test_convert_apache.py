"""What keeps people out in Apache besides the module that signs them in keeps them out here, too."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sidecar.convert import KINDS
from sidecar.convert.draft import Draft, holds

SECTION = {
    "mod_auth_openidc": "<Location {}>\nAuthType openid-connect\nRequire valid-user\n{}\n</Location>\n",
    "mellon": "<Location {}>\nAuthType Mellon\nMellonEnable auth\nRequire valid-user\n{}\n</Location>\n",
}
KIND = pytest.mark.parametrize("kind", list(SECTION))


def converted(kind: str, text: str) -> tuple[Draft, list[dict[str, Any]]]:
    """The draft, and its rules as they are written."""
    draft = KINDS[kind](text)
    return draft, yaml.safe_load(draft.written())["access"]


def whom(rules: list[dict[str, Any]], path: str) -> Any:
    """Whom the rule for *path* lets in."""
    (rule,) = [rule for rule in rules if rule["path"] == path]
    return rule["allow"]


@KIND
@pytest.mark.parametrize(
    "barrier",
    [
        "Order deny,allow\nDeny from 203.0.113.0/24",
        "Order allow,deny\nAllow from 10.0.0.0/8",
        "Order Allow,Deny",
        "SSLVerifyClient require",
        "SSLRequire %{SSL_CLIENT_S_DN_OU} eq staff",
        "RewriteRule .* - [F,L]",
    ],
)
def test_what_else_keeps_people_out_closes_its_path_and_those_below(kind: str, barrier: str) -> None:
    text = SECTION[kind].format("/", "") + SECTION[kind].format("/inner", barrier)
    draft, rules = converted(kind, text + SECTION[kind].format("/inner/deep", ""))
    assert whom(rules, "/**") == "signed_in"
    assert whom(rules, "/inner/**") == whom(rules, "/inner/deep/**") == "nobody"
    assert any(one.setting in barrier for one in draft.left)


@KIND
@pytest.mark.parametrize(
    "harmless",
    [
        "Order deny,allow\nAllow from all",
        "SSLVerifyClient optional",
        "RewriteCond %{REQUEST_METHOD} ^TRACE\nRewriteRule .* - [F]",
        "RewriteRule ^/old$ /new [R,L]",
    ],
)
def test_what_keeps_nobody_out_closes_nothing(kind: str, harmless: str) -> None:
    _, rules = converted(kind, SECTION[kind].format("/", harmless))
    assert rules == [{"path": "/**", "allow": "signed_in"}]


@KIND
def test_a_path_that_is_forbidden_for_everybody_stays_so(kind: str) -> None:
    _, rules = converted(kind, 'RewriteRule "^/internal" "-" [F]\n' + SECTION[kind].format("/", ""))
    assert rules == [{"path": "/internal/**", "allow": "nobody"}, {"path": "/**", "allow": "signed_in"}]


@KIND
def test_rules_of_another_site_in_the_same_file_open_nothing(kind: str) -> None:
    ours = SECTION[kind].format("/", "")
    text = (
        "<VirtualHost *:80>\nServerName wiki.example.com\nRedirect / https://wiki.example.com/\n</VirtualHost>\n"
        f"<VirtualHost *:443>\nServerName wiki.example.com\nSSLEngine on\n{ours}"
        "ProxyPass / http://127.0.0.1:3000/\n</VirtualHost>\n"
        "<VirtualHost *:443>\nServerName www.example.com\n<Location />\nRequire all granted\n</Location>\n"
        "ProxyPass / http://127.0.0.1:4000/\n</VirtualHost>\n"
    )
    draft, rules = converted(kind, text)
    assert rules == [{"path": "/**", "allow": "signed_in"}]
    assert draft.get("server.public_url") == "https://wiki.example.com"
    assert draft.get("app.upstream") == "http://127.0.0.1:3000"
    assert {one.setting for one in draft.left} >= {
        "<VirtualHost> wiki.example.com",
        "<VirtualHost> www.example.com",
    }


@KIND
def test_what_is_not_read_is_named(kind: str) -> None:
    text = f"Include conf/wiki-access.conf\nHeader set X-Frame-Options DENY\n{SECTION[kind].format('/', '')}"
    text += "ServerName wiki.example.com\nServerAlias wiki.example.org *.wiki.example.org\nErrorDocument 401 /no\n"
    draft, _ = converted(kind, text)
    assert {one.setting for one in draft.left} >= {
        "Include conf/wiki-access.conf",
        "Header",
        "ErrorDocument",
        "ServerAlias *.wiki.example.org",
    }
    assert any("Include conf/wiki-access.conf" in one for one in draft.todo)
    assert draft.get("server.hosts") == ["wiki.example.org"]


@KIND
def test_files_of_the_old_machine_close_nothing(kind: str) -> None:
    text = "<Directory /var/www>\nRequire all granted\n</Directory>\n<Proxy *>\nRequire all granted\n</Proxy>\n"
    text += '<FilesMatch "^\\.ht">\nRequire all denied\nOrder allow,deny\nDeny from all\n</FilesMatch>\n'
    _, rules = converted(kind, text + SECTION[kind].format("/", ""))
    assert rules == [{"path": "/**", "allow": "signed_in"}]


@pytest.mark.parametrize(
    "demand",
    [
        "Require user ada",
        "Require all denied",
        "Require ip 10.0.0.0/8",
        "<RequireAll>\nRequire user ada\n</RequireAll>",
    ],
)
def test_mellon_behind_another_require_stays_closed(demand: str) -> None:
    text = f"<Location />\nMellonEnable auth\n{demand}\n</Location>\n<Location /open>\nMellonEnable auth\n</Location>\n"
    draft, rules = converted("mellon", text)
    assert whom(rules, "/**") == whom(rules, "/open/**") == "nobody"
    assert any("Require" in one.setting for one in draft.left)


def test_a_section_of_mellon_with_a_require_of_its_own_does_not_have_the_one_around_it() -> None:
    text = "<Location />\nRequire all denied\n</Location>\n" + SECTION["mellon"].format("/in", "")
    _, rules = converted("mellon", text)
    assert rules == [{"path": "/in/**", "allow": "signed_in"}, {"path": "/**", "allow": "nobody"}]


def test_sections_of_mellon_have_the_conditions_of_the_section_around_them() -> None:
    text = (
        "<Location />\nMellonEnable auth\nMellonCond groups staff\n</Location>\n"
        "<Location /docs>\nMellonEnable auth\n</Location>\n"
        "<Location /docs/board>\nMellonCond groups board\n</Location>\n"
        "<Location /public>\nMellonEnable off\n</Location>\n"
    )
    _, rules = converted("mellon", text)
    assert whom(rules, "/**") == whom(rules, "/docs/**") == {"when": f"{{{{ {holds('groups', 'staff')} }}}}"}
    assert whom(rules, "/docs/board/**") == {"when": f"{{{{ {holds('groups', 'board')} }}}}"}
    assert whom(rules, "/public/**") == "anyone"


def test_a_require_is_enough_to_ask_for_a_sign_in_of_mellon() -> None:
    text = "<Location />\nMellonEnable info\n</Location>\n"
    text += "<Location /in>\nAuthType Mellon\nRequire valid-user\n</Location>"
    _, rules = converted("mellon", text)
    assert (whom(rules, "/in/**"), whom(rules, "/**")) == ("signed_in", "anyone")


@KIND
def test_what_opens_a_place_that_no_pattern_names_closes_nothing(kind: str) -> None:
    text = (
        SECTION[kind].format("/", "") + '<LocationMatch "^/(healthz|readyz)$">\nRequire all granted\n</LocationMatch>'
    )
    draft, rules = converted(kind, text)
    assert rules == [{"path": "/**", "allow": "signed_in"}]
    assert kind == "mellon" or "Require all granted" in {one.setting for one in draft.left}


def test_people_of_mellon_are_known_by_what_either_side_calls_them() -> None:
    text = "MellonSetEnvNoPrefix REMOTE_GROUPS memberOf\nMellonSetEnv e-mail mail\n"
    draft, _ = converted("mellon", f'{text}RequestHeader set X-User "expr=%{{REMOTE_USER}}"\n')
    identity = {"email": "{{ claims.e_mail }}", "groups": "{{ claims.remote_groups }}"}
    assert draft.get("identity") == draft.get("identity") | identity
    assert draft.get("headers") == {"X-User": "{{ user.username }}"}


@KIND
def test_what_must_not_be_so_is_not_taken_for_what_opens(kind: str) -> None:
    nobody = "<RequireNone>\nRequire all granted\n</RequireNone>"
    _, rules = converted(kind, SECTION[kind].format("/", "") + f"<Location /in>\n{nobody}\n</Location>\n")
    assert whom(rules, "/in/**") == "nobody"
