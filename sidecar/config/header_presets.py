"""Header names that well-known applications expect: data alone, which a configuration may override line by line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.core.headers import collapsed

PRESET = "preset"
Lines = Mapping[str, Any]

_USER, _EMAIL, _NAME = "{{ user.username }}", "{{ user.email }}", "{{ user.name }}"
_ROLES, _GROUPS = "{{ roles | join(',') }}", "{{ groups | join(',') }}"
# Words between MIME marks: what Grafana decodes with headers_encoded, and what is plain ASCII anyway stays as it is.
_NAME_ENCODED = {"value": _NAME, "encoding": "rfc2047"}
_NAME_PERCENT = {"value": _NAME, "encoding": "percent"}
# Not sent, but believed by the application where it is switched on: so it never comes from outside.
_STRIPPED = ""

_REMOTE_USER: Lines = {
    "X-Remote-User": _USER,
    "X-Remote-Email": _EMAIL,
    "X-Remote-Name": _NAME_PERCENT,
    "X-Remote-Groups": _GROUPS,
    "X-Remote-Roles": _ROLES,
    "Remote-User": _STRIPPED,
}

PRESETS: Mapping[str, Lines] = {
    "grafana": {
        "X-WEBAUTH-USER": _USER,
        "X-WEBAUTH-EMAIL": _EMAIL,
        "X-WEBAUTH-NAME": _NAME_ENCODED,
        "X-WEBAUTH-ROLE": "{{ 'Admin' if 'admin' in roles else 'Editor' if 'editor' in roles else 'Viewer' }}",
        "X-WEBAUTH-GROUPS": _GROUPS,
    },
    "jenkins": {
        "X-Forwarded-User": _USER,
        "X-Forwarded-Groups": "{{ groups | join('|') }}",
        "X-Forwarded-Mail": _EMAIL,
        "X-Forwarded-DisplayName": _NAME_PERCENT,
    },
    "gitea": {"X-WEBAUTH-USER": _USER, "X-WEBAUTH-EMAIL": _EMAIL, "X-WEBAUTH-FULLNAME": _NAME},
    "superset": _REMOTE_USER,
    "radicale": {"X-Remote-User": _USER},
    "jupyterhub": {"Remote-User": _USER},
    "django": _REMOTE_USER,
    "rails": _REMOTE_USER,
    "php": _REMOTE_USER,
    "remote_user": _REMOTE_USER,
    "forwarded_user": {
        "X-Forwarded-User": _USER,
        "X-Forwarded-Preferred-Username": _USER,
        "X-Forwarded-Email": _EMAIL,
        "X-Forwarded-Groups": _GROUPS,
        "X-Forwarded-Access-Token": _STRIPPED,
    },
}


def expanded(value: Any) -> Any:
    """Lines of ``headers`` with those of its presets before them; a line of the configuration takes a preset's place.

    A line that is null is not sent, but stays a name that nobody can send from outside. Raises ValueError.
    """
    if not isinstance(value, Mapping) or PRESET not in value:
        return value
    names = value[PRESET] if isinstance(value[PRESET], list | tuple) else [value[PRESET]]
    own = {key: line for key, line in value.items() if key != PRESET}
    taken = {collapsed(str(key)) for key in own}
    lines: dict[Any, Any] = {}
    for name in names:
        if not isinstance(name, str) or name not in PRESETS:
            message = f"preset: there is none of this name; there are {', '.join(PRESETS)}"
            raise ValueError(message)
        lines |= {key: line for key, line in PRESETS[name].items() if collapsed(key) not in taken}
    return lines | {key: _STRIPPED if line is None else line for key, line in own.items()}
