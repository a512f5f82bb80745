"""What a client asks of the executor, with the C++ executor's meaning of every default."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from builder.errors import RequestError


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
        """Refuse values outside the C++ executor's ranges."""
        for name, value, allowed, rule in (
            ("temperature", self.temperature, self.temperature > 0, "above 0 (greedy: top_k 1)"),
            ("runtime_top_k", self.top_k, self.top_k >= 0, "0 or more"),
            ("runtime_top_p", self.top_p, 0 <= self.top_p <= 1, "between 0 and 1"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0"),
            ("min_tokens", self.min_tokens, self.min_tokens >= 0, "0 or more"),
        ):
            if not allowed:
                raise RequestError(f"{name} must be {rule}", found=f"{value:g}", param=name)

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
