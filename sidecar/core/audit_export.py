"""Audit lines in the dialects of other programs: CSV, CEF and OCSF."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

COLUMNS = (
    "time", "event", "effect", "reason", "rule", "method", "host", "path", "client", "person", "username", "subject",
    "provider", "account", "session", "reference", "detail",
)  # fmt: skip
# What a spreadsheet takes for the beginning of a formula; the last four are wide forms of the first.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# And within a cell, where it ends for one that expects semicolons, tabs or bars: quotation marks mean nothing there.
_ANOTHER = re.compile(r'(?<=[;\t|\r\n])(?=[\s"]*[=+\-@\uff1d\uff0b\uff0d\uff20])')
_CEF = {
    "client": "src", "host": "dhost", "path": "request", "method": "requestMethod", "username": "suser",
    "person": "suser", "subject": "suid", "session": "cs1", "rule": "cs2", "reference": "externalId",
    "reason": "reason", "detail": "msg", "provider": "cs3", "account": "duser",
}  # fmt: skip
_CEF_LABELS = {"cs1": "session", "cs2": "rule", "cs3": "provider"}
_VERY_LOW, _MEDIUM, _HIGH = 1, 5, 8
# OCSF 1.3: class 3002 Authentication, 3001 Account Change, 4002 HTTP Activity, 6002 Application Lifecycle.
_AUTHENTICATION, _ACCOUNT_CHANGE, _HTTP, _LIFECYCLE = 3002, 3001, 4002, 6002
_ACTIVITIES = {
    "login-succeeded": (_AUTHENTICATION, 1), "login-failed": (_AUTHENTICATION, 1), "signed-out": (_AUTHENTICATION, 2),
    "break-glass-used": (_AUTHENTICATION, 1), "break-glass-failed": (_AUTHENTICATION, 1),
    "session-ended": (_AUTHENTICATION, 2), "provider-logout": (_AUTHENTICATION, 2),
    "account-created": (_ACCOUNT_CHANGE, 1), "account-reactivated": (_ACCOUNT_CHANGE, 2),
    "person-enabled": (_ACCOUNT_CHANGE, 2), "account-deactivated": (_ACCOUNT_CHANGE, 5),
    "person-disabled": (_ACCOUNT_CHANGE, 5), "account-deleted": (_ACCOUNT_CHANGE, 6),
    "service-started": (_LIFECYCLE, 3), "service-stopped": (_LIFECYCLE, 4),
}  # fmt: skip
_METHODS = {"CONNECT": 1, "DELETE": 2, "GET": 3, "HEAD": 4, "OPTIONS": 5, "POST": 6, "PUT": 7, "TRACE": 8}
_OTHER = 99
_SUCCESS, _FAILURE = 1, 2
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
    return [harmless(_text(line.get(name, ""))) for name in COLUMNS]


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
    severity = _MEDIUM if is_bad(line) else _VERY_LOW
    event = _text(line.get("event", ""))
    extension = {"rt": str(_milliseconds(line)), "outcome": _text(line.get("effect", ""))}
    for name, key in _CEF.items():
        if value := line.get(name):
            extension.setdefault(key, _text(value))
            if key in _CEF_LABELS:
                extension[f"{key}Label"] = _CEF_LABELS[key]
    fields = " ".join(f"{key}={_cef_value(value)}" for key, value in extension.items() if value)
    head = "|".join(_cef_head(part) for part in ("sidecar", "sidecar", version, event, event.replace("-", " ")))
    return f"CEF:0|{head}|{severity}|{fields}"


def ocsf(line: Line, version: str) -> dict[str, Any]:
    """*line* as an event of the Open Cybersecurity Schema Framework 1.3; all that it says is under ``unmapped``."""
    event = str(line.get("event", ""))
    if event == "decision":
        kind, activity = _HTTP, _METHODS.get(str(line.get("method")), _OTHER)
    else:
        kind, activity = _ACTIVITIES.get(
            event, (_LIFECYCLE if event.startswith("configuration") else _ACCOUNT_CHANGE, _OTHER)
        )
    found: dict[str, Any] = {
        "time": _milliseconds(line),
        "category_uid": kind // 1000,
        "class_uid": kind,
        "activity_id": activity,
        "type_uid": kind * 100 + activity,
        "severity_id": 3 if is_bad(line) else 1,
        "status_id": _FAILURE if is_bad(line) else _SUCCESS,
        "status_code": line.get("reason", ""),
        "metadata": {
            "version": "1.3.0",
            "product": {"name": "sidecar", "vendor_name": "sidecar", "version": version},
            "event_code": event,
            "correlation_uid": line.get("reference", ""),
        },
        "unmapped": dict(line),
    }
    user = {"name": line.get("username") or line.get("person", ""), "uid": line.get("subject", "")}
    if any(user.values()):
        found["user"] = user
    if client := line.get("client"):
        found["src_endpoint"] = {"ip": client}
    if kind == _HTTP:
        url = {"hostname": line.get("host", ""), "path": line.get("path", "")}
        found["http_request"] = {"http_method": line.get("method", ""), "url": url}
    return found


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
