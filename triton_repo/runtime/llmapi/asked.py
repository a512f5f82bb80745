"""What one request asks, read from its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from triton_repo.runtime.llmapi import choices
from triton_repo.runtime.llmapi.choices import Retention
from triton_repo.runtime.llmapi.folder import Adapter, EngineFolder
from triton_repo.runtime.llmapi.refused import Refused
from triton_repo.runtime.llmapi.sampling import read_fields
from triton_repo.runtime.llmapi.tensors import Tensors, flag, scalar, texts, words

RETURNED = {
    "return_finish_reason": "finish_reason",
    "return_stop_reason": "stop_reason",
    "return_num_input_tokens": "num_input_tokens",
    "return_num_output_tokens": "num_output_tokens",
}
"""Input → the output that it leaves out where it is false."""

_WHOLE_ONLY = ("use_beam_search", "return_context_logits", "return_generation_logits")
"""What the LLM API gives with the answer's end."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one request asks: `sampling` are fields of SamplingParams.

    `stop_words` are words of several ids, which end the answer here: the LLM API knows words of
    one. `left_out` are outputs that the client has said no to.
    """

    prompt: str | list[int]
    sampling: dict[str, Any]
    streaming: bool
    exclude_input: bool
    stop_words: tuple[tuple[int, ...], ...]
    guide: dict[str, str | bool] | None
    retention: Retention | None
    adapter: Adapter | None
    processor: str | None
    left_out: frozenset[str]

    @property
    def step_by_step(self) -> bool:
        """Whether steps are needed before the last."""
        return self.streaming or bool(self.stop_words)

    @property
    def beams(self) -> bool:
        """Whether it is a beam search."""
        return bool(self.sampling.get("use_beam_search"))

    @property
    def log_probs(self) -> bool:
        """Whether log probabilities are wanted."""
        return "logprobs" in self.sampling


def read_request(tensors: Tensors, engine: EngineFolder, *, wants_text: bool) -> Asked:
    """Read a request. Raises Refused naming the input that can't be honoured."""
    prompt = _prompt(tensors, engine.max_input_len)
    streaming = flag(tensors, "streaming")
    stops = texts(tensors, "sampling_param_stop")
    sampling = read_fields(tensors, engine, stops)
    stop_words = tuple(word for word in words(tensors, "stop_words_list") if len(word) > 1)
    if (streaming or stop_words) and (late := [n for n in _WHOLE_ONLY if sampling.get(n)]):
        with_what = "streaming" if streaming else "stop words of several ids"
        raise Refused(f"{late[0]} is not supported together with {with_what}")
    if streaming and sampling.get("best_of", 1) > sampling.get("n", 1):
        raise Refused("sampling_param_best_of is not supported together with streaming")
    return Asked(
        prompt=prompt,
        # stop strings are found in the text, asked for or not
        sampling={**sampling, "detokenize": wants_text or bool(stops)},
        streaming=streaming,
        exclude_input=all(
            flag(tensors, name)
            for name in ("exclude_input_in_output", "sampling_param_exclude_input_from_output")
            if name in tensors
        ),
        stop_words=stop_words,
        guide=choices.guide(tensors, engine),
        retention=choices.retention(tensors),
        adapter=choices.adapter(tensors, engine),
        processor=choices.processor(tensors, engine),
        left_out=frozenset(
            output
            for name, output in RETURNED.items()
            if name in tensors and not flag(tensors, name)
        ),
    )


def _prompt(tensors: Tensors, max_input_len: int | None) -> str | list[int]:
    if ("text_input" in tensors) == ("input_ids" in tensors):
        raise Refused("a request must have exactly one of text_input and input_ids")
    if "text_input" in tensors:
        found = texts(tensors, "text_input")
        if len(found) != 1:
            raise Refused(f"text_input must be one prompt, found {len(found)}")
        return found[0]
    ids = tensors["input_ids"].reshape(-1)
    length = int(scalar(tensors, "input_lengths", ids.size))
    if not 0 < length <= ids.size:
        raise Refused(
            f"input_lengths must lie between 1 and the {ids.size} input_ids, found {length}"
        )
    if max_input_len is not None and length > max_input_len:
        raise Refused(f"prompt length ({length}) exceeds max_input_len ({max_input_len})")
    if ids[:length].min() < 0:
        raise Refused(f"input_ids must not be negative, found {ids[:length].min()}")
    if "request_output_len" not in tensors:
        raise Refused("request_output_len is missing: it must be given with input_ids")
    prompt: list[int] = ids[:length].tolist()
    return prompt
