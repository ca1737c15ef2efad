"""Turn SCIM filters and orders into SQL as far as there are indices for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, and_, false, not_, or_, select, true

from sidecar.core.scim.filters import Both, Compare, Either, Filter, Negated, Within, instant_of
from sidecar.core.scim.paths import Place
from sidecar.core.wanted import folded
from sidecar.directory.tables import digest, group, member, scim_email, scim_user, subgroup


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that holds for everything a filter means; ``is_exact`` when it holds for nothing else.

    ``finds_ids`` when it leads to a few ids by itself, so that nothing else should be looked through.
    """

    sql: ColumnElement[bool]
    is_exact: bool
    finds_ids: bool = False


_EVERYTHING = Condition(true(), is_exact=False)
_Field = Callable[[str, Any], Condition]


def _text(hashed: Column[Any], searched: Column[Any], *, is_binary: bool) -> _Field:
    """A text; unless it *is_binary*, a database may take one letter for another when it looks for a part."""

    def field(operator: str, value: Any) -> Condition:
        text = folded(str(value))
        match operator:
            case "eq":
                return Condition(hashed == digest(text), is_exact=True)
            case "ne":
                return Condition(hashed != digest(text), is_exact=True)
            case "sw":
                return Condition(searched.startswith(text, autoescape=True), is_exact=is_binary)
            case "co":
                return Condition(searched.contains(text, autoescape=True), is_exact=is_binary)
            case "ew":
                return Condition(searched.endswith(text, autoescape=True), is_exact=is_binary)
            case "pr":
                return Condition(true(), is_exact=True)
            case _:
                return _EVERYTHING

    return field


def _exact(column: Column[Any], *, is_hashed: bool) -> _Field:
    def field(operator: str, value: Any) -> Condition:
        if operator == "pr":
            return Condition(column.is_not(None), is_exact=True)
        if operator != "eq" or value is None:
            return _EVERYTHING
        return Condition(column == (digest(str(value)) if is_hashed else str(value)), is_exact=True)

    return field


def _moment(column: Column[Any]) -> _Field:
    orders: Mapping[str, Callable[[float], ColumnElement[bool]]] = {
        "eq": lambda moment: column == moment,
        "gt": lambda moment: column > moment,
        "ge": lambda moment: column >= moment,
        "lt": lambda moment: column < moment,
        "le": lambda moment: column <= moment,
    }

    def field(operator: str, value: Any) -> Condition:
        moment = instant_of(value)
        order = orders.get(operator)
        return _EVERYTHING if moment is None or order is None else Condition(order(moment), is_exact=True)

    return field


def _active(operator: str, value: Any) -> Condition:
    wanted = {"true": True, "false": False}.get(str(value).lower())
    if operator not in ("eq", "ne") or wanted is None:
        return _EVERYTHING
    return Condition(scim_user.c.active.is_(wanted if operator == "eq" else not wanted), is_exact=True)


def _email(operator: str, value: Any) -> Condition:
    if operator != "eq" or value is None:
        return _EVERYTHING
    theirs = select(scim_email.c.user_id).where(scim_email.c.value_hash == digest(folded(str(value))))
    return Condition(scim_user.c.id.in_(theirs), is_exact=True, finds_ids=True)


def _member(operator: str, value: Any) -> Condition:
    if operator != "eq" or value is None:
        return _EVERYTHING
    theirs = select(member.c.group_id).join(scim_user, scim_user.c.person_id == member.c.person_id)
    theirs = theirs.where(scim_user.c.id == str(value), scim_user.c.source == group.c.source)
    inside = select(subgroup.c.group_id).where(subgroup.c.child_id == str(value))
    return Condition(or_(group.c.id.in_(theirs.correlate(group)), group.c.id.in_(inside)), is_exact=True)


USER_FIELDS: Mapping[str, _Field] = {
    "id": _exact(scim_user.c.id, is_hashed=False),
    "userName": _text(scim_user.c.name_hash, scim_user.c.search_name, is_binary=True),
    "externalId": _exact(scim_user.c.external_hash, is_hashed=True),
    "active": _active,
    "emails.value": _email,
    "meta.created": _moment(scim_user.c.created),
    "meta.lastModified": _moment(scim_user.c.updated),
}
GROUP_FIELDS: Mapping[str, _Field] = {
    "id": _exact(group.c.id, is_hashed=False),
    "displayName": _text(group.c.name_hash, group.c.search_name, is_binary=False),
    "externalId": _exact(group.c.external_hash, is_hashed=True),
    "members.value": _member,
    "meta.created": _moment(group.c.created),
    "meta.lastModified": _moment(group.c.updated),
}
USER_ORDERS: Mapping[str, Column[Any]] = {
    "userName": scim_user.c.search_name,
    "meta.created": scim_user.c.created,
    "meta.lastModified": scim_user.c.updated,
    "id": scim_user.c.id,
}
GROUP_ORDERS: Mapping[str, Column[Any]] = {
    "displayName": group.c.search_name,
    "meta.created": group.c.created,
    "meta.lastModified": group.c.updated,
    "id": group.c.id,
}


def field_name(place: Place) -> str:
    """Name of a place in the mappings above, "" for one that can be in none of them."""
    if place.attribute is None or place.urn:
        return ""
    if place.part is not None:
        return f"{place.attribute.name}.{place.part.name}"
    is_list = place.attribute.many and place.attribute.kind == "complex"
    return f"{place.attribute.name}.value" if is_list else place.attribute.name


def condition_of(term: Filter | None, fields: Mapping[str, _Field]) -> Condition:
    """SQL for *term*: what it leaves over is to be looked at one by one."""
    match term:
        case None:
            return Condition(true(), is_exact=True)
        case Compare(place, operator, value):
            if place.leaf is None:
                return Condition(false(), is_exact=True)
            field = fields.get(field_name(place))
            return field(operator, value) if field is not None else _EVERYTHING
        case Both(terms):
            found = [condition_of(one, fields) for one in terms]
            is_exact, finds_ids = all(one.is_exact for one in found), any(one.finds_ids for one in found)
            return Condition(and_(*(one.sql for one in found)), is_exact, finds_ids)
        case Either(terms):
            found = [condition_of(one, fields) for one in terms]
            is_exact, finds_ids = all(one.is_exact for one in found), all(one.finds_ids for one in found)
            return Condition(or_(*(one.sql for one in found)), is_exact, finds_ids)
        case Negated(inner):
            condition = condition_of(inner, fields)
            # What is not exact means too much, and the opposite of that too little.
            return Condition(not_(condition.sql), is_exact=True) if condition.is_exact else _EVERYTHING
        case Within(place, inner):
            return _within(place, inner, fields)


def _within(place: Place, inner: Filter, fields: Mapping[str, _Field]) -> Condition:
    field = fields.get(field_name(place))
    if field is None or place.attribute is None:
        return _EVERYTHING
    terms = inner.terms if isinstance(inner, Both) else (inner,)
    for one in terms:
        if isinstance(one, Compare) and one.place.attribute is not None and one.place.attribute.name == "value":
            condition = field(one.operator, one.value)
            return Condition(condition.sql, condition.is_exact and len(terms) == 1, condition.finds_ids)
    return _EVERYTHING
