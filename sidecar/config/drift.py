"""The section about drift: how the application lists its accounts, and what may be put right by itself."""

from __future__ import annotations

from pydantic import Field, model_validator

from sidecar.config.section import Section
from sidecar.config.sync import Limit
from sidecar.config.sync_source import SourceSection
from sidecar.config.values import Duration, TemplateText, Text, Texts


class DriftLimits(Section):
    """What one repair may do. Beyond a limit nothing is done until somebody else approves."""

    deactivate: Limit = Field(Limit(count=25, percent=5), description="accounts that are switched off again")
    change: Limit = Field(Limit(count=50, percent=10), description="accounts that are put right")


class AccountTemplates(Section):
    """What a row of the listing says; templates over ``row``."""

    key: TemplateText = Field(description="what provision.account.key is there, such as {{ row.login }}")
    id: TemplateText | None = Field(None, description="the application's own id, as the lookup saves it")
    active: TemplateText | None = Field(None, description="condition: the account can be used")
    roles: TemplateText | None = Field(None, description="a list, or text with commas")
    email: TemplateText | None = Field(None, description="finds accounts that look like somebody's")
    seen: TemplateText | None = Field(None, description="last sign-in there: epoch seconds or ISO 8601")


class Drift(Section):
    """Compare the application's accounts with those that are known here."""

    list_: SourceSection = Field(alias="list", description="where the application's accounts are listed")
    account: AccountTemplates = Field(description="what a row of the listing says")
    ignore: Texts = Field((), description="account keys that are nobody's by right, beside protected accounts")
    idle: Duration | None = Field(None, description="without a sign-in for so long an account is dormant")
    most: int = Field(1_000_000, ge=1, description="most accounts that are read")
    every: Duration | None = Field(None, description="time between looks; only by hand without every and cron")
    cron: Text | None = Field(None, description="minute hour day month weekday, in UTC, in place of every")
    jitter: Duration | None = Field(None, description="begin up to this much later, each time anew")
    repair: bool = Field(default=False, description="put right at each such look what may be put right")
    limits: DriftLimits = Field(DriftLimits(), description="what one repair may do without being asked")

    @model_validator(mode="after")
    def _one_timetable(self) -> Drift:
        if self.every is not None and self.cron is not None:
            message = "every and cron are two timetables: choose one"
            raise ValueError(message)
        return self
