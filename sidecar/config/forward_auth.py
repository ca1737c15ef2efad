"""The section about a front proxy that asks before it passes on a request."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sidecar.config.section import Section
from sidecar.config.values import OneOrMany, Peer
from sidecar.core.addresses import Network


class ForwardAuth(Section):
    """Decide for a front proxy that carries the requests itself; it asks at `/-/auth`."""

    dialect: Literal["nginx", "traefik", "caddy", "haproxy", "envoy"] = Field(
        description="which front proxy asks: what was asked for stands in other headers with each"
    )
    peers: Annotated[tuple[Peer, ...], OneOrMany] = Field(
        alias="from", min_length=1, description="who may ask: its networks, or unix for our Unix socket"
    )

    @property
    def networks(self) -> tuple[Network, ...]:
        """Those of ``from`` that are networks."""
        return tuple(peer for peer in self.peers if not isinstance(peer, str))
