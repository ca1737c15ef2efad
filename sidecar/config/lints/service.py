"""Check server, application and audit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

from sidecar.config.document import Document
from sidecar.config.lints.addresses import far_reach, is_host, is_loopback, listen_problem, origin_problem
from sidecar.config.models import Config
from sidecar.config.problem import Problem
from sidecar.config.within import within
from sidecar.core.addresses import host_of
from sidecar.core.cookies import is_cookie_name

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
# sockaddr_un has 108 bytes, with the zero at the end.
_LONGEST_SOCKET = 107
_TARGET = re.compile(r"/[!-~]*")
# A duration of nothing means something here: no tolerance, no waiting, no memory.
_MAY_BE_ZERO = frozenset(["leeway", "drain", "notice", "remember", "time"])
_DIAL = "Write http://host:port, https://host:port or unix:/path/to/socket"


def public_address(config: Config, document: Document) -> Iterator[Problem]:
    """What people type must be an origin, and one that cookies are safe at."""
    server, place = config.server, ("server", "public_url")
    problem = origin_problem(server.public_url)
    if problem:
        yield document.error(place, problem, "Write what people type, such as https://wiki.example.com")
    elif urlsplit(server.public_url).scheme == "http":
        host = urlsplit(server.public_url).hostname or ""
        if not is_loopback(host):
            fix = "Write https://, also when a proxy in front ends TLS; http is possible for localhost only"
            yield document.error(place, "an insecure cookie over http: everybody on the way can take it", fix)
        if server.tls is not None:
            yield document.error(place, "says http, but server.tls serves https", "Write https://")
    for number, host in enumerate(server.hosts):
        if not is_host(host):
            here = ("server", "hosts", number)
            yield document.error(here, f"{document.quoted(here, host)} is no host name", "Without scheme and port")
    if not _PREFIX.fullmatch(server.prefix.rstrip("/")):
        yield document.error(("server", "prefix"), "must be a plain path such as /-", "It cannot be / itself")


def listeners(config: Config, document: Document) -> Iterator[Problem]:
    """Listeners are addresses, and two different ones."""
    server = config.server
    problem = listen_problem(server.listen)
    if problem:
        yield document.error(
            ("server", "listen"), problem, "Write 127.0.0.1:8080, [::1]:8080 or unix:/run/sidecar.sock"
        )
    if server.metrics is None:
        return
    problem = listen_problem(server.metrics, takes_unix=False)
    if problem:
        yield document.error(("server", "metrics"), problem, "Write 127.0.0.1:9090")
    elif server.metrics == server.listen and not server.metrics.endswith(":0"):
        yield document.error(("server", "metrics"), "is the address that server.listen has", "Choose another port")


def reloading(config: Config, document: Document) -> Iterator[Problem]:
    """A Unix socket has a short name."""
    control = config.reload.control
    if control is not None and len(str(control).encode()) > _LONGEST_SOCKET:
        message = f"longer than the {_LONGEST_SOCKET} bytes that the name of a Unix socket may have"
        yield document.error(("reload", "control"), message, "Write a shorter path, such as /run/sidecar/control")


def proxies(config: Config, document: Document) -> Iterator[Problem]:
    """Whoever is trusted can claim to be anybody's address."""
    for number, network in enumerate(config.server.trusted_proxies):
        place = ("server", "trusted_proxies", number)
        fix = "List the addresses of your own proxies only"
        if network.prefixlen == 0:
            yield document.error(place, "trusts everybody: anyone could claim to come from any address", fix)
        elif reach := far_reach(network):
            yield document.warning(place, f"trusts a {reach}", fix)


def proxy_protocol(config: Config, document: Document) -> Iterator[Problem]:
    """Whoever may announce connections can claim to be anybody's address."""
    server, place = config.server, ("server", "proxy_protocol")
    if not server.proxy_protocol:
        return
    if not server.trusted_proxies:
        fix = "List the addresses of your load balancers there"
        yield document.error(place, "lets nobody in without server.trusted_proxies", fix)
    if server.listen.startswith("unix:"):
        yield document.error(place, "needs peers with addresses, and a Unix socket has none", "Listen on host:port")


def application(config: Config, document: Document) -> Iterator[Problem]:
    """Where the application is, and how far it is believed."""
    app = config.app
    tls = app.tls
    if not any(one.startswith("https:") for one in app.upstream) and tls != type(tls)():
        yield document.warning(("app", "tls"), "has no effect, because upstream is not https", "Remove it")
    if not tls.verify:
        yield document.warning(("app", "tls", "verify"), "accepts any certificate", "Name the authority with ca")
    if (tls.certificate is None) != (tls.key is None):
        yield document.error(("app", "tls"), "certificate and key belong together", "Give both")
    for number, origin in enumerate(app.websocket_origins):
        problem = origin_problem(origin)
        if problem:
            yield document.error(("app", "websocket_origins", number), problem, "Write https://other.example.com")


def servers(config: Config, document: Document) -> Iterator[Problem]:
    """Each of the application's servers is an address, there once; one of them at least serves."""
    app = config.app
    for number, address in enumerate(app.upstream):
        place = ("app", "upstream", number) if len(app.upstream) > 1 else ("app", "upstream")
        problem = _dial_problem(address)
        if problem:
            yield document.error(place, problem, _DIAL)
        elif address in app.upstream[:number]:
            yield document.error(place, "is there twice", "List each server once")
    for number, address in enumerate(app.draining):
        if address not in app.upstream:
            here = ("app", "draining", number)
            yield document.error(here, "is none of app.upstream", "Write it as it stands there")
    if set(app.upstream) <= set(app.draining):
        yield document.error(("app", "draining"), "leaves no server", "Leave one of app.upstream out")
    if len(app.upstream) == 1 and app.sticky:
        yield document.warning(("app", "sticky"), "has no effect with one server", "Remove it")


def _dial_problem(address: str) -> str:
    if address.startswith("unix:"):
        return "" if address.startswith("unix:/") else "a Unix socket needs an absolute path"
    return origin_problem(address)


def health(config: Config, document: Document) -> Iterator[Problem]:
    """What the servers are asked must be a request."""
    section, place = config.app.health, ("app", "health")
    if section is None:
        return
    if not _TARGET.fullmatch(section.path):
        yield document.error((*place, "path"), "must be a path such as /health", "Begin it with /")
    if section.host is not None and not is_host(host_of(section.host)):
        yield document.error((*place, "host"), "is no host name", "Without scheme; a port may follow")
    if section.timeout > section.every:
        yield document.warning((*place, "timeout"), "is longer than every", "Checks then come later than that")


def durations(config: Config, document: Document) -> Iterator[Problem]:
    """A duration of zero is a typing mistake nearly everywhere."""
    for place, duration in within(config, timedelta):
        if duration <= timedelta(0) and place[-1] not in _MAY_BE_ZERO:
            yield document.error(place, "must be longer than nothing", "Write a duration such as 30s")


def application_cookies(config: Config, document: Document) -> Iterator[Problem]:
    """What is dropped must be a cookie."""
    for number, name in enumerate(config.app.sign_out_cookies):
        here = ("app", "sign_out_cookies", number)
        if not is_cookie_name(name):
            yield document.error(here, "is no name of a cookie", "Write its name; * stands for any letters")
        elif set(name) == {"*"}:
            yield document.warning(here, "drops every cookie at each sign-in", "Name what the application sets")


def application_logout(config: Config, document: Document) -> Iterator[Problem]:
    """The application's own sign-out must be a request that can be known, or made."""
    logout = config.app.logout
    if logout is None:
        return
    if not logout.path and logout.call is None:
        yield document.error(("app", "logout"), "says nothing", "Add path, or call")
    for number, path in enumerate(logout.path):
        if not _TARGET.fullmatch(path):
            place = ("app", "logout", "path", number)
            yield document.error(place, "must be a path such as /logout", "Begin it with /")
        elif path.partition("?")[0] in ("/**", "/*", "/"):
            place = ("app", "logout", "path", number)
            yield document.warning(place, "every such page signs out", "Name the page that does")
    if logout.call is not None and not _TARGET.fullmatch(logout.call.path):
        yield document.error(("app", "logout", "call", "path"), "must be a path such as /logout", "Begin it with /")
    if logout.path and logout.then == "take_over" and logout.call is None and not config.app.sign_out_cookies:
        message = "nothing ends the application's session: it hears of no sign-out, and keeps its cookies"
        yield document.warning(("app", "logout", "then"), message, "Add call, or list sign_out_cookies")
