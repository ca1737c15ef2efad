"""Read Apache's configuration syntax: directives, their words, and the sections they stand in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sidecar.convert.draft import Draft, origin_of, pattern_of

_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'|(\S+)')
_OPEN = re.compile(r"<(\w+)\s*(.*?)>\s*")
_CLOSE = re.compile(r"</(\w+)>\s*")
_MOST_DEPTH = 20
# Sections that say nothing about the path.
_TRANSPARENT = frozenset(["virtualhost", "ifmodule", "ifdefine", "ifversion", "requireany"])


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive: its name as written, its words, the sections around it (name and words), and its line."""

    name: str
    words: Sequence[str]
    sections: Sequence[tuple[str, str]]
    line: int

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


def directives_of(text: str) -> list[Directive]:
    """All directives of *text*. Raises ValueError, which names the line, for sections that do not fit together."""
    return list(_read(text))


def _read(text: str) -> Iterator[Directive]:
    sections: list[tuple[str, str]] = []
    for number, line in _joined(text):
        if not line or line.startswith("#"):
            continue
        if opened := _OPEN.fullmatch(line):
            sections.append((opened[1], opened[2]))
            if len(sections) > _MOST_DEPTH:
                message = f"line {number}: sections are nested too deeply"
                raise ValueError(message)
        elif closed := _CLOSE.fullmatch(line):
            if not sections or sections[-1][0].lower() != closed[1].lower():
                message = f"line {number}: </{closed[1]}> closes nothing"
                raise ValueError(message)
            sections.pop()
        else:
            name, *words = [next(filter(None, found), "") for found in _WORD.findall(line)]
            yield Directive(name, words, tuple(sections), number)
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
