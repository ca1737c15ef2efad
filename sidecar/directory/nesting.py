"""Follow groups that are members of groups, upward and downward; circles are no trouble."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from sqlalchemy import Column, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.core.scim.fault import bad_value
from sidecar.directory.tables import member, subgroup

# Databases bound the number of values in one statement.
BATCH = 500
# Each level takes a query whenever somebody's groups are looked up. Real directories have a handful.
MOST_LEVELS = 32


def portions(ids: Iterable[str]) -> Iterator[list[str]]:
    """*ids* in parts that fit into one statement, always in the same order."""
    everything = sorted(set(ids))
    for start in range(0, len(everything), BATCH):
        yield everything[start : start + BATCH]


async def parents_of(connection: AsyncConnection, group_ids: Iterable[str]) -> Mapping[str, set[str]]:
    """By group those that it is in directly: of *group_ids*, and of every group that these lead to."""
    return (await _above(connection, group_ids))[0]


async def _above(connection: AsyncConnection, group_ids: Iterable[str]) -> tuple[Mapping[str, set[str]], int]:
    """By group those that it is in directly, of all that are reached; and how many levels these are."""
    return await _steps(connection, group_ids, subgroup.c.child_id, subgroup.c.group_id)


async def _below(connection: AsyncConnection, group_ids: Iterable[str]) -> tuple[Mapping[str, set[str]], int]:
    """By group those that are in it directly, of all that are reached; and how many levels these are."""
    return await _steps(connection, group_ids, subgroup.c.group_id, subgroup.c.child_id)


async def _steps(
    connection: AsyncConnection, group_ids: Iterable[str], here: Column[str], there: Column[str]
) -> tuple[dict[str, set[str]], int]:
    found: dict[str, set[str]] = {}
    waiting = set(group_ids)
    seen = set(waiting)
    levels = 0
    while waiting:
        levels += 1
        reached: set[str] = set()
        for some in portions(waiting):
            for row in await connection.execute(select(here, there).where(here.in_(some))):
                found.setdefault(row[0], set()).add(row[1])
                reached.add(row[1])
        waiting = reached - seen
        seen |= waiting
    return found, levels


def reached(steps: Mapping[str, set[str]], start: Iterable[str]) -> set[str]:
    """*start*, and everything that *steps* lead to from there."""
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += steps.get(one, ())
    return seen


async def beneath(connection: AsyncConnection, group_ids: Collection[str]) -> set[str]:
    """*group_ids*, and every group in them."""
    return reached((await _below(connection, group_ids))[0], group_ids)


async def people_within(connection: AsyncConnection, group_ids: Collection[str]) -> set[str]:
    """Everybody who is in one of these groups, or in a group in them."""
    found: set[str] = set()
    for some in portions(await beneath(connection, group_ids)):
        theirs = select(member.c.person_id).where(member.c.group_id.in_(some))
        found.update((await connection.execute(theirs)).scalars())
    return found


async def children_of(connection: AsyncConnection, group_id: str) -> set[str]:
    """The groups that are members of a group."""
    inside = select(subgroup.c.child_id).where(subgroup.c.group_id == group_id)
    return set((await connection.execute(inside)).scalars())


async def put_in(connection: AsyncConnection, group_id: str, children: Collection[str]) -> None:
    """Make *children* members of a group. Raises Fault(invalidValue) where that would be a circle, or too deep."""
    if not children:
        return
    steps, down = await _below(connection, children)
    if group_id in reached(steps, children):
        raise bad_value("a group cannot be in itself, nor in a group that it holds")
    _, up = await _above(connection, [group_id])
    if up + down > MOST_LEVELS:
        raise bad_value(f"groups are in one another over at most {MOST_LEVELS} levels, these would be {up + down}")
    await connection.execute(insert(subgroup), [{"group_id": group_id, "child_id": one} for one in sorted(children)])


async def take_out(connection: AsyncConnection, group_id: str, children: Collection[str]) -> None:
    """Let *children* be members of a group no longer."""
    for some in portions(children):
        gone = delete(subgroup).where(subgroup.c.group_id == group_id, subgroup.c.child_id.in_(some))
        await connection.execute(gone)


async def forget(connection: AsyncConnection, group_id: str) -> None:
    """A group that goes is in no group any more, and no group is in it."""
    await connection.execute(delete(subgroup).where(subgroup.c.group_id == group_id))
    await connection.execute(delete(subgroup).where(subgroup.c.child_id == group_id))
