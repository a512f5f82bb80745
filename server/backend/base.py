"""The seam between text and tokens: what a dialect may ask of an engine, free of any wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

NO_END_ID = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateRequest:
    """One sequence to generate. Every value is explicit: an engine's own defaults never show.

    `temperature` is None for greedy decoding, which is `top_k` 1; `top_k` 0 and `top_p` 1 are
    off. `end_id` NO_END_ID never ends; `stop_ids` are further ids that end the sequence.
    """

    request_id: str
    input_ids: Sequence[int]
    max_tokens: int
    end_id: int
    seed: int
    stop_ids: tuple[int, ...] = ()
    temperature: float | None = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_tokens: int = 0
    log_probs: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """New tokens of one sequence, in order; possibly none.

    `log_probs` are natural logarithms, one per id when they were asked for, else empty.
    After `final` nothing follows.
    """

    ids: Sequence[int]
    log_probs: Sequence[float] = ()
    final: bool = False


class Backend(Protocol):
    """An engine that generates tokens."""

    def generate(self, request: GenerateRequest) -> AsyncIterator[Tokens]:
        """The answer's tokens as they come. Closing the iterator cancels the request.

        Raises errors of server.errors.
        """
        ...

    async def ready(self) -> bool:
        """Whether a request sent now would be served."""
        ...

    async def close(self) -> None:
        """Cancel what runs and let the connection go."""
        ...
