"""Check who may ask for decisions, and that what they are told can be said."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.document import Document
from sidecar.config.lints.addresses import far_reach
from sidecar.config.models import Config
from sidecar.config.problem import Problem

_WHO = "List the addresses of your front proxies only"


def peers(config: Config, document: Document) -> Iterator[Problem]:
    """Whoever may ask can claim to be anybody's proxy, and gets the headers that the application believes."""
    section = config.forward_auth
    if section is None:
        return
    is_unix = config.server.listen.startswith("unix:")
    for number, peer in enumerate(section.peers):
        place = ("forward_auth", "from", number)
        if isinstance(peer, str):
            if not is_unix:
                yield document.error(place, "server.listen is no Unix socket", "Write the front proxy's address")
        elif is_unix:
            yield document.error(place, "a Unix socket has no addresses", "Write unix: whoever may open it may ask")
        elif peer.prefixlen == 0:
            message = "lets everybody ask: anyone could claim to carry anybody's request"
            yield document.error(place, message, _WHO)
        elif reach := far_reach(peer):
            yield document.warning(place, f"lets a {reach} ask", _WHO)
    if config.server.proxy_protocol:
        message = "does not go together with server.proxy_protocol, which hides whose connection it is"
        yield document.error(("forward_auth",), message, "Let front proxies ask without it")


def own_pages(config: Config, document: Document) -> Iterator[Problem]:
    """The front proxy also passes on the sidecar's own pages, whose limits count by client."""
    section, trusted = config.forward_auth, config.server.trusted_proxies
    if section is None:
        return
    message = "at the sidecar's own pages everybody has the front proxy's address: limits count all people as one"
    for number, peer in enumerate(section.peers):
        place = ("forward_auth", "from", number)
        if isinstance(peer, str):
            if not trusted:
                fix = "Name any network in server.trusted_proxies, such as 127.0.0.1: the socket then counts, too"
                yield document.warning(place, message, fix)
        elif not any(one.version == peer.version and peer.subnet_of(one) for one in trusted):  # type: ignore[arg-type]
            yield document.warning(place, message, "Add it to server.trusted_proxies")


def headers(config: Config, document: Document) -> Iterator[Problem]:
    """Only what is UTF-8 can be handed over."""
    if config.forward_auth is None:
        return
    for name, line in config.headers.items():
        if line.encoding == "latin-1":
            message = "cannot be handed to a front proxy, which is told in UTF-8"
            yield document.error(("headers", name, "encoding"), message, "Write utf-8, ascii, percent or base64")
