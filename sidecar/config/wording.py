"""Say what the models found wrong in the words and places of the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic_core import ErrorDetails

from sidecar.config.anatomy import fields_of, section_at
from sidecar.config.document import Document, Location
from sidecar.config.problem import Problem

_QUOTES = "Put it in quotes if it is meant as text"
_PLAIN = {
    "string_type": ("must be text", _QUOTES),
    "int_type": ("must be a whole number", ""),
    "int_parsing": ("must be a whole number", ""),
    "int_parsing_size": ("must be a smaller number", ""),
    "int_from_float": ("must be a whole number", ""),
    "bool_type": ("must be true or false", ""),
    "bool_parsing": ("must be true or false", ""),
    "dict_type": ("must be a mapping", "Write lines of key: value below it"),
    "model_type": ("must be a mapping", "Write lines of key: value below it"),
    "model_attributes_type": ("must be a mapping", "Write lines of key: value below it"),
    "tuple_type": ("must be a list", "Write [one, two], or lines that begin with -"),
    "too_short": ("needs at least one entry", ""),
}
_BOUNDS = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}


def problems_of(document: Document, errors: Iterable[ErrorDetails]) -> list[Problem]:
    """Problems that *errors* of pydantic are, one for each place and message."""
    return list(dict.fromkeys(_problem(document, error) for error in errors if not _is_echo(document, error)))


def _is_echo(document: Document, error: ErrorDetails) -> bool:
    """True for "too short" about a list whose items are wrong: only valid ones were counted."""
    return error["type"] == "too_short" and bool(document.at(document.trace(error["loc"], keeps_absent=False)))


def closest(word: str, known: Iterable[str], title: str = "Known here") -> str:
    """The way out for an unknown *word*: the nearest known one, else all of them."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"{title}: {', '.join(names)}" if names else ""


def _problem(document: Document, error: ErrorDetails) -> Problem:
    kind = error["type"]
    if kind == "missing":
        around, key = error["loc"][:-1], str(error["loc"][-1])
        fix = f"Add {key}: {_description(around, key)}".rstrip(": ")
        return document.error((*document.trace(around, keeps_absent=False), key), "is missing", fix)
    location = document.trace(error["loc"], keeps_absent=False)
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return _kind(document, location, error)
    if kind == "extra_forbidden":
        section = section_at(error["loc"][:-1])
        known = list(fields_of(section)) if section else []
        fix = closest(str(location[-1]), known)
        if location[-1] == "true" and "on" in known:
            fix = "A tool that wrote this file took `on` for a truth value: put it in quotes there"
        return document.error(location, f"unknown key `{location[-1]}`", fix)
    if document.at(location) is None and kind != "value_error":
        return document.error(location, "has no value", "Give it one, or remove the line")
    if kind == "literal_error":
        return _choice(document, location, error)
    message, fix = _told(error)
    return document.error(location, message, fix)


def _kind(document: Document, location: Location, error: ErrorDetails) -> Problem:
    """The key that tells what a section is."""
    key = error["ctx"]["discriminator"].strip("'")
    choices = [choice.strip("' ") for choice in error["ctx"].get("expected_tags", "").split(",")]
    section = section_at(location)
    if error["type"] == "union_tag_not_found":
        about = _description(location, key)
        return document.error((*location, key), "is missing", f"Add {key}: {about}".rstrip(": "))
    near = difflib.get_close_matches(str(error["ctx"]["tag"]), choices, n=1)
    fix = f"Did you mean `{near[0]}`?" if near and section else ""
    return document.error((*location, key), f"must be one of {', '.join(choices)}", fix)


def _description(around: Location, key: str) -> str:
    section = section_at(around)
    field = fields_of(section).get(key) if section else None
    return (field.description or "") if field else ""


def _choice(document: Document, location: Location, error: ErrorDetails) -> Problem:
    choices = [choice.strip("' ") for choice in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
    if error["loc"][-1] == "[key]":
        # The key is wrong, not what stands below it.
        location = document.trace(error["loc"][:-1])
        return document.error(location, f"unknown key `{location[-1]}`", closest(str(location[-1]), choices))
    value = document.at(location)
    near = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
    listed = ", ".join(choices)
    if len(choices) == 1:
        return document.error(location, f"must be {listed}")
    return document.error(location, f"must be one of {listed}", f"Did you mean `{near[0]}`?" if near else "")


def _told(error: ErrorDetails) -> tuple[str, str]:
    kind = error["type"]
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"must be {words} {error['ctx'][name]}", ""
    if kind == "value_error":
        # Validators say what is wrong, a semicolon, and the way out.
        message, _, fix = str(error["ctx"]["error"]).partition("; ")
        # The template language's own name for a closing }}.
        message = message.replace("'end of print statement'", "the end of the expression")
        return message, fix[:1].upper() + fix[1:]
    return error["msg"][:1].lower() + error["msg"][1:], ""
