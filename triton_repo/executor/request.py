"""What a client asks of the executor, with the C++ executor's meaning of every default."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from builder.errors import RequestError

_MOST = float(2**31 - 1)
_RANGES = {
    "temperature": (1e-6, 1e6, "temperature"),
    "runtime_top_k": (0, _MOST, "top_k"),
    "runtime_top_p": (0, 1, "top_p"),
    "repetition_penalty": (1e-6, 1e6, "repetition_penalty"),
    "presence_penalty": (-1e6, 1e6, "presence_penalty"),
    "frequency_penalty": (-1e6, 1e6, "frequency_penalty"),
    "min_tokens": (0, _MOST, "min_tokens"),
}
"""Triton input → least value, most, SamplingParams field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How the next token is chosen. The defaults are those of TensorRT-LLM's executor.

    With `top_k` 0 and `top_p` 0 the choice is greedy; `top_k` 0 with a `top_p` above 0 samples
    from the nucleus (1: from all). The seed is constant unless set.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_tokens: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what the C++ executor refuses, and what leaves no finite logit."""
        for name, (low, high, field_name) in _RANGES.items():
            value = getattr(self, field_name)
            if not low <= value <= high:
                raise RequestError(
                    f"{name} must lie between {low:g} and {high:g}",
                    found=f"{value:g}",
                    do="for greedy, set runtime_top_k to 1" if name == "temperature" else None,
                    param=name,
                )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.top_k == 1 or (self.top_k == 0 and self.top_p == 0)

    @property
    def penalised(self) -> bool:
        """Whether the tokens so far change the logits."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A prompt and how to go on from it. `end_id` -1 never ends; stop words are token ids."""

    input_ids: list[int]
    max_tokens: int
    end_id: int = -1
    stop_words: tuple[tuple[int, ...], ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    log_probs: bool = False


class FinishReason(Enum):
    """Why a sequence is over."""

    END_ID = "end_id"
    STOP_WORDS = "stop_words"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Output:
    """What one step gave one request: new token ids, their log probabilities when asked for.

    `finish` is set on the last output; `error` says why where it is ERROR.
    """

    token_ids: list[int]
    log_probs: list[float]
    finish: FinishReason | None = None
    error: str | None = None
