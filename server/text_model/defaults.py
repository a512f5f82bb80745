"""How tokens are chosen where a request doesn't say, and how many: as OpenAI does, or the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from server.protocol.openai_shared.sampling import MAX_TOKEN_ID, REPETITION_PENALTY_RANGE

_NUMBERS = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "repetition_penalty": REPETITION_PENALTY_RANGE,
}
_COUNTS = {"top_k": "top_k", "max_new_tokens": "max_tokens"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingDefaults:
    """OpenAI's defaults. `top_k` 0 and `repetition_penalty` 1 are off, `max_tokens` None is all the
    room there is."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_tokens: int | None = None

    @classmethod
    def of(cls, generation_config: Mapping[str, Any]) -> SamplingDefaults:
        """Those of a generation_config.json, as vLLM takes them: its `do_sample` says nothing, nor
        does `max_length`, which many models have from their training.

        What is no number in the range of a request's own is left out.
        """
        given: dict[str, Any] = {}
        for name, (low, high) in _NUMBERS.items():
            value = generation_config.get(name)
            if _is_number(value) and low <= value <= high:
                given[name] = float(value)
        for name, field in _COUNTS.items():
            value = generation_config.get(name)
            if _is_number(value) and 0 < value <= MAX_TOKEN_ID and value == int(value):
                given[field] = int(value)
        return cls(**given)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
