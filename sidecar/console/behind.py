"""Say that no application stands behind the console: there is nothing to sign out of, and no cookie to drop."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.config.service import App
from sidecar.core.headers import HeaderPlan, Line
from sidecar.model import Visit
from sidecar.portal.application import ApplicationSession
from sidecar.portal.site import Site
from sidecar.upstream import Head


class NoApplication(ApplicationSession):
    """Leaves everything alone: on a shared host, cookies that are not the console's are the real application's."""

    def __init__(self, section: App, site: Site) -> None:
        """*section* without its sign-out."""
        bare = section.model_copy(update={"logout": None, "sign_out_cookies": ()})
        plan = HeaderPlan(managed=frozenset(), own_cookies=site.own_cookies)
        super().__init__(bare, plan, site.style, _never, lambda _client, host: (("Host", host), ()))

    def parting_cookies(self, visit: Visit, *, everything: bool = False) -> list[str]:  # noqa: ARG002
        """None."""
        return []

    def marks(self, visit: Visit) -> tuple[str, ...]:  # noqa: ARG002
        """None."""
        return ()


async def _never(_head: Head) -> Sequence[Line]:
    return ()
