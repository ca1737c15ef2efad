"""Read Apache's configuration syntax: directives, their words, and the sections they stand in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from sidecar.convert.draft import Draft, origin_of, pattern_of

_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'|(\S+)')
_OPEN = re.compile(r"<(\w+)\s*(.*?)>\s*")
_CLOSE = re.compile(r"</(\w+)>\s*")
_MOST_DEPTH = 20
# Sections that say nothing about the path.
_TRANSPARENT = frozenset(["virtualhost", "ifmodule", "ifdefine", "ifversion", "requireany"])
_GROUPS = frozenset(["requireall", "requireany", "requirenone", "limit", "limitexcept", "if"])
_INCLUDES = frozenset(["include", "includeoptional"])
_FILES = frozenset(["directory", "directorymatch", "files", "filesmatch"])
# What says nothing that anybody would miss here.
_MEANT_FOR_APACHE = frozenset([
    "allowoverride", "authname", "authtype", "authbasicprovider", "customlog", "errorlog", "loadmodule", "listen",
    "loglevel", "options", "order", "allow", "proxypassreverse", "proxypassreversecookiepath", "proxyrequests",
    "rewriteengine", "rewritecond", "serveradmin", "serversignature", "sslcertificatechainfile", "sslciphersuite",
    "sslhonorcipherorder", "sslprotocol", "sslproxyengine", "sslsessiontickets", "usecanonicalname",
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive: its name as written, its words, the sections around it (name and words), and its line.

    ``host`` is the line where its <VirtualHost> begins, 0 outside of any.
    """

    name: str
    words: Sequence[str]
    sections: Sequence[tuple[str, str]]
    line: int
    host: int = 0

    @property
    def key(self) -> str:
        """Its name, for comparing."""
        return self.name.lower()

    @property
    def value(self) -> str:
        """Its first word, or ""."""
        return self.words[0] if self.words else ""

    @property
    def where(self) -> str:
        """Where it stands, for messages."""
        return f"line {self.line}"

    @property
    def said(self) -> str:
        """All of it, for messages."""
        return " ".join((self.name, *self.words))

    @property
    def location(self) -> str | None:
        """The path pattern of what it is about; None when there is no pattern that says the same."""
        for name, words in reversed(self.sections):
            kind, path = name.lower(), words.strip("\"' ")
            if kind == "location":
                return f"{path.rstrip('/')}/**" if path.startswith("/") and not set(path) & set("*?[~") else None
            if kind == "locationmatch":
                return pattern_of(path)
            if kind not in _TRANSPARENT:
                return None
        return "/**"

    @property
    def is_about_files(self) -> bool:
        """True for what concerns files on the old machine's disk, which a web server behind this serves."""
        return any(name.lower() in _FILES for name, _ in self.sections)

    @property
    def is_negated(self) -> bool:
        """True for what must not be so."""
        return any(name.lower() == "requirenone" for name, _ in self.sections)

    @property
    def is_beside(self) -> bool:
        """True for a ``Require all …`` that says nothing of paths: of files, and what <Proxy> is opened with."""
        words, kinds = [word.lower() for word in self.words], {name.lower() for name, _ in self.sections}
        is_proxy_open = words[-1:] == ["granted"] and bool(kinds & {"proxy", "proxymatch"})
        return words[:1] == ["all"] and (self.is_about_files or is_proxy_open)

    @property
    def around(self) -> str | None:
        """The path of the section that its own groups stand in, such as <RequireAll> in <Location>."""
        for depth in range(len(self.sections), 0, -1):
            if self.sections[depth - 1][0].lower() not in _GROUPS:
                return replace(self, sections=self.sections[:depth]).location
        return "/**"


def directives_of(text: str) -> list[Directive]:
    """All directives of *text*. Raises ValueError, which names the line, for sections that do not fit together."""
    return list(_read(text))


def _read(text: str) -> Iterator[Directive]:
    sections: list[tuple[str, str]] = []
    host = 0
    for number, line in _joined(text):
        if not line or line.startswith("#"):
            continue
        if opened := _OPEN.fullmatch(line):
            sections.append((opened[1], opened[2]))
            host = number if opened[1].lower() == "virtualhost" else host
            if len(sections) > _MOST_DEPTH:
                message = f"line {number}: sections are nested too deeply"
                raise ValueError(message)
        elif closed := _CLOSE.fullmatch(line):
            if not sections or sections[-1][0].lower() != closed[1].lower():
                message = f"line {number}: </{closed[1]}> closes nothing"
                raise ValueError(message)
            sections.pop()
            host = 0 if closed[1].lower() == "virtualhost" else host
        else:
            name, *words = [next(filter(None, found), "") for found in _WORD.findall(line)]
            yield Directive(name, words, tuple(sections), number, host)
    if sections:
        message = f"<{sections[-1][0]}> is not closed"
        raise ValueError(message)


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those that go on behind a backslash; the number is that of the first."""
    first, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        first = first if parts else number
        if line.endswith("\\"):
            parts.append(line[:-1])
            continue
        yield first, " ".join([*parts, line]).strip()
        parts = []
    if parts:
        yield first, " ".join(parts).strip()


def one_site(directives: Sequence[Directive], is_ours: Callable[[Directive], bool], draft: Draft) -> list[Directive]:
    """What is said for all sites, and for the first virtual host in which one of the module's own directives stands.

    Rules of another site must not open this one.
    """
    for one in directives:
        if one.key in _INCLUDES:
            draft.leave(one.where, one.said, "included files are not read: put their text in its place")
            draft.todo.append(f"{one.where}: {one.said}: what it says is missing here, also about who may come")
    hosts = list(dict.fromkeys(one.host for one in directives if one.host))
    signs: Sequence[Callable[[Directive], bool]] = (is_ours, lambda one: one.key in {"require", "proxypass"})
    fitting = (one.host for sign in signs for one in directives if one.host and sign(one))
    chosen = next(fitting, hosts[0] if hosts else 0)
    for host in hosts:
        if host != chosen:
            name = next((one.value for one in directives if one.host == host and one.key == "servername"), "")
            why = "one site at a time: convert it from a file that holds it alone"
            draft.leave(f"line {host}", f"<VirtualHost> {name}".strip(), why)
    return [one for one in directives if one.host in {0, chosen}]


def leave_unread(directives: Sequence[Directive], is_read: Callable[[Directive], bool], draft: Draft) -> None:
    """Name, once each, what nothing has read."""
    first: dict[str, Directive] = {}
    named = {left.where for left in draft.left}
    for one in directives:
        if one.key not in _MEANT_FOR_APACHE | _INCLUDES and one.where not in named and not is_read(one):
            first.setdefault(one.key, one)
    for one in first.values():
        draft.leave(one.where, one.name, "is not read; see whether the application, or who may come, depends on it")


@dataclass(slots=True)
class Site:
    """What Apache says of the site as such, whatever module signs people in."""

    name: str = ""
    is_secure: bool = False
    taken: set[int] = field(default_factory=set)

    def read(self, directives: Sequence[Directive], draft: Draft) -> None:
        """Carry over listener, certificates and the application."""
        for one in directives:
            if one.key == "servername":
                self.name = one.value.split("://")[-1]
            elif one.key == "serveralias":
                self._hosts(one, draft)
            elif one.key == "sslcertificatefile":
                draft.put("server.tls.certificate", one.value)
            elif one.key == "sslcertificatekeyfile":
                draft.put("server.tls.key", one.value)
            elif one.key == "sslengine":
                self.is_secure = one.value.lower() == "on"
            elif one.key == "proxypass":
                self._upstream(one, draft)
            elif one.key == "documentroot":
                draft.leave(one.where, one.name, "files are for a web server behind this; name it in app.upstream")
            else:
                continue
            self.taken.add(one.line)

    @staticmethod
    def _hosts(one: Directive, draft: Draft) -> None:
        plain = [name for name in one.words if not set(name) & set("*?")]
        if plain:
            draft.put("server.hosts", [*(draft.get("server.hosts") or []), *plain])
        for name in one.words:
            if name not in plain:
                draft.leave(one.where, f"{one.name} {name}", "names are written out in server.hosts")

    @staticmethod
    def _upstream(one: Directive, draft: Draft) -> None:
        inner = len(one.words) > 1 and not one.words[0].startswith("http")
        path, target = (one.words[0], one.words[1]) if inner else (one.location or "/", one.value)
        origin = origin_of(target)
        if not origin:
            draft.leave(one.where, f"{one.name} {path}", "the application is reached by http, https or a Unix socket")
            return
        if draft.get("app.upstream") is not None:
            draft.leave(
                one.where, f"{one.name} {path}", "one application stands behind this, with its paths as they are"
            )
            return
        draft.put("app.upstream", origin)
        inside = urlsplit(target).path.rstrip("/")
        if inside != path.rstrip("/*"):
            note = f"{path} was {inside or '/'} inside the application: paths pass as they are here"
            draft.leave(one.where, one.name, note)

    def finish(self, draft: Draft, public: str = "") -> None:
        """Fill in what nobody said; *public* is the origin that the module knows of."""
        if not public and self.name:
            public = f"{'https' if self.is_secure or draft.get('server.tls') else 'http'}://{self.name}"
        if not public:
            public = "https://wiki.example.com"
            draft.todo.append("server.public_url: write the address that people type")
        draft.put("server.listen", "0.0.0.0:8443" if draft.get("server.tls") else "127.0.0.1:8080")
        draft.put("server.public_url", public)
        if draft.get("app.upstream") is None:
            draft.put("app.upstream", "http://127.0.0.1:3000")
            draft.todo.append("app.upstream: write where the application is")
        if not draft.get("sessions.secrets"):
            draft.put("sessions.secrets", [{"file": "secrets/session"}])
            draft.todo.append("openssl rand -base64 32 > secrets/session")
        draft.put("audit.stdout", value=True)


def is_on(directive: Directive) -> bool:
    """True for ``On``."""
    return directive.value.lower() == "on"
