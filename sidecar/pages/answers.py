"""Make every answer that the sidecar gives by itself: pages for people, JSON for programs, redirects."""

from __future__ import annotations

import hashlib
import json
import math
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit

from aiohttp import web
from markupsafe import Markup

from sidecar.core.paths import safe_return_to
from sidecar.core.reasons import EXPLANATIONS, Explanation, Way, provider_down
from sidecar.faults import Refused, Unavailable, Unreached
from sidecar.model import Decision, Effect, Requirement, Visit
from sidecar.pages.templates import Templates
from sidecar.reason import Reason

_SAFETY: tuple[tuple[str, str], ...] = (
    ("Cache-Control", "no-store"),
    ("Server", "sidecar"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
)
# No scripts, nothing from elsewhere.
_NONE = "'none'"
_NO_FRAMES = "frame-ancestors 'none'"
_POLICY = f"default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; {_NO_FRAMES}"
_NOT_IN_SOURCES = re.compile(r"[^A-Za-z0-9.:/\[\]_-]")
# Chromium holds a form's redirects to form-action too, and these two forms are answered with a redirect to whatever
# provider the person has, whose end-session address only its metadata tells: https, or http on this machine.
_FORM_POLICY = f"{_POLICY}; form-action 'self' https: http://localhost:* http://127.0.0.1:*"
_OWN_FORM_POLICY = f"{_POLICY}; form-action 'self'"
_POLICIES: Mapping[str, str] = {
    "chooser": _FORM_POLICY,
    "confirm_sign_out": _FORM_POLICY,
    "break_glass": _OWN_FORM_POLICY,
}
_STRICT_POLICY = f"{_POLICY}; form-action 'none'"
# RFC 9110, section 5.6.4, without the need to escape.
_NOT_QUOTED = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_MAY_BE_LEFT_OUT: Mapping[str, Mapping[str, object]] = {
    "onward": {"note": ""},
    "signed_out": {"is_partial": False},
    "chooser": {"emergency": ""},
    "unavailable": {"emergency": "", "others": ()},
    "refused": {"emergency": "", "others": ()},
}
# The one script that any page has: it sends the form that is the page's whole purpose. There is a button without it.
_SEND = "document.forms[0].submit()"
_SEND_HASH = b64encode(hashlib.sha256(_SEND.encode()).digest()).decode()
_NOT_IN_HOSTS = re.compile(r"[^A-Za-z0-9.:\[\]_-]")


def _no_link(_visit: Visit, _to: str) -> str:
    return ""


def _never(_name: str) -> bool:
    return False


class Answers:
    """Renders answers; holds the compiled templates and the few facts that every page shows."""

    def __init__(
        self,
        *,
        app_name: str,
        prefix: str,
        support: str,
        overrides: Path | None,
        takes_basic: bool = False,
        emergency: Callable[[Visit, str], str] = _no_link,
        titles: Mapping[str, str] = MappingProxyType({}),
        is_away: Callable[[str], bool] = _never,
    ) -> None:
        """Use the templates in *overrides* before the built-in ones; *prefix* is where our own pages live.

        With *takes_basic* programs are told that they may also come with Basic credentials. *emergency* gives the
        address of the page for emergencies to a visit that wants to go somewhere, "" where it is not to be shown.
        *titles* are what people call the logins, of which *is_away* names those that need not be tried.

        Every template is tried at once: raises ValueError naming file and line of a mistake in *overrides*.
        """
        self._templates = Templates(app_name=app_name, prefix=prefix, support=support, overrides=overrides)
        self._prefix = prefix
        self._takes_basic = takes_basic
        self._emergency = emergency
        self._titles = titles
        self._is_away = is_away

    def page(self, template: str, status: int, values: Mapping[str, Any], cookies: Sequence[str] = ()) -> web.Response:
        """HTML page from ``templates/{template}.html``; *cookies* are Set-Cookie texts."""
        text = self._templates.render(template, {**_MAY_BE_LEFT_OUT.get(template, {}), **values})
        answer = web.Response(text=text, status=status, content_type="text/html")
        return _with(answer, cookies, _POLICIES.get(template, _STRICT_POLICY))

    def framed(self, template: str, values: Mapping[str, Any], origins: Sequence[str]) -> web.Response:
        """Page that pages of *origins*, and no others, may show in a frame."""
        answer = self.page(template, 200, values)
        frames = " ".join(one for one in origins if not _NOT_IN_SOURCES.search(one))
        policy = answer.headers["Content-Security-Policy"]
        answer.headers["Content-Security-Policy"] = policy.replace(_NO_FRAMES, f"frame-ancestors {frames or _NONE}")
        # It knows no list; browsers heed the policy where there is one, but some look at both.
        del answer.headers["X-Frame-Options"]
        return answer

    def post_on(self, url: str, fields: Mapping[str, str], cookies: Sequence[str] = ()) -> web.Response:
        """Page that posts *fields* to *url*, which the caller vouches for, by itself or by its button."""
        text = self._templates.render("post_on", {"url": url, "fields": dict(fields), "script": Markup(_SEND)})  # noqa: S704 - a constant
        parts = urlsplit(url)
        # Besides the provider itself, as on the other forms: where it redirects to counts in Chromium.
        policy = f"{_FORM_POLICY} {parts.scheme}://{parts.netloc}; script-src 'sha256-{_SEND_HASH}'"
        return _with(web.Response(text=text, content_type="text/html"), cookies, policy)

    def json(self, status: int, value: Mapping[str, Any], cookies: Sequence[str] = ()) -> web.Response:
        """JSON object, never cached."""
        return _with(web.Response(text=json.dumps(value), status=status, content_type="application/json"), cookies)

    def onward(self, url: str, fields: Mapping[str, str], cookies: Sequence[str] = ()) -> web.Response:
        """Go to *url*: with *fields* by a form, without by a redirect that is a GET whatever was asked."""
        return self.post_on(url, fields, cookies) if fields else self.go(url, cookies, 303)

    def go(self, url: str, cookies: Sequence[str] = (), status: int = 302) -> web.Response:
        """Redirect to *url*, which the caller vouches for."""
        return _with(web.Response(status=status, headers={"Location": url}), cookies)

    def document(self, content: bytes, media_type: str) -> web.Response:
        """XML for programs, such as our metadata."""
        return _with(web.Response(body=content, content_type=media_type), ())

    def stylesheet(self) -> web.Response:
        """The one stylesheet; pages ask for it with its version, so it may be kept."""
        answer = _with(web.Response(text=self._templates.stylesheet, content_type="text/css"), ())
        answer.headers["Cache-Control"] = "public, max-age=3600"
        return answer

    def challenge(self, visit: Visit, login_url: str, decision: Decision) -> web.Response:
        """401 for programs, with the address where a person could sign in.

        A token that is good but too old or too weak is told so (RFC 9470, section 3).
        """
        answer = self.json(401, {"error": decision.reason.value, "login_url": login_url, "reference": visit.reference})
        is_step_up = decision.effect is Effect.STEP_UP
        error = "insufficient_user_authentication" if is_step_up else ""
        self._challenged(answer, visit, _bearer(visit, error) + (_needed(decision.needs) if is_step_up else ""))
        return answer

    def _challenged(self, answer: web.Response, visit: Visit, challenge: str) -> None:
        answer.headers["WWW-Authenticate"] = challenge
        # Browsers would ask people for a user name and a password.
        if self._takes_basic and not visit.is_browser:
            answer.headers.add("WWW-Authenticate", f'Basic realm="{_realm(visit)}", charset="UTF-8"')

    def refused(self, visit: Visit, refused: Refused, retry: str = "", cookies: Sequence[str] = ()) -> web.Response:
        """Say no: a page with the reason and a way out, or JSON with the same code; *retry* is a path of ours.

        Without *retry* the page offers what the reason allows: reload, sign in, the start page, or nothing.
        """
        answer = self._said(visit, "refused", refused, retry, cookies)
        if refused.status == web.HTTPUnauthorized.status_code:
            # RFC 9110, section 15.5.2: no 401 without a challenge; RFC 6750, section 3.1 for tokens that are bad.
            error = "invalid_token" if refused.is_bad_token else ""
            self._challenged(answer, visit, _bearer(visit, error))
        if refused.retry_after:
            answer.headers["Retry-After"] = str(math.ceil(refused.retry_after))
        return answer

    def unavailable(self, visit: Visit, unavailable: Unavailable, retry: str = "") -> web.Response:
        """Say that something we need is down; programs are told to come back."""
        answer = self._said(visit, "unavailable", unavailable, retry, ())
        answer.headers["Retry-After"] = "5"
        return answer

    def _said(
        self, visit: Visit, template: str, said: Refused | Unavailable, retry: str, cookies: Sequence[str]
    ) -> web.Response:
        if not visit.wants_page:
            return self.json(said.status, {"error": said.reason.value, "reference": visit.reference}, cookies)
        explanation = EXPLANATIONS[said.reason]
        others: Sequence[Mapping[str, str]] = ()
        emergency = ""
        if isinstance(said, Unavailable) and said.reason is Reason.PROVIDER_DOWN:
            to = safe_return_to(said.to) or "/"
            title = self._titles.get(said.login, "")
            explanation = provider_down(title, is_silent=isinstance(said, Unreached)) if title else explanation
            others, emergency = self._others(said.login, to), self._emergency(visit, to)
        action, target = self._way_on(visit, explanation, retry)
        values = {
            "title": explanation.title,
            "happened": explanation.happened,
            "advice": explanation.advice,
            "reason": said.reason.value,
            "reference": visit.reference,
            "retry": target,
            "action": action,
            "is_for_others": explanation.another,
            "emergency": emergency,
            "others": others,
        }
        return self.page(template, said.status, values, cookies)

    def _others(self, login: str, to: str) -> Sequence[Mapping[str, str]]:
        """Logins that may work while *login* does not, each with its title and where it begins."""
        begin = f"{self._prefix}/login?to={quote(to, safe='/')}&with="
        others = [name for name in self._titles if name != login and not self._is_away(name)]
        return [{"title": self._titles[name], "href": begin + quote(name, safe="")} for name in others if login]

    def _way_on(self, visit: Visit, explanation: Explanation, retry: str) -> tuple[str, str]:
        """Text and path of the link that a page offers; ("", "") for none."""
        way = explanation.way
        if retry and way is not Way.START:
            return way.value or Way.AGAIN.value, safe_return_to(retry) or "/"
        if way in (Way.START, Way.CONTINUE):
            return way.value, "/"
        if way is Way.SIGN_IN:
            return way.value, f"{self._prefix}/login"
        # An empty reference is the page's own address, query included; a form cannot be sent again by a link.
        return (way.value, "") if way is Way.AGAIN and visit.method in ("GET", "HEAD") else ("", "")


def _bearer(visit: Visit, error: str) -> str:
    """Challenge of RFC 6750, section 3."""
    return f'Bearer realm="{_realm(visit)}"' + (f', error="{error}"' if error else "")


def _realm(visit: Visit) -> str:
    """Host is the caller's word, so only what names are made of is repeated."""
    return _NOT_IN_HOSTS.sub("", visit.host)


def _needed(needs: Requirement) -> str:
    """What a new token must be; RFC 9470 knows parameters for age and class, and none for methods."""
    classes = _NOT_QUOTED.sub("", " ".join(needs.acr))
    age = "" if needs.max_age is None else f", max_age={int(needs.max_age)}"
    return (f', acr_values="{classes}"' if classes else "") + age


def _with(answer: web.Response, cookies: Sequence[str], policy: str = _STRICT_POLICY) -> web.Response:
    for name, value in _SAFETY:
        answer.headers[name] = value
    answer.headers["Content-Security-Policy"] = policy
    for cookie in cookies:
        answer.headers.add("Set-Cookie", cookie)
    return answer
