"""Ask Open Policy Agent for a decision."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from sidecar.config.engines import OpaEngine
from sidecar.core.asking import Question
from sidecar.engines.engine import Ruling
from sidecar.engines.http import EngineHttp

_LONGEST_NAME = 200


class Opa:
    """One decision of one OPA: its address below ``/v1/data``."""

    def __init__(self, name: str, section: OpaEngine) -> None:
        """Connect to nothing yet. Raises ValueError when the section cannot work."""
        self._section = section
        self._path = f"/v1/data/{quote(section.path)}"
        self._http = EngineHttp(name, section)

    async def ask(self, question: Question) -> Ruling:
        """See Engine; only true, and an object with ``allow: true``, are a yes, and undefined is a no."""
        result = (await self._http.post(self._path, question)).get("result")
        if isinstance(result, dict):
            return Ruling(self._yes_or_no(result.get("allow", False)), _policy_in(result))
        return Ruling(result is not None and self._yes_or_no(result))

    def _yes_or_no(self, value: Any) -> bool:
        if not isinstance(value, bool):
            # Something that only looks like a yes: the rule has been read wrongly, by us or by its author.
            raise self._http.down(f"a decision that is a {type(value).__name__}, neither true nor false")
        return value

    async def probe(self) -> str:
        """See Engine."""
        answer = await self._http.post(self._path, {"input": {}})
        has = "defined" if "result" in answer else "undefined"
        return f"answers, {self._section.path} is {has} for an empty input"

    async def close(self) -> None:
        """See Engine."""
        await self._http.close()


def _policy_in(result: dict[str, Any]) -> str:
    """What the decision calls the policy behind it, where it does."""
    policy = result.get("policy")
    return policy if isinstance(policy, str) and len(policy) <= _LONGEST_NAME and policy.isprintable() else ""
