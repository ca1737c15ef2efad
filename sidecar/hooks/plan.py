"""Say what an order would do, without doing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from sidecar.config.provision import RestStep, SqlStep
from sidecar.core.template import Template, TemplateError
from sidecar.hooks.context import Fields, order_context
from sidecar.hooks.order import Order, PlannedCall
from sidecar.hooks.passwords import SLOW
from sidecar.hooks.step import Placed, items_of

_MASK = "***"


class _Later(Fields):
    """Values that only answers will tell; each one reads as ``<name>``."""

    __slots__ = ()

    def __missing__(self, name: str) -> str:
        return f"<{name}>"


def planned(steps: Sequence[Placed], order: Order) -> tuple[PlannedCall, ...]:
    """Calls that *steps* would make for *order*; pure."""
    saved = _Later()
    calls: list[PlannedCall] = []
    for step in steps:
        calls += _calls(step, _context(order, saved))
        save = step.rest.save if step.rest else step.sql.save if step.sql else {}
        saved.update({name: f"<{_bare(template)}>" for name, template in save.items()})
    return tuple(calls)


def _context(order: Order, saved: _Later) -> dict[str, Any]:
    context = order_context(order, {})
    if not order.account.id:
        context["account"] = Fields({**context["account"], "id": "<account.id>"})
    return {**context, "saved": saved}


def _calls(step: Placed, context: Mapping[str, Any]) -> Iterator[PlannedCall]:
    for one in _repetitions(step, context):
        if step.rest is not None:
            yield _rest_call(step, step.rest, one)
        elif step.sql is not None:
            yield _sql_call(step, step.sql, one)


def _repetitions(step: Placed, context: Mapping[str, Any]) -> list[dict[str, Any]]:
    conditions = [part for part in (step.step.when, step.step.foreach) if part is not None]
    if any("saved" in part.names for part in conditions):
        # Nobody knows yet: show it once, as it would be.
        return [{**context, "item": "<item>"}]
    try:
        return items_of(step.step, context)
    except TemplateError:
        return [{**context, "item": "<item>"}]


def _rest_call(step: Placed, rest: RestStep, context: Mapping[str, Any]) -> PlannedCall:
    path = _shown(rest.path, lambda: rest.path.spliced(context, _encoded))
    values: dict[str, Any] = {}
    for part, templates in (("query", rest.query), ("headers", rest.headers), ("form", rest.form)):
        if templates:
            values[part] = {name: _value(template, context) for name, template in templates.items()}
    if rest.json_body is not None:
        values["json"] = _tree(rest.json_body, context)
    return PlannedCall(step.place, rest.on, f"{rest.method} {path}", {**_conditions(step), **values})


def _sql_call(step: Placed, sql: SqlStep, context: Mapping[str, Any]) -> PlannedCall:
    values = {name: _value(template, context) for name, template in sql.params.items()}
    text = " ".join((sql.query or sql.execute or "").split())
    return PlannedCall(step.place, sql.on, text, {**_conditions(step), **values})


def _conditions(step: Placed) -> dict[str, Any]:
    """Conditions that cannot be decided yet."""
    found = (("only when", step.step.when), ("for each", step.step.foreach))
    return {name: part.source for name, part in found if part is not None and "saved" in part.names}


def _tree(tree: Any, context: Mapping[str, Any]) -> Any:
    if isinstance(tree, Template):
        return _value(tree, context)
    if isinstance(tree, Mapping):
        return {name: _tree(part, context) for name, part in tree.items()}
    if isinstance(tree, list | tuple):
        return [_tree(part, context) for part in tree]
    return tree


def _value(template: Template, context: Mapping[str, Any]) -> Any:
    return _shown(template, lambda: template.value(context))


def _shown(template: Template, evaluate: Callable[[], Any]) -> Any:
    if "generated" in template.names or template.filters & SLOW:
        return _MASK
    try:
        return evaluate()
    except TemplateError:
        return f"<missing {_bare(template)}>"


def _bare(template: Template) -> str:
    source = template.source.strip()
    return source.removeprefix("{{").removesuffix("}}").strip() if source.count("{{") == 1 else source


def _encoded(value: str) -> str:
    return quote(value, safe="<>")
