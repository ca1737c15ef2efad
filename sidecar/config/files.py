"""Look whether the files that a configuration names are there, before something needs them at night."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sidecar.config.document import Document, Location
from sidecar.config.models import Config
from sidecar.config.problem import Problem

_READ = frozenset(["ca", "certificate", "key", "redis_ca", "redis_certificate", "redis_key", "metadata_certificate"])


def missing_files(config: Config, document: Document, usable: frozenset[str]) -> Iterator[Problem]:
    """Files that cannot be read, and folders that are not there; relative paths start beside the configuration."""
    for name in Config.model_fields:
        if name in usable:
            for place, path in _paths(getattr(config, name), (name,)):
                yield from _missing(place, path, document)


def _missing(place: Location, path: Path, document: Document) -> Iterator[Problem]:
    shown = document.quoted(place, str(path))
    if place[-1] in _READ and not (path.is_file() and os.access(path, os.R_OK)):
        yield document.error(place, f"{shown} is no file that can be read", "Check the path and its permissions")
    elif place == ("pages", "templates") and not path.is_dir():
        yield document.error(place, f"{shown} is no folder", "Make it, or remove the line")


def _paths(value: Any, place: Location) -> Iterator[tuple[Location, Path]]:
    if isinstance(value, Path):
        yield place, value
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _paths(getattr(value, name), (*place, field.alias or name))
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _paths(part, (*place, name))
