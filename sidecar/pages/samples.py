"""Values with which every template is tried when the pages are loaded; also the list of what each template gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_CHOICES = (
    {"name": "corp", "title": "Company account", "is_away": True},
    {"name": "partners", "title": "Partners", "is_away": False},
)
_CHOOSER = {
    "choices": _CHOICES,
    "to": "/notes?a=1",
    "asks_email": True,
    "email": "",
    "unknown_email": False,
    "emergency": "",
}
_SAID = {
    "title": "You do not have access",
    "happened": "You are signed in, but this page is not open to you.",
    "advice": "If you need access, ask the people who run this application.",
    "reason": "role-missing",
    "reference": "6928f01c5f2c9ad0",
    "retry": "",
    "action": "",
    "is_for_others": True,
    "emergency": "",
    "others": (),
}

# Several for one template where it branches: a mistake in either branch must be found at load.
SAMPLES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "chooser": (
        _CHOOSER,
        {**_CHOOSER, "email": "ada@example.com", "unknown_email": True},
        {**_CHOOSER, "asks_email": False, "emergency": "/-/break-glass?to=/"},
    ),
    "refused": (_SAID, {**_SAID, "retry": "/-/login?to=/", "action": "Try again", "is_for_others": False}),
    "unavailable": (
        _SAID,
        {
            **_SAID,
            "emergency": "/-/break-glass?to=/notes",
            "others": ({"title": "Partners", "href": "/-/login?to=/notes&with=partners"},),
            "retry": "/-/login?to=/",
            "action": "Try again",
            "is_for_others": False,
        },
    ),
    "signed_out": ({"is_partial": False}, {"is_partial": True}),
    "confirm_sign_out": ({},),
    "break_glass": (
        {"state": "S", "asks_code": True, "problem": "", "lifetime": "1 h"},
        {"state": "S", "asks_code": False, "problem": "Name, password or code is wrong.", "lifetime": "1 h"},
    ),
    "post_on": ({"url": "https://idp.example.com/sso", "fields": {"SAMLRequest": "PHg+"}, "script": "go()"},),
    "onward": ({"to": "/notes", "note": ""}, {"to": "/notes", "note": "You are signed in."}),
}
