"""What every dialect's request becomes: prompts, how to sample, how to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatPrompt:
    """Messages for the model's chat template; `variables` are the template's own."""

    messages: Sequence[Mapping[str, Any]]
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def continues(self) -> bool:
        """Whether the answer goes on from the prompt's text; else it is a text of its own."""
        return self.continue_final_message


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPrompt:
    """Plain text to continue."""

    text: str
    add_special_tokens: bool = True
    continues: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPrompt:
    """Token ids to continue."""

    ids: Sequence[int]
    continues: ClassVar[bool] = True


Prompt = ChatPrompt | TextPrompt | TokenPrompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are chosen, in OpenAI's meaning: `top_k` 0 is off, no `seed` is a random one."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where an answer ends. `max_tokens` None is all the room that is left."""

    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    include_stop: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRequest:
    """One request of any dialect; one choice is answered per prompt.

    `prompt_param` is what the dialect calls its prompt, for errors.
    """

    model: str
    prompts: Sequence[Prompt]
    prompt_param: str
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    log_probs: bool = False
    skip_special_tokens: bool = True
    stream: bool = False
    include_usage: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerHead:
    """What every part of an answer repeats; `created` is in seconds since 1970."""

    id: str
    created: int
    model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogProb:
    """One token of an answer and the natural logarithm of its probability.

    `content` may hold part of a character.
    """

    content: bytes
    log_prob: float

    @property
    def text(self) -> str:
        """`content` as text, U+FFFD for a part of a character."""
        return self.content.decode(errors="replace")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextEvent:
    """New text of one choice. With `finish_reason` ("stop", "length") it is the choice's last.

    `stopped_by` is the stop string or token id that ended it.
    """

    index: int
    text: str
    log_probs: Sequence[TokenLogProb] = ()
    finish_reason: str | None = None
    stopped_by: str | int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
