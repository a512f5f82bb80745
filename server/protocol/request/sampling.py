"""How an answer's tokens are chosen, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are chosen, in OpenAI's meaning: `top_k` 0 is off. None is the model's default.

    `beams` searches with so many beams as answers are asked for, in the place of sampling.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: tuple[str, ...] = ()
    beams: bool = False
    length_penalty: float = 1.0
    early_stopping: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where an answer ends. `max_tokens` None is all the room that is left."""

    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    include_stop: bool = False
