"""Every check across sections: a configuration that it speaks about, and where and how it speaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.lint import CHECKS
from sidecar.config.lints import saml as saml_lints
from sidecar.config.lints import templates
from sidecar.hooks.order import ANSWER_NAMES, ORDER_NAMES
from sidecar.logins.saml.attributes import OWN_CLAIMS
from tests.configurations import problems, provision, text_of
from tests.services.certificates import make_certificates

HOUSE = "https://wiki.example.com"
LOGIN = "type: oidc, issuer: https://id.example.com, client_id: wiki, client_secret: {env: OIDC_SECRET}"
SECRETS = "secrets: {env: SESSION_SECRET}"


def server(rest: str) -> dict[str, str]:
    return {"server": f"server: {{public_url: {HOUSE}, {rest}}}"}


def app(rest: str) -> dict[str, str]:
    return {"app": f"app: {{{rest}}}"}


def logins(rest: str, name: str = "corp") -> dict[str, str]:
    return {"logins": f"logins:\n  {name}: {{{LOGIN}, {rest}}}"}


def access(*rules: str) -> dict[str, str]:
    return {"access": "access:\n" + "\n".join(f"  - {{{rule}}}" for rule in rules)}


TUPLE = "tuple: {user: 'user:x', relation: r, object: 'd:x'}"


def fga(asked: str, *, allow: str = "signed_in", name: str = "e", **changes: str) -> dict[str, str]:
    """A rule that asks an engine e, which is an OpenFGA."""
    section = {"type": "openfga", "url": "http://fga:8080", "store": "S", "model": "M", **changes}
    lines = ", ".join(f"{key}: {value}" for key, value in section.items())
    rule = f"path: /d/*/**, allow: {allow}, engine: {{name: {name}, {asked}}}"
    return {"engines": f"engines: {{e: {{{lines}}}}}", **access(rule, CLOSED)}


def sessions(rest: str) -> dict[str, str]:
    return {"sessions": f"sessions: {{{rest}}}"}


def hook(url: str, variable: str = "SESSION_SECRET") -> dict[str, str]:
    """A webhook for audit lines; what follows a comma after the address are settings of its own."""
    address, _, rest = url.partition(", ")
    rest = f", {rest}" if rest else ""
    return audit(f"webhook: {{url: '{address}', secret: {{env: {variable}}}, spool: spool{rest}}}")


def tracing(rest: str) -> dict[str, str]:
    return {"tracing": f"tracing: {{{rest}}}"}


def audit(rest: str) -> dict[str, str]:
    return {"audit": f"audit: {{{rest}}}"}


def headers(rest: str) -> dict[str, str]:
    return {"headers": f"headers: {{{rest}}}"}


def roles(condition: str) -> dict[str, str]:
    return {"roles": f"roles: {{admin: {condition}}}"}


def accounts(**parts: str) -> dict[str, str]:
    return {"provision": provision(**parts)}


def create(step: str) -> dict[str, str]:
    return accounts(create=f"create: [{{{step}}}]")


def api(rest: str) -> dict[str, str]:
    connections = f"connections: {{db: {{sql: sqlite:///users.db}}, api: {{rest: {{{rest}}}}}}}"
    return accounts(connections=connections)


def scim(rest: str, name: str = "okta", **others: str) -> dict[str, str]:
    lines = [f"    {client}: {{{section}}}" for client, section in {name: rest, **others}.items()]
    return {**accounts(), "scim": "scim:\n  clients:\n" + "\n".join(lines)}


def rename(name: str, **saved: str) -> dict[str, str]:
    """The application is told *name*, and the lookup keeps *saved*."""
    keep = ", ".join(f'{key}: "{value}"' for key, value in saved.items())
    lookup = 'lookup: {sql: {on: db, query: "SELECT * FROM users", save: {SAVED}}}'.replace("SAVED", keep)
    step = f'rename: {{rest: {{on: api, method: PATCH, path: /users, json: {{login: "{name}"}}}}}}'
    return accounts(lookup=lookup, rename=step)


ACCOUNT = "account: {key: '{{ row.login }}', active: '{{ row.active }}'}"


def drift(rest: str = ACCOUNT, listed: str = "csv: users.csv", **others: str) -> dict[str, str]:
    return {"drift": f"drift: {{list: {{{listed}}}, {rest}}}", "provision": provision(), **others}


def sync(rest: str, source: str = "csv: people.csv", **others: str) -> dict[str, str]:
    named = 'identity: {username: "{{ claims.login }}"}' if "identity" not in rest else ""
    line = ", ".join(filter(None, [f"source: {{{source}}}", "id: number", named, rest]))
    return {**accounts(), "sync": f"sync: {{hr: {{{line}}}}}", **others}


def people(rest: str) -> dict[str, str]:
    return {**accounts(), "people": f"people: {{{rest}}}"}


TOKEN = "token: {env: SCIM_TOKEN}"
JOIN = 'join: {corp: "{{ claims.sub }}"}'
POST = "on: api, method: POST, path: /users"
INSERT = 'on: db, exec: "INSERT INTO users VALUES (:login)"'
SOMEBODY = 'login: "{{ account.key }}"'
CATCH_ALL = "path: /**, allow: signed_in"
CLOSED = "path: /**, allow: nobody"

NO_PAIR = ("error", "app.tls.certificate", "its own private key")
SAML = "type: saml, metadata: https://idp.example.com/metadata, domains: [example.com]"


def saml(rest: str = "", base: str = SAML) -> dict[str, str]:
    return {"logins": f"logins:\n  partners: {{{base}{', ' if rest else ''}{rest}}}"}


def asking(peers: str, listen: str = "127.0.0.1:8080", rest: str = "trusted_proxies: 10.0.0.0/8") -> dict[str, str]:
    return {**server(f"listen: {listen}, {rest}"), "forward_auth": f"forward_auth: {{dialect: nginx, from: {peers}}}"}


def tokens(rest: str) -> dict[str, str]:
    return {"tokens": f"tokens: {{{rest}}}"}


def callers(rest: str, proxies: str = "[10.0.0.5/32, unix]") -> dict[str, str]:
    return {"certificates": f"certificates: {{proxies: {proxies}, ca: ca.pem{', ' if rest else ''}{rest}}}"}


ASKED = "bearer: {audience: x, introspection: {cache: 5s}}"


SPEAKER = "issuer: https://id.example.com, login: corp"
PUSHES = "token: {env: SIGNALS_TOKEN}"
AT_CORP = "signals.transmitters.corp"


def signals(rest: str, name: str = "corp", **others: str) -> dict[str, str]:
    lines = [f"    {one}: {{{section}}}" for one, section in {name: rest, **others}.items()]
    return {**accounts(), "signals": "signals:\n  transmitters:\n" + "\n".join(lines)}


CONSOLE = "public_url: 'https://console.example.com', operators: {view: {group: g}}"


def console(rest: str, base: str = CONSOLE) -> dict[str, str]:
    return {"console": f"console: {{{base}, {rest}}}"}


STRONG = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0c2FsdA$" + "A" * 43


def glass(account: str = "", rest: str = "networks: 10.0.0.0/8", hashed: str = STRONG) -> dict[str, str]:
    line = f"hash: '{hashed}'{', ' if account else ''}{account}"
    return {"break_glass": f"break_glass: {{accounts: {{ops: {{{line}}}}}, {rest}}}"}


# (sections, severity, path, fragment of the message or its way out)
CASES = [
    # Drift
    ({**drift(), "provision": ""}, "error", "drift", "no accounts to compare"),
    (drift(f"{ACCOUNT}, cron: never"), "error", "drift.cron", "minute hour"),
    (drift("account: {key: '{{ row.login }}'}"), "warning", "drift.account.active", "people who left"),
    (drift("account: {key: '{{ user.login }}', active: '{{ row.a }}'}"), "error", "drift.account.key", "no `user`"),
    (drift("account: {key: k, active: 'x{{ row.a }}'}"), "error", "drift.account.active", "one expression"),
    (drift("account: {key: k, active: '{{ row.a }}', roles: r}"), "warning", "drift.account.roles", "no role is"),
    (drift(f"{ACCOUNT}, idle: 90d"), "error", "drift.idle", "last sign-in"),
    (drift(f"{ACCOUNT}, repair: true"), "error", "drift.repair", "timetable"),
    (drift(listed="rest: {base_url: nowhere, path: /u, people: '{{ body }}'}"), "error", "drift.list.rest.base_url",
     "no plain address"),
    # Break-glass
    (glass(hashed=STRONG.replace("2id", "2i")), "error", "break_glass.accounts.ops.hash", "no argon2id"),
    (glass(hashed="$2b$12$abc"), "error", "break_glass.accounts.ops.hash", "no argon2id"),
    (glass(hashed=STRONG.replace("65536", "19456")), "error", "break_glass.accounts.ops.hash", "weak"),
    (glass(hashed=STRONG.replace("t=3", "t=2")), "error", "break_glass.accounts.ops.hash", "weak"),
    (glass(hashed=STRONG.replace("salt", "").replace("c2FsdHNhbHRzYWx0c2FsdA", "c2FsdA")), "error",
     "break_glass.accounts.ops.hash", "salt"),
    (glass(hashed=STRONG.replace("65536", "4194304")), "error", "break_glass.accounts.ops.hash", "costly"),
    (glass("totp: {env: OIDC_SECRET}"), "error", "break_glass.accounts.ops.totp", "base32"),
    ({"break_glass": f"break_glass: {{accounts: {{a: {{hash: '{STRONG}'}}, b: {{hash: "
     f"'{STRONG.replace('t=3', 't=4')}'}}}}, networks: 10.0.0.0/8}}"}, "warning", "break_glass.accounts",
     "tells names"),
    (glass(rest="offered: false"), "warning", "break_glass", "anybody on the internet"),
    (glass(rest="networks: 10.0.0.0/8, tries: off"), "error", "break_glass.tries", "all day"),
    (glass(rest="networks: 10.0.0.0/8, lifetime: 9h"), "error", "break_glass.lifetime", "at most 8h"),
    ({**glass(rest="networks: 10.0.0.0/8, while: outage"), **saml(base="type: saml, metadata: idp.xml")}, "error",
     "break_glass.while", "in a file"),
    (glass(rest="networks: 10.0.0.0/8, while: outage"), "warning", "break_glass.while", "after a restart"),
    ({**glass(), **logins("title: x", "break-glass")}, "error", "logins.break-glass", "emergency"),
    (glass(rest="networks: 10.0.0.0/8, provision: true"), "error", "break_glass.provision", "without the section"),
    ({**glass("account: x", "networks: 10.0.0.0/8, provision: true"), **accounts()}, "error",
     "break_glass.accounts.ops.account", "beside"),
    (sessions("outage: 12h"), "warning", "sessions.outage", "no shorter"),
    # Traces
    (tracing("otlp: 'tcp://c:4318'"), "error", "tracing.otlp", "no address"),
    (tracing("otlp: 'http://me@c:4318'"), "error", "tracing.otlp", "no address"),
    (tracing("otlp: 'http://c:4318'"), "warning", "tracing.otlp", "in the clear"),
    (tracing("otlp: 'http://127.0.0.1:4318', ca: pyproject.toml"), "error", "tracing.ca", "https://"),
    (tracing("otlp: 'http://127.0.0.1:4318', sample: 1"), "warning", "tracing.sample", "costs"),
    # People by hand
    ({"people": "people: {}"}, "error", "people", "for the sake of their accounts"),
    (people('join: {crop: "{{ user.email }}"}'), "error", "people.join.crop", "no login"),
    (people('join: {corp: "{{ claims.email }}"}'), "warning", "people.join.corp", "may say any address"),
    (people("on: email"), "warning", "people.invitations", "sessions.secrets"),
    # Renaming
    (rename("{{ new_key }}", login="{{ row.login }}"), "error", "provision.rename", "saves no id"),
    (rename("{{ account.key }}", id="{{ row.id }}"), "error", "provision.rename", "no step reads new_key"),
    # Forward-auth
    (asking("[0.0.0.0/0]"), "error", "forward_auth.from[0]", "lets everybody ask"),
    (asking("[10.0.0.0/7]", rest="trusted_proxies: 10.0.0.0/7"), "warning", "forward_auth.from[0]", "very large"),
    (asking("[10.0.0.1, 8.8.0.0/16]"), "warning", "forward_auth.from[1]", "public network"),
    (asking("[10.0.0.1, unix]"), "error", "forward_auth.from[1]", "no Unix socket"),
    (asking("[unix, 10.0.0.1]", "unix:/run/s"), "error", "forward_auth.from[1]", "no addresses"),
    (asking("[10.0.0.1, 192.168.0.1]"), "warning", "forward_auth.from[1]", "server.trusted_proxies"),
    (asking("[unix]", "unix:/run/s", "metrics: ':9090'"), "warning", "forward_auth.from[0]", "server.trusted_proxies"),
    (asking("10.0.0.1", rest="proxy_protocol: true, trusted_proxies: 10.0.0.0/8"), "error", "forward_auth", "proxy"),
    (
        {**asking("10.0.0.1"), **headers('X-Name: {value: "{{ user.name }}", encoding: latin-1}')},
        "error",
        "headers.X-Name.encoding",
        "UTF-8",
    ),
    # Reloading
    ({"reload": f"reload: {{control: /run/{'s' * 107}}}"}, "error", "reload.control", "longer than"),
    # The console
    (console("listen: nowhere"), "error", "console.listen", "host:port"),
    (console("listen: '127.0.0.1:8080'"), "error", "console.listen", "already"),
    (console("listen: '0.0.0.0:9443'"), "warning", "console.listen", "without TLS"),
    (console("listen: '[::]:9443'"), "warning", "console.listen", "without TLS"),
    (console("idle: 1m", "public_url: console, operators: {view: {group: g}}"), "error", "console.public_url", "http"),
    (console("idle: 1m", "public_url: 'http://c.example', operators: {view: {group: g}}"), "error",
     "console.public_url", "cookie"),
    (console("idle: 1m", f"public_url: '{HOUSE}', operators: {{view: {{group: g}}}}"), "error",
     "console.public_url", "application"),
    (console("idle: 1m", f"public_url: '{HOUSE}:9443', operators: {{view: {{group: g}}}}"), "warning",
     "console.public_url", "one site"),
    (console("idle: 1m", "public_url: 'https://c.example', operators: {}"), "error", "console.operators", "nobody"),
    (console("idle: 1m", "public_url: 'https://c.example', operators: {view: {role: admn}}"), "error",
     "console.operators.view.role", "no role"),
    (console("idle: 1m", "public_url: 'https://c.example', operators: {view: {login: crop}}"), "error",
     "console.operators.view.login", "no login"),
    (console("logins: [crop]"), "error", "console.logins[0]", "no login"),
    # SAML
    (saml(base="type: saml, metadata: 'https://me@idp.example.com/'"), "error", "logins.partners.metadata", "plain"),
    (saml(base="type: saml, metadata: 'ftp://idp.example.com/'"), "error", "logins.partners.metadata", "plain"),
    (saml(base="type: saml, metadata: 'http://idp.example.com/'"), "error", "logins.partners.metadata", "https"),
    (saml("metadata_fingerprint: abc"), "error", "logins.partners.metadata_fingerprint", "SHA-256"),
    (
        saml(f"metadata_certificate: x.pem, metadata_fingerprint: {'ab' * 32}"),
        "error",
        "logins.partners.metadata_fingerprint",
        "one of the two",
    ),
    (saml("metadata_certificate: nowhere.pem"), "error", "logins.partners.metadata_certificate", "no file"),
    (saml("sign_requests: true"), "error", "logins.partners.sign_requests", "key of ours"),
    (saml("sign_metadata: true"), "error", "logins.partners.sign_metadata", "key of ours"),
    (saml("encrypted: required"), "error", "logins.partners.encrypted", "key of ours"),
    (saml("name_id: transient"), "error", "logins.partners.name_id", "subject"),
    (saml('subject: "{{ user.email }}"'), "error", "logins.partners.subject", "claims"),
    (saml("subject: everybody"), "error", "logins.partners.subject", "claims"),
    (saml("attributes: {sub: uid}"), "error", "logins.partners.attributes.sub", "another name"),
    (saml("max_answer: 1MiB"), "error", "logins.partners.max_answer", "320KiB"),
    (saml("weak: [sha1]"), "warning", "logins.partners.weak[0]", "forged"),
    (saml("weak: [aes_cbc]"), "warning", "logins.partners.weak[0]", "opened"),
    (saml("unsolicited: true"), "warning", "logins.partners.unsolicited", "begin here"),
    (
        {"logins": f"logins:\n  one: {{{SAML}, idp: urn:one}}\n  two: {{type: saml, metadata: two.xml}}"},
        "error",
        "logins.two.idp",
        "entityID",
    ),
    (
        {"logins": f"logins:\n  one: {{{SAML}}}\n  two: {{{SAML.replace('[example.com]', '[example.org]')}}}"},
        "warning",
        "logins.two.metadata",
        "logins.one",
    ),
    (
        {
            "logins": "logins:\n  partners: {type: saml, metadata: idp.xml}",
            "identity": 'identity: {username: "{{ claims.name_id }}", email: "{{ claims.mail }}"}',
        },
        "warning",
        "logins.partners",
        "never believed",
    ),
    (
        {**saml(), "access": "access: [{path: /**, allow: {bearer: partners}}]"},
        "error",
        "access[0].allow.bearer",
        "does not accept bearer",
    ),
    # engines
    (fga(TUPLE, url="ftp://h"), "error", "engines.e.url", "http or https"),
    (fga(TUPLE, url="http://u:p@h"), "error", "engines.e.url", "user name"),
    (fga(TUPLE, store="a/b"), "error", "engines.e.store", "must be an id"),
    (fga(TUPLE, token="{env: OIDC_SECRET}"), "warning",
     "engines.e.url", "in the clear"),
    (fga("tuple: {user: '{{ claims.sub }}', relation: r, object: 'd:x'}"), "error",
     "access[0].engine.tuple.user", "begin with its type"),
    (fga("tuple: {user: 'user:x', relation: r, object: '{{ request.path }}'}"), "error",
     "access[0].engine.tuple.object", "begin with its type"),
    (fga("tuple: {user: 'user:{{ usr }}', relation: r, object: 'd:x'}"), "error",
     "access[0].engine.tuple.user", "Did you mean `user`?"),
    (fga("tuple: {user: 'user:x', relation: r, object: 'd:{{ request.query }}'}"), "error",
     "access[0].engine.tuple.object", "request has no `query`"),
    (fga("tuple: {user: 'user:x', relation: r, object: 'd:{{ request.captured[2] }}'}"), "error",
     "access[0].engine.tuple.object", "2 star(s)"),
    (fga("tuple: {user: 'user:x', relation: r, object: 'd:{{ item }}'}"), "error",
     "access[0].engine.tuple.object", "beside each"),
    (fga("tuple: {user: 'user:x', relation: r, object: 'd:x'}, "
         "contextual: {user: 'user:x', relation: r, object: 'd:{{ item }}'}"), "error",
     "access[0].engine.contextual", "has no each"),
    (fga("tuple: {user: 'user:x', relation: r, object: 'd:x'}, "
         "contextual: {each: 'a', user: 'user:x', relation: r, object: 'd:x'}"), "error",
     "access[0].engine.contextual.each", "one expression"),
    (fga("input: {}"), "error", "access[0].engine.input", "not for an engine of type openfga"),
    (fga("input: {}"), "error", "access[0].engine", "tuple is missing"),
    (fga(TUPLE, allow="nobody"), "error",
     "access[0].engine", "no effect"),
    (fga(TUPLE, allow="anyone"), "error",
     "access[0].engine", "anyone may be nobody"),
    (fga(TUPLE,
         allow="[signed_in, {who: anyone, network: 10.0.0.0/8}]"), "error",
     "access[0].engine", "anyone may be nobody"),
    (fga(TUPLE, name="f"), "error",
     "access[0].engine.name", "There are: e"),
    (fga(TUPLE, ca="config.yaml"), "warning", "engines.e.ca", "over http"),
    ({"engines": "engines: {e: {type: opa, url: https://h, path: a/b}}"}, "warning", "engines.e", "no rule asks it"),
    ({"engines": "engines: {e: {type: opa, url: https://h, path: a/../b}}"}, "error", "engines.e.path", "below data"),
    ({"engines": "engines: {e: {type: opa, url: https://h, path: a, timeout: 0s}}"}, "error",
     "engines.e.timeout", "longer than nothing"),
    ({"engines": "engines: {e: {type: cedar, policies: nowhere.cedar}}"}, "error",
     "engines.e.policies[0]", "cannot be read"),
    ({"engines": "engines: {e: {type: cedar, policies: config.yaml, principal: a b}}"}, "error",
     "engines.e.principal", "no type of Cedar"),
    ({"engines": "engines: {e: {type: cedar, policies: config.yaml, id: x}}"}, "error",
     "engines.e.id", "the same for everybody"),
    ({"engines": 'engines: {e: {type: cedar, policies: config.yaml, attributes: {a: ["{{ usr }}"]}}}'}, "error",
     "engines.e.attributes.a[0]", "no `usr`"),
    # scim
    (scim(f"{TOKEN}, {JOIN}", "a b"), "error", "scim.clients.a b", "part of addresses"),
    (scim(f"token: {{env: OIDC_SECRET}}, {JOIN}"), "error", "scim.clients.okta.token", "openssl rand"),
    (scim(f"{TOKEN}, {JOIN}", other=f"{TOKEN}, {JOIN}"), "error", "scim.clients.other.token", "scim.clients.okta has"),
    (scim(f"{TOKEN}"), "warning", "scim.clients.okta", "externalId"),
    (scim(f'{TOKEN}, join: {{crop: "x"}}'), "error", "scim.clients.okta.join.crop", "corp"),
    (scim(f'{TOKEN}, join: {{corp: "{{{{ groups }}}}"}}'), "error", "scim.clients.okta.join.corp", "no `groups`"),
    (scim(f'{TOKEN}, join: {{corp: "{{{{ user.nam }}}}"}}'), "error", "scim.clients.okta.join.corp", "no `nam`"),
    (scim(f"{TOKEN}, {JOIN}, domains: ['@x']"), "error", "scim.clients.okta.domains[0]", "no domain"),
    (scim(f'{TOKEN}, {JOIN}, identity: {{email: "{{{{ user.email }}}}"}}'), "error",
     "scim.clients.okta.identity.email", "made here"),
    (scim(f"{TOKEN}, {JOIN}, groups: add", b=f"token: {{env: SESSION_SECRET}}, {JOIN}, groups: replace"), "error",
     "scim.clients.b.groups", "the same"),
    ({"scim": f"scim: {{clients: {{okta: {{{TOKEN}, {JOIN}}}}}}}"}, "error", "scim", "Add provision"),
    # signals
    (signals(f"{SPEAKER}, {PUSHES}", "a b"), "error", "signals.transmitters.a b", "part of addresses"),
    (signals(SPEAKER), "error", AT_CORP, "neither token"),
    (signals(f"{SPEAKER}, poll: {{}}"), "error", f"{AT_CORP}.poll", "without access"),
    (signals(f"{SPEAKER}, {PUSHES}, access: {{env: SIGNALS_ACCESS}}, scopes: x"), "warning", f"{AT_CORP}.scopes",
     "one of"),
    (signals(f"{SPEAKER}, token: {{env: OIDC_SECRET}}"), "error", f"{AT_CORP}.token", "openssl rand"),
    (signals(f"{SPEAKER}, {PUSHES}", b=f"{SPEAKER}, {PUSHES}"), "error", "signals.transmitters.b.token", "corp has"),
    (signals(f"issuer: 'http://id.example.com', login: corp, {PUSHES}"), "error", f"{AT_CORP}.issuer", "https"),
    (signals(f"{SPEAKER}, {PUSHES}, discovery: 'https://me@x'"), "error", f"{AT_CORP}.discovery", "https"),
    (signals(f"{SPEAKER}, access: {{env: S}}, poll: {{endpoint: 'ftp://x'}}"), "error", f"{AT_CORP}.poll.endpoint",
     "http"),
    (signals(f"issuer: https://id.example.com, login: crop, {PUSHES}"), "error", f"{AT_CORP}.login", "corp"),
    ({**signals(f"issuer: https://id.example.com, login: partners, {PUSHES}"), **saml()}, "error", f"{AT_CORP}.login",
     "type oidc"),
    ({**signals(f"{SPEAKER}, {PUSHES}"), "provision": ""}, "warning", AT_CORP, "switches nobody off"),
    ({**signals(f"{SPEAKER}, {PUSHES}, subjects: email"), "provision": ""}, "error", f"{AT_CORP}.subjects",
     "directory"),
    # server
    ({"server": "server: {public_url: wiki.example.com}"}, "error", "server.public_url", "http:// or https://"),
    ({"server": f"server: {{public_url: {HOUSE}/wiki}}"}, "error", "server.public_url", "without a path"),
    ({"server": "server: {public_url: https://me@wiki.example.com}"}, "error", "server.public_url", "user name"),
    ({"server": "server: {public_url: http://wiki.example.com}"}, "error", "server.public_url", "insecure cookie"),
    ({"server": "server: {public_url: http://localhost.example.com}"}, "error", "server.public_url", "insecure cookie"),
    (server("hosts: [https://wiki.example.org]"), "error", "server.hosts[0]", "no host name"),
    (server("prefix: /"), "error", "server.prefix", "plain path"),
    (server("prefix: auth"), "error", "server.prefix", "plain path"),
    (server("listen: localhost"), "error", "server.listen", "host:port"),
    (server('listen: "::1:8080"'), "error", "server.listen", "brackets"),
    (server('listen: "localhost:80800"'), "error", "server.listen", "host:port"),
    (server("listen: unix:sock"), "error", "server.listen", "absolute path"),
    (server("proxy_protocol: true"), "error", "server.proxy_protocol", "without server.trusted_proxies"),
    (
        server("proxy_protocol: true, trusted_proxies: 10.0.0.0/8, listen: unix:/run/s"),
        "error",
        "server.proxy_protocol",
        "Listen on host:port",
    ),
    (server("head_timeout: 0s"), "error", "server.head_timeout", "longer than nothing"),
    (server("metrics: 127.0.0.1:8080"), "error", "server.metrics", "another port"),
    (server("metrics: nine"), "error", "server.metrics", "host:port"),
    (server("trusted_proxies: [0.0.0.0/0]"), "error", "server.trusted_proxies[0]", "trusts everybody"),
    (server('trusted_proxies: ["::/0"]'), "error", "server.trusted_proxies[0]", "trusts everybody"),
    (server("trusted_proxies: [0.0.0.0/1]"), "warning", "server.trusted_proxies[0]", "very large"),
    (server('trusted_proxies: ["fc00::/7"]'), "warning", "server.trusted_proxies[0]", "very large"),
    (server("trusted_proxies: [10.0.0.1, 8.8.0.0/16]"), "warning", "server.trusted_proxies[1]", "public network"),
    (server("workers: 2"), "error", "server.workers", "sessions.redis"),
    (server("client_idle: 0s"), "error", "server.client_idle", "longer than nothing"),
    # app
    (app("upstream: 127.0.0.1:3000"), "error", "app.upstream", "unix:/path"),
    (app("upstream: unix:app.sock"), "error", "app.upstream", "absolute path"),
    (app("upstream: http://127.0.0.1:3000/app"), "error", "app.upstream", "without a path"),
    (app("upstream: [http://a, http://b/app]"), "error", "app.upstream[1]", "without a path"),
    (app("upstream: [http://a, http://b, http://a]"), "error", "app.upstream[2]", "there twice"),
    (app("upstream: []"), "error", "app.upstream", "at least one"),
    (app("upstream: [http://a, http://b], draining: [http://c]"), "error", "app.draining[0]", "none of app.upstream"),
    (app("upstream: [http://a, http://b], draining: [http://a, http://b]"), "error", "app.draining", "no server"),
    (app("upstream: http://a, sticky: true"), "warning", "app.sticky", "no effect"),
    (app("upstream: http://a, health: {path: health}"), "error", "app.health.path", "Begin it with /"),
    (app('upstream: http://a, health: {path: "/a b"}'), "error", "app.health.path", "must be a path"),
    (app("upstream: http://a, health: {path: /h, host: http://b}"), "error", "app.health.host", "no host name"),
    (app("upstream: http://a, health: {path: /h, timeout: 9s}"), "warning", "app.health.timeout", "longer than every"),
    (app("upstream: http://a, circuit: {pause: 0s}"), "error", "app.circuit.pause", "longer than nothing"),
    (app("upstream: http://h, tls: {server_name: x}"), "warning", "app.tls", "not https"),
    (app("upstream: https://h, tls: {verify: false}"), "warning", "app.tls.verify", "any certificate"),
    (app("upstream: https://h, tls: {certificate: config.yaml}"), "error", "app.tls", "belong together"),
    (app("upstream: https://h, tls: {ca: nowhere.pem}"), "error", "app.tls.ca", "no file"),
    (app("upstream: https://h, tls: {ca: config.yaml}"), "error", "app.tls.ca", "holds no certificate"),
    (app("upstream: https://h, tls: {certificate: config.yaml, key: config.yaml}"), *NO_PAIR),
    (app("upstream: http://h, websocket_origins: [board]"), "error", "app.websocket_origins[0]", "http:// or https://"),
    (app("upstream: http://h, sign_out_cookies: 'a b'"), "error", "app.sign_out_cookies", "no name"),
    (app("upstream: http://h, sign_out_cookies: '*'"), "warning", "app.sign_out_cookies", "every cookie"),
    (app("upstream: http://h, logout: {}"), "error", "app.logout", "says nothing"),
    (app("upstream: http://h, logout: {path: logout}"), "error", "app.logout.path", "Begin it"),
    (app("upstream: http://h, logout: {path: /**}"), "warning", "app.logout.path", "every such page"),
    (app("upstream: http://h, logout: {call: {path: logout}}"), "error", "app.logout.call.path", "Begin it"),
    (app("upstream: http://h, logout: {path: /logout, then: take_over}"), "warning", "app.logout.then", "nothing ends"),
    # sessions
    (sessions("redis: redis://r"), "error", "sessions.secrets", "openssl rand"),
    (sessions(f"redis: http://r, {SECRETS}"), "error", "sessions.redis", "redis://"),
    (sessions(f'redis: "redis://:pa/ss@r", {SECRETS}'), "warning", "sessions.redis", "a password stands"),
    (sessions("cluster: true"), "error", "sessions.cluster", "without sessions.redis"),
    (sessions("sentinel: {master: m, nodes: [a:1]}"), "error", "sessions.sentinel", "without sessions.redis"),
    (
        sessions(f"redis: redis://r, {SECRETS}, cluster: true, sentinel: {{master: m, nodes: [a:1]}}"),
        "error",
        "sessions.cluster",
        "exclude",
    ),
    (
        sessions(f"redis: redis://r, {SECRETS}, sentinel: {{master: m, nodes: [a]}}"),
        "error",
        "sessions.sentinel.nodes[0]",
        "host:port",
    ),
    (sessions(f"redis: redis://r, {SECRETS}, redis_ca: config.yaml"), "error", "sessions.redis", "rediss://"),
    (sessions(f"redis: rediss://r, {SECRETS}, redis_key: config.yaml"), "error", "sessions", "belong together"),
    (sessions(f"redis: rediss://r, {SECRETS}, redis_ca: config.yaml"), "error", "sessions.redis_ca", "no certificate"),
    (sessions("idle: 1d, absolute: 12h"), "error", "sessions.idle", "sessions.absolute"),
    (sessions("absolute: 0s"), "error", "sessions.absolute", "longer than nothing"),
    (sessions("cookie: {name: a b}"), "error", "sessions.cookie.name", "name of a cookie"),
    (sessions("cookie: {name: __Host-wiki}"), "error", "sessions.cookie.name", "by itself"),
    (sessions("cookie: {domain: example.org}"), "error", "sessions.cookie.domain", "parent"),
    (sessions("cookie: {domain: ki.example.com}"), "error", "sessions.cookie.domain", "parent"),
    (sessions("cookie: {domain: com}"), "error", "sessions.cookie.domain", "strangers"),
    (sessions("cookie: {domain: co.uk}"), "error", "sessions.cookie.domain", "strangers"),
    (sessions("cookie: {domain: .example.com}"), "error", "sessions.cookie.domain", "plain domain"),
    (
        {"server": "server: {public_url: http://localhost:8080}", **sessions("cookie: {same_site: none}")},
        "error",
        "sessions.cookie.same_site",
        "https",
    ),
    # directory, audit, pages
    ({"directory": "directory: mongodb://h/d"}, "error", "directory", "kind of database"),
    ({"directory": "directory: nowhere"}, "error", "directory", "no address"),
    ({"directory": "directory: {url: postgresql:///d}"}, "error", "directory.url", "no host"),
    ({"directory": 'directory: "sqlite:///:memory:"'}, "error", "directory", "in memory"),
    ({"directory": "directory: mysql://u@h/d?ssl_ca=/no.pem"}, "error", "directory", "/no.pem cannot be used: No such"),
    ({"directory": "directory: postgresql://u@h/d?sslmode=full"}, "error", "directory", "sslmode is one of"),
    ({"directory": "directory: postgresql://u@h/d?sslcert=/c"}, "error", "directory", "belong together"),
    ({"directory": "directory: postgresql://u:pw@h/d"}, "warning", "directory", "a password stands"),
    (
        {**accounts(), **sessions(f"redis: redis://r, {SECRETS}"), "directory": "directory: sqlite:///d.db"},
        "warning",
        "directory",
        "cannot be shared",
    ),
    ({"audit": ""}, "warning", "audit", "audit.stdout"),
    # sources of people
    (sync("every: 1h"), "warning", "sync.hr", "nobody who signs in"),
    (sync(f"every: 1h, {JOIN}".replace("corp", "nobody")), "error", "sync.hr.join.nobody", "no login"),
    (sync(JOIN), "warning", "sync.hr", "only by hand"),
    (sync(f"{JOIN}, cron: every day"), "error", "sync.hr.cron", ""),
    (sync(f"{JOIN}, every: 1h, domains: ['@x']"), "error", "sync.hr.domains[0]", "no domain"),
    (sync(f"{JOIN}, every: 1h, active: '{{{{ user.name }}}}'"), "error", "sync.hr.active", "no `user` here"),
    (sync(f"{JOIN}, every: 1h", "csv: nowhere/people.csv"), "warning", "sync.hr.source.csv", "not there"),
    (
        sync(f"{JOIN}, every: 1h", "ldap: {url: 'http://x', base: dc=x}"),
        "error",
        "sync.hr.source.ldap.url",
        "no LDAP address",
    ),
    (
        sync(f"{JOIN}, every: 1h", "ldap: {url: 'ldap://x.example', base: dc=x}"),
        "warning",
        "sync.hr.source.ldap.url",
        "in the clear",
    ),
    (sync(f"{JOIN}, every: 1h, watch: true", "ldap: {url: 'ldaps://x', base: dc=x}"), "error", "sync.hr.watch", "file"),
    (
        sync(f"{JOIN}, every: 1h, limits: {{privileged: [nobody]}}"),
        "error",
        "sync.hr.limits.privileged[0]",
        "no role",
    ),
    (sync(f"{JOIN}, every: 1h", provision=""), "error", "sync", "provision is missing"),
    (audit("on_failure: refuse"), "error", "audit.on_failure", "nothing that could fail"),
    (audit("stdout: true, rotate: {size: 1MiB}"), "error", "audit.rotate", "no file"),
    (audit("syslog: {url: logs.example.com}"), "error", "audit.syslog.url", "tls://"),
    (audit("syslog: {url: 'tls://logs:99999'}"), "error", "audit.syslog.url", "no address"),
    (audit("syslog: {url: 'tls://logs/path'}"), "error", "audit.syslog.url", "host and port only"),
    (audit("syslog: {url: unix:dev/log}"), "error", "audit.syslog.url", "absolute path"),
    (audit("syslog: {url: tcp://logs}"), "warning", "audit.syslog.url", "in the clear"),
    (audit("syslog: {url: udp://127.0.0.1, ca: config.yaml}"), "error", "audit.syslog.ca", "tls:// only"),
    (audit("stdout: true, events: {syslog: [login-failed]}"), "error", "audit.events.syslog", "is not set"),
    (audit("stdout: true, events: {stdout: [login-failed]}"), "warning", "audit.events", "break-glass-used"),
    (audit("stdout: true, events: {stdout: ['!console-act']}"), "warning", "audit.events", "no sink gets console-act"),
    (audit("database: {retention: 1h}"), "error", "audit.database.retention", "1d"),
    (audit("database: {retention: 2d}, chain: {every: 2d}"), "error", "audit.chain.every", "more often"),
    (hook("https://user:p@siem"), "error", "audit.webhook.url", "password"),
    (hook("https://siem:99999"), "error", "audit.webhook.url", "no address"),
    (hook("siem.example.com"), "error", "audit.webhook.url", "https://"),
    (hook("http://siem"), "error", "audit.webhook.url", "in the clear"),
    (hook("http://siem, insecure: true"), "warning", "audit.webhook.insecure", "in the clear"),
    (hook("http://localhost, insecure: true, ca: config.yaml"), "error", "audit.webhook.ca", "https:// only"),
    (hook("https://siem, timeout: 5m"), "error", "audit.webhook.timeout", "1m"),
    (hook("https://siem, spool_size: 1KiB"), "error", "audit.webhook.spool_size", "1MiB"),
    (hook("https://siem", "OIDC_SECRET"), "error", "audit.webhook.secret", "32 characters"),
    ({"insights": "insights: {privileged: [admim]}"}, "error", "insights.privileged", "Write admin"),
    ({"insights": "insights: {privileged: [admin]}"}, "warning", "insights.privileged", "neither"),
    ({"insights": "insights: {dormant: {after: 1h}}"}, "error", "insights.dormant.after", "1d"),
    ({"insights": "insights: {silent_token: {after: 1h}}"}, "error", "insights.silent_token.after", "1d"),
    ({"insights": "insights: {}", "audit": ""}, "warning", "insights", "nobody is told"),
    (audit("file: a.jsonl, chain: {anchors: a.jsonl}"), "error", "audit.chain.anchors", "copies"),
    (audit("stdout: true, chain: {every: 10ms}"), "error", "audit.chain.every", "1s"),
    (audit("stdout: true, personal: {fields: {path: network}}"), "error", "audit.personal.fields.path", "addresses"),
    (audit("stdout: true, personal: {fields: {path: pseudonym}}"), "warning", "audit.personal.key", "own"),
    ({"pages": "pages: {templates: nowhere}"}, "error", "pages.templates", "no folder"),
    # logins and identity
    (logins("title: Corp", name='"c/d"'), "error", "logins.c/d", "part of addresses"),
    (
        {"logins": "logins: {corp: {type: oidc, issuer: http://id.example.com, client_id: wiki}}"},
        "error",
        "logins.corp.issuer",
        "https",
    ),
    (
        {"logins": "logins: {corp: {type: oidc, issuer: 'https://id.example.com?x=1', client_id: wiki}}"},
        "error",
        "logins.corp.issuer",
        "plain address",
    ),
    (logins("discovery: id.example.com"), "error", "logins.corp.discovery", "plain address"),
    (logins("parameters: {state: x}"), "error", "logins.corp.parameters.state", "itself"),
    (logins("domains: ['@example.com']"), "error", "logins.corp.domains[0]", "no e-mail domain"),
    (
        {"logins": f"logins:\n  corp: {{{LOGIN}}}\n  again: {{{LOGIN}}}"},
        "warning",
        "logins.again.issuer",
        "logins.corp",
    ),
    (
        {
            "logins": f"logins:\n  corp: {{{LOGIN}, domains: {{a: b}}}}\n"
            "  more: {type: oidc, issuer: https://b.example, client_id: c, domains: [EXAMPLE.com]}"
        },
        "error",
        "logins.corp.domains",
        "must be text",
    ),
    (
        {
            "logins": f"logins:\n  corp: {{{LOGIN}, domains: [example.com]}}\n"
            "  more: {type: oidc, issuer: https://b.example, client_id: c, domains: [EXAMPLE.com]}"
        },
        "error",
        "logins.more.domains[0]",
        "belongs to logins.corp",
    ),
    (logins("bearer: {audience: a}"), "warning", "logins.corp.bearer", "no access rule"),
    ({"identity": "", "roles": ""}, "error", "identity.username", "claims.preferred_username"),
    (
        {
            "identity": "",
            "roles": "",
            "logins": f'logins:\n  corp: {{{LOGIN}}}\n  more: {{type: oidc, issuer: https://b.example, client_id: c, '
            'identity: {username: "{{ claims.sub }}"}}',
        },
        "error",
        "logins.corp.identity.username",
        "logins.corp",
    ),
    ({"identity": 'identity: {username: "{{ user.name }}"}'}, "error", "identity.username", "no `user` here"),
    ({"identity": 'identity: {username: "{{ claims.sub }}"}'}, "warning", "roles.admin", "nothing fills"),
    (
        {
            "identity": 'identity: {username: "{{ claims.sub }}"}',
            "roles": "",
            **access("path: /**, allow: {group: staff}"),
        },
        "warning",
        "access[0].allow.group",
        "nothing fills",
    ),
    (
        accounts(account='account: {key: "{{ user.email }}", existing: link_verified}'),
        "warning",
        "provision.account.existing",
        "nobody is ever linked",
    ),
    (
        {
            **logins("domains: [example.com]"),
            **accounts(account='account: {key: "{{ user.email }}", other_login: join_verified}'),
        },
        "warning",
        "provision.account.other_login",
        "there is only one login",
    ),
    (
        {
            **logins("domains: [example.com], trust_email: true"),
            **accounts(account='account: {key: "{{ user.email }}", existing: link_verified}'),
        },
        "warning",
        "logins.corp.trust_email",
        "take over",
    ),
    # roles
    (roles('"{{ \'a\' in group }}"'), "error", "roles.admin", "Did you mean `groups`?"),
    (roles('"{{ user.emial == \'x\' }}"'), "error", "roles.admin", "user has no `emial`"),
    (roles('"{{ user[\'mail\'] == \'x\' }}"'), "error", "roles.admin", "user has no `mail`"),
    (roles("true"), "error", "roles.admin", "one expression"),
    ({**saml(), **roles("\"{{ 'a' in claims.memberOf }}\"")}, "warning", "roles.admin", "parts of it"),
    ({**saml(), **roles("\"{{ true and 'a' not in claims['x'] }}\"")}, "warning", "roles.admin", "is not string"),
    ({**saml(), **access("path: /x, deny: [{when: \"{{ 'a' in claims.x }}\"}]", CATCH_ALL)}, "warning",
     "access[0].deny[0].when", "parts of it"),
    (roles('"{{ true }} "'), "error", "roles.admin", "one expression"),
    ({"roles": "roles: {admin: {group: a, includes: edtor}, editor: {group: b}}"}, "error", "roles.admin.includes",
     "Did you mean `editor`?"),
    ({"roles": "roles: {admin: {login: copr}}"}, "error", "roles.admin.login", "Did you mean `corp`?"),
    ({"roles": "roles: {admin: {group: a, includes: admin}}"}, "warning", "roles.admin.includes", "itself"),
    (roles("{when: \"{{ 'a' in group }}\"}"), "error", "roles.admin.when", "Did you mean `groups`?"),
    (logins("groups_source: {url: http://graph.example/me}"), "error", "logins.corp.groups_source.url", "https"),
    (logins("groups_source: {url: https://h/me, scope: email}"), "warning", "logins.corp.groups_source.scope", "among"),
    # access
    (access('path: /x, allow: {when: "{{ claim.a }}"}', CATCH_ALL), "error", "access[0].allow.when", "`claims`?"),
    (access('path: /x, deny: [{when: "{{ 1 }} x"}]', CATCH_ALL), "error", "access[0].deny[0].when", "one expression"),
    (access("path: /x, deny: {}", CATCH_ALL), "error", "access[0].deny", "says nobody"),
    (access("path: /x, deny: {role: admni}", CATCH_ALL), "error", "access[0].deny.role", "Did you mean `admin`?"),
    (access("path: /x, allow: [signed_in, {role: x}]", CATCH_ALL), "error", "access[0].allow[1].role", "no role"),
    (access("path: /x, allow: {who: anyone, role: admin}", CATCH_ALL), "error", "access[0].allow.role", "about people"),
    (access("path: /a/**, methods: GET, allow: nobody", "path: /a/b, allow: signed_in", CATCH_ALL), "warning",
     "access[1]", "does not decide GET: rule 1"),
    (access("path: /a/**, allow: anyone", "path: /a/b, allow: signed_in", CATCH_ALL), "warning", "access[1]",
     "does not decide the ordinary methods: rule 1"),
    (access("path: /**, deny: {group: x}"), "warning", "access", "what no rule covers is refused"),
    (access(CATCH_ALL, "path: /x, deny: {group: x}"), "error", "access[1]", "never reached"),
    (access("path: '/a?b', allow: signed_in"), "error", "access[0].path", "query"),
    (access("path: '/a#b', allow: signed_in"), "error", "access[0].path", "fragment"),
    (access("path: '/a%2fb', allow: signed_in"), "error", "access[0].path", "decoded"),
    (access("path: '/a\\b', allow: signed_in"), "error", "access[0].path", "backslash"),
    (access("path: /a//b, allow: signed_in"), "error", "access[0].path", "never fits"),
    (access("path: /a/../b, allow: signed_in"), "error", "access[0].path", "never fits"),
    (access("path: '/admin/.*', allow: signed_in"), "error", "access[0].path", "regular expression"),
    (access("path: '/(a|b)', allow: signed_in"), "error", "access[0].path", "regular expression"),
    (access("path: '/admin$', allow: signed_in"), "error", "access[0].path", "regular expression"),
    (access("path: '^/admin', allow: signed_in"), "error", "access[0].path", "no regular expression"),
    (access("path: admin, allow: signed_in"), "error", "access[0].path", "starts with /"),
    (access("path: /a/**/b, allow: signed_in"), "error", "access[0].path", "/admin/**"),
    (access("path: /admin/, allow: nobody", CATCH_ALL), "warning", "access[0].path", "/admin/**"),
    (access("path: /x, allow: {role: admni}", CATCH_ALL), "error", "access[0].allow.role", "Did you mean `admin`?"),
    (access("path: /x, allow: {login: copr}", CATCH_ALL), "error", "access[0].allow.login", "Did you mean `corp`?"),
    (access("path: /x, allow: {bearer: nope}", CATCH_ALL), "error", "access[0].allow.bearer", "no login"),
    (access("path: /x, allow: {bearer: corp}", CATCH_ALL), "error", "access[0].allow.bearer", "bearer tokens"),
    (access("path: /x, allow: {}", CATCH_ALL), "error", "access[0].allow", "signed_in"),
    (access("path: /x, allow: anyone, require: {max_age: 1h}", CATCH_ALL), "warning", "access[0].require", "no effect"),
    (access("path: /x, methods: [TRACE], allow: nobody", CATCH_ALL), "warning", "access[0].methods[0]", "refused"),
    (access("path: /x, methods: HEAD, allow: nobody", CATCH_ALL), "warning", "access[0].methods", "Write GET"),
    (access("path: /x, host: other.example, allow: nobody", CATCH_ALL), "warning", "access[0].host", "server.hosts"),
    (access("path: /**, allow: anyone"), "warning", "access[0]", "ANYONE may open EVERYTHING"),
    (access("path: /a.php, allow: {role: admin}", CATCH_ALL), "warning", "access[0].path", "lets more people to"),
    (access("path: /a/*, allow: nobody", CATCH_ALL), "warning", "access[0].path", "write /prefix/**"),
    (access("path: /a, allow: signed_in", "path: /**, allow: anyone"), "warning", "access[0].path", "guards one page"),
    (
        access("path: /a, allow: signed_in, require: {max_age: 5m}", CATCH_ALL),
        "warning",
        "access[0].path",
        "rule 2 (`/**`)",
    ),
    (access("path: /x, allow: signed_in"), "warning", "access", "what no rule covers is refused"),
    (access(CATCH_ALL, "path: /x, allow: nobody"), "error", "access[1]", "rule 1 (`/**`) covers"),
    (access("path: /x, allow: nobody", "path: /x, allow: signed_in", CATCH_ALL), "error", "access[1]", "says the same"),
    (access("path: /a/**, allow: nobody", "path: /a, allow: anyone", CATCH_ALL), "error", "access[1]", "never reached"),
    (access("path: /*/x, allow: nobody", "path: /a*/x, allow: anyone", CATCH_ALL), "error", "access[1]", "never"),
    (
        access("path: /a, methods: [GET, POST], allow: nobody", "path: /a, methods: GET, allow: anyone", CATCH_ALL),
        "error",
        "access[1]",
        "never reached",
    ),
    # headers and assertion
    (headers("'X User': a"), "error", "headers.X User", "no name of a header"),
    (headers("Host: a"), "error", "headers.Host", "belongs to the connection"),
    (headers("transfer_encoding: a"), "error", "headers.transfer_encoding", "belongs to the connection"),
    (headers("Cookie: a"), "error", "headers.Cookie", "belongs to the connection"),
    (headers("X-Forwarded-Host: a"), "error", "headers.X-Forwarded-Host", "sidecar itself"),
    (headers("X: {basic: {username: a, password: {env: OIDC_SECRET}}}"), "warning", "headers.X.basic", "Authorization"),
    (headers("X: {secret: {env: BAD_SECRET}}"), "error", "headers.X", "cannot stand in a header"),
    (headers('Authorization: {basic: {username: "{{ usr }}", password: {env: OIDC_SECRET}}}'), "error",
     "headers.Authorization.basic.username", "Did you mean `user`?"),
    (headers("X-User: a, x_user: b"), "error", "headers.x_user", "the same as `X-User`"),
    (headers('X-User: "{{ usr.name }}"'), "error", "headers.X-User", "Did you mean `user`?"),
    (headers('X-User: {value: "{{ session.token }}"}'), "error", "headers.X-User.value", "session has no `token`"),
    (headers('X-User: "{{ account.key }}"'), "warning", "headers.X-User", "empty without provision"),
    (
        {**headers("X-Who: a"), "assertion": "assertion: {header: x-who, audience: a, key: {env: OIDC_SECRET}}"},
        "error",
        "assertion.header",
        "the same as `X-Who`",
    ),
    (
        {"assertion": "assertion: {audience: a, key: {env: OIDC_SECRET}, claims: {sub: x}}"},
        "error",
        "assertion.claims.sub",
        "signer itself",
    ),
    # Accounts, attributes, roles and changes
    (accounts(account='account: {key: "{{ roles | first }}"}'), "error", "provision.account.key", "no `roles` here"),
    (accounts(account="account: {key: wiki}"), "error", "provision.account.key", "same for everybody"),
    (
        accounts(attributes='attributes: {mail: {from: "{{ account.key }}", sync: create}}'),
        "error",
        "provision.attributes.mail.from",
        "not known yet",
    ),
    (accounts(roles="roles: {default: reader}"), "error", "provision.roles.default", "not among managed"),
    (accounts(roles="roles: {managed: [boss]}"), "warning", "provision.roles.managed[0]", "nobody ever gets `boss`"),
    (accounts(roles="roles: {managed: [admin]}"), "warning", "provision.set_roles", "no steps"),
    (accounts(attributes='attributes: {mail: {from: "{{ user.email }}"}}'), "warning", "provision.update", "no steps"),
    (accounts(create=""), "warning", "provision.create", "nobody gets an account"),
    (accounts(deactivate=""), "warning", "provision.deactivate", "stay open"),
    (accounts(reactivate=""), "warning", "provision.reactivate", "stays locked"),
    (
        accounts(lookup='lookup: {rest: {on: api, path: "/u/{{ account.key }}"}}'),
        "warning",
        "provision.lookup",
        "no step saves the account's id",
    ),
    # Connections of provisioning
    (api("base_url: app.example.com"), "error", "provision.connections.api.rest.base_url", "http:// or https://"),
    (api("base_url: 'https://{{ user.name }}.x'"), "error", "provision.connections.api.rest.base_url", "another host"),
    (api("base_url: https://u:p@h"), "error", "provision.connections.api.rest.base_url", "Use basic"),
    (api("base_url: 'https://h?x=1'"), "error", "provision.connections.api.rest.base_url", "query"),
    (
        api("base_url: http://h, bearer: {env: OIDC_SECRET}"),
        "warning",
        "provision.connections.api.rest.base_url",
        "over http",
    ),
    (api("base_url: https://h, verify: false"), "warning", "provision.connections.api.rest.verify", "any certificate"),
    (api("base_url: https://h, key: config.yaml"), "error", "provision.connections.api.rest", "belong together"),
    (
        api("base_url: https://h, headers: {Authorization: Bearer abc}"),
        "warning",
        "provision.connections.api.rest.headers.Authorization",
        "a secret stands in the file",
    ),
    (
        api("base_url: https://h, headers: {Host: other}"),
        "error",
        "provision.connections.api.rest.headers.Host",
        "cannot be a header",
    ),
    (
        api("base_url: https://h, login: {path: in, token: '{{ body.t }}'}"),
        "error",
        "provision.connections.api.rest.login.path",
        "begin with /",
    ),
    (
        api("base_url: https://h, login: {path: /in, token: '{{ row.t }}'}"),
        "error",
        "provision.connections.api.rest.login.token",
        "no `row` here",
    ),
    (
        api("base_url: https://h, login: {path: /in, json: {u: '{{ user.name }}'}, token: '{{ body.t }}'}"),
        "error",
        "provision.connections.api.rest.login.json.u",
        "no `user` here",
    ),
    (
        api("base_url: https://h, login: {path: /in, json: {u: a}, form: {u: a}, token: '{{ body.t }}'}"),
        "error",
        "provision.connections.api.rest.login.form",
        "either json or form",
    ),
    (
        accounts(connections="connections: {db: {sql: oracle://h/d}, api: {rest: {base_url: https://h}}}"),
        "error",
        "provision.connections.db.sql",
        "kind of database",
    ),
    (
        accounts(connections="connections: {db: {sql: 'mysql://u:p@h/d'}, api: {rest: {base_url: https://h}}}"),
        "warning",
        "provision.connections.db.sql",
        "a password stands",
    ),
    (
        accounts(
            connections="connections: {db: {sql: sqlite:///d}, spare: {sql: sqlite:///e}, "
            "api: {rest: {base_url: https://h}}}"
        ),
        "warning",
        "provision.connections.spare",
        "no step uses",
    ),
    # Steps of provisioning
    (create(f"rest: {{{POST.replace('api', 'apy')}}}"), "error", "provision.create[0].rest.on", "Did you mean `api`?"),
    (create("rest: {on: db, path: /users}"), "error", "provision.create[0].rest.on", "the connection is sql"),
    (create("rest: {on: api, path: users}"), "error", "provision.create[0].rest.path", "begin with one /"),
    (create('rest: {on: api, path: "{{ user.name }}"}'), "error", "provision.create[0].rest.path", "begin with one /"),
    (create("rest: {on: api, path: //evil.example/users}"), "error", "provision.create[0].rest.path", "one /"),
    (create("rest: {on: api, path: /u, json: {a: b}}"), "error", "provision.create[0].rest.method", "GET has no body"),
    (create(f"rest: {{{POST}, json: {{a: b}}, form: {{a: b}}}}"), "error", "provision.create[0].rest.form", "either"),
    (create(f"rest: {{{POST}, headers: {{Host: b}}}}"), "error", "provision.create[0].rest.headers.Host", "cannot be"),
    (
        create(f"rest: {{{POST}, idempotency_header: 'a b'}}"),
        "error",
        "provision.create[0].rest.idempotency_header",
        "cannot be",
    ),
    (
        create(f"rest: {{{POST}, outcomes: {{conflict: {{sqlstate: '23505'}}}}}}"),
        "error",
        "provision.create[0].rest.outcomes.conflict.sqlstate",
        "no SQLSTATE",
    ),
    (
        create(f"rest: {{{POST}, outcomes: {{conflict: {{status: 2x}}}}}}"),
        "error",
        "provision.create[0].rest.outcomes.conflict.status",
        "201, or 2xx",
    ),
    (
        create(f"rest: {{{POST}, outcomes: {{conflict: {{when: 'taken'}}}}}}"),
        "error",
        "provision.create[0].rest.outcomes.conflict.when",
        "one expression",
    ),
    (
        create(f'rest: {{{POST}, json: {{deep: [{{x: "{{{{ body.id }}}}"}}]}}}}'),
        "error",
        "provision.create[0].rest.json.deep[0].x",
        "only in save and in outcomes",
    ),
    (
        create(f'rest: {{{POST}, save: {{id: "{{{{ row.id }}}}"}}}}'),
        "error",
        "provision.create[0].rest.save.id",
        "no `row` here",
    ),
    (
        create(f'rest: {{{POST}, save: {{pw: "{{{{ generated.password }}}}"}}}}'),
        "error",
        "provision.create[0].rest.save.pw",
        "must not be kept",
    ),
    (
        create(f'rest: {{{POST}, json: {{pw: "{{{{ generated.pasword }}}}"}}}}'),
        "error",
        "provision.create[0].rest.json.pw",
        "Did you mean `password`?",
    ),
    (
        create(f'rest: {{{POST}, json: {{mail: "{{{{ attributes.mail }}}}"}}}}'),
        "error",
        "provision.create[0].rest.json.mail",
        "attributes has no `mail`",
    ),
    (
        create(f'rest: {{{POST}, json: {{id: "{{{{ saved.id }}}}"}}}}'),
        "error",
        "provision.create[0].rest.json.id",
        "saved has no `id`",
    ),
    (
        create(f'rest: {{{POST}, json: {{role: "{{{{ item }}}}"}}}}'),
        "error",
        "provision.create[0].rest.json.role",
        "only in a step with foreach",
    ),
    (create(f'foreach: "{{{{ item }}}}", rest: {{{POST}}}'), "error", "provision.create[0].foreach", "`item`"),
    (create(f'foreach: "roles", rest: {{{POST}}}'), "error", "provision.create[0].foreach", "one expression"),
    (create(f'when: "{{{{ user.nme }}}}", rest: {{{POST}}}'), "error", "provision.create[0].when", "`nme`"),
    (create(f"sql: {{{INSERT}}}"), "error", "provision.create[0].sql.exec", ":login is in the statement"),
    (
        create(f"sql: {{{INSERT}, params: {{{SOMEBODY}, mail: x}}}}"),
        "error",
        "provision.create[0].sql.params",
        "mail is not in the statement",
    ),
    (create('sql: {on: db, exec: "DELETE FROM a; SELECT 1"}'), "error", "provision.create[0].sql.exec", "one step"),
    (
        create(f"sql: {{{INSERT}, params: {{{SOMEBODY}}}, outcomes: {{conflict: {{status: 409}}}}}}"),
        "error",
        "provision.create[0].sql.outcomes.conflict.status",
        "no status",
    ),
    (
        create(f"sql: {{{INSERT}, params: {{{SOMEBODY}}}, outcomes: {{created: {{sqlstate: '23505'}}}}}}"),
        "error",
        "provision.create[0].sql.outcomes.created.sqlstate",
        "never a success",
    ),
    (
        accounts(lookup="lookup: {sql: {on: db, exec: DELETE FROM users}}"),
        "error",
        "provision.lookup.sql.exec",
        "only reads",
    ),
    (
        accounts(lookup='lookup: {rest: {on: api, path: "/u/{{ generated.uuid }}"}}'),
        "error",
        "provision.lookup",
        "not for lookup",
    ),
    # Callers
    (access("path: /**, allow: {bearer: [token]}"), "error", "access[0].allow.bearer[0]", "there is no login"),
    (access("path: /**, allow: {bearer: [tokens]}"), "error", "access[0].allow.bearer[0]", "there is no section"),
    (tokens(""), "warning", "tokens", "no access rule accepts API tokens"),
    (tokens(""), "warning", "tokens", "tokens of services only"),
    (tokens("lifetime: 91d"), "error", "tokens.lifetime", "longer than tokens.max_lifetime"),
    ({**tokens(""), **logins("bearer: {audience: a}", "tokens")}, "error", "logins.tokens", "rules mean API tokens"),
    (callers(""), "warning", "certificates", "no access rule accepts certificates"),
    (callers("header: 'a b'"), "error", "certificates.header", "no name of a header"),
    (callers("header: Signature"), "error", "certificates.header", "means something else"),
    (callers("subject: '{{ claims.cn }}', callers: {a: {cn: b}}"), "warning", "certificates.subject", "no effect"),
    (callers("subject: '{{ user.name }}'"), "error", "certificates.subject", "there is no `user` here"),
    (callers("identity: {username: '{{ cn }}'}"), "error", "certificates.identity.username", "there is no `cn` here"),
    (callers("", proxies="[10.0.0.0/8]"), "error", "certificates.proxies[0]", "anybody in there can be"),
    (callers("", proxies="everybody"), "error", "certificates.proxies", "a network is written like"),
    (callers("callers: {a: {claims: {b: c}}}"), "error", "certificates.callers.a", "fits every certificate"),
    (
        {"logins": f"logins:\n  a: {{{LOGIN}, {ASKED}}}\n  b: {{{LOGIN}, {ASKED}}}"},
        "error",
        "logins.b.bearer.introspection",
        "nobody could tell whose an opaque token is",
    ),
    (
        {"logins": f"logins: {{a: {{type: oidc, issuer: https://i.example, client_id: c, {ASKED}}}}}"},
        "error",
        "logins.a.bearer.introspection",
        "must know who asks",
    ),
    (
        logins("bearer: {audience: x, introspection: {endpoint: http://id.example.com/i}}"),
        "error",
        "logins.corp.bearer.introspection.endpoint",
        "must be an https address",
    ),
    # What rules require
    (
        access("path: /a/**, methods: POST, allow: signed_in, require: {acr: gold}",
               "path: /a/**, allow: signed_in, require: {acr: [silver, bronze]}", CATCH_ALL),
        "warning",
        "access[1].require.acr",
        "no sign-in is of a class for this rule and for rule 1 (`/a/**`)",
    ),
    (
        access("path: /a/b, methods: [GET], allow: signed_in, require: {acr: gold}",
               "path: /a/**, methods: [GET, POST], allow: signed_in, require: {acr: silver}", CATCH_ALL),
        "warning",
        "access[1].require.acr",
        "accept one class in common",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sections", "severity", "path", "fragment"), CASES, ids=[f"{case[2]}: {case[3]}" for case in CASES]
)
def test_a_mistake_is_named_at_its_place_with_a_way_out(
    tmp_path: Path, sections: dict[str, str], severity: str, path: str, fragment: str
) -> None:
    found = problems(tmp_path, text_of(**sections))
    fitting = [problem for problem in found if problem.path == path and fragment in f"{problem.message}. {problem.fix}"]
    assert [problem.severity for problem in fitting] == [severity], "\n".join(map(str, found))


def test_certificates_must_go_with_their_keys(tmp_path: Path) -> None:
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
        make_certificates(tmp_path / name)
    tls = "upstream: https://h, tls: {ca: ours/authority.pem, certificate: ours/server.pem, key: KEY}"
    assert problems(tmp_path, text_of(**app(tls.replace("KEY", "ours/server.key")))) == ()
    (found,) = problems(tmp_path, text_of(**app(tls.replace("KEY", "other/server.key"))))
    assert found.path == "app.tls.certificate"
    assert "mismatch" in found.message


@pytest.mark.parametrize(("days", "word"), [(15, ""), (13, "ends on"), (-1, "ended on")])
@pytest.mark.parametrize("key", ["app.tls.certificate", "directory"])
def test_a_certificate_of_ours_that_ends_soon_is_told_of(tmp_path: Path, key: str, days: int, word: str) -> None:
    make_certificates(tmp_path, days=days)
    ours = f"{tmp_path}/server.pem", f"{tmp_path}/server.key"
    shown = app("upstream: https://h, tls: {{certificate: {}, key: {}}}".format(*ours))
    if key == "directory":
        address = "postgresql://u:p@h/d?sslmode=require&sslcert={}&sslkey={}".format(*ours)
        shown = {"directory": f"directory: '{address}'"}
    found = [one for one in problems(tmp_path, text_of(**shown)) if " on 20" in one.message]
    assert [(one.severity, one.path, word in one.message) for one in found] == (
        [("warning", key, True)] if word else []
    )


def test_the_least_configuration_is_fine(tmp_path: Path) -> None:
    assert problems(tmp_path, text_of()) == ()


def test_the_least_provisioning_is_fine(tmp_path: Path) -> None:
    assert problems(tmp_path, text_of(provision=provision())) == ()


@pytest.mark.parametrize(
    "sections",
    [
        {"server": "server: {public_url: http://localhost:8080}"},
        {"server": "server: {public_url: 'http://[::1]:8080'}"},
        {"server": "server: {public_url: http://wiki.localhost}"},
        audit("stdout: true, file: a.jsonl, events: {file: [decision], stdout: ['!decision']}"),
        server("trusted_proxies: [10.0.0.0/8, 127.0.0.1, 203.0.113.7, 'fd00::/32']"),
        server("listen: '[::]:8080', metrics: ':9090'"),
        asking("[10.0.0.7, 10.1.0.0/16]"),
        asking("unix", "unix:/run/s"),
        sessions("cookie: {domain: example.com}"),
        sessions("cookie: {domain: WIKI.example.com, same_site: none}"),
        headers("Authorization: Basic abc"),
        access("path: /admin, allow: nobody", "path: /admin/, allow: nobody", "path: /administrator, allow: nobody",
               "path: /admin/**, allow: nobody", CLOSED),
        access("path: /a, methods: GET, allow: nobody", "path: /a, allow: nobody", CLOSED),
        access("path: /a, host: wiki.example.com, allow: nobody", "path: /a, allow: nobody", CLOSED),
        access("path: /a*b, allow: nobody", "path: /a*, allow: nobody", CLOSED),
        # Classes that have one in common; other paths, hosts and methods.
        access("path: /a, methods: POST, allow: signed_in, require: {acr: [gold, mfa]}",
               "path: /a, allow: signed_in, require: {acr: [mfa, x]}", CLOSED),
        access("path: /a, methods: POST, allow: signed_in, require: {acr: gold}",
               "path: /b, allow: signed_in, require: {acr: mfa}", CLOSED),
        access("path: /a/b, allow: signed_in, require: {acr: gold}",
               "path: /a/**, allow: signed_in, require: {acr: mfa}", CLOSED),
        access("path: /a, methods: POST, allow: signed_in, require: {amr: otp}",
               "path: /a, allow: signed_in, require: {amr: hwk}", CLOSED),
        access("path: /$metadata, allow: nobody", "path: '/Users(1)', allow: nobody", "path: /a/*.php, allow: nobody",
               CLOSED),
        access("path: /a, allow: {role: admin}", "path: /a/**, allow: {group: g}", CATCH_ALL),
        access("path: /a, allow: anyone", CATCH_ALL),
        {"roles": "roles:\n  admin: |\n    {{ 'a' in groups }}"},
        roles("\"{{ 'a' in claims.memberOf }}\""),
        {**saml(), **roles("\"{{ claims.x == 'a' or (claims.x is not string and 'a' in claims.x) }}\"")},
        create('sql: {on: db, exec: "INSERT INTO a VALUES (:a::text, \':b\') -- :c", params: {a: x}}'),
        {"logins": "logins: {corp: {type: oidc, issuer: http://localhost:9000/id, client_id: wiki}}"},
    ],
)  # fmt: skip
def test_what_is_fine_passes_without_a_word(tmp_path: Path, sections: dict[str, str]) -> None:
    assert problems(tmp_path, text_of(**sections)) == ()


def test_upper_and_lower_case_are_one_where_the_application_says_so(tmp_path: Path) -> None:
    rules = access("path: /Admin, allow: nobody", "path: /admin, allow: nobody", CLOSED)
    assert problems(tmp_path, text_of(**rules)) == ()
    folded = problems(tmp_path, text_of(**rules, **app("upstream: http://h, ignore_case: true")))
    assert [problem.path for problem in folded] == ["access[1]"]


def test_a_rule_open_to_anyone_leaves_unusual_methods_to_the_next(tmp_path: Path) -> None:
    rules = access("path: /a, allow: anyone", "path: /a, allow: nobody", CLOSED)
    assert problems(tmp_path, text_of(**rules)) == ()


def test_templates_of_hooks_are_checked_against_what_hooks_give() -> None:
    assert templates.ORDER == ORDER_NAMES
    assert templates.REST_ANSWER | templates.SQL_ANSWER == ANSWER_NAMES


def test_every_check_speaks_in_some_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = {check.look.__qualname__ + check.look.__module__ for check in CHECKS}
    wrapped = []
    for check in CHECKS:

        def look(config, document, check=check):  # noqa: ANN001, ANN202
            for problem in check.look(config, document):
                silent.discard(check.look.__qualname__ + check.look.__module__)
                yield problem

        wrapped.append(type(check)(check.sections, look))
    monkeypatch.setattr("sidecar.config.lint.CHECKS", tuple(wrapped))
    for sections, *_ in CASES:
        problems(tmp_path, text_of(**sections))
    assert silent == set()


def test_a_broken_section_does_not_hide_what_is_wrong_with_the_others(tmp_path: Path) -> None:
    text = text_of(app="app: {upsteam: http://h}", **server("listen: nowhere"), **headers("Host: a"))
    paths = {problem.path for problem in problems(tmp_path, text)}
    assert {"app.upsteam", "app.upstream", "server.listen", "headers.Host"} <= paths


def test_an_unknown_key_or_a_missing_secret_does_not_hide_what_else_is_wrong_in_its_section(tmp_path: Path) -> None:
    proxies = server("trusted_proxies: [0.0.0.0/0], colour: red, tls: {shade: dark, certificate: x, key: y}")
    login = "type: oidc, issuer: http://id.example.com, client_id: wiki, client_secret: {env: NOT_THERE}, colour: red"
    found = problems(tmp_path, text_of(**proxies, logins=f"logins:\n  corp: {{{login}}}"))
    paths = [problem.path for problem in found]
    assert {"server.colour", "server.tls.shade", "server.trusted_proxies[0]", "server.tls.key"} <= set(paths)
    assert {"logins.corp.colour", "logins.corp.issuer"} <= set(paths)
    assert paths.count("logins.corp.client_secret") == 1


def test_the_claims_that_are_the_sidecar_s_own_are_the_same_for_checks_and_logins() -> None:
    assert saml_lints.OWN_CLAIMS == OWN_CLAIMS


def test_a_plain_saml_login_is_fine(tmp_path: Path) -> None:
    assert problems(tmp_path, text_of(**saml())) == ()


def test_traces_without_their_library_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.config.lints.tracing.find_spec", lambda _: None)
    found = problems(tmp_path, text_of(**tracing("otlp: 'http://127.0.0.1:4318'")))
    assert ("error", "tracing", "OpenTelemetry is not installed") in {
        (problem.severity, problem.path, problem.message) for problem in found
    }
