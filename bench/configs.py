"""What each server of the bench is told: its configuration as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CLIENT = "bench"
SECRET = "a client secret of the bench"
PASSPHRASE = "a passphrase that is long enough for the bench"
BODY = "x" * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where one server runs, and what stands around it."""

    port: int
    folder: Path
    application: int
    issuer: str
    redis: str
    workers: int = 2
    # Where browsers find it, if that is another place: one replica of several.
    public: str = ""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


_NGINX = """
daemon off;
{user}
worker_processes {workers};
worker_rlimit_nofile 60000;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 25000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  client_max_body_size 0;
  sendfile on;
  tcp_nopush on;
  {body}
}}
"""
_APPLICATION = """
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ default_type text/plain; return 200 "{body}"; }}
    location = /large {{ alias {large}; }}
  }}
"""
_BARE = """
  upstream application {{ server 127.0.0.1:{application}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_request_buffering off;
      proxy_buffering on;
      proxy_max_temp_file_size 0;
      proxy_pass http://application;
    }}
  }}
"""


def nginx_application(port: int, folder: Path, large: Path, user: str) -> str:
    """Answers with 1 KB out of memory, and with a large file that lies in memory."""
    body = _APPLICATION.format(port=port, body=BODY, large=large)
    return _NGINX.format(user=user, workers=1, folder=folder, body=body)


def nginx_bare(place: Place, user: str) -> str:
    """Forwards, and does nothing else."""
    body = _BARE.format(application=place.application, port=place.port)
    return _NGINX.format(user=user, workers=place.workers, folder=place.folder, body=body)


_APACHE = """
ServerRoot {folder}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
ListenBacklog 4096
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
{user}
{modules}
StartServers {workers}
ServerLimit {workers}
ThreadLimit 64
ThreadsPerChild 64
MaxRequestWorkers {threads}
MinSpareThreads 1
MaxSpareThreads {threads}
MaxConnectionsPerChild 0
KeepAlive On
MaxKeepAliveRequests 0
ErrorLog {folder}/error.log
LogLevel warn
LogFormat "%h %u %t \\"%r\\" %>s %O" common
CustomLog {folder}/access.log common
OIDCProviderMetadataURL {issuer}/.well-known/openid-configuration
OIDCClientID {client}
OIDCClientSecret "{secret}"
OIDCRedirectURI {url}/callback
OIDCCryptoPassphrase "{passphrase}"
OIDCScope "openid profile email"
OIDCPKCEMethod S256
OIDCRemoteUserClaim preferred_username
OIDCSessionInactivityTimeout 3600
OIDCSessionType server-cache
{cache}
<Location />
  AuthType openid-connect
  Require valid-user
  ProxyPass http://127.0.0.1:{application}/ keepalive=On
</Location>
"""
_MODULES = "mpm_event authn_core authz_core authz_user log_config proxy proxy_http unixd auth_openidc headers"


def apache(place: Place, user: str, *, in_redis: bool) -> str:
    """Signs in by mod_auth_openidc, with its sessions in Redis or in shared memory."""
    folder = Path("/usr/lib/apache2/modules")
    modules = [f"LoadModule {name}_module {folder}/mod_{name}.so" for name in _MODULES.split()]
    # Debian builds some of these into the server.
    modules = [line for line in modules if Path(line.split()[-1]).exists()]
    address = place.redis.removeprefix("redis://").partition("/")[0]
    cache = f"OIDCCacheType redis\nOIDCRedisCacheServer {address}" if in_redis else "OIDCCacheType shm"
    return _APACHE.format(
        folder=place.folder,
        port=place.port,
        user=f"User {user}\nGroup {user}" if user else "",
        modules="\n".join(modules),
        workers=place.workers,
        threads=64 * place.workers,
        issuer=place.issuer,
        client=CLIENT,
        secret=SECRET,
        url=place.url,
        passphrase=PASSPHRASE,
        cache=cache,
        application=place.application,
    )


def oauth2_proxy(place: Place) -> list[str]:
    """Words of its command line: sessions in Redis, all else as it does by default."""
    return [
        f"--http-address=127.0.0.1:{place.port}",
        "--provider=oidc",
        f"--oidc-issuer-url={place.issuer}",
        f"--client-id={CLIENT}",
        f"--client-secret={SECRET}",
        f"--redirect-url={place.url}/oauth2/callback",
        "--code-challenge-method=S256",
        "--scope=openid profile email",
        "--email-domain=*",
        "--skip-provider-button",
        "--cookie-secure=false",
        f"--cookie-secret={PASSPHRASE[:32]}",
        "--session-store-type=redis",
        f"--redis-connection-url={place.redis}",
        f"--upstream=http://127.0.0.1:{place.application}",
    ]


_SIDECAR = """
server: {{listen: "127.0.0.1:{port}", public_url: "{url}", workers: {workers}, notice: 0s, drain: 1s{server}}}
app: {{upstream: "http://127.0.0.1:{upstream}"}}
logins:
  corp: {{type: oidc, issuer: "{issuer}", client_id: {client}, client_secret: {{env: OIDC_SECRET}}}}
identity:
  username: "{{{{ claims.preferred_username }}}}"
  email: "{{{{ claims.email }}}}"
  name: "{{{{ claims.name }}}}"
  groups: "{{{{ claims.groups }}}}"
roles:
  admin: "{{{{ 'wiki-admins' in groups }}}}"
  reader: "{{{{ groups | length > 0 }}}}"
access:
  - {{path: /public/**, allow: anyone}}
  - {{path: /admin/**, allow: {{role: admin}}}}
  - {{path: /**, allow: signed_in}}
headers:
  X-Remote-User: "{{{{ user.username }}}}"
  X-Remote-Email: "{{{{ user.email }}}}"
  X-Remote-Roles: "{{{{ roles | join(',') }}}}"
sessions: {{redis: {{env: BENCH_REDIS}}, secrets: [{{env: SESSION_SECRET}}], idle: 8h, absolute: 12h}}
audit: {{file: "{folder}/audit.jsonl"{events}}}
limits: {{sign_in: "off", answers: "off"}}
log: {{level: warning}}
"""


def sidecar(place: Place, events: str = "", server: str = "") -> str:
    """The sidecar with sessions in Redis and one audit line for each decision, or what *events* says.

    *server* is one more setting of that section.
    """
    return _SIDECAR.format(
        port=place.port,
        url=place.public or place.url,
        workers=place.workers,
        upstream=place.application,
        issuer=place.issuer,
        client=CLIENT,
        folder=place.folder,
        events=f", events: {{file: [{events}]}}" if events else "",
        server=f", {server}" if server else "",
    )


def sidecar_environment(place: Place) -> dict[str, str]:
    """Secrets of the sidecar."""
    return {"OIDC_SECRET": SECRET, "BENCH_REDIS": place.redis, "SESSION_SECRET": PASSPHRASE}
