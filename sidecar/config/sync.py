"""Sections about the synchronisation of people: whose they are, how much may change at once, and when it runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, model_validator

from sidecar.config.login import IdentityTemplates
from sidecar.config.section import Section
from sidecar.config.sync_source import SourceSection
from sidecar.config.values import Duration, TemplateText, Text, Texts


class Limit(Section):
    """How many may change in one run: the smaller of the two counts; one person is never too many for percent."""

    count: int | None = Field(None, ge=0, description="most of them; any number when left out")
    percent: int | None = Field(None, ge=0, le=100, description="most of them, of the people that were there before")


class Limits(Section):
    """What one run may do. Beyond a limit nothing at all is done until somebody approves."""

    deactivate: Limit = Field(Limit(count=25, percent=5), description="people who are switched off")
    delete: Limit = Field(Limit(count=10, percent=1), description="people who are deleted for good")
    remove_roles: Limit = Field(Limit(count=50, percent=10), description="people who lose a role")
    grant_privileged: Limit = Field(Limit(count=5, percent=None), description="people who get a privileged role")
    rename: Limit = Field(Limit(count=25, percent=5), description="people whose user name changes")
    create: Limit = Field(Limit(count=None, percent=20), description="people who are new; the first run has no limit")
    group_members: Limit = Field(Limit(count=None, percent=50), description="members that come to or leave one group")
    invalid: Limit = Field(Limit(count=20, percent=5), description="people of whom the source says what cannot be read")
    shrink: int = Field(10, ge=0, le=100, description="percent by which the source may have become smaller")
    privileged: Texts = Field((), description="roles that are privileged; the first one under roles when left out")


class Grace(Section):
    """How long somebody who is missing in the source is left alone; both must have passed."""

    runs: int = Field(3, ge=1, description="complete runs without them")
    time: Duration = Field(timedelta(hours=24), description="time since the first of those")


class Errors(Section):
    """When a run that keeps failing ends; what was not done yet stays to be done."""

    count: int = Field(20, ge=0, description="failed changes that are tolerated in any case")
    percent: int = Field(10, ge=0, le=100, description="and more of them up to this share of what was tried")


class Sync(Section):
    """One source of people, read again and again; its people are owned by it."""

    source: SourceSection = Field(description="where people come from")
    id: Text = Field(description="the column or attribute with the id that never changes: a personnel number, a UUID")
    active: TemplateText | None = Field(None, description="condition: they work here; everybody listed when left out")
    identity: IdentityTemplates = Field(description="who they are, from claims, which are the columns or attributes")
    on: Text = Field("", description="the column or attribute by which somebody who signs in is found; id if left out")
    join: dict[str, TemplateText] = Field(
        default_factory=dict, description="login → the value of that attribute, from claims; others join nobody"
    )
    groups: Literal["add", "replace"] = Field(
        "add", description="whether its groups are added to those of the sign-in, or stand in their place"
    )
    domains: Texts = Field((), description="e-mail domains that it may speak for; every address is believed without")
    every: Duration | None = Field(None, description="time between runs; only by hand without every and cron")
    cron: Text | None = Field(None, description="minute hour day month weekday, in UTC, in place of every")
    jitter: Duration | None = Field(None, description="begin up to this much later, each time anew")
    full: Duration = Field(timedelta(hours=24), description="read everything at least this often; only that finds gaps")
    watch: bool = Field(default=False, description="run as soon as the file is a new one, too")
    incomplete: Literal["refuse", "additive"] = Field(
        "refuse", description="what an incomplete source leads to: nothing, or only what takes nothing away"
    )
    limits: Limits = Field(Limits(), description="what one run may do without being asked")
    grace: Grace = Field(Grace(), description="how long somebody who is missing is left alone")
    delete: Duration | None = Field(
        None, description="delete who is missing so long after they were switched off; never when left out"
    )
    protect: Texts = Field((), description="ids or user names that are never changed, beside protected accounts")
    errors: Errors = Field(Errors(), description="when a run that keeps failing ends")

    @model_validator(mode="after")
    def _one_timetable(self) -> Sync:
        if self.every is not None and self.cron is not None:
            message = "every and cron are two timetables: choose one"
            raise ValueError(message)
        return self
