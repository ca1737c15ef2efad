"""What becomes of people, what is too much, and when it is time: decided without any reading or writing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sidecar.core.claims import IdentityPlan
from sidecar.core.sync.document import digest_of, read, written
from sidecar.core.sync.entry import Entry, EntryPlan, entry_of, external_of, mark_of
from sidecar.core.sync.guards import Limit, Limits, Past, Tally, breaches
from sidecar.core.sync.plan import Grace, Item, Kind, Standing, Track, absent, differences, present
from sidecar.core.sync.timetable import Timetable, parse_cron
from sidecar.core.template import Compiler
from sidecar.faults import Refused
from sidecar.model import Identity

HR = "sync:hr"
COMPILE = Compiler().compile
PLAN = EntryPlan(
    HR,
    "number",
    IdentityPlan(
        COMPILE("{{ claims.login }}"), COMPILE("{{ claims.mail }}"), None, None, frozenset(), trust_email=True
    ),
    COMPILE("{{ claims.status == 'active' }}"),
    "mail",
)


def who(username: str = "ada", groups: tuple[str, ...] | None = (), **claims: Any) -> Identity:
    return Identity(HR, HR, "1", username, groups=groups, claims=claims)


def entry(identity: Identity | None = None, *, active: bool = True) -> Entry:
    return Entry("1", identity or who(), active)


def standing(**changes: Any) -> Standing:
    return Standing(**{"person_id": "p", "owner": HR, "identity": who(), **changes})


# Reading


def test_a_row_becomes_an_entry() -> None:
    found = entry_of({"number": 7, "login": "ada", "mail": "Ada@Example.com", "status": "active"}, PLAN)
    assert (found.external, found.active, found.joins) == ("7", True, ("Ada@Example.com",))
    assert (found.identity.username, found.identity.email, found.identity.subject) == ("ada", "Ada@example.com", "7")
    assert found.identity.claims["mail"] == "Ada@Example.com"


@pytest.mark.parametrize("value", [None, "", "  ", True, 1.5, ["1"], "a\nb", "x" * 256])
def test_what_cannot_be_an_id_is_none(value: Any) -> None:
    assert external_of({"number": value}, "number") == ""


@pytest.mark.parametrize("row", [{"number": "1", "login": "", "mail": "", "status": "active"}, {"number": "1"}])
def test_a_row_that_cannot_be_read_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        entry_of(row, PLAN)


def test_a_condition_that_is_none_is_refused() -> None:
    plan = EntryPlan(HR, "number", PLAN.identity, COMPILE("{{ claims.status }}"))
    with pytest.raises(Refused, match="active"):
        entry_of({"number": "1", "login": "ada", "mail": "", "status": "yes"}, plan)


def test_the_mark_is_of_what_a_row_says_and_of_the_rules() -> None:
    assert mark_of({"a": 1, "b": 2}, "r") == mark_of({"b": 2, "a": 1}, "r")
    assert len({mark_of({"a": 1}, "r"), mark_of({"a": "1"}, "r"), mark_of({"a": 1}, "s")}) == 3


# Who is there


@pytest.mark.parametrize(
    ("active", "known", "kind"),
    [
        (True, None, Kind.CREATE),
        (False, None, Kind.CREATE),
        (True, standing(identity=who("grace")), Kind.UPDATE),
        (True, standing(identity=None, owner="corp"), Kind.UPDATE),
        (True, standing(), Kind.NOTE),
        (False, standing(), Kind.DEACTIVATE),
        (False, standing(identity=None, owner="corp"), Kind.DEACTIVATE),
        (False, standing(is_on=False, off_by=(HR,)), Kind.NOTE),
        (True, standing(is_on=False, off_by=(HR,)), Kind.REACTIVATE),
        (True, standing(is_on=False, off_by=("manual",)), Kind.UPDATE),
        (True, standing(is_on=False, off_by=("manual", HR)), Kind.UPDATE),
        # Somebody else was faster, and may change their mind.
        (False, standing(is_on=False, off_by=("manual",)), Kind.DEACTIVATE),
        (False, standing(is_on=False, off_by=("manual", HR)), Kind.NOTE),
        (False, standing(is_gone=True), Kind.SKIP),
        (False, standing(is_protected=True), Kind.SKIP),
        (True, standing(is_protected=True, identity=who("grace")), Kind.SKIP),
        (False, standing(owner="scim:okta"), Kind.SKIP),
        (False, standing(owner="sync:ad"), Kind.SKIP),
        (False, standing(owner="manual"), Kind.SKIP),
    ],
)
def test_what_becomes_of_somebody_in_the_source(active: bool, known: Standing | None, kind: Kind) -> None:
    assert present(HR, entry(active=active), "m", known).kind is kind


@pytest.mark.parametrize("kind", [Kind.SKIP, Kind.NOTE])
def test_an_item_that_does_nothing_carries_nothing_to_write(kind: Kind) -> None:
    known = standing(is_protected=kind is Kind.SKIP)
    assert present(HR, entry(), "m", known).after is None


# Who is missing


@pytest.mark.parametrize(
    ("track", "known", "now", "kind"),
    [
        (Track("p", "m"), standing(), 0, Kind.WAIT),
        (Track("p", "m", missing=1, since=0), standing(), 7200, Kind.WAIT),
        (Track("p", "m", missing=2, since=0), standing(), 3599, Kind.WAIT),
        (Track("p", "m", missing=2, since=0), standing(), 3600, Kind.DEACTIVATE),
        (Track("p", "m", missing=2, since=0), standing(is_protected=True), 3600, None),
        (Track("p", "m", missing=2, since=0), standing(owner="scim:okta"), 3600, None),
        (Track("p", "m", missing=2, since=0), standing(is_gone=True, is_on=False), 3600, None),
        (Track("p", "m", missing=3, since=0, off=3600), standing(is_on=False), 3600 + 899, None),
        (Track("p", "m", missing=3, since=0, off=3600), standing(is_on=False), 3600 + 900, Kind.DELETE),
        (Track("p", "m", missing=3, since=0, off=3600), standing(is_on=False, is_protected=True), 9999, None),
        (Track("p", "m", missing=3, since=0, off=3600), standing(is_on=False, owner="sync:ad"), 9999, None),
        # Switched off for long, and only now missing: a list that lost them is no reason to delete them at once.
        (Track("p", "m", off=0), standing(is_on=False), 1e6, Kind.WAIT),
        (Track("p", "m", missing=2, since=1e6 - 3600, off=0), standing(is_on=False), 1e6, Kind.DELETE),
        (Track("p", "m", missing=2, since=0), standing(is_on=False, off_by=("manual",)), 1e6, None),
    ],
)
def test_what_becomes_of_somebody_missing(track: Track, known: Standing, now: float, kind: Kind | None) -> None:
    grace = Grace(HR, runs=3, seconds=3600, delete_after=900)
    item = absent(track, "1", known, grace, now)
    assert (item.kind if item else None) is kind


def test_nobody_is_deleted_unless_that_is_wanted() -> None:
    track = Track("p", "m", missing=3, since=0, off=0)
    assert absent(track, "1", standing(is_on=False), Grace(HR), 1e12) is None


def test_whom_somebody_else_switched_off_is_not_deleted_at_once_either() -> None:
    track = Track("p", "m", missing=3, since=0)
    assert absent(track, "1", standing(is_on=False), Grace(HR, delete_after=0.0), 1e12) is None


# Writing plans down


def test_an_item_survives_being_written_down() -> None:
    item = present(HR, entry(who("ada", ("x",), city="Ulm", n=[1, None])), "m", standing(identity=who("old", None)))
    text = written(item)
    assert read(HR, item.kind.value, item.person_id, text) == item
    assert written(read(HR, item.kind.value, item.person_id, text)) == text
    assert digest_of(item.kind, "p", text) != digest_of(Kind.CREATE, "p", text) != digest_of(Kind.CREATE, "q", text)


def test_differences_are_named() -> None:
    before, after = who("ada", ("a",), city="Ulm", old="x"), who("eve", ("a", "b"), city="Bonn")
    assert differences(before, after) == ("username", "groups", "city", "old")
    assert differences(who(groups=None), who(groups=())) == ("groups",)
    assert differences(who(groups=("a", "b")), who(groups=("b", "a"))) == ()


# What is too much


def plan_of(*items: tuple[int, Kind], **roles: tuple[str, ...]) -> Tally:
    tally = Tally()
    for number, kind in items:
        for one in range(number):
            tally.add(Item(kind, str(one), "p", "", who(), who(), roles=roles), frozenset(["admin"]))
    return tally


NAMES = ("create", "deactivate", "delete", "rename", "remove_roles", "grant_privileged", "group_members", "invalid")
PAST = Past(people=100, on=100)


def broken(tally: Tally, past: Past = PAST, people: int | None = None, **limits: Limit) -> list[str]:
    return [one.limit for one in breaches(tally, Limits(limits, shrink=10), past, people)]


@pytest.mark.parametrize("kind", [Kind.DEACTIVATE, Kind.DELETE, Kind.CREATE, Kind.INVALID])
def test_a_count_and_a_share_are_limits_and_the_smaller_one_holds(kind: Kind) -> None:
    name = kind.value
    for limit, most in ((Limit(5), 5), (Limit(percent=7), 7), (Limit(5, 7), 5), (Limit(7, 5), 5), (Limit(0), 0)):
        assert broken(plan_of((most, kind)), **{name: limit}) == []
        assert broken(plan_of((most + 1, kind)), **{name: limit}) == [name]


def test_one_person_is_never_too_large_a_share_but_may_be_too_many() -> None:
    small = Past(people=3, on=3)
    assert broken(plan_of((1, Kind.DEACTIVATE)), small, deactivate=Limit(percent=5)) == []
    assert broken(plan_of((2, Kind.DEACTIVATE)), small, deactivate=Limit(percent=5)) == ["deactivate"]
    assert broken(plan_of((1, Kind.DEACTIVATE)), small, deactivate=Limit(0, 5)) == ["deactivate"]


def test_the_first_run_may_create_everybody_and_nothing_else_without_limit() -> None:
    first = Past()
    assert broken(plan_of((1000, Kind.CREATE)), first, create=Limit(5, 5)) == []
    granted = plan_of((6, Kind.CREATE), after=("admin",))
    assert broken(granted, first, grant_privileged=Limit(5)) == ["grant_privileged"]


def test_roles_that_are_lost_and_privileged_ones_that_are_given_count_people() -> None:
    lost = plan_of((3, Kind.UPDATE), before=("editor", "reader"), after=("editor",))
    assert broken(lost, remove_roles=Limit(3)) == []
    assert broken(lost, remove_roles=Limit(2)) == ["remove_roles"]
    given = plan_of((3, Kind.UPDATE), before=("editor",), after=("admin", "editor"))
    assert broken(given, grant_privileged=Limit(2), remove_roles=Limit(0)) == ["grant_privileged"]
    kept = plan_of((3, Kind.UPDATE), before=("admin",), after=("admin",))
    assert broken(kept, grant_privileged=Limit(0), remove_roles=Limit(0)) == []


def test_renamed_people_count() -> None:
    tally = Tally()
    for _ in range(3):
        tally.add(Item(Kind.UPDATE, "1", "p", "", who("ada"), who("eve")), frozenset())
    assert broken(tally, rename=Limit(2)) == ["rename"]
    assert broken(tally, rename=Limit(3)) == []


@pytest.mark.parametrize(("people", "found"), [(90, []), (89, ["shrink"]), (70, ["shrink"]), (None, []), (100, [])])
def test_a_source_that_shrinks_too_much(people: int | None, found: list[str]) -> None:
    assert broken(plan_of(), PAST, people) == found


def test_one_person_fewer_is_no_shrinking() -> None:
    assert broken(plan_of(), Past(people=3, on=3), 2) == []
    assert broken(plan_of(), Past(people=3, on=3), 1) == ["shrink"]


def moved(number: int, before: tuple[str, ...], after: tuple[str, ...], kind: Kind = Kind.UPDATE) -> Tally:
    tally = Tally()
    for one in range(number):
        tally.add(Item(kind, str(one), "p", "", who(groups=before), who(groups=after)), frozenset())
    return tally


def test_a_group_that_loses_or_gains_too_many_members() -> None:
    past = Past(people=100, on=100, groups={"a": 40})
    half = Limit(percent=50)
    assert broken(moved(20, ("a",), ()), past, group_members=half) == []
    assert broken(moved(21, ("a",), ()), past, group_members=half) == ["group_members"]
    assert broken(moved(21, (), ("a",)), past, group_members=half) == ["group_members"]
    # Whoever is switched off leaves the group, too.
    assert broken(moved(21, ("a",), (), Kind.DEACTIVATE), past, group_members=half) == ["group_members"]
    # A new group, and a small one.
    assert broken(moved(60, (), ("new",)), past, group_members=half) == []
    assert broken(moved(60, (), ("new",)), past, group_members=Limit(59, 50)) == ["group_members"]
    assert broken(moved(5, ("b",), ()), Past(9, 9, {"b": 6}), group_members=half) == []


def test_what_is_taken_back_does_not_count() -> None:
    tally = moved(6, ("a",), ())
    item = Item(Kind.UPDATE, "1", "p", "", who(groups=("a",)), who(groups=()))
    tally.add(item, frozenset(), -1)
    assert (tally.leave["a"], tally.counts()) == (5, {"update": 5})


# When it is time

START = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)  # a Wednesday


@pytest.mark.parametrize(
    ("cron", "then"),
    [
        ("* * * * *", "2026-03-04 05:07"),
        ("6 5 * * *", "2026-03-05 05:06"),
        ("30 2 * * *", "2026-03-05 02:30"),
        ("*/15 * * * *", "2026-03-04 05:15"),
        ("0 6-8 * * *", "2026-03-04 06:00"),
        ("0 0 * * mon-fri", "2026-03-05 00:00"),
        ("0 0 * * 7", "2026-03-08 00:00"),
        ("0 0 * * sun", "2026-03-08 00:00"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("0 0 1 jan *", "2027-01-01 00:00"),
        # Either of day and weekday, where both are given.
        ("0 0 20 * fri", "2026-03-06 00:00"),
        ("0 0 */2 * fri", "2026-03-13 00:00"),
        ("5/20 * * * *", "2026-03-04 05:25"),
        ("@daily", "2026-03-05 00:00"),
    ],
)
def test_cron(cron: str, then: str) -> None:
    found = datetime.fromtimestamp(parse_cron(cron).after(START.timestamp()), UTC)
    assert found.strftime("%Y-%m-%d %H:%M") == then


@pytest.mark.parametrize(
    "cron",
    ["", "* * * *", "60 * * * *", "* 24 * * *", "x * * * *", "5-3 * * * *", "*/0 * * * *", "0 0 0 * *", "-1 * * * *"],
)
def test_a_cron_that_is_none_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match=r"cron|number|backwards"):
        parse_cron(cron)


def test_a_day_that_never_comes() -> None:
    with pytest.raises(ValueError, match="never"):
        parse_cron("0 0 30 2 *").after(START.timestamp())


def test_a_timetable() -> None:
    assert Timetable().after(100, 0.5) is None
    assert Timetable(every=60, jitter=10).after(100, 0.5) == 165
    now = START.timestamp()
    assert Timetable(cron=parse_cron("0 6 * * *"), jitter=60).after(now, 1.0) == now + 53 * 60 + 53 + 60
