"""Build the request of a REST step; values can fill it but never steer it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from sidecar.config.provision import RestStep
from sidecar.core.template import Template, TemplateError

# Written by the client itself; a second one would change where the request ends or to whom it goes.
FRAMING_HEADERS = frozenset(
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect", "keep-alive"]
)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_LONGEST_SEGMENT = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to a connection: ``target`` is path and query, encoded, relative to the base address."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)


def base_problem(base_url: str) -> str:
    """Say what is wrong with the base address of a REST connection; "" when nothing is."""
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError:
        return "base_url is not an address"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "base_url begins with http:// or https:// and a host"
    if parts.username is not None or parts.password is not None:
        return "base_url carries no user name: use basic"
    if parts.query or parts.fragment:
        return "base_url has no query and no fragment"
    return ""


def segment(value: str) -> str:
    """Encode *value* so that it stays one segment of a path (RFC 3986, section 3.3). Raises TemplateError.

    Values with ``.`` or ``..`` between slashes are refused even though they would be encoded: many servers decode
    before they resolve dots.
    """
    if not value:
        message = "an empty value in a path would be another address"
        raise TemplateError(message)
    if len(value) > _LONGEST_SEGMENT or _UNSAFE.search(value):
        message = "a value in a path has control characters or is too long"
        raise TemplateError(message)
    if any(part in (".", "..") for part in re.split(r"[/\\]", value)):
        message = "a value in a path is made of dots"
        raise TemplateError(message)
    return quote(value, safe="")


def build_request(step: RestStep, context: Mapping[str, Any], idempotency: str = "") -> Request:
    """Evaluate *step*; raises TemplateError. *idempotency* is the value for ``idempotency_header``, "" for none."""
    headers = {name: header_value(name, template.text(context)) for name, template in step.headers.items()}
    body, kind = body_of(step.json_body, step.form, context)
    if kind:
        headers.setdefault("Content-Type", kind)
    if step.idempotency_header and idempotency:
        headers[step.idempotency_header] = header_value(step.idempotency_header, idempotency)
    target = step.path.spliced(context, segment) + query_of(step.query, step.path, context)
    return Request(step.method, target, headers, body)


def query_of(query: Mapping[str, Template], path: Template, context: Mapping[str, Any]) -> str:
    """Evaluate and encode the query, with its ``?`` or ``&``; a list repeats the name."""
    pairs: list[tuple[str, str]] = []
    for name, template in query.items():
        value = template.value(context)
        if isinstance(value, list | tuple):
            pairs += [(name, text_of(part, template)) for part in value]
        else:
            pairs.append((name, template.text(context)))
    if not pairs:
        return ""
    try:
        return ("&" if "?" in path.source else "?") + urlencode(pairs, quote_via=quote, safe="")
    except UnicodeEncodeError:
        message = "a value in a query is not text"
        raise TemplateError(message) from None


def text_of(value: Any, template: Template) -> str:
    """Text of a list's item; raises TemplateError for nested lists and mappings."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    message = f"{template.source!r}: a list of texts is needed here"
    raise TemplateError(message)


def header_value(name: str, value: str) -> str:
    """Give *value* back when it can stand in a header (RFC 9110, section 5.5); raises TemplateError."""
    if _UNSAFE.search(value):
        message = f"the value of the header {name} has control characters"
        raise TemplateError(message)
    return value


def body_of(tree: Any, form: Mapping[str, Template], context: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """Evaluate the body: JSON when there is a *tree*, else the *form*; gives bytes and their content type."""
    if tree is not None:
        try:
            body = json.dumps(filled(tree, context), ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError):
            message = "a value of the JSON body cannot be written as JSON"
            raise TemplateError(message) from None
        return body, "application/json"
    if not form:
        return None, ""
    pairs = [(name, template.text(context)) for name, template in form.items()]
    try:
        return urlencode(pairs).encode(), "application/x-www-form-urlencoded"
    except UnicodeEncodeError:
        message = "a value of the form is not text"
        raise TemplateError(message) from None


def filled(tree: Any, context: Mapping[str, Any]) -> Any:
    """Evaluate the templates of a JSON tree; one that is a single expression keeps its type. Raises TemplateError."""
    if isinstance(tree, Template):
        return _json_value(tree.value(context), tree.source)
    if isinstance(tree, Mapping):
        return {name: filled(part, context) for name, part in tree.items()}
    if isinstance(tree, list | tuple):
        return [filled(part, context) for part in tree]
    return tree


def _json_value(value: Any, source: str) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _json_value(part, source) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(part, source) for part in value]
    message = f"{source!r}: a {type(value).__name__} cannot stand in JSON; add | list"
    raise TemplateError(message)
