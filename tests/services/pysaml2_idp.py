"""A small SAML identity provider on pysaml2, as a program; tests/services/saml.py starts it and tells it what to do."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from aiohttp import web
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT, saml
from saml2.config import IdPConfig
from saml2.metadata import entity_descriptor
from saml2.saml import NameID
from saml2.server import Server
from saml2.xmldsig import DIGEST_SHA1, DIGEST_SHA256, SIG_RSA_SHA1, SIG_RSA_SHA256

SETTINGS: dict[str, Any] = {
    "name_id": "persistent",
    "sign_response": False,
    "sign_assertion": True,
    "encrypt": False,
    "wants_signed_requests": False,
    "answers_logout": True,
    "digest": "sha256",
}
FORMATS = {
    "persistent": saml.NAMEID_FORMAT_PERSISTENT,
    "transient": saml.NAMEID_FORMAT_TRANSIENT,
    "email": saml.NAMEID_FORMAT_EMAILADDRESS,
}
ALGORITHMS = {
    "sha1": {"signing_algorithm": SIG_RSA_SHA1, "digest_algorithm": DIGEST_SHA1},
    "sha256": {"signing_algorithm": SIG_RSA_SHA256, "digest_algorithm": DIGEST_SHA256},
}
PASSWORD_OVER_TLS = saml.AUTHN_PASSWORD_PROTECTED


@dataclass
class Visitor:
    """Somebody who is signed in at the provider, and what each service provider was told about them."""

    login: str
    told: dict[str, tuple[NameID, str]] = field(default_factory=dict)


class Provider:
    """Pages for browsers, and `/control/…` for tests."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.people: dict[str, dict[str, Any]] = {}
        self.reset({})

    def reset(self, people: dict[str, dict[str, Any]]) -> None:
        """Be as new."""
        self.people = people
        self.settings = dict(SETTINGS)
        self.metadata: list[str] = []
        self.visitors: dict[str, Visitor] = {}
        self.seen: list[str] = []
        self.load()

    def load(self) -> None:
        """Read the settings and the metadata of service providers anew."""
        addresses = [(f"{self.url}/sso", BINDING_HTTP_REDIRECT), (f"{self.url}/sso", BINDING_HTTP_POST)]
        ends = [(f"{self.url}/slo", BINDING_HTTP_REDIRECT), (f"{self.url}/slo", BINDING_HTTP_POST)]
        self.config = IdPConfig().load(
            {
                "entityid": f"{self.url}/metadata",
                "key_file": str(self.folder / "provider.key"),
                "cert_file": str(self.folder / "provider.pem"),
                "service": {
                    "idp": {
                        # Its own default is SHA-1.
                        **ALGORITHMS[self.settings["digest"]],
                        "endpoints": {"single_sign_on_service": addresses, "single_logout_service": ends},
                        "want_authn_requests_signed": self.settings["wants_signed_requests"],
                        "name_id_format": list(FORMATS.values()),
                        "policy": {"default": {"lifetime": {"minutes": 5}}},
                    }
                },
                "metadata": {"inline": self.metadata} if self.metadata else {},
            }
        )
        self.server = Server(config=self.config)

    def app(self) -> web.Application:
        """Give the routes."""
        app = web.Application(client_max_size=1 << 20)
        app.router.add_get("/metadata", self.show_metadata)
        app.router.add_route("*", "/sso", self.sign_on)
        app.router.add_post("/enter", self.enter)
        app.router.add_get("/start", self.start)
        app.router.add_route("*", "/slo", self.sign_off)
        app.router.add_get("/end", self.end)
        app.router.add_post("/control/{what}", self.control)
        return app

    async def control(self, request: web.Request) -> web.Response:
        """Do what a test asks for."""
        said, what = await request.json(), request.match_info["what"]
        if what == "reset":
            self.reset(said["people"])
        elif what == "sp":
            self.metadata.append(said["metadata"])
            self.load()
        elif what == "settings":
            self.settings |= said
            self.load()
        elif what == "person":
            self.people[said["login"]] = said["attributes"]
        elif what != "seen":
            raise web.HTTPNotFound
        return web.json_response({"seen": self.seen})

    async def show_metadata(self, _request: web.Request) -> web.Response:
        """Say who we are."""
        return web.Response(text=str(entity_descriptor(self.config)), content_type="application/samlmetadata+xml")

    async def sign_on(self, request: web.Request) -> web.Response:
        """Take an AuthnRequest; ask for a login unless the browser has a session."""
        message, relay, parsed = await self._read(request, self.server.parse_authn_request)
        asked = parsed.message
        place = self.server.response_args(asked)
        self.seen.append("signed" if "Signature" in message or asked.signature is not None else "unsigned")
        pending = {
            "in_response_to": place["in_response_to"],
            "destination": place["destination"],
            "sp_entity_id": place["sp_entity_id"],
            "relay": relay,
        }
        visitor = self.visitors.get(request.cookies.get("visitor", ""))
        if visitor is None or asked.force_authn == "true":
            return self._form(pending)
        return self._answer(visitor, pending)

    @staticmethod
    async def _read(request: web.Request, parse: Any) -> tuple[dict[str, str], str, Any]:
        posted = request.method == "POST"
        message = {name: str(value) for name, value in (await request.post() if posted else request.query).items()}
        relay = message.get("RelayState", "")
        if posted:
            return message, relay, parse(message["SAMLRequest"], BINDING_HTTP_POST)
        signed = {"relay_state": relay or None, "sigalg": message.get("SigAlg"), "signature": message.get("Signature")}
        return message, relay, parse(message["SAMLRequest"], BINDING_HTTP_REDIRECT, **signed)

    @staticmethod
    def _form(pending: dict[str, str]) -> web.Response:
        kept = escape(json.dumps(pending))
        return _page(
            f'<h1>Sign in at the second provider</h1><form method="post" action="/enter">'
            f'<input type="hidden" name="pending" value="{kept}"><label>Name <input name="login"></label>'
            f"<button>Sign in</button></form>"
        )

    async def enter(self, request: web.Request) -> web.Response:
        """Take the login form."""
        form = await request.post()
        visitor = Visitor(str(form["login"]))
        cookie = secrets.token_urlsafe()
        self.visitors[cookie] = visitor
        answer = self._answer(visitor, json.loads(str(form["pending"])))
        answer.set_cookie("visitor", cookie)
        return answer

    async def start(self, request: web.Request) -> web.Response:
        """Begin a sign-in here, which nobody asked for."""
        place = self.server.metadata.assertion_consumer_service(request.query["sp"], BINDING_HTTP_POST)[0]["location"]
        pending = {"in_response_to": "", "destination": place, "sp_entity_id": request.query["sp"]}
        return self._form({**pending, "relay": request.query.get("relay", "")})

    def _answer(self, visitor: Visitor, pending: dict[str, str]) -> web.Response:
        told = NameID(format=FORMATS[self.settings["name_id"]], text=self._name_of(visitor))
        response = self.server.create_authn_response(
            {name: value for name, value in self.people[visitor.login].items() if value is not None},
            pending["in_response_to"] or None,
            pending["destination"],
            pending["sp_entity_id"],
            name_id=told,
            authn={"class_ref": PASSWORD_OVER_TLS, "authn_auth": self.config.entityid},
            sign_response=self.settings["sign_response"],
            sign_assertion=self.settings["sign_assertion"],
            encrypt_assertion=self.settings["encrypt"],
        )
        text = str(response)
        index = text.partition('SessionIndex="')[2].partition('"')[0]
        visitor.told[pending["sp_entity_id"]] = (told, index)
        return self._send(BINDING_HTTP_POST, text, pending["destination"], pending["relay"], is_response=True)

    def _name_of(self, visitor: Visitor) -> str:
        if self.settings["name_id"] == "email":
            return str(self.people[visitor.login]["mail"])
        if self.settings["name_id"] == "transient":
            return secrets.token_hex(16)
        return f"pairwise-{visitor.login}"

    def _send(self, binding: str, text: str, destination: str, relay: str, *, is_response: bool) -> web.Response:
        info = self.server.apply_binding(
            binding, text, destination, relay, response=is_response, sign=binding == BINDING_HTTP_REDIRECT
        )
        for name, value in info["headers"]:
            if name == "Location":
                # As it is: what is signed is the very spelling, which HTTPFound would change.
                return web.Response(status=302, headers={"Location": value})
        return web.Response(text="".join(info["data"]), content_type="text/html")

    async def sign_off(self, request: web.Request) -> web.Response:
        """Take a LogoutRequest, or the answer to ours."""
        form = await request.post() if request.method == "POST" else request.query
        if "SAMLResponse" in form:
            binding = BINDING_HTTP_POST if request.method == "POST" else BINDING_HTTP_REDIRECT
            answer = self.server.parse_logout_request_response(str(form["SAMLResponse"]), binding)
            self.seen.append(f"logout answered: {answer.response.status.status_code.value.rpartition(':')[2]}")
            return _page("<h1>You are signed out everywhere</h1>")
        message, relay, parsed = await self._read(request, self.server.parse_logout_request)
        asked = parsed.message
        self.seen.append(f"logout asked: {asked.name_id.text} {[index.text for index in asked.session_index]}")
        self.seen.append("signed" if "Signature" in message or asked.signature is not None else "unsigned")
        self.visitors.pop(request.cookies.get("visitor", ""), None)
        if not self.settings["answers_logout"]:
            return _page("<h1>The second provider says nothing more</h1>")
        binding, place = self.server.pick_binding(
            "single_logout_service", [BINDING_HTTP_REDIRECT, BINDING_HTTP_POST], "spsso", request=asked
        )
        text = str(self.server.create_logout_response(asked, [binding], sign=binding == BINDING_HTTP_POST))
        return self._send(binding, text, place, relay, is_response=True)

    async def end(self, request: web.Request) -> web.Response:
        """Sign out here, telling a service provider through the browser."""
        visitor, sp = self.visitors[request.cookies["visitor"]], request.query["sp"]
        binding = BINDING_HTTP_POST if request.query.get("binding") == "post" else BINDING_HTTP_REDIRECT
        told, index = visitor.told[sp]
        place = self.server.metadata.single_logout_service(sp, binding, "spsso")[0]["location"]
        _, asked = self.server.create_logout_request(
            place, sp, name_id=told, session_indexes=[index], sign=binding == BINDING_HTTP_POST
        )
        return self._send(binding, str(asked), place, "ended at the provider", is_response=False)


def _page(text: str) -> web.Response:
    return web.Response(text=f"<!doctype html><title>Second provider</title>{text}", content_type="text/html")


async def main() -> None:
    """Serve until killed."""
    said = json.loads(sys.argv[1])
    provider = Provider(said["url"], Path(said["folder"]))
    runner = web.AppRunner(provider.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, said["host"], said["port"]).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
