"""One request, in no dialect's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from server.backend.base import Guide
from server.protocol.request.prompts import Prompt
from server.protocol.request.sampling import Limits, Sampling


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolUse:
    """The functions that the answer may call.

    The `choice` is the model's own ("auto"), of any of them ("required"), or made: `named`.
    """

    tools: Sequence[Mapping[str, Any]]
    choice: Literal["auto", "required", "named"] = "auto"
    named: str | None = None
    parallel: bool = True

    @property
    def demanded(self) -> bool:
        """Whether the answer must be a call."""
        return self.choice != "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerForm:
    """What a dialect's own parsing tells its rendering; it changes no token.

    `deprecated_calls` answers in the shape of OpenAI's `function_call`; `tokens_as_ids` names
    tokens in log probabilities "token_id:7"; `prefix` comes before the answer's text.
    """

    deprecated_calls: bool = False
    tokens_as_ids: bool = False
    prefix: str = ""
    service_tier: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRequest:
    """One request of any dialect; `n` choices are answered per prompt, in the prompts' order.

    `prompt_param` is what the dialect calls its prompt, for errors. `best_of` candidates are
    written for each prompt, of which the `n` likeliest are answered (None: n). `log_probs` is how
    many alternatives are told with each token of the answer, `prompt_log_probs` with each of the
    prompt (None: nothing). `echo` begins the answer with the prompt. `guide` holds the answer's
    content to a form. `tools` None: what looks like a call is text. `include_reasoning` False
    leaves out what a model thinks aloud, of which `thinking_budget` are the most tokens (None: no
    bound; 0: nothing is thought). `continuous_usage` tells usage with every chunk.
    """

    model: str
    prompts: Sequence[Prompt]
    prompt_param: str
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    n: int = 1
    best_of: int | None = None
    log_probs: int | None = None
    prompt_log_probs: int | None = None
    echo: bool = False
    guide: Guide | None = None
    tools: ToolUse | None = None
    include_reasoning: bool = True
    thinking_budget: int | None = None
    skip_special_tokens: bool = True
    return_token_ids: bool = False
    truncate_prompt_tokens: int | None = None
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    form: AnswerForm = field(default_factory=AnswerForm)
