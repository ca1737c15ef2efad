"""Run the REST steps of an order, and say what their answers mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.config.provision import RestStep
from sidecar.faults import Unavailable
from sidecar.hooks.answer import Answer, AnswerUnusable
from sidecar.hooks.matching import SUCCESSES, StepError, matched, read_saved, settled, success_of
from sidecar.hooks.request import Request
from sidecar.hooks.rest import RestApi, SentAndLost
from sidecar.model import Change, Outcome, Result
from sidecar.reason import Reason

# Statuses that speak about the service account, the address or the load, not about the person.
_OURS = frozenset([401, 402, 403, 405, 406, 407, 408, 415, 425, 426, 429])
# A gateway gave up waiting: what stands behind it may have done the work.
_GATEWAY = frozenset([502, 504])


async def run_rest(
    api: RestApi,
    step: RestStep,
    request: Request,
    context: Mapping[str, Any],
    *,
    change: Change,
    enriches: bool,
) -> Outcome:
    """Send *request* of *step*; *enriches* as in ``run_sql``.

    Raises Unavailable when nothing was done, StepError and TemplateError for an answer that cannot be used.
    """
    seconds = step.timeout.total_seconds() if step.timeout else None
    try:
        answer = await api.send(request, seconds)
    except SentAndLost as error:
        if change is Change.LOOKUP:
            raise Unavailable(Reason.PROVISIONING_DOWN, f"{step.on}: {error}") from None
        return Outcome(Result.UNKNOWN, detail=str(error))
    except AnswerUnusable as error:
        raise StepError(str(error)) from None
    seen = {**context, **answer.context()}
    detail = f"answered {answer.status}"
    found = matched(step.outcomes, seen, status=answer.status)
    default = _for_lookup(answer, enriches=enriches) if change is Change.LOOKUP else _for_write(answer, step, change)
    result = settled(step.outcomes, found, default, detail)
    if result not in SUCCESSES:
        return Outcome(result, {}, detail)
    try:
        return Outcome(result, read_saved(step.save, seen), detail)
    except StepError as error:
        if change is Change.LOOKUP or step.method == "GET":
            raise
        # It was done; what is missing is only the answer's word for it. A look-up will tell.
        return Outcome(Result.UNKNOWN, {}, str(error))


def _for_lookup(answer: Answer, *, enriches: bool) -> Result:
    if answer.status == 404:
        return Result.NOT_FOUND
    if answer.status != 200:
        return Result.FAILED
    if enriches:
        return Result.FOUND
    if isinstance(answer.body, list):
        return (Result.NOT_FOUND, Result.FOUND, Result.AMBIGUOUS)[min(len(answer.body), 2)]
    # A sign-in page is a 200 too, and finds nobody.
    return Result.FOUND if answer.is_json and isinstance(answer.body, dict) and answer.body else Result.FAILED


def _for_write(answer: Answer, step: RestStep, change: Change) -> Result:
    status = answer.status
    if 200 <= status < 300:
        return Result.FOUND if step.method == "GET" else success_of(change)
    if status in (404, 410):
        return Result.FAILED if change is Change.CREATE else Result.NOT_FOUND
    if status == 409:
        return Result.CONFLICT
    if status in _OURS:
        return Result.FAILED
    if 400 <= status < 500:
        return Result.REFUSED
    return Result.UNKNOWN if status in _GATEWAY and step.method != "GET" else Result.FAILED
