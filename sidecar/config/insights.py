"""The section about security insights: what is worth an alert, and who is told."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from sidecar.config.audit import Webhook
from sidecar.config.section import Section
from sidecar.config.values import Duration, Text


class Burst(Section):
    """So many within a while."""

    count: int = Field(ge=1, le=1_000_000, description="from so many on")
    within: Duration = Field(timedelta(minutes=10), description="within this time")


class NewNetwork(Section):
    """Somebody signs in from a network that they never came from before."""

    remember: Duration = Field(timedelta(days=90), description="how long a network that is not used stays known")
    ipv4: int = Field(24, ge=8, le=32, description="length of the prefix that counts as one network")
    ipv6: int = Field(48, ge=16, le=128, description="likewise for IPv6")


class Refusals(Section):
    """Bursts of refusals: denied requests, failed sign-ins, refused tokens and SCIM requests."""

    client: Burst | None = Field(Burst(count=100, within=timedelta(minutes=5)), description="of one address")
    person: Burst | None = Field(Burst(count=50, within=timedelta(minutes=5)), description="of one person")
    everybody: Burst | None = Field(Burst(count=2000, within=timedelta(minutes=5)), description="of all together")


class Silence(Section):
    """Something that was not used for long."""

    after: Duration = Field(description="from so long on")


class SlowHooks(Section):
    """Orders to the application that take long."""

    longer_than: Duration = Field(timedelta(seconds=5), description="an order that takes longer is slow")
    count: int = Field(10, ge=1, le=1_000_000, description="from so many slow ones on")
    within: Duration = Field(timedelta(minutes=10), description="within this time")


class Insights(Section):
    """What is worth an alert. Each kind has a sensible default, and null turns it off."""

    cooldown: Duration = Field(timedelta(hours=1), description="no second alert about the same within this time")
    most: int = Field(60, ge=1, le=10_000, description="the most alerts in an hour; then one says that there are more")
    webhook: Webhook | None = Field(None, description="post alerts to a receiver; audit lines are written anyway")
    new_accounts: Burst | None = Field(
        Burst(count=20, within=timedelta(hours=1)), description="accounts that were made in the application"
    )
    new_network: NewNetwork | None = Field(NewNetwork(), description="a sign-in from a network that is new for them")
    refusals: Refusals = Field(Refusals(), description="bursts of refusals")
    silent_token: Silence | None = Field(
        Silence(after=timedelta(days=30)), description="an API token that is used after a long silence"
    )
    privileged: tuple[Text, ...] = Field((), description="roles whose every grant is an alert")
    dormant: Silence | None = Field(
        Silence(after=timedelta(days=90)), description="accounts that nobody has used for so long"
    )
    failures: Burst | None = Field(
        Burst(count=10, within=timedelta(minutes=10)), description="provisioning that failed, for each cause"
    )
    slow_hooks: SlowHooks | None = Field(SlowHooks(), description="orders to the application that take long")
