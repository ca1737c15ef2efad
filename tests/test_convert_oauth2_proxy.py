"""No setting of oauth2-proxy is dropped in silence."""

from __future__ import annotations

from pathlib import Path

import yaml

from sidecar.convert import KINDS
from tests.test_convert import loaded


def test_each_setting_of_oauth2_proxy_is_carried_or_named() -> None:
    text = """
        email_domains = [".example.com", "@example.org"]
        login_url = "https://id.example.com/authorize"
        skip_oidc_discovery = true
        cookie_refresh = "1h"
        client_secret_file = "/etc/oauth2-proxy/secret"
        cookie_csrf_expire = "5m"
        reverse_proxy = true
        footer = "-"
    """
    draft = KINDS["oauth2-proxy"](text)
    made = yaml.safe_load(draft.written())
    # With a dot before it, a domain stands for those below it.
    ends = "user.email.endswith('.example.com') or user.email.endswith('@example.org')"
    assert made["access"] == [{"path": "/**", "allow": {"when": f"{{{{ {ends} }}}}"}}]
    assert made["logins"]["corp"]["client_secret"] == {"file": "/etc/oauth2-proxy/secret"}
    assert made["sessions"]["login"] == "5m"
    assert {one.setting for one in draft.left} >= {
        "login_url",
        "skip_oidc_discovery",
        "cookie_refresh",
        "footer",
        "real_client_ip_header X-Real-IP",
    }


def test_trusted_addresses_need_no_sign_in_and_all_others_may_still_come(tmp_path: Path) -> None:
    text = """
        trusted_ips = ["10.1.0.0/16", "192.0.2.7"]
        email_domains = ["*"]
        skip_auth_routes = ["GET=^/health$"]
        client_id = "wiki"
    """
    draft = KINDS["oauth2-proxy"](text)
    assert yaml.safe_load(draft.written())["access"] == [
        {"path": "/health", "methods": ["GET"], "allow": "anyone"},
        {
            "path": "/**",
            "allow": [{"who": "anyone", "network": ["10.1.0.0/16", "192.0.2.7"]}, {"who": "signed_in"}],
        },
    ]
    assert loaded(draft.written(), tmp_path) == []
