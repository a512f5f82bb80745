"""The seam between text and tokens: what a dialect may ask of an engine, free of any wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

NO_END_ID = -1

GuideKind = Literal["json", "json_schema", "regex", "ebnf_grammar"]
"""TensorRT-LLM's names for what an answer can be held to; "json" is any object."""

TopLogProbs = Sequence[tuple[int, float]]
"""Token ids and the natural logarithms of their probabilities, the likeliest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Guide:
    """What an answer must be: `text` is a JSON schema, a regular expression or a grammar.

    `param` is what the client calls it, for errors.
    """

    kind: GuideKind
    text: str = ""
    param: str | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamSearch:
    """Beams in the place of sampling; the engine returns all of them, the best first."""

    width: int
    length_penalty: float = 1.0
    early_stopping: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateRequest:
    """One prompt to go on from. Every value is explicit: an engine's own defaults never show.

    `model` is Triton's name of the model. `temperature` is None for greedy decoding, which is
    `top_k` 1; `top_k` 0 and `top_p` 1 are off. `end_id` NO_END_ID never ends; `stop_ids` are
    further ids that end the sequence, as each of `stop_words` does, whose ids come in a row.
    `sequences` answers are sampled from the one prompt.
    `top_log_probs` is how many alternatives are told with each new token, `prompt_log_probs` with
    each of the prompt's (None: nothing is told of them). `trace` are W3C trace headers.
    """

    model: str
    request_id: str
    input_ids: Sequence[int]
    max_tokens: int
    end_id: int
    seed: int
    stop_ids: tuple[int, ...] = ()
    stop_words: tuple[tuple[int, ...], ...] = ()
    temperature: float | None = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_tokens: int = 0
    sequences: int = 1
    beams: BeamSearch | None = None
    bad_words: tuple[tuple[int, ...], ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    guide: Guide | None = None
    adapter_id: int | None = None
    log_probs: bool = False
    top_log_probs: int = 0
    prompt_log_probs: int | None = None
    trace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Perf:
    """What the engine tells of a request; times are its own clock's."""

    arrival_ns: int = 0
    first_scheduled_ns: int = 0
    first_token_ns: int = 0
    last_token_ns: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose KV blocks were reused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptLogProb:
    """A prompt token's log probability, and its place's likeliest tokens."""

    log_prob: float
    top: TopLogProbs = ()


class Tokens(NamedTuple):
    """New tokens of one of a request's sequences, in order; possibly none.

    `log_probs` are natural logarithms, one per id when they were asked for, else empty; so is
    `top`. `prompt` comes once, before or with the first tokens: one entry per prompt token but
    the first, which nothing comes before. `perf` comes with the last, and what is known by then may
    come with the first. After `final` nothing follows, for any sequence. A tuple, as there is one
    per token: a frozen dataclass costs 1 µs.
    """

    ids: Sequence[int]
    sequence: int = 0
    log_probs: Sequence[float] = ()
    top: Sequence[TopLogProbs] = ()
    prompt: Sequence[PromptLogProb] = ()
    perf: Perf | None = None
    final: bool = False


Take = Callable[[list[Tokens]], bool]
"""Is given tokens, and says whether it wants more."""


class TokenStream(Protocol):
    """A request under way."""

    async def run(self, take: Take) -> bool:
        """Give all that comes to `take`, as soon as it has, until that says no; False after the
        final.

        `take` may be called from within the event loop's reading, without a task between; what it
        raises is raised here. Raises errors of server.errors, after what came before them was
        given.
        """
        ...

    def cancel(self) -> None:
        """Give the request up, if it isn't over: nothing comes any more. May be called twice."""
        ...


class Backend(Protocol):
    """An engine that generates tokens. Everything belongs to the running event loop."""

    def generate(self, request: GenerateRequest) -> TokenStream:
        """Begin to answer. An error comes with `run`."""
        ...

    async def embed(
        self, model: str, input_ids: Sequence[int], *, trace: Mapping[str, str]
    ) -> Sequence[float]:
        """The embedding of one text's tokens by an encoder, float32; `trace` are W3C trace headers.
        Raises as `run` does."""
        ...

    async def ready(self, model: str) -> bool:
        """Whether a request to `model` sent now would be served."""
        ...

    async def close(self) -> None:
        """Cancel what runs and let the connections go."""
        ...
