"""Roles come from groups, logins, conditions and other roles; what is unknown gives none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.conditions import Answer, answer, facts_of
from sidecar.core.roles import Role, find_roles, roles_of
from sidecar.core.template import Compiler
from sidecar.faults import Refused
from sidecar.model import Identity
from sidecar.reason import Reason
from tests.world import World

TEMPLATE = Compiler().compile
ADA = Identity("corp", "i", "1", "ada", groups=("wiki-admins", "staff"), claims={"department": "X", "level": 3})
ROLES = (
    Role("owner", includes=("admin",), when=TEMPLATE("{{ claims.level > 5 }}")),
    Role("admin", groups=frozenset(["wiki-admins", "ops"]), logins=frozenset(["corp"]), includes=("editor",)),
    Role("editor", when=TEMPLATE("{{ 'wiki-editors' in groups or claims.department == 'Y' }}"), includes=("reader",)),
    Role("reader", groups=frozenset(["nobody"]), includes=("editor",)),
    Role("guest"),
)


def test_roles_stand_in_the_order_of_the_configuration_and_bring_those_that_they_include() -> None:
    assert roles_of(ADA, ROLES) == ("admin", "editor", "reader")


def test_each_role_says_why() -> None:
    found = {role.name: role.why for role in find_roles(ADA, ROLES)}
    assert found == {
        "owner": "{{ claims.level > 5 }} does not hold",
        "admin": "in group wiki-admins and signed in at corp",
        "editor": "included in admin",
        "reader": "included in editor",
        "guest": "only other roles include it",
    }


def test_every_line_of_a_role_must_hold() -> None:
    assert roles_of(replace(ADA, provider="other"), ROLES) == ()
    assert roles_of(replace(ADA, groups=("staff",)), ROLES) == ()


def test_t56_unknown_groups_give_no_role() -> None:
    unknown = replace(ADA, groups=None)
    assert roles_of(unknown, ROLES) == ()
    assert find_roles(unknown, ROLES)[1].why == "the groups are unknown"
    # What does not depend on them still does.
    assert roles_of(replace(unknown, claims={"department": "Y", "level": 1}), ROLES) == ("editor", "reader")


@pytest.mark.parametrize(
    ("condition", "known", "unknown"),
    [
        ("{{ 'staff' in groups }}", Answer.YES, Answer.UNKNOWN),
        ("{{ 'staff' in user.groups }}", Answer.YES, Answer.UNKNOWN),
        ("{{ 'evil' not in groups }}", Answer.YES, Answer.UNKNOWN),
        ("{{ 'staff' in groups or claims.level == 3 }}", Answer.YES, Answer.YES),
        ("{{ groups | length == 2 }}", Answer.YES, Answer.UNKNOWN),
        ("{{ user.username == 'ada' }}", Answer.YES, Answer.YES),
        ("{{ claims.gone == 1 }}", Answer.MISSING, Answer.MISSING),
        ("{{ claims.level }}", Answer.WRONG, Answer.WRONG),
        ("{{ claims.level > 5 }}", Answer.NO, Answer.NO),
    ],
)
def test_a_condition_is_only_true_when_it_surely_is(condition: str, known: Answer, unknown: Answer) -> None:
    assert answer(TEMPLATE(condition), facts_of(ADA)) is known
    said = answer(TEMPLATE(condition), facts_of(replace(ADA, groups=None)))
    assert said is unknown or (unknown is Answer.WRONG and said is Answer.UNKNOWN)


def test_a_condition_that_gives_neither_true_nor_false_refuses() -> None:
    with pytest.raises(Refused) as caught:
        roles_of(ADA, [Role("a", when=TEMPLATE("{{ claims.level }}"))])
    assert caught.value.reason is Reason.IDENTITY_INCOMPLETE


async def test_what_somebody_is_here_is_worked_out_anew_when_it_is_said_to_have_changed(world: World) -> None:
    running = await world()
    gate = running.sidecar.front.gate
    async with running.browser() as browser:
        await browser.sign_in("ada")
        assert (await browser.page("/admin/x")).status == 200
        [(session, _, _)] = gate._callers.values()
        gate.forget("1:x1:y")
        assert len(gate._callers) == 1
        gate.plan = replace(gate.plan, roles=())
        assert (await browser.page("/admin/x")).status == 200
        gate.forget(session.identity.key)
        assert (await browser.page("/admin/x")).status == 403
