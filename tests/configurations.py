"""Configurations for the tests of `sidecar.config`: the least that is valid, and what is laid over it."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from sidecar.config.loader import ConfigError, Loaded, Problem, load

EXAMPLE = Path(__file__).parents[1] / "config.example.yaml"
SECRETS = {
    "OIDC_SECRET": "leak-oidc-secret",
    "WIKI_API_PASSWORD": "leak-api-password",
    "WIKI_API_KEY": "leak-api-key",
    "WIKI_DB_URL": "postgresql://wiki:leak-db-password@db/wiki",
    "REDIS_URL": "rediss://sidecar:leak-redis/password@redis:6379/0",
    "SESSION_SECRET": "leak-session-secret-that-is-long-enough",
    "BAD_SECRET": "leak-two\nlines",
    "SCIM_TOKEN": "leak-scim-token-that-is-long-enough",
    "ERP_DB_URL": "postgresql://erp:leak-erp-password@db/erp",
    "SIGNALS_TOKEN": "leak-signals-token-that-is-long-enough",
    "SIGNALS_ACCESS": "leak-signals-access",
    "OPENFGA_TOKEN": "leak-openfga-token",
    "DIRECTORY_URL": "mysql://sidecar:leak-directory-password@db/sidecar",
}
# Stand for the real ones, which are slow by design.
FILTERS = dict.fromkeys(
    ["bcrypt", "phpass", "django_pbkdf2", "werkzeug_scrypt", "argon2id", "sha512_crypt", "ssha"], str
)

LEAST = {
    "server": "server: {public_url: https://wiki.example.com}",
    "app": "app: {upstream: http://127.0.0.1:3000}",
    "logins": "logins:\n  corp: {type: oidc, issuer: https://id.example.com, client_id: wiki,\n"
    "    client_secret: {env: OIDC_SECRET}}",
    "identity": 'identity: {username: "{{ claims.sub }}", groups: "{{ claims.groups }}"}',
    "roles": "roles: {admin: \"{{ 'admins' in groups }}\"}",
    "access": "access:\n  - {path: /**, allow: signed_in}",
    "audit": "audit: {stdout: true}",
}
PROVISION = {
    "account": 'account: {key: "{{ user.username }}"}',
    "connections": "connections: {db: {sql: sqlite:///users.db}, api: {rest: {base_url: http://localhost:3000/api}}}",
    "lookup": """lookup:
    sql: {on: db, query: "SELECT id FROM users WHERE login = :login", params: {login: "{{ account.key }}"}}""",
    "create": """create:
    rest: {on: api, method: POST, path: /users, json: {login: "{{ account.key }}"}}""",
    "deactivate": """deactivate:
    rest: {on: api, method: DELETE, path: "/users/{{ account.id }}/sessions"}""",
    "reactivate": """reactivate:
    rest: {on: api, method: POST, path: "/users/{{ account.id }}/unlock"}""",
}


def provision(**parts: str) -> str:
    """Section `provision` with *parts* in place of, or beside, those of PROVISION; "" leaves one out."""
    lines = {**PROVISION, **parts}.values()
    return "provision:\n" + "\n".join(f"  {line}" for line in lines if line)


def text_of(**sections: str) -> str:
    """The least configuration with *sections* in place of its own; "" leaves one out."""
    return "\n".join(section for section in {**LEAST, **sections}.values() if section) + "\n"


def loaded(folder: Path, text: str, **environment: str) -> Loaded:
    """Load *text* from a file in *folder*."""
    file = folder / "config.yaml"
    file.write_text(text)
    return load(file, environment={**SECRETS, **environment}, filters=FILTERS)


def problems(folder: Path, text: str, **environment: str) -> tuple[Problem, ...]:
    """Everything that is said about *text*, errors and warnings."""
    try:
        return loaded(folder, text, **environment).warnings
    except ConfigError as error:
        return error.problems


def example_in(folder: Path) -> Path:
    """A copy of the example with its secret files beside it."""
    secrets = folder / "secrets"
    secrets.mkdir()
    for name in (
        "partner",
        "session-old",
        "assertion.pem",
        "proxy",
        "scim-entra",
        "signals",
        "signals-access",
        "ad",
        "portal",
        "cloud",
    ):
        (secrets / name).write_text(f"leak-file-{name}-that-is-long-enough-for-all\n")
    return Path(shutil.copy(EXAMPLE, folder / "config.yaml"))


def example_data() -> dict[str, object]:
    """The example as plain data, for changing it."""
    data: dict[str, object] = yaml.load(EXAMPLE.read_text(), Loader=yaml.BaseLoader)  # noqa: S506 - our own file
    return data
