"""Compile the pages' templates, built in or the operator's own, and find their mistakes before anybody needs them."""

from __future__ import annotations

import hashlib
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2
from jinja2.bccache import Bucket, BytecodeCache

from sidecar.core.paths import safe_return_to
from sidecar.pages.samples import SAMPLES

_BUILT_IN = Path(__file__).parent / "templates"
_STYLE = "style.css"
_ADDRESS = re.compile(r"[^\s@:/?&]+@[^\s@:/?&]+\.[^\s@:/?&]+")


class Templates:
    """The compiled templates and the stylesheet; nothing is read from disk after construction."""

    def __init__(self, *, app_name: str, prefix: str, support: str, overrides: Path | None) -> None:
        """Prefer the files in *overrides*. Raises ValueError that names file and line."""
        if overrides is not None and not overrides.is_dir():
            message = f"{overrides} is not a folder of templates"
            raise ValueError(message)
        self._overrides = overrides
        self.stylesheet = self._read_stylesheet()
        version = hashlib.sha256(self.stylesheet.encode()).hexdigest()[:12]
        self._environment = _environment(overrides)
        self._environment.globals.update(
            app_name=app_name,
            prefix=prefix,
            support=support,
            support_url=_support_url(support),
            stylesheet=f"{prefix}/{_STYLE}?v={version}",
        )
        self._refuse_misnamed()
        for file in sorted(overrides.glob("*.html")) if overrides is not None else ():
            self._try(file.name, None)
        for name, samples in SAMPLES.items():
            for values in samples:
                self._try(f"{name}.html", values)

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        """Text of the page *name*, one of SAMPLES."""
        return self._environment.get_template(f"{name}.html").render(values)

    def _read_stylesheet(self) -> str:
        own = self._overrides / _STYLE if self._overrides is not None else _BUILT_IN / _STYLE
        path = own if own.is_file() else _BUILT_IN / _STYLE
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            message = f"{path}: not UTF-8"
            raise ValueError(message) from error

    def _refuse_misnamed(self) -> None:
        # A misspelt name would silently leave the built-in page in place.
        known = {path.name for path in _BUILT_IN.iterdir()}
        for path in sorted(self._overrides.iterdir()) if self._overrides is not None else ():
            if path.suffix in {".html", ".css"} and path.name not in known and not path.name.startswith("_"):
                message = f"{path}: no page has this name; there are {', '.join(sorted(known))}, and _parts of your own"
                raise ValueError(message)

    def _try(self, file: str, values: Mapping[str, Any] | None) -> None:
        """Compile *file*, and render it unless *values* is None: parts are rendered with the pages that they are of."""
        try:
            template = self._environment.get_template(file)
            if values is not None:
                template.render(values)
        except jinja2.TemplateSyntaxError as error:
            message = f"{error.filename or error.name}, line {error.lineno}: {error.message}"
            raise ValueError(message) from error
        except UnicodeDecodeError as error:
            message = f"{file} or a part of it is not UTF-8"
            raise ValueError(message) from error
        except Exception as error:  # a template may raise whatever its expressions can
            message = f"{_place(error) or file}: {type(error).__name__}: {error}"
            raise ValueError(message) from error


def _environment(overrides: Path | None) -> jinja2.Environment:
    built_in = jinja2.FileSystemLoader(_BUILT_IN)
    # An override may extend the page that it replaces: {% extends "built-in/refused.html" %}.
    loaders: list[jinja2.BaseLoader] = [built_in, jinja2.PrefixLoader({"built-in": built_in})]
    if overrides is not None:
        loaders.insert(0, jinja2.FileSystemLoader(overrides))
    environment = strict_environment(jinja2.ChoiceLoader(loaders))
    environment.filters["local"] = _local
    return environment


class _Compiled(BytecodeCache):
    """What this process has compiled: every reload needs the same pages again, and they take a fifth of a second.

    Whatever else than the text decides what a page is compiled to (filters, what is done to each value) is the same for
    all environments that load a file.
    """

    def __init__(self) -> None:
        # Of each file only the newest, so that an operator's changes do not pile up.
        self._known: dict[str, tuple[str, CodeType]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        checksum, code = self._known.get(bucket.key, ("", None))
        bucket.code = code if checksum == bucket.checksum else None

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._known[bucket.key] = bucket.checksum, bucket.code


_COMPILED = _Compiled()


def strict_environment(loader: jinja2.BaseLoader) -> jinja2.Environment:
    """Templates of pages: everything is escaped, what is missing is a mistake, and nothing is read twice."""
    return jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
        bytecode_cache=_COMPILED,
        cache_size=-1,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _local(text: str) -> str:
    """Path of this very site, "/" for anything that a browser could read as another place or as a script."""
    return safe_return_to(text) or "/"


def _support_url(support: str) -> str:
    """Link for the operator's *support* text, "" when it is just words."""
    if support.startswith("https://") and not re.search(r"\s", support):
        return support
    return f"mailto:{support}" if _ADDRESS.fullmatch(support) else ""


def _place(error: Exception) -> str:
    """File and line of the template in which *error* came up; Jinja2 puts them into the traceback."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".html")]
    return f"{places[-1].filename}, line {places[-1].lineno}" if places else ""
