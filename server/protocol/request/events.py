"""What a request is answered with: text as it comes, what is told of it, and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerHead:
    """What every part of an answer repeats; `created` is in seconds since 1970."""

    id: str
    created: int
    model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogProb:
    """One token and the natural logarithm of its probability; `top` are likely tokens there.

    `content` may hold part of a character. A prompt's first token has no probability: None.
    `offset` is where it begins in the answer's whole text (the prompt's, with `echo`, and what
    was thought aloud included), in characters; None where that isn't known. What isn't `said` was
    thought, or is part of a call.
    """

    content: bytes
    log_prob: float | None
    token_id: int
    top: Sequence[TokenLogProb] = ()
    offset: int | None = None
    said: bool = True

    @property
    def text(self) -> str:
        """`content` as text, U+FFFD for a part of a character."""
        return self.content.decode(errors="replace")


@dataclass(frozen=True, kw_only=True, slots=True)
class CallDelta:
    """A part of a tool call: its first has `id` and `name`, each has a piece of `arguments`.

    `index` counts an answer's calls from 0. `arguments` is JSON text. It comes after `at`
    characters of the text that it is told with.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    at: int = 0


@dataclass(frozen=True, kw_only=True)
class TextEvent:
    """New text of one choice. With `finish_reason` it is the choice's last.

    `finish_reason` is "stop", "length" or "tool_calls". `stopped_by` is the stop string or token
    id that ended it. `reasoning` comes before any `text`. `token_ids` are the new ones, an end
    token too, where they were asked for; `prompt_log_probs` and `prompt_token_ids` come once,
    with the first event. A prompt that is echoed is text, and has its part of `log_probs`.
    `pieces` are the events that a whole answer came in.
    """

    index: int
    text: str
    reasoning: str = ""
    calls: Sequence[CallDelta] = ()
    log_probs: Sequence[TokenLogProb] = ()
    token_ids: Sequence[int] = ()
    prompt_log_probs: Sequence[TokenLogProb] = ()
    prompt_token_ids: Sequence[int] = ()
    finish_reason: str | None = None
    stopped_by: str | int | None = None
    pieces: Sequence[TextEvent] = field(default=(), compare=False)

    @classmethod
    def plain(cls, index: int, text: str, reasoning: str = "") -> TextEvent:
        """Text and nothing else, as most events are: the other fields are the class's own."""
        event = cls.__new__(cls)
        fields = event.__dict__
        fields["index"] = index
        fields["text"] = text
        fields["reasoning"] = reasoning
        return event


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens read and written; of the prompt's, `cached_tokens` had been read before.

    `reasoning_tokens` are of the `completion_tokens`.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
