"""Compile what rules ask engines of fine-grained policy."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.config.access import AccessRule
from sidecar.config.engines import AskedTuple, CedarEngine, ContextualTuple, EngineAsk, EngineSection, OpenFgaEngine
from sidecar.core.asking import (
    Ask,
    Entity,
    Framing,
    Principal,
    TupleLine,
    cedar_framing,
    input_framing,
    tuple_framing,
)
from sidecar.core.patterns import compile_pattern


def ask_of(rule: AccessRule, engines: Mapping[str, EngineSection], *, ignore_case: bool = False) -> Ask | None:
    """What *rule* asks; None when it asks nobody. Raises ValueError for what the lints report with its line."""
    if rule.engine is None:
        return None
    section = engines.get(rule.engine.name)
    if section is None:
        message = f"there is no engine {rule.engine.name}"
        raise ValueError(message)
    pattern = compile_pattern(rule.path, ignore_case=ignore_case, captures=True)
    return Ask(rule.engine.name, pattern, _framing(rule.engine, section))


def _framing(asked: EngineAsk, section: EngineSection) -> Framing:
    if isinstance(section, CedarEngine) and asked.action is not None and asked.resource is not None:
        principal = Principal(Entity(section.principal, section.id), section.attributes, section.groups, section.roles)
        resource = Entity(asked.resource.type, asked.resource.id)
        return cedar_framing(principal, Entity("Action", asked.action), resource, asked.context)
    if isinstance(section, OpenFgaEngine) and asked.asked is not None:
        return tuple_framing(_line(asked.asked), tuple(map(_line, asked.contextual)), asked.context)
    if section.type == "opa" and asked.input is not None:
        return input_framing(asked.input)
    message = f"{asked.name}: the rule does not say what an engine of type {section.type} is asked"
    raise ValueError(message)


def _line(section: AskedTuple) -> TupleLine:
    each = section.each if isinstance(section, ContextualTuple) else None
    return TupleLine(section.user, section.relation, section.object, each)
