"""Audit lines in the dialects of other programs: CSV, CEF and OCSF."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

# Behind them stands, under ``more``, whatever else a line says.
_NAMED = (
    "time", "event", "effect", "reason", "rule", "method", "host", "path", "client", "person", "username", "subject",
    "provider", "account", "session", "reference", "detail",
)  # fmt: skip
COLUMNS = (*_NAMED, "more")
# How lines hang together, which no other program can follow.
_OF_THE_CHAIN = frozenset(["chain", "n", "hash", "signature"])
# What somebody should hear of at once, though nothing was refused.
GRAVE = frozenset(["break-glass-used"])
# What a spreadsheet takes for the beginning of a formula; the last four are wide forms of the first.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# And within a cell, where it ends for one that expects semicolons, tabs or bars: quotation marks mean nothing there.
_ANOTHER = re.compile(r'(?<=[;\t|\r\n])(?=[\s"]*[=+\-@\uff1d\uff0b\uff0d\uff20])')
_CEF = {
    "client": "src", "host": "dhost", "path": "request", "method": "requestMethod", "username": "suser",
    "person": "suser", "subject": "suid", "session": "cs1", "rule": "cs2", "reference": "externalId",
    "reason": "reason", "detail": "msg", "provider": "cs3", "account": "duser",
}  # fmt: skip
_CEF_LABELS = {
    "cs1": "session", "cs2": "rule", "cs3": "provider", "cs4": "more", "c6a2": "Source IPv6 Address",
}  # fmt: skip
# What is no address stands under the source's name.
_CEF_ADDRESS = {0: "shost", 4: "src", 6: "c6a2"}
_VERY_LOW, _MEDIUM, _HIGH = 1, 5, 8
# OCSF 1.3: class 3002 Authentication, 3001 Account Change, 4002 HTTP Activity, 6002 Application Lifecycle, and 0 Base
# Event for what has no class of its own.
_AUTHENTICATION, _ACCOUNT_CHANGE, _HTTP, _LIFECYCLE, _BASE = 3002, 3001, 4002, 6002, 0
_ACTIVITIES = {
    "login-succeeded": (_AUTHENTICATION, 1), "login-failed": (_AUTHENTICATION, 1), "signed-out": (_AUTHENTICATION, 2),
    "break-glass-used": (_AUTHENTICATION, 1), "break-glass-failed": (_AUTHENTICATION, 1),
    "session-ended": (_AUTHENTICATION, 2), "provider-logout": (_AUTHENTICATION, 2),
    "provider-signed-out": (_AUTHENTICATION, 2), "sessions-ended": (_AUTHENTICATION, 2),
    "token-refused": (_AUTHENTICATION, 1),
    "account-created": (_ACCOUNT_CHANGE, 1), "account-reactivated": (_ACCOUNT_CHANGE, 2),
    "person-enabled": (_ACCOUNT_CHANGE, 2), "account-deactivated": (_ACCOUNT_CHANGE, 5),
    "person-disabled": (_ACCOUNT_CHANGE, 5), "account-deleted": (_ACCOUNT_CHANGE, 6),
    "service-started": (_LIFECYCLE, 3), "service-stopped": (_LIFECYCLE, 4),
}  # fmt: skip
# Beginnings of the names of all other events of a class.
_BEGINNINGS = {
    **dict.fromkeys(("account", "person", "people", "roles", "invitation", "token", "provisioning"), _ACCOUNT_CHANGE),
    **dict.fromkeys(("configuration", "log", "service"), _LIFECYCLE), "session": _AUTHENTICATION,
}  # fmt: skip
_METHODS = {"CONNECT": 1, "DELETE": 2, "GET": 3, "HEAD": 4, "OPTIONS": 5, "POST": 6, "PUT": 7, "TRACE": 8}
_OTHER = 99
_SUCCESS, _FAILURE = 1, 2
_OCSF_INFORMATIONAL, _OCSF_MEDIUM, _OCSF_HIGH = 1, 3, 4
Line = Mapping[str, Any]
# What terminals obey, what some readers take for the end of a line, and halves of characters, which no file can hold,
# as JSON escapes it; it does so itself only with the first 32.
_DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
DECEIVING = {
    code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029, *_DIRECTIONS, *range(0xD800, 0xE000))
}
_SHOWN = {code: f"\\x{code:02x}" for code in range(32)} | DECEIVING
_IN_CELLS = {code: text for code, text in _SHOWN.items() if chr(code) not in "\t\r\n"}


def is_bad(line: Line) -> bool:
    """True for what says that something was refused or did not succeed."""
    return line.get("effect") in {"deny", "unavailable"} or str(line.get("event", "")).endswith(("-failed", "-refused"))


def csv_row(line: Line) -> list[str]:
    """*line* under COLUMNS; no cell is a formula for a spreadsheet."""
    return [*(harmless(_text(line.get(name, ""))) for name in _NAMED), harmless(_more(line))]


def _more(line: Line) -> str:
    """What *line* says under other names than those with a place of their own; "" for nothing."""
    rest = {name: value for name, value in line.items() if name not in _NAMED and name not in _OF_THE_CHAIN}
    return json_text(rest) if rest else ""


def harmless(cell: str) -> str:
    """*cell* as a spreadsheet reads it as text, whatever it begins with, and wherever a cell ends there."""
    cell = _ANOTHER.sub("'", cell)
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def on_one_line(text: str) -> str:
    """*text* as a terminal only shows it, on one line: what it would obey is escaped."""
    return text.translate(_SHOWN)


def json_text(value: Any, indent: int | None = None) -> str:
    """*value* as JSON that a terminal only shows."""
    return json.dumps(value, indent=indent, ensure_ascii=False, default=str).translate(DECEIVING)


def cef(line: Line, version: str) -> str:
    """*line* in the Common Event Format, version 0, without a syslog head."""
    event = _text(line.get("event", ""))
    severity = _HIGH if event in GRAVE else _MEDIUM if is_bad(line) else _VERY_LOW
    extension = {"rt": str(_milliseconds(line)), "outcome": _text(line.get("effect", ""))}
    for name, key in _CEF.items():
        if value := line.get(name):
            place = _CEF_ADDRESS[_address_kind(value)] if name == "client" else key
            _put(extension, place, _text(value))
    _put(extension, "cs4", _more(line))
    fields = " ".join(f"{key}={_cef_value(value)}" for key, value in extension.items() if value)
    head = "|".join(_cef_head(part) for part in ("sidecar", "sidecar", version, event, event.replace("-", " ")))
    return f"CEF:0|{head}|{severity}|{fields}"


def _put(extension: dict[str, str], key: str, value: str) -> None:
    """Say *value* unless something stands there already, and what it is where the key does not."""
    extension.setdefault(key, value)
    if value and key in _CEF_LABELS:
        extension[f"{key}Label"] = _CEF_LABELS[key]


def _address_kind(client: object) -> int:
    """4 or 6, and 0 for what is no address, such as a pseudonym or a network."""
    try:
        return ipaddress.ip_address(str(client)).version
    except ValueError:
        return 0


def ocsf(line: Line, version: str) -> dict[str, Any]:
    """*line* as an event of the Open Cybersecurity Schema Framework 1.3; all that it says is under ``unmapped``."""
    event = str(line.get("event", ""))
    kind, activity = _class_of(line, event)
    product = {"name": "sidecar", "vendor_name": "sidecar", "version": version}
    return {
        "time": _milliseconds(line),
        "category_uid": kind // 1000,
        "class_uid": kind,
        "activity_id": activity,
        **({"activity_name": event} if activity == _OTHER else {}),
        "type_uid": kind * 100 + activity,
        "severity_id": _OCSF_HIGH if event in GRAVE else _OCSF_MEDIUM if is_bad(line) else _OCSF_INFORMATIONAL,
        "status_id": _FAILURE if is_bad(line) else _SUCCESS,
        **_said({"status_code": line.get("reason"), "status_detail": line.get("detail")}),
        "message": event.replace("-", " "),
        "metadata": {
            "version": "1.3.0",
            "product": product,
            "event_code": event,
            # What brings ``actor``.
            "profiles": ["host"],
            **_said({"correlation_uid": line.get("reference")}),
        },
        **_whom(line, kind),
        **_whence(line),
        **_what(line, kind, product),
        "unmapped": dict(line),
    }


def _said(fields: Line) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _class_of(line: Line, event: str) -> tuple[int, int]:
    """Class and activity."""
    if event == "decision":
        return _HTTP, _METHODS.get(str(line.get("method")), _OTHER)
    return _ACTIVITIES.get(event, (_BEGINNINGS.get(event.partition("-")[0], _BASE), _OTHER))


def _whom(line: Line, kind: int) -> dict[str, Any]:
    """Whom it is about, and who did it; classes about people must have a user."""
    names = (line.get(name) for name in ("username", "person", "account", "target"))
    user = _said({"name": next(filter(None, names), ""), "uid": line.get("subject")})
    session = _said({"uid": line.get("session")})
    if kind not in {_AUTHENTICATION, _ACCOUNT_CHANGE}:
        return _said({"actor": _said({"user": user, "session": session})})
    actor = _said({"user": _said({"name": line.get("by")})})
    found = {"user": user or {"name": "unknown"}, **_said({"actor": actor})}
    return found | _said({"session": session}) if kind == _AUTHENTICATION else found


def _whence(line: Line) -> dict[str, Any]:
    client = line.get("client")
    return {} if not client else {"src_endpoint": {"ip" if _address_kind(client) else "name": client}}


def _what(line: Line, kind: int, product: Line) -> dict[str, Any]:
    """What the class must have besides."""
    if kind == _AUTHENTICATION:
        return {"service": {"name": product["name"]}}
    if kind == _LIFECYCLE:
        return {"app": dict(product)}
    if kind != _HTTP:
        return {}
    host = str(line.get("host", ""))
    name, _, port = host.rpartition(":")
    at = {"hostname": name.strip("[]"), "port": int(port)} if name and port.isdecimal() else {"hostname": host}
    where = {**at, "path": line.get("path")}
    return {"http_request": _said({"http_method": line.get("method"), "url": _said(where)})}


def _milliseconds(line: Line) -> int:
    try:
        return round(datetime.fromisoformat(str(line.get("time", ""))).timestamp() * 1000)
    except ValueError:
        return 0


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.translate(_IN_CELLS)
    return json_text(value) if isinstance(value, list | dict | bool) else str(value)


def _cef_head(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("\r", " ")


def _cef_value(text: str) -> str:
    return text.replace("\\", "\\\\").replace("=", "\\=").replace("\n", "\\n").replace("\r", "\\r")
