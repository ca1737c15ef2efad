"""Ask OpenFGA whether a relationship holds."""

from __future__ import annotations

from typing import Any

from sidecar.config.engines import OpenFgaEngine
from sidecar.core.asking import Question
from sidecar.engines.engine import Ruling
from sidecar.engines.http import EngineHttp


class OpenFga:
    """One store and one authorization model of it, which is named with every question."""

    def __init__(self, name: str, section: OpenFgaEngine) -> None:
        """Connect to nothing yet. Raises ValueError when the section cannot work."""
        self._section = section
        self._http = EngineHttp(name, section)

    async def ask(self, question: Question) -> Ruling:
        """See Engine; the answer must say ``allowed``, true or false."""
        body: dict[str, Any] = {
            "tuple_key": question["tuple"],
            "authorization_model_id": self._section.model,
        }
        if "contextual" in question:
            body["contextual_tuples"] = {"tuple_keys": question["contextual"]}
        if "context" in question:
            body["context"] = question["context"]
        answer = await self._http.post(f"/stores/{self._section.store}/check", body)
        allowed = answer.get("allowed")
        if not isinstance(allowed, bool):
            raise self._http.down("an answer that does not say whether it is allowed")
        return Ruling(allowed)

    async def probe(self) -> str:
        """See Engine; the model must be there."""
        store, model = self._section.store, self._section.model
        await self._http.get(f"/stores/{store}/authorization-models/{model}")
        return f"answers, store {store} has model {model}"

    async def close(self) -> None:
        """See Engine."""
        await self._http.close()
