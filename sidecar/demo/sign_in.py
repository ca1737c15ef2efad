"""The provider's pages for people: choose who to be, sign out, change somebody's groups."""

from collections.abc import Mapping
from secrets import compare_digest, token_urlsafe
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web
from multidict import MultiDict, MultiMapping

from sidecar.demo.authorization import (
    ACR_SIMPLE,
    ACR_STRONG,
    AuthorizationRequest,
    Fault,
    OAuthError,
    Return,
    UnknownReturn,
    once,
    read_request,
    read_return,
)
from sidecar.demo.grants import SignIn
from sidecar.demo.pages import Pages
from sidecar.demo.register import Register

SESSION_COOKIE = "demo_idp_session"
FORM_COOKIE = "demo_idp_form"


class SignInPages:
    """OpenID Connect Core section 3.1.2 and RP-Initiated Logout 1.0; choosing is all the proof there is."""

    def __init__(self, register: Register, prefix: str) -> None:
        """Show pages below `prefix`, the path of the issuer."""
        self._register = register
        self._prefix = prefix
        self._pages = Pages("idp", {"prefix": prefix, "issuer": register.issuer})

    def routes(self) -> list[web.RouteDef]:
        """Return the routes below the issuer's path."""
        return [
            web.get(f"{self._prefix}/", self._home),
            web.get(f"{self._prefix}/authorize", self._authorize),
            web.post(f"{self._prefix}/authorize", self._authorize),
            web.post(f"{self._prefix}/sign-in", self._sign_in),
            web.get(f"{self._prefix}/people", self._people),
            web.post(f"{self._prefix}/people", self._change_person),
            web.get(f"{self._prefix}/end-session", self._end_session),
            web.post(f"{self._prefix}/end-session", self._end_session),
            web.post(f"{self._prefix}/sign-out", self._sign_out),
        ]

    # --- signing in

    async def _authorize(self, request: web.Request) -> web.Response:
        parameters = request.query if request.method == "GET" else await _posted(request)
        asked = self._read(parameters)
        if isinstance(asked, web.Response):
            return asked
        sign_in = self._current(request)
        if sign_in is not None and self._satisfies(asked, sign_in):
            return self._send_code(asked, sign_in)
        if "none" in asked.prompts:
            error = OAuthError(Fault.LOGIN_REQUIRED, "nobody is signed in as this request wants it")
            return self._send_error(asked.back, error)
        return self._sign_in_page(request, asked, urlencode(list(parameters.items())))

    def _read(self, parameters: MultiMapping[str]) -> AuthorizationRequest | web.Response:
        try:
            back = read_return(parameters, self._register.clients)
        except UnknownReturn as problem:
            return self._problem(str(problem))
        try:
            return read_request(parameters, back)
        except OAuthError as error:
            return self._send_error(back, error)

    def _satisfies(self, asked: AuthorizationRequest, sign_in: SignIn) -> bool:
        age = self._register.clock() - sign_in.auth_time
        return (
            not asked.prompts & {"login", "select_account"}
            and (asked.max_age is None or age < asked.max_age)
            and (asked.acr != ACR_STRONG or sign_in.acr == ACR_STRONG)
        )

    def _sign_in_page(self, request: web.Request, asked: AuthorizationRequest, query: str) -> web.Response:
        # The form posts to our own address with the request in its query, so any number of tabs works.
        values = {
            "people": list(self._register.people.values()),
            "application": self._register.clients[asked.back.client_id].title,
            "query": query,
            "strong": asked.acr == ACR_STRONG,
            "hint": asked.login_hint,
            "again": self._current(request),
        }
        target = urlsplit(asked.back.redirect_uri)
        return self._form_page(request, "sign_in.html", values, reaching=f"{target.scheme}://{target.netloc}")

    async def _sign_in(self, request: web.Request) -> web.Response:
        form = await self._own_form(request)
        asked = self._read(request.query)
        if isinstance(asked, web.Response):
            return asked
        login = form.get("login", "")
        if login == "":  # "Cancel" has no login.
            return self._send_error(asked.back, OAuthError(Fault.ACCESS_DENIED, "the person chose not to sign in"))
        if login not in self._register.people:
            return self._problem("There is nobody of this name here.")
        confirmed = asked.acr == ACR_STRONG and form.get("confirmed") == "yes"
        return self._open_session(request, asked, login, ACR_STRONG if confirmed else ACR_SIMPLE)

    def _open_session(self, request: web.Request, asked: AuthorizationRequest, login: str, acr: str) -> web.Response:
        register = self._register
        register.sign_ins.take(request.cookies.get(SESSION_COOKIE, ""))
        sign_in = register.sign_in(login, acr)
        response = self._send_code(asked, sign_in)
        self._set_cookie(response, SESSION_COOKIE, register.sign_ins.put(sign_in), "Lax")
        return response

    def _send_code(self, asked: AuthorizationRequest, sign_in: SignIn) -> web.Response:
        return self._send(asked.back, {"code": self._register.grants.code(asked, sign_in)})

    def _send_error(self, back: Return, error: OAuthError) -> web.Response:
        return self._send(back, {"error": error.code, "error_description": error.description})

    def _send(self, back: Return, answer: Mapping[str, str]) -> web.Response:
        return _see_other(back.location(self._register.issuer, answer))

    # --- signing out

    async def _end_session(self, request: web.Request) -> web.Response:
        parameters = request.query if request.method == "GET" else await _posted(request)
        try:
            hint = self._register.signer.claims_of(once(parameters, "id_token_hint") or "")
            target = self._after_sign_out(parameters, hint)
        except OAuthError as error:
            return self._problem(error.description)
        if hint is None:
            # Anybody's link can lead here, so ask first: RP-Initiated Logout 1.0 section 2.
            values = {"person": self._person(request)}
            return self._form_page(request, "sign_out.html", values)
        self._register.sign_out(str(hint.get("sid", "")))
        return self._signed_out() if target is None else _see_other(target)

    def _after_sign_out(self, parameters: MultiMapping[str], hint: Mapping[str, Any] | None) -> str | None:
        target, state = once(parameters, "post_logout_redirect_uri"), once(parameters, "state")
        client_id = once(parameters, "client_id")
        if hint is not None and client_id not in {None, hint["aud"]}:
            raise OAuthError(Fault.INVALID_REQUEST, "The id_token_hint belongs to another client.")
        if target is None or hint is None:
            return None
        client = self._register.clients.get(hint["aud"])
        if client is None or target not in client.post_logout_redirect_uris:
            raise OAuthError(Fault.INVALID_REQUEST, "The post_logout_redirect_uri is not registered.")
        separator = "&" if "?" in target else "?"
        return target if state is None else target + separator + urlencode({"state": state})

    async def _sign_out(self, request: web.Request) -> web.Response:
        await self._own_form(request)
        sign_in = self._current(request)
        if sign_in is not None:
            self._register.sign_out(sign_in.sid)
        return self._signed_out()

    def _signed_out(self) -> web.Response:
        response = self._pages.show("signed_out.html", {})
        response.del_cookie(SESSION_COOKIE, path=self._prefix or "/")
        return response

    # --- looking around

    async def _home(self, request: web.Request) -> web.Response:
        return self._pages.show("home.html", {"person": self._person(request)})

    async def _people(self, request: web.Request) -> web.Response:
        values = {
            "people": list(self._register.people.values()),
            "groups": self._register.groups,
            "changed": self._register.people.get(request.query.get("changed", "")),
        }
        return self._form_page(request, "people.html", values)

    async def _change_person(self, request: web.Request) -> web.Response:
        form = await self._own_form(request)
        login = form.get("login", "")
        if login not in self._register.people:
            return self._problem("There is nobody of this name here.")
        self._register.change_groups(login, form.getall("group", []))
        return _see_other(f"{self._prefix}/people?{urlencode({'changed': login})}")

    # --- what they share

    def _current(self, request: web.Request) -> SignIn | None:
        return self._register.sign_ins.get(request.cookies.get(SESSION_COOKIE, ""))

    def _person(self, request: web.Request) -> object:
        sign_in = self._current(request)
        return None if sign_in is None else self._register.people[sign_in.login]

    def _problem(self, text: str) -> web.Response:
        return self._pages.show("problem.html", {"problem": text}, status=400)

    def _form_page(
        self, request: web.Request, template: str, values: Mapping[str, object], reaching: str = ""
    ) -> web.Response:
        token = request.cookies.get(FORM_COOKIE) or token_urlsafe(32)
        sources = ["'self'", reaching] if reaching else ["'self'"]
        response = self._pages.show(template, {**values, "form_token": token}, forms_reach=sources)
        self._set_cookie(response, FORM_COOKIE, token, "Strict")
        return response

    async def _own_form(self, request: web.Request) -> MultiMapping[str]:
        """Return a posted form that one of our own pages showed to this browser."""
        form = await _posted(request)
        shown, sent = request.cookies.get(FORM_COOKIE, ""), form.get("form_token", "")
        if not shown or not compare_digest(shown.encode(), sent.encode()):
            page = self._problem("This form is not from here, or it is too old. Go back and try again.")
            raise web.HTTPForbidden(text=page.text, content_type="text/html")
        return form

    def _set_cookie(self, response: web.Response, name: str, value: str, same_site: str) -> None:
        # Cookies do not know ports: the issuer's path keeps ours from the application on the same host.
        path = self._prefix or "/"
        response.set_cookie(name, value, path=path, httponly=True, samesite=same_site)


async def _posted(request: web.Request) -> MultiMapping[str]:
    form = await request.post()
    return MultiDict((name, value) for name, value in form.items() if isinstance(value, str))


def _see_other(location: str) -> web.Response:
    return web.Response(status=303, headers={"Location": location})
