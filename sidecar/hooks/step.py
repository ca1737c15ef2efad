"""Compile a configured step into what running it needs to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from sidecar.config.provision import Provision, RestStep, SqlStep, Step
from sidecar.core.template import Template, TemplateError
from sidecar.hooks.passwords import SLOW
from sidecar.model import Change

MOST_ITEMS = 1000
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Placed:
    """One step and its place in the configuration, such as ``create[1]``."""

    place: str
    step: Step
    needs_saved: bool
    is_slow: bool

    @property
    def sql(self) -> SqlStep | None:
        """The statement, when it is one."""
        return self.step.sql

    @property
    def rest(self) -> RestStep | None:
        """The call, when it is one."""
        return self.step.rest

    @property
    def database(self) -> str:
        """Name of the SQL connection, "" for a REST step."""
        return self.step.sql.on if self.step.sql else ""


def placed(section: str, steps: Sequence[Step]) -> tuple[Placed, ...]:
    """Number *steps* of the configuration's *section*."""
    return tuple(_placed(f"{section}[{number}]", step) for number, step in enumerate(steps))


def _placed(place: str, step: Step) -> Placed:
    templates = tuple(request_templates(step))
    conditions = [template for template in (step.when, step.foreach) if template is not None]
    return Placed(
        place,
        step,
        needs_saved=any("saved" in template.names for template in (*templates, *conditions)),
        is_slow=any(template.filters & SLOW for template in templates),
    )


def request_templates(step: Step) -> Iterator[Template]:
    """All templates that are evaluated before the step is carried out, except ``when`` and ``foreach``."""
    if step.sql is not None:
        yield from step.sql.params.values()
    if step.rest is not None:
        yield step.rest.path
        yield from (*step.rest.query.values(), *step.rest.headers.values(), *step.rest.form.values())
        yield from templates_in(step.rest.json_body)


def templates_in(tree: Any) -> Iterator[Template]:
    """Give all templates of a JSON tree."""
    if isinstance(tree, Template):
        yield tree
    elif isinstance(tree, Mapping):
        for part in tree.values():
            yield from templates_in(part)
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from templates_in(part)


def transactions(steps: Iterable[Placed]) -> tuple[tuple[Placed, ...], ...]:
    """Group neighbouring SQL steps of one connection; every REST step is a group of its own."""
    numbered = groupby(enumerate(steps), key=lambda pair: pair[1].database or pair[0])
    return tuple(tuple(step for _, step in group) for _, group in numbered)


def section_steps(section: Provision) -> dict[Change, tuple[Placed, ...]]:
    """Steps by change."""
    return {change: placed(change.value, getattr(section, change.value)) for change in Change}


def items_of(step: Step, context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give the context of each repetition whose ``when`` holds; one context when there is no ``foreach``.

    Raises TemplateError when ``foreach`` is no list, or a long one.
    """
    if step.foreach is None:
        contexts = [dict(context)]
    else:
        found = step.foreach.value(context)
        if not isinstance(found, list | tuple):
            message = f"{step.foreach.source!r} is not a list"
            raise TemplateError(message)
        if len(found) > MOST_ITEMS:
            message = f"{step.foreach.source!r} has more than {MOST_ITEMS} items"
            raise TemplateError(message)
        contexts = [{**context, "item": item} for item in found]
    return [one for one in contexts if step.when is None or step.when.is_true(one)]


async def evaluated(is_slow: bool, build: Callable[[], Value]) -> Value:  # noqa: FBT001 - a property of the step
    """Call *build*, in a thread when it hashes passwords."""
    return await asyncio.to_thread(build) if is_slow else build()
