"""A running sidecar whose people sign in at the forger: from the first page to the session, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from sidecar.logins import opening
from sidecar.logins.saml.login import SamlSignIn
from sidecar.logins.saml.parties import IdentityProvider
from tests.saml_forger import FixedMetadata, Recipe, provider, recipe, request_of
from tests.world import Browser, Running, World

CROSS_SITE = {"Sec-Fetch-Site": "cross-site", "Origin": "https://idp.partner.example"}
IDENTITY = {"username": "{{ claims.mail }}", "email": "{{ claims.mail }}", "name": "{{ claims.displayName }}"}


@dataclass
class Begun:
    """A sign-in under way: the request's id, and what must come back with the answer."""

    request: str
    relay_state: str
    url: str


@dataclass
class SamlWorld:
    """A sidecar with the login ``partners``."""

    running: Running
    world: World

    @property
    def acs(self) -> str:
        """Where answers go."""
        return f"{self.running.url}/-/callback/partners"

    @property
    def entity(self) -> str:
        """What the sidecar calls itself."""
        login = self.running.sidecar.front.portal.sign_in.logins["partners"]
        assert isinstance(login, SamlSignIn)
        return login.service.entity_id

    async def begin(self, browser: Browser, target: str = "/") -> Begun:
        """Ask for *target* and be sent to the provider."""
        answer = await browser.follow_to_provider(target)
        query = parse_qs(urlsplit(answer).query)
        return Begun(request_of(answer).get("ID"), query["RelayState"][0], answer)

    def recipe(self, begun: Begun | None, **changes: Any) -> Recipe:
        """The recipe of a good answer to *begun*."""
        standard = {"acs": self.acs, "audience": self.entity, "request": begun.request if begun else ""}
        return recipe(**{**standard, "now": self.world.clock(), **changes})

    async def post(
        self, text: str, relay_state: str, *, target: str = "partners", path: str = ""
    ) -> aiohttp.ClientResponse:
        """Post an answer as the provider's page makes a browser do: from another site, so without our cookies."""
        form = {"SAMLResponse": text, "RelayState": relay_state}
        url = f"{self.running.url}{path or f'/-/callback/{target}'}"
        headers = {**Browser.PAGE, **CROSS_SITE}
        async with aiohttp.ClientSession() as http:
            response = await http.post(url, data=form, headers=headers, allow_redirects=False)
            await response.read()
            return response

    async def bring(self, browser: Browser, text: str, relay_state: str) -> aiohttp.ClientResponse:
        """Post an answer and, where the sidecar asks for it, come again with the cookies of *browser*."""
        response = await self.post(text, relay_state)
        return await browser.page(response.headers["Location"]) if response.status == 303 else response

    async def refused(self, made: Recipe | str, begun: Begun | None = None, browser: Browser | None = None) -> str:
        """Bring an answer that must be refused: the reason on the page. Nobody is signed in afterwards."""
        async with self.running.browser() as fresh:
            used = browser or fresh
            begun = begun or await self.begin(used)
            text = made if isinstance(made, str) else made.text()
            answer = await self.bring(used, text, begun.relay_state)
            page = await answer.text()
            assert 400 <= answer.status < 500, (answer.status, page)
            assert used.cookie() == ""
            assert (await used.fetch("/")).status == 401
            return page.partition("<dt>Reason</dt><dd><code>")[2].partition("<")[0]

    def details(self) -> list[str]:
        """What the audit log says of sign-ins that failed."""
        return [line["detail"] for line in self.running.audit() if line["event"] == "login-failed"]


async def start(
    world: World,
    patch: pytest.MonkeyPatch,
    describe: IdentityProvider | None = None,
    /,
    config: Mapping[str, Any] | None = None,
    **section: Any,
) -> SamlWorld:
    """Start a sidecar whose login ``partners`` is the forger's; *section* are lines of that login."""
    metadata = FixedMetadata(describe or provider())
    patch.setattr(opening, "provider_metadata", lambda *_: metadata)
    lines = {"domains": ["partner.example"], "identity": IDENTITY, **section}
    login = {"type": "saml", "metadata": "https://idp.partner.example/metadata", **lines}
    running = await world({"logins": {"corp": None, "partners": login}, **(config or {})})
    return SamlWorld(running, world)
