"""Loading: what is no YAML, what does not fit the models, where it stands, and what never appears in a message."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.config.claims import claims_read
from sidecar.config.loader import ConfigError, Problem, explain_problem, load, redacted
from sidecar.config.values import Dsn, Secret, parse_duration, parse_size
from tests.configurations import SECRETS, loaded, problems, provision, text_of

HERE = "  # here"


def the_line(text: str) -> int:
    """Number of the line that ends in HERE; the first when none does."""
    return next((number for number, line in enumerate(text.split("\n"), 1) if line.endswith(HERE)), 1)


# Text of the file, path, fragment of the message or its way out. The line is the one that ends in HERE.
NO_YAML = [
    ("", "", "empty"),
    ("# nothing\n", "", "empty"),
    ("- a\n- b\n", "", "must be a mapping"),
    ("just text\n", "", "must be a mapping"),
    ("server:\n\tlisten: x  # here\n", "", "Indent with spaces"),
    ("a: 1\n---\nb: 2\n", "", "more than one document"),
    ("server: {public_url: 'x\n", "", "quote is never closed"),
    ("server: {public_url: x\napp: {upstream: y}\n", "", "never closed"),
    ("server: a: b  # here\n", "", "colon is not possible here"),
    ("a:\n    b: 1\n  c: 2  # here\n", "", "indentation"),
    ("a: *nowhere  # here\n", "", "Define the anchor first"),
    ("a: &a [*a]  # here\n", "", "anchor"),
    ("a: !!python/object/apply:os.system [ls]  # here\n", "", "the tag python/object/apply:os.system"),
    ("a: !secret x  # here\n", "", "the tag !secret"),
    ("a: !!int x  # here\n", "", "does not fit its tag"),
    ("headers: {X-User: {{ user.name }}}  # here\n", "", "in quotes"),
    ("? [a, b]\n: c\n", "", "a key must be text"),
    ("a: 1\nb: \x07\n", "", "control character"),
    ("a: @b  # here\n", "", "in quotes"),
    ('a: "\\d"  # here\n', "", "single quotes"),
    ("<<: text\n", "", "takes in a mapping"),
]


@pytest.mark.parametrize(("text", "path", "fragment"), NO_YAML)
def test_what_is_no_usable_yaml_is_one_clear_error(tmp_path: Path, text: str, path: str, fragment: str) -> None:
    [problem] = problems(tmp_path, text)
    assert problem.path == path
    assert fragment in f"{problem.message}. {problem.fix}"
    if HERE in text:
        assert problem.line == the_line(text)


def test_a_file_in_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"server:\n  name: M\xfcller\n")
    with pytest.raises(ConfigError) as caught:
        load(file, environment={})
    assert str(caught.value) == f"{file}:2:1: error: a character that is not UTF-8. Save the file as UTF-8"


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert problems(tmp_path, "\ufeff" + text_of()) == ()


def test_a_missing_file_is_a_problem_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "nowhere.yaml", environment={})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, environment={})


def test_a_file_beyond_all_measure_is_not_read(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, "a: " + "x" * (1 << 20))
    assert "larger than 1048576 bytes" in problem.message


def test_aliases_cannot_multiply_without_end(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    [problem] = problems(tmp_path, "\n".join(lines))
    assert "too large" in problem.message


def test_merged_aliases_cannot_multiply_without_end(tmp_path: Path) -> None:
    many = ", ".join(f"k{n}: 1" for n in range(300))
    [problem] = problems(tmp_path, f"a: &a {{{many}}}\nb: {{<<: [{', '.join(['*a'] * 300)}]}}")
    assert "too large" in problem.message


def test_a_mapping_that_merges_itself_is_refused(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, "a: &a {<<: *a}")
    assert problem.message in ("nested too deeply", "an alias stands inside its own anchor")


def test_merges_reach_through_merges_and_the_nearest_wins(tmp_path: Path) -> None:
    text = text_of(
        app="app: &app {upstream: http://one, name: first}",
        logins="""logins:
  corp: &corp {type: oidc, issuer: https://id.example.com, client_id: one, title: One}
  more: &more {<<: *corp, client_id: two}
  last: {issuer: https://b.example, <<: [*more, *corp]}
""",
    )
    config = loaded(tmp_path, text).config
    assert [(login.client_id, login.title) for login in config.logins.values()] == [("one", "One")] + [
        ("two", "One")
    ] * 2


@pytest.mark.parametrize("depth", [100, 100_000])
def test_nesting_without_end_is_refused(tmp_path: Path, depth: int) -> None:
    [problem] = problems(tmp_path, "a: " + "[" * depth + "]" * depth)
    assert "nested too deeply" in problem.message


def test_anchors_and_merges_work_and_keep_their_places(tmp_path: Path) -> None:
    text = text_of(
        logins="""logins:
  corp: &login
    type: oidc
    issuer: https://id.example.com
    client_id: wiki
    clientsecret: x  # here
  more: {<<: *login, client_id: other, issuer: https://b.example}
"""
    )
    found = problems(tmp_path, text)
    assert [(problem.path, problem.line) for problem in found] == [
        ("logins.corp.clientsecret", the_line(text)),
        ("logins.more.clientsecret", the_line(text)),
    ]


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    text = text_of(app="app:\n  upstream: http://h\n  upstream: http://i  # here")
    [problem] = problems(tmp_path, text)
    assert (problem.path, problem.line) == ("app.upstream", the_line(text))
    assert "twice: first in line" in problem.message


def test_only_true_and_false_are_booleans(tmp_path: Path) -> None:
    config = loaded(tmp_path, text_of(roles='roles: {on: "{{ \'x\' in groups }}", yes: "{{ false }}"}')).config
    assert list(config.roles) == ["on", "yes"]


# Sections, path, fragment; the line is the one that ends in HERE.
NO_FIT = [
    ({"app": "app:\n  upstream: http://h\n  nam: Wiki  # here"}, "app.nam", "Did you mean `name`?"),
    ({"app": "app:\n  upstream: http://h\n  zzz: 1  # here"}, "app.zzz", "Known here: name, upstream, draining"),
    ({"serve": "serve: {}  # here"}, "serve", "Did you mean `server`?"),
    ({"app": "app:  # here\n  name: Wiki"}, "app.upstream", "is missing. Add upstream: http://host:port"),
    ({"app": ""}, "app", "is missing. Add app: the application"),
    ({"app": "app:  # here"}, "app", "has no value"),
    ({"app": "app: wiki  # here"}, "app", "must be a mapping"),
    ({"app": "app: [wiki]  # here"}, "app", "must be a mapping"),
    ({"app": "app:\n  upstream: http://h\n  name: 5  # here"}, "app.name", "must be text. Put it in quotes"),
    ({"app": "app:\n  upstream: http://h\n  max_connections: many  # here"}, "app.max_connections", "whole number"),
    ({"app": "app:\n  upstream: http://h\n  max_connections: 0  # here"}, "app.max_connections", "at least 1"),
    ({"app": "app:\n  upstream: http://h\n  max_connections: 1.5  # here"}, "app.max_connections", "whole number"),
    ({"app": "app:\n  upstream: http://h\n  ignore_case: perhaps  # here"}, "app.ignore_case", "true or false"),
    ({"app": "app:\n  upstream: http://h\n  host: upstraem  # here"}, "app.host", "Did you mean `upstream`?"),
    ({"app": "app:\n  upstream: http://h\n  idle_timeout: 30  # here"}, "app.idle_timeout", "90s, 30m"),
    ({"app": "app:\n  upstream: http://h\n  idle_timeout: 5 m  # here"}, "app.idle_timeout", "90s, 30m"),
    ({"server": "server:\n  public_url: https://w.example\n  max_header: 1MB  # here"}, "server.max_header", "1MiB"),
    ({"server": "server:\n  public_url: https://w.example\n  workers: 999  # here"}, "server.workers", "at most 256"),
    (
        {"server": "server:\n  public_url: https://w.example\n  trusted_proxies:\n    - 10.0.0.0/33  # here"},
        "server.trusted_proxies[0]",
        "a network is written like",
    ),
    ({"roles": "roles:\n  admin: \"{{ 'x' in }}\"  # here"}, "roles.admin", "unexpected the end of the expression"),
    ({"roles": 'roles:\n  admin: "{{ groups | nope }}"  # here'}, "roles.admin", "no filter `nope`"),
    ({"roles": 'roles:\n  admin: "{% if x %}"  # here'}, "roles.admin", "only {{ expressions }}"),
    ({"roles": "roles:\n  admin: [a]  # here"}, "roles.admin", "a template is text"),
    ({"headers": "headers:\n  X-User: {encoding: ascii}  # here"}, "headers.X-User", "one of value, basic and secret"),
    ({"headers": "headers: {preset: grafanna}  # here"}, "headers", "There are grafana"),
    ({"headers": "headers: {A: {basic: {username: a, password: b}}}  # here"}, "headers.A.basic.password", "never in"),
    ({"headers": "headers: {A: {secret: plain}}  # here"}, "headers.A.secret", "never in the file itself"),
    ({"roles": "roles: {admin: {}}  # here"}, "roles.admin", "says nobody"),
    ({"access": "access:\n  - {path: /**}  # here"}, "access[0]", "allow is missing"),
    ({"access": "access:\n  - path: /**\n    allow: [{rol: a}]  # here"}, "access[0].allow[0].rol", "`role`"),
    ({"access": "access:\n  - path: /**\n    allow: [anyoen]  # here"}, "access[0].allow[0]", "`anyone`"),
    ({"access": "access:\n  - path: /**\n    deny: {network: ten}  # here"}, "access[0].deny.network", "10.0.0.0/8"),
    ({"headers": "headers:\n  X-User: [a]  # here"}, "headers.X-User", "a template is text"),
    ({"access": "access: []  # here"}, "access", "at least one entry"),
    ({"access": "access:  # here"}, "access", "has no value"),
    ({"access": "access:\n  - path: /**\n    allow: anyoen  # here"}, "access[0].allow", "Did you mean `anyone`?"),
    ({"access": "access:\n  - path: /**\n    allow: {rol: admin}  # here"}, "access[0].allow.rol", "`role`"),
    ({"access": "access:\n  - path: /**\n    allow: 5  # here"}, "access[0].allow", "must be one of anyone"),
    ({"access": "access:\n  - {path: /**, allow: anyone, methods: get}  # here"}, "access[0].methods", "capitals"),
    (
        {"logins": "logins:\n  corp:\n    type: odic  # here\n    issuer: https://i.example\n    client_id: c"},
        "logins.corp.type",
        "must be one of oidc, saml",
    ),
    (
        {"logins": "logins:\n  corp:\n    type: oidc\n    issuer: https://i.example\n    client_id: c\n"
         "    client_secret: leak-in-file  # here"},
        "logins.corp.client_secret",
        "{env: NAME} or {file: PATH}",
    ),
    (
        {"logins": "logins:\n  corp:\n    type: oidc\n    issuer: https://i.example\n    client_id: c\n"
         "    client_secret: {env: NOT_SET}  # here"},
        "logins.corp.client_secret",
        "NOT_SET is not set",
    ),
    (
        {"logins": "logins:\n  corp:\n    type: oidc\n    issuer: https://i.example\n    client_id: c\n"
         "    client_secret: {file: nowhere}  # here"},
        "logins.corp.client_secret",
        "cannot be read: No such file",
    ),
    (
        {"logins": "logins:\n  corp:  # here\n    type: oidc\n    issuer: https://i.example\n    client_id: c\n"
         "    client_auth: private_key_jwt"},
        "logins.corp",
        "needs private_key",
    ),
    ({"sessions": "sessions:\n  secrets: {env: SHORT}  # here"}, "sessions.secrets", "openssl rand -base64 32"),
    ({"directory": "directory: [a]  # here"}, "directory", "must be a mapping"),
    (
        {"provision": provision(create="create: {rest: {on: api, path: /u, outcomes: {\n      fuond: {}}}}")},
        "provision.create.rest.outcomes.fuond",
        "Did you mean `found`?",
    ),
    (
        {"provision": provision(create="create:\n  - rest: {on: api, path: /u}\n    sql: {on: db, query: SELECT 1}")},
        "provision.create[0]",
        "exactly one of sql and rest",
    ),
    (
        {"provision": provision(create='create:\n    sql: {on: db, exec: "DELETE FROM {{ user.name }}"}  # here')},
        "provision.create.sql.exec",
        "Put values into params",
    ),
    (
        {"provision": provision(create="create: {rest: {true: api, path: /u}}")},
        "provision.create.rest.true",
        "took `on` for a truth value",
    ),
    ({"provision": provision(connections="connections: {}")}, "provision.connections", "at least one entry"),
    (
        {"provision": provision(connections="connections: {api: {rest: {base_url: https://h, headers: {A: [b]}}}}")},
        "provision.connections.api.rest.headers.A",
        "{env: NAME}",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sections", "path", "fragment"), NO_FIT, ids=[f"{case[1]}: {case[2]}" for case in NO_FIT])
def test_what_does_not_fit_is_named_once_at_its_line(
    tmp_path: Path, sections: dict[str, str], path: str, fragment: str
) -> None:
    text = text_of(**sections)
    found = [problem for problem in problems(tmp_path, text, SHORT="too short") if problem.path == path]
    assert len(found) == 1, found
    assert fragment in f"{found[0].message}. {found[0].fix}"
    if HERE in text:
        assert found[0].line == the_line(text)


def test_no_message_speaks_the_library_s_language(tmp_path: Path) -> None:
    for sections, *_ in NO_FIT:
        for problem in problems(tmp_path, text_of(**sections)):
            assert "pydantic" not in str(problem)
            assert "Input should" not in str(problem)
            assert "input should" not in str(problem)
            assert "leak-" not in str(problem)


def test_all_problems_come_at_once_and_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = text_of(
        app="app: {upstream: http://h, nam: x}", access="access:\n  - {path: a, allow: b}", server="server: 5"
    )
    found = problems(tmp_path, text)
    assert [problem.path for problem in found] == ["server", "app.nam", "access[0].path", "access[0].allow"]


def test_a_problem_is_written_as_compilers_write_theirs() -> None:
    problem = Problem("error", "config.yaml", 12, 5, "app.nam", "unknown key `nam`", "Did you mean `name`?")
    assert str(problem) == "config.yaml:12:5: error: app.nam: unknown key `nam`. Did you mean `name`?"
    assert explain_problem(problem) == (
        "error in config.yaml, line 12, column 5\n"
        "  where:   app.nam\n"
        "  what:    unknown key `nam`\n"
        "  way out: Did you mean `name`?"
    )


def test_secrets_come_from_the_environment_and_from_files_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file that is long enough for it\n")
    config = loaded(tmp_path, text_of(sessions="sessions: {secrets: [{file: secret}, {env: SESSION_SECRET}]}")).config
    assert [secret.reveal() for secret in config.sessions.secrets] == [
        "from a file that is long enough for it",
        SECRETS["SESSION_SECRET"],
    ]


def test_t17_an_empty_secret_is_an_error(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, text_of(), OIDC_SECRET="")
    assert problem.message == "the secret from env OIDC_SECRET is empty"


def test_editors_need_no_secrets(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        text_of(
            server="server: {public_url: {env: NOT_SET}, tls: {certificate: {file: nowhere}, key: {env: NOT_SET}}}",
            sessions="sessions: {redis: {env: NOT_SET}, secrets: {file: nowhere}}",
            directory="directory: {env: NOT_SET}",
        )
    )
    assert load(file, environment={}, needs_secrets=False).warnings == ()
    with pytest.raises(ConfigError):
        load(file, environment={})


def test_a_secret_that_went_astray_is_not_repeated(tmp_path: Path) -> None:
    stray = "{env: OIDC_SECRET}"
    text = text_of(
        server=f"server: {{public_url: {stray}, hosts: [{stray}], listen: {stray}}}",
        access=f"access:\n  - {{path: /a, host: {stray}, allow: {{role: {stray}}}}}\n  - {{path: {stray}, allow: nobody}}",  # noqa: E501 - one rule a line
        provision=provision(
            roles=f"roles: {{managed: [{stray}], default: {stray}}}",
            create=f"create: {{rest: {{on: {stray}, path: /u}}}}",
        ),
        directory=f"directory: {stray}",
        pages=f"pages: {{templates: {stray}}}",
    )
    found = problems(tmp_path, text)
    assert len(found) > 5
    for environment in ({}, {"OIDC_SECRET": "/leak-path"}):
        assert "leak" not in "\n".join(map(str, problems(tmp_path, text, **environment)))


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:leak@h", "redis://:***@h"),
        ("postgresql://me:leak@h/d?sslmode=require", "postgresql://me:***@h/d?sslmode=require"),
        ("postgresql://me@h/d?password=leak&x=1", "postgresql://me@h/d?password=***&x=1"),
        ("redis://:le/ak?le#ak@h", "redis://:***@h"),
        ("redis://me:le@ak@h", "redis://me:***@h"),
        ("leak", "***"),
        ("", ""),
        ("sqlite:///a/b.db", "sqlite:///a/b.db"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert Dsn(address).redacted == shown
    assert repr(Dsn(address)) == f"Dsn({shown})"


def test_a_secret_is_never_printed() -> None:
    assert repr(Secret("leak", "env NAME")) == "Secret(env NAME)"
    assert "leak" not in f"{Secret('leak')}"


def test_the_redacted_configuration_says_where_secrets_come_from(tmp_path: Path) -> None:
    connections = (
        "connections: {db: {sql: {env: WIKI_DB_URL}}, "
        "api: {rest: {base_url: https://h, headers: {A: leak-inline, B: {env: WIKI_API_KEY}}}}}"
    )
    text = text_of(provision=provision(connections=connections))
    plain = redacted(loaded(tmp_path, text).config)
    assert plain["logins"]["corp"]["client_secret"] == "*** (env OIDC_SECRET)"
    assert plain["provision"]["connections"]["db"]["sql"] == "postgresql://wiki:***@db/wiki"
    assert plain["provision"]["connections"]["api"]["rest"]["headers"] == {"A": "***", "B": "*** (env WIKI_API_KEY)"}
    assert plain["sessions"]["idle"] == "30m"
    assert plain["roles"]["admin"]["when"] == "{{ 'admins' in groups }}"


def test_credentials_that_stand_in_a_call_itself_are_not_shown(tmp_path: Path) -> None:
    call = (
        "{on: api, method: POST, path: /u, headers: {Authorization: leak, X-Api-Key: leak, Accept: text/plain}, "
        "query: {access_token: leak, key: '{{ account.key }}'}, "
        "form: {client_secret: leak, token: '{{ account.key }}'}}"
    )
    connections = "connections: {db: {sql: {env: WIKI_DB_URL}}, api: {rest: {base_url: https://h}}}"
    name = "{{ claims.id }}"
    source = "{rest: {base_url: https://h, path: /p, query: {apikey: leak, all: 'yes'}, people: '{{ body }}'}}"
    config = loaded(
        tmp_path,
        text_of(
            provision=provision(connections=connections, lookup=f"lookup: {{rest: {call}}}"),
            sync=f"sync: {{hr: {{source: {source}, id: '{name}', identity: {{username: '{name}'}}}}}}",
        ),
    ).config
    shown = redacted(config)
    assert "leak" not in json.dumps(shown)
    [step] = shown["provision"]["lookup"]
    assert step["rest"]["headers"]["Accept"] == "text/plain"
    assert step["rest"]["query"] == {"access_token": "***", "key": "{{ account.key }}"}
    assert step["rest"]["form"]["token"] == "{{ account.key }}"
    assert shown["sync"]["hr"]["source"]["rest"]["query"] == {"apikey": "***", "all": "yes"}


def test_the_digest_follows_the_file_alone(tmp_path: Path) -> None:
    first = loaded(tmp_path, text_of()).digest
    assert loaded(tmp_path, text_of(), OIDC_SECRET="another").digest == first
    assert loaded(tmp_path, text_of(pages="pages: {support: me}")).digest != first


def test_only_claims_that_are_read_are_kept(tmp_path: Path) -> None:
    sections = {
        "roles": "roles: {admin: \"{{ claims.dept == 'it' }}\"}",
        "headers": "headers: {X-Site: \"{{ claims['site'] }}\"}",
        "provision": provision(attributes='attributes: {l: {from: "{{ claims.locale }}", sync: create}}'),
    }
    config = loaded(tmp_path, text_of(**sections)).config
    assert claims_read(config, "corp") == {"dept", "site", "locale"}


def test_claims_read_as_a_whole_are_all_kept(tmp_path: Path) -> None:
    config = loaded(tmp_path, text_of(roles="roles: {admin: \"{{ claims.get('admin') == true }}\"}")).config
    assert claims_read(config, "corp") is None


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("1d12h", timedelta(hours=36)),
        ("500ms", timedelta(milliseconds=500)),
        ("1m500ms", timedelta(minutes=1, milliseconds=500)),
    ],
)
def test_durations_are_written_with_their_units(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "5", "5 s", "-5s", "1h1d", "1.5h", "9999999999d", "٣s", None, 5, True])
def test_everything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="a duration is written like"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "1MB", "-1", -1, True, "1" * 5000, None, 1.5])
def test_a_size_is_bytes_or_has_a_binary_unit(text: object) -> None:
    assert parse_size("64 KiB") == 65536
    with pytest.raises(ValueError, match="a size is written like"):
        parse_size(text)
