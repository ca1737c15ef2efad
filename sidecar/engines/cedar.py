"""Ask the policies of Cedar that stand in files of ours, without leaving the process."""

from __future__ import annotations

import json
import re

import cedarpy

from sidecar.config.cedar_files import read_policies
from sidecar.config.engines import CedarEngine
from sidecar.core.asking import Question
from sidecar.engines.engine import Ruling
from sidecar.faults import Refused
from sidecar.reason import Reason

_FAILED_POLICY = re.compile(r"error while evaluating policy `([^`]*)`")


class Cedar:
    """Policies, schema and entities as they were at the start; the person is added for each question."""

    def __init__(self, name: str, section: CedarEngine) -> None:
        """Read the files. Raises ValueError when something is wrong with them."""
        found = read_policies(section)
        for fault in found.faults:
            message = f"{name}: {fault.file}:{fault.line}: {fault.message}"
            raise ValueError(message)
        assert found.policies is not None  # noqa: S101 - there are no faults
        assert found.entities is not None  # noqa: S101 - there are no faults
        self._name = name
        self._policies, self._schema, self._entities = found.policies, found.schema, found.entities

    async def ask(self, question: Question) -> Ruling:
        """See Engine. A policy that cannot be evaluated denies: it may be one that forbids."""
        principal = question["principal"]
        request = {
            "principal": principal["uid"],
            "action": question["action"],
            "resource": question["resource"],
            "context": question["context"],
        }
        try:
            entities = self._entities.with_added_json_str(json.dumps([principal]), self._schema)
        except ValueError as error:
            raise self._no_question(str(error)) from None
        result = cedarpy.is_authorized(request, self._policies, entities, self._schema)
        if result.decision is cedarpy.Decision.NoDecision:
            raise self._no_question("; ".join(result.diagnostics.errors))
        if result.diagnostics.errors:
            return Ruling(allowed=False, policy=f"{_failed(result.diagnostics.errors)} (cannot be evaluated)")
        return Ruling(result.allowed, ", ".join(sorted(result.diagnostics.reasons)))

    def _no_question(self, why: str) -> Refused:
        return Refused(Reason.ENGINE_NOT_ASKED, 403, f"{self._name}: {why}")

    async def probe(self) -> str:
        """See Engine."""
        schema = "with a schema" if self._schema is not None else "without a schema"
        return f"{len(self._policies)} policies {schema}"

    async def close(self) -> None:
        """See Engine; there is nothing to let go of."""


def _failed(errors: list[str]) -> str:
    """Names of the policies that failed; the rest of a message may show a value."""
    names = {match[1] for error in errors if (match := _FAILED_POLICY.search(error))}
    return ", ".join(sorted(names)) or "a policy"
