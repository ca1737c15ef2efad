"""Fetch the groups that a provider only refers to, because they are too many for a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from sidecar.config.login import GroupsSource
from sidecar.core.claims import MOST_GROUPS, is_overflowing
from sidecar.faults import Unavailable
from sidecar.logins.http import ProviderHttp
from sidecar.reason import Reason


class Groups:
    """The configured place of the groups of one login. What a token says about places is never followed."""

    def __init__(self, name: str, section: GroupsSource) -> None:
        """Fetch for the login *name*; raises ValueError when the CA file cannot be used."""
        self._name = name
        self._section = section
        self._http = ProviderHttp(name, section.timeout.total_seconds(), section.ca)

    @property
    def scope(self) -> tuple[str, ...]:
        """What the sign-in must ask for."""
        return self._section.scope

    async def completed(self, claims: Mapping[str, Any], access_token: str) -> Mapping[str, Any]:
        """Put the fetched groups into *claims* where they only refer to them; raises Unavailable."""
        claim = self._section.claim
        if not is_overflowing(claims, frozenset([claim])):
            return claims
        groups = await self._fetched(access_token)
        references = {name: place for name, place in (claims.get("_claim_names") or {}).items() if name != claim}
        whole = {name: value for name, value in claims.items() if name not in ("_claim_names", "hasgroups")}
        return {**whole, claim: groups, **({"_claim_names": references} if references else {})}

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.close()

    async def _fetched(self, access_token: str) -> list[str]:
        groups: dict[str, None] = {}
        url = self._section.url
        for _ in range(self._section.pages):
            page = (await self._http.get(url, access_token)).document()
            groups |= dict.fromkeys(self._names(page))
            if len(groups) > MOST_GROUPS:
                raise self._unusable(f"more than {MOST_GROUPS} groups")
            following = page.get(self._section.next)
            if following is None:
                return list(groups)
            url = self._on_the_same_server(following)
        raise self._unusable(f"more than {self._section.pages} pages")

    def _names(self, page: Mapping[str, Any]) -> list[str]:
        items = page.get(self._section.items)
        if not isinstance(items, list):
            raise self._unusable(f"{self._section.items} is no list")
        field = self._section.field
        names = [item.get(field) if field and isinstance(item, Mapping) else item for item in items]
        # One that cannot be read could be the one that matters.
        if not all(isinstance(name, str) and name for name in names):
            raise self._unusable("a group without a name")
        return [str(name) for name in names]

    def _on_the_same_server(self, url: object) -> str:
        """The access token goes to the configured server alone, whatever an answer says."""
        mine, other = urlsplit(self._section.url), urlsplit(url if isinstance(url, str) else "")
        if (other.scheme, other.netloc) != (mine.scheme, mine.netloc):
            raise self._unusable("the next page is on another server")
        return str(url)

    def _unusable(self, what: str) -> Unavailable:
        return Unavailable(Reason.PROVIDER_DOWN, f"{self._name}, groups_source: {what}")
