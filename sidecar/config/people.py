"""Sections about people whom operators add by hand: how they are found when they sign in, and invitations."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from sidecar.config.section import Section
from sidecar.config.values import Duration, TemplateText


class Invitations(Section):
    """Links by which somebody takes the place that was made for them."""

    lifetime: Duration = Field(timedelta(days=7), description="how long a link can be used")
    strict: bool = Field(
        default=True, description="only who signs in with the invited e-mail address, verified, may use the link"
    )


class ByHand(Section):
    """People whom operators add with `sidecar users`."""

    on: Literal["email", "username", "id"] = Field("email", description="what somebody who signs in is found by")
    join: dict[str, TemplateText] = Field(
        default_factory=dict, description="login → its value, from claims; others join by invitation alone"
    )
    invitations: Invitations = Field(Invitations(), description="links that an operator sends")
