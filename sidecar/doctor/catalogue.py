"""Everything that is examined, by its stable name; docs/doctor.md says the same, and a test compares."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sidecar.doctor.finding import Subject

_SUBJECTS = {
    "configuration": Subject(
        "configuration",
        "What `sidecar check` warns of is a mistake that somebody will meet.",
        "Do what the message says; `sidecar check` repeats it.",
    ),
    "examination": Subject(
        "examination",
        "A check that hangs or breaks off has not seen what it should look at.",
        "Try it alone with `--only`; look at what it talks to.",
    ),
    "connection": Subject(
        "connection",
        "Requests, sign-ins or accounts wait or fail while this cannot be reached.",
        "Start it, or correct its address, credentials or certificate, or the firewall between.",
    ),
    "clock": Subject(
        "clock",
        "Tokens and SAML answers are good for minutes: clocks that differ refuse everybody, or accept what has ended.",
        "Synchronise both machines (chrony, systemd-timesyncd); if all differ alike, this one. Leeway is for seconds.",
    ),
    "dns": Subject(
        "dns",
        "A name that does not resolve, or only after seconds, is an outage that comes and goes.",
        "Correct the name or /etc/resolv.conf; a resolver on this machine answers within milliseconds.",
    ),
    "dns-public-url": Subject(
        "dns",
        "People and the provider's redirects go where public_url resolves to.",
        "Add the DNS record, or correct server.public_url.",
    ),
    "tls-public-url": Subject(
        "tls",
        "Browsers turn people away from a certificate that is expired, for another name or of an unknown authority.",
        "Renew the certificate, or install the one for this name with its whole chain.",
    ),
    "tls-provider": Subject(
        "tls",
        "Nobody can sign in when the provider's certificate is not accepted: it is never skipped.",
        "Name the authority with `ca`, or have the provider's certificate renewed.",
    ),
    "tls-upstream": Subject(
        "tls",
        "Every request fails when the application's certificate is not accepted.",
        "Name the authority with app.tls.ca, the name with app.tls.server_name, or renew it.",
    ),
    "oidc-metadata": Subject(
        "oidc",
        "Sign-ins follow this document; what is wrong in it, or about somebody else, ends them.",
        "Write issuer exactly as the provider does; have its endpoints served over https.",
    ),
    "oidc-keys": Subject(
        "oidc",
        "Without a key that fits `algorithms` no ID token can be verified, so nobody gets in.",
        "List the provider's algorithm in `algorithms`, or have it publish a signing key of 2048 bits or more.",
    ),
    "oidc-capabilities": Subject(
        "oidc",
        "The sidecar uses the code flow with PKCE (S256); a provider that lacks them refuses, or protects less.",
        "Enable the code flow and PKCE for this client at the provider.",
    ),
    "redirect-uri": Subject(
        "redirect",
        "The provider shows an error page instead of its sign-in when the address to return to is not registered.",
        "Register the address at the provider, character by character.",
    ),
    "client-authentication": Subject(
        "client",
        "With a wrong secret people sign in at the provider and fail on their way back.",
        "Compare client_id, client_secret and client_auth with the provider's settings.",
    ),
    "saml-metadata": Subject(
        "saml",
        "What the metadata says is what is believed; when it ends, so do all sign-ins of this login.",
        "Correct `metadata` or `idp`, or have the provider publish new metadata.",
    ),
    "saml-certificates": Subject(
        "saml",
        "Providers change their key when its certificate ends; without new metadata no answer is believed then.",
        "Ask the provider for its new certificate, and let its metadata list both.",
    ),
    "saml-keys": Subject(
        "saml",
        "Some providers refuse requests, or encrypt no longer, once our certificate has ended.",
        "Make a new pair, put it first in `keys`, and have the provider read our metadata again.",
    ),
    "cookie": Subject(
        "cookie",
        "Whoever gets the session cookie is that person; each attribute keeps it from somebody.",
        "Leave sessions.cookie at its defaults, and use https with a host name of your own.",
    ),
    "public-url": Subject(
        "public-url",
        "Sign-ins return to public_url; if that does not lead here, nobody arrives.",
        "Let the proxy in front pass Host unchanged, all methods and all of the path to server.listen.",
    ),
    "public-url-cookies": Subject(
        "public-url",
        "A proxy that drops Set-Cookie makes every sign-in begin again.",
        "Switch off cookie rules of the proxy in front for this site.",
    ),
    "public-url-cache": Subject(
        "public-url",
        "A cache in front could show one person's page to another.",
        "Let the proxy in front cache nothing, or only what Cache-Control allows.",
    ),
    "trusted-proxies": Subject(
        "proxies",
        "X-Forwarded-For counts only from these: too few, and limits see one address for all; too many, and "
        "anybody can claim any address.",
        "List exactly the addresses from which your own proxies connect.",
    ),
    "redis-version": Subject(
        "redis", "Commands of the sidecar came with Redis 6.2.", "Run Redis 6.2 or newer, or Valkey."
    ),
    "redis-eviction": Subject(
        "redis",
        "A Redis that evicts keys ends sessions, and forgets that a code, a SAML answer or a logout was used already.",
        "Set maxmemory-policy noeviction, in a Redis that is not also a cache.",
    ),
    "redis-memory": Subject(
        "redis",
        "A full Redis refuses new sessions; with eviction it drops old ones.",
        "Raise maxmemory, or give the sidecar a Redis of its own.",
    ),
    "redis-persistence": Subject(
        "redis",
        "A Redis that crashes and goes on from a snapshot has the sessions again that ended since. Without persistence "
        "a restart signs everybody out.",
        'Set appendonly yes, or save "" where signing in again is no trouble.',
    ),
    "redis-permissions": Subject(
        "redis",
        "What the ACL user may not do fails at the moment somebody needs it.",
        "Allow the commands of docs/sessions.md on keys below sessions.prefix.",
    ),
    "redis-push": Subject(
        "redis",
        "Without pushes (RESP3 CLIENT TRACKING) sessions are looked up for every request, which is slower.",
        "Allow +client|tracking, and let no proxy that speaks RESP2 only stand between.",
    ),
    "redis-tls": Subject(
        "redis",
        "Sessions are sealed, but Redis's password goes over the network as it is.",
        "Write rediss://, or keep Redis on this machine or in a network of its own.",
    ),
    "directory-migrations": Subject(
        "directory",
        "A directory of an older program is brought up to date at the next start; one of a newer stops this one.",
        "Back it up before the update; start the newer program on a newer directory.",
    ),
    "directory-database": Subject(
        "directory",
        "Who has which account must survive crashes, and a database that waits for ever makes people wait.",
        "Keep SQLite on a local disk; use PostgreSQL or MySQL for several replicas.",
    ),
    "hook-render": Subject(
        "hooks",
        "A template that fails is found when the first person without an account is at the door.",
        "Correct the step; `sidecar plan --user claims.json` shows what it makes.",
    ),
    "hook-lookup": Subject(
        "hooks",
        "A lookup that fails lets nobody in; one that finds anybody hands accounts to strangers.",
        "Correct provision.lookup; `sidecar hooks test --user claims.json` shows what it finds.",
    ),
    "bypass": Subject(
        "application",
        "Whoever reaches the application directly can write the identity headers themselves, and be anybody.",
        "Let the application listen on 127.0.0.1 or a Unix socket, or close its port to all but the sidecar.",
    ),
    "upstream-trust": Subject(
        "application",
        "An application that believes the headers of whoever connects is only as safe as its port.",
        "Give it a secret header or `assertion` that it checks, or let nobody else connect to it.",
    ),
    "file-permissions": Subject(
        "files",
        "Secrets that others on this machine can read are theirs; files that they can write are worse.",
        "chmod 600 (or 640 with a group of its own) the file.",
    ),
    "audit-sink": Subject(
        "files",
        "Audit lines that cannot be written are missing when somebody asks what happened.",
        "Give the folder to the sidecar's user, or name another audit.file.",
    ),
    "disk-space": Subject(
        "files",
        "A full disk stops audit and the directory.",
        "Make room, rotate audit.file (audit.rotate), or move the file.",
    ),
    "session-secret": Subject(
        "files",
        "Whoever knows or guesses this secret, and can read the store, can make sessions.",
        "Make a new one (openssl rand -base64 32), put it first in sessions.secrets, and drop the old one a day later.",
    ),
    "descriptors": Subject(
        "machine",
        "Each connection is a file descriptor; without one left, new people are turned away.",
        "Raise LimitNOFILE (systemd) or --ulimit nofile (Docker).",
    ),
    "workers": Subject(
        "machine", "More workers than cores only take each other's time.", "Set server.workers to the number of cores."
    ),
}  # fmt: skip
CATALOGUE: Mapping[str, Subject] = MappingProxyType(_SUBJECTS)


def table() -> str:
    """The catalogue as docs/doctor.md has it."""
    lines = ["| finding | check | why it matters | what to change |", "|---|---|---|---|"]
    lines += [f"| `{name}` | `{one.check}` | {one.why} | {one.change} |" for name, one in CATALOGUE.items()]
    return "\n".join(lines)
