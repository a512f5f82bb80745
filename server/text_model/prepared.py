"""A prompt that is ready for the engine, with what its answers need to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from server.backend.base import GenerateRequest
from server.thinking import Thinking


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """One prompt of a request. Its answers have at most `max_tokens`, which the engine's own
    limit exceeds where only the prompt is of interest.

    `continues` says that an answer's text goes on from the prompt's. `echo` is the text that
    repeats the prompt, where that was asked for; `tail` is the end of the prompt's text. `thinking`
    is how the answers are thought about, where that is not left to the engine.
    """

    request: GenerateRequest
    max_tokens: int
    continues: bool
    echo: str = ""
    tail: str = ""
    thinking: Thinking | None = None
