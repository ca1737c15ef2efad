"""Keep the API token of a service account that signs in, fetched by one task at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from sidecar.config.provision import LoginToken
from sidecar.core.template import TemplateError
from sidecar.faults import Unavailable
from sidecar.hooks.answer import Answer
from sidecar.hooks.request import Request, body_of, header_value
from sidecar.reason import Reason

SendsRequest = Callable[[Request], Awaitable[Answer]]

# What templates of the login section can read, beside the answer in ``token``.
LOGIN_NAMES = frozenset(["username", "password"])


class ServiceToken:
    """One token, fetched when it is needed, too old, or refused."""

    def __init__(self, section: LoginToken) -> None:
        """Fetches nothing yet."""
        self._section = section
        self._token = ""
        self._fetched = 0.0
        self._turn = asyncio.Lock()

    async def current(self, send: SendsRequest) -> str:
        """Give the token, signing in by *send* when there is none or it is too old. Raises Unavailable."""
        async with self._turn:
            if not self._token or time.monotonic() - self._fetched > self._section.lifetime.total_seconds():
                await self._fetch(send)
            return self._token

    async def renewed(self, refused: str, send: SendsRequest) -> str:
        """Give another token than *refused*; whoever comes second takes the one that the first fetched."""
        async with self._turn:
            if self._token == refused:
                await self._fetch(send)
            return self._token

    def signed(self, request: Request, token: str) -> Request:
        """Put *token* into the headers of *request*."""
        scheme = self._section.scheme
        value = f"{scheme} {token}" if scheme else token
        return replace(request, headers={**request.headers, self._section.header: value})

    async def _fetch(self, send: SendsRequest) -> None:
        self._token = ""
        answer = await send(self._request())
        if answer.status // 100 != 2:
            raise Unavailable(Reason.PROVISIONING_DOWN, f"signing in was answered {answer.status}")
        try:
            token = header_value(self._section.header, self._section.token.text(answer.context()))
        except TemplateError:
            token = ""
        if not token:
            source = self._section.token.source
            raise Unavailable(Reason.PROVISIONING_DOWN, f"the answer to signing in has no {source}")
        self._token = token
        self._fetched = time.monotonic()

    def _request(self) -> Request:
        section = self._section
        password = section.password.reveal() if section.password else ""
        context = {"username": section.username, "password": password}
        try:
            body, kind = body_of(section.json_body, section.form, context)
        except TemplateError as error:
            raise Unavailable(Reason.PROVISIONING_DOWN, f"signing in: {error}") from None
        headers = {"Content-Type": kind} if kind else {}
        return Request(section.method, section.path, headers, body)
