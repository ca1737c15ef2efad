"""A configuration in the making: values in their places, each with the reason for it, and what was left behind."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import yaml

_WIDTH = 110
# The order in which sections stand.
_SECTIONS = (
    "server",
    "app",
    "logins",
    "identity",
    "roles",
    "access",
    "headers",
    "forward_auth",
    "sessions",
    "limits",
    "audit",
    "pages",
)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_GO_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")


@dataclass(frozen=True, slots=True)
class Left:
    """A setting that was not carried over, where it stood, and why."""

    where: str
    setting: str
    why: str


@dataclass(slots=True)
class Draft:
    """What has been read so far."""

    source: str
    values: dict[str, Any] = field(default_factory=dict)
    notes: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)

    def put(self, path: str, value: Any, note: str = "") -> None:
        """Set the value at *path*, such as ``sessions.cookie.name``; *note* says what the reader should know."""
        *folders, name = parts = tuple(path.split("."))
        place = self.values
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
        if note:
            self.notes.setdefault(parts, []).append(note)

    def get(self, path: str) -> Any:
        """The value at *path*; None when there is none."""
        place: Any = self.values
        for name in path.split("."):
            place = place.get(name) if isinstance(place, Mapping) else None
        return place

    def rule(self, rule: Mapping[str, Any], note: str = "") -> None:
        """Add an access rule behind those that are there."""
        rules = self.values.setdefault("access", [])
        rules.append(dict(rule))
        if note:
            self.notes.setdefault(("access", str(len(rules) - 1)), []).append(note)

    def closed(self, path: str, why: str) -> None:
        """Let nobody in at *path*: what was asked for there could not be carried over."""
        self.rule({"path": path, "allow": "nobody"}, f"closed, because this could not be carried over: {why}")

    def header(self, name: str, value: Any, note: str = "") -> None:
        """Tell the application *value* in the header *name*."""
        self.values.setdefault("headers", {})[name] = value
        if note:
            self.notes.setdefault(("headers", name), []).append(note)

    def secret(self, path: str, name: str, what: str) -> None:
        """Refer to a secret, which is never copied: the reader puts it into a file."""
        self.put(path, {"file": f"secrets/{name}"})
        self.todo.append(f"put {what} into secrets/{name}")

    def leave(self, where: str, setting: str, why: str) -> None:
        """Say that *setting* was not carried over."""
        self.left.append(Left(where, setting, why))

    def written(self) -> str:
        """The configuration as YAML with comments."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"# Made from a configuration of {self.source}. Read it, then: sidecar check config.yaml"
        if self.todo:
            yield "#"
            yield "# To do:"
            for item in self.todo:
                yield from _comment(f"- {item}", "", "  ")
        if self.left:
            yield "#"
            yield "# Not carried over:"
            for left in self.left:
                yield from _comment(f"- {left.where}: {left.setting}: {left.why}", "", "  ")
        order = [name for name in _SECTIONS if name in self.values]
        for name in (*order, *(name for name in self.values if name not in _SECTIONS)):
            yield ""
            yield from self._entry((name,), self.values[name], 0)

    def _entry(self, path: tuple[str, ...], value: Any, depth: int) -> Iterator[str]:
        indent = "  " * depth
        for note in self.notes.get(path, ()):
            yield from _comment(note, indent)
        key = _flow(path[-1])
        if isinstance(value, Mapping) and value and not _is_short(path, value, self.notes):
            yield f"{indent}{key}:"
            for name, inner in value.items():
                yield from self._entry((*path, name), inner, depth + 1)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            yield f"{indent}{key}:"
            for number, item in enumerate(value):
                for note in self.notes.get((*path, str(number)), ()):
                    yield from _comment(note, f"{indent}  ")
                yield f"{indent}  - {_flow(item)}"
        else:
            yield f"{indent}{key}: {_flow(value)}"


def _is_short(path: tuple[str, ...], value: Mapping[str, Any], notes: Mapping[tuple[str, ...], list[str]]) -> bool:
    """True for a reference to a secret, which is written in one line."""
    return set(value) in ({"file"}, {"env"}) and not any(known[: len(path)] == path for known in notes if known != path)


class _Dumper(yaml.SafeDumper):
    """Writes expressions as people do."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if "{{" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _flow(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").replace("\n", " ")


def _comment(text: str, indent: str, hang: str = "") -> Iterator[str]:
    # No line feed of a foreign file gets out of its comment.
    clean = "".join(sign if sign.isprintable() else " " for sign in text)
    for line in textwrap.wrap(clean, _WIDTH, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {line}"


def duration_of(seconds: float) -> str:
    """*seconds* as the configuration writes them."""
    whole = round(seconds)
    for unit in ("d", "h", "m"):
        if whole and whole % _SECONDS[unit] == 0:
            return f"{whole // _SECONDS[unit]}{unit}"
    return f"{whole}s"


def go_duration(text: str) -> str | None:
    """A duration as Go writes it (``168h0m0s``) as ours; None when it is none."""
    parts = _GO_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    seconds = sum(float(number) * (0.001 if unit == "ms" else _SECONDS[unit]) for number, unit in parts)
    return duration_of(seconds) if seconds >= 1 else f"{round(seconds * 1000)}ms"


def origin_of(url: str) -> str:
    """Scheme, host and port of *url*; "" when there are none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in {"http", "https"} and parts.netloc else ""


def issuer_of(discovery: str) -> str:
    """Issuer of the discovery document at *discovery* (OpenID Connect Discovery 1.0, section 4)."""
    return discovery.removesuffix("/.well-known/openid-configuration")


def holds(claim: str, value: str) -> str:
    """The condition that *claim* is *value* or has it among its values; never that *value* is a part of a text."""
    return f"(claims.{claim} == '{value}' or (claims.{claim} is not string and '{value}' in claims.{claim}))"


_SIMPLE = re.compile(r"(?:/[A-Za-z0-9._~@:!,=-]+)*/?")


def pattern_of(regex: str) -> str | None:
    """The path pattern that says the same as *regex*; None when none does."""
    text = regex.removeprefix("^").replace("\\.", "\0").replace("\\/", "/").replace("\\-", "-")
    ends = text.endswith("$")
    text = text.removesuffix("$")
    is_open = not ends
    for tail in ("/.*", ".*", "(/.*)?", "(?:/.*)?"):
        if text.endswith(tail):
            text, is_open = text.removesuffix(tail), True
            break
    if not regex.startswith("^") or not _SIMPLE.fullmatch(text.replace("\0", "")) or "." in text:
        return None
    text = text.replace("\0", ".")
    if is_open:
        return f"{text.rstrip('/')}/**"
    return text or "/"
