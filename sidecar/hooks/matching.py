"""Decide what an answer means, and read the values to save out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.config.provision import OutcomeMatch, OutcomeName
from sidecar.core.template import MissingValueError, Template, TemplateError
from sidecar.model import Change, Result

SUCCESSES = frozenset([Result.FOUND, Result.CREATED, Result.UPDATED])
_LONGEST_SAVED = 8192


class StepError(Exception):
    """The answer cannot be used; the message is for the log and carries no value of the answer."""


def matched(
    outcomes: Mapping[OutcomeName, OutcomeMatch],
    context: Mapping[str, Any],
    *,
    status: int | None = None,
    sqlstate: str | None = None,
) -> Result | None:
    """Find the first configured outcome that fits the answer; None when none does.

    An SQL error (*sqlstate* given) is met only by outcomes that name a SQLSTATE, and nothing else is met by those.
    Raises TemplateError when a condition is neither true nor false.
    """
    for name, match in outcomes.items():
        if bool(match.sqlstate) != (sqlstate is not None):
            continue
        if sqlstate is not None and not any(_is_state(sqlstate, wanted) for wanted in match.sqlstate):
            continue
        if match.status and not any(_is_status(status, wanted) for wanted in match.status):
            continue
        if match.when is None or _holds(match.when, context):
            return Result(name)
    return None


def settled(outcomes: Mapping[OutcomeName, OutcomeMatch], found: Result | None, default: Result, answer: str) -> Result:
    """Take the configured outcome, else the default one. Raises StepError.

    A success that the configuration describes is never reached past its description: who writes ``found: {when: …}``
    does not want the answers that fail it to count as found.
    """
    if found is not None:
        return found
    if default in SUCCESSES and any(Result(name) in SUCCESSES for name in outcomes):
        message = f"{answer}, which none of the configured outcomes describes"
        raise StepError(message)
    return default


def _is_status(status: int | None, wanted: int | str) -> bool:
    text = str(wanted).lower()
    return str(status) == text or (text.endswith("xx") and str(status)[:1] == text[:1])


def _is_state(sqlstate: str, wanted: str) -> bool:
    """Compare with a whole SQLSTATE or with its class, the first two characters."""
    return sqlstate == wanted or (len(wanted) == 2 and sqlstate.startswith(wanted))


def _holds(condition: Template, context: Mapping[str, Any]) -> bool:
    # Answers to errors have another shape than answers to success, so a missing field means "not this one".
    try:
        return condition.is_true(context)
    except MissingValueError:
        return False


def success_of(change: Change) -> Result:
    """Result of a step of this change that went well."""
    if change is Change.LOOKUP:
        return Result.FOUND
    return Result.CREATED if change is Change.CREATE else Result.UPDATED


def read_saved(save: Mapping[str, Template], context: Mapping[str, Any]) -> dict[str, str]:
    """Evaluate the values to save, as text; raises StepError that names the value and says what it lacks."""
    values: dict[str, str] = {}
    for name, template in save.items():
        try:
            values[name] = storable(name, template.text(context))
        except MissingValueError:
            message = f"the answer has no {template.source}, which is to be saved as {name}"
            raise StepError(message) from None
        except TemplateError as error:
            message = f"cannot save {name}: {error}"
            raise StepError(message) from None
    return values


def storable(name: str, text: str) -> str:
    """Give *text* back when it can be kept; raises StepError when it is too long, malformed, or an id that is empty."""
    if len(text) > _LONGEST_SAVED:
        message = f"{name} is longer than {_LONGEST_SAVED} characters"
        raise StepError(message)
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        message = f"{name} holds characters that cannot be stored"
        raise StepError(message)
    if name == "id" and not text:
        message = "the answer has an empty id"
        raise StepError(message)
    return text
