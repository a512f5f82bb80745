"""What a client asks of a model that takes text, as tensors for the engine's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tensors = dict[str, Array]


class CallError(Exception):
    """A model that was called refused or failed; `code` is gRPC's name for how."""

    def __init__(self, message: str, code: str = "INTERNAL") -> None:
        super().__init__(message)
        self.code = code


class Generate(Protocol):
    """Calls a model: its responses, all that have come at a time. Raises CallError."""

    def __call__(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> AsyncGenerator[list[Tensors], None]: ...


PREPROCESSING = {
    "text_input": "QUERY",
    "messages": "MESSAGES",
    "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT",
    "stop_words": "STOP_WORDS_DICT",
    "embedding_bias_words": "EMBEDDING_BIAS_WORDS",
    "embedding_bias_weights": "EMBEDDING_BIAS_WEIGHTS",
    "end_id": "END_ID",
    "pad_id": "PAD_ID",
    "prompt_table_extra_id": "PROMPT_TABLE_EXTRA_ID",
}
"""Our input → the one of `preprocessing`, whose work is done here."""

PREPROCESSED = {
    "INPUT_ID": "input_ids",
    "REQUEST_INPUT_LEN": "input_lengths",
    "REQUEST_OUTPUT_LEN": "request_output_len",
    "OUT_END_ID": "end_id",
    "OUT_PAD_ID": "pad_id",
    "STOP_WORDS_IDS": "stop_words_list",
    "BAD_WORDS_IDS": "bad_words_list",
    "EMBEDDING_BIAS": "embedding_bias",
    "OUT_PROMPT_TABLE_EXTRA_IDS": "prompt_table_extra_ids",
}
"""What `preprocessing` makes → the engine's input."""

PASSED = {
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "temperature": "temperature",
    "length_penalty": "len_penalty",
    "repetition_penalty": "repetition_penalty",
    "min_tokens": "min_tokens",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
    "return_log_probs": "return_log_probs",
    "return_context_logits": "return_context_logits",
    "return_generation_logits": "return_generation_logits",
    "return_perf_metrics": "return_perf_metrics",
    "return_num_input_tokens": "return_num_input_tokens",
    "return_num_output_tokens": "return_num_output_tokens",
    "num_return_sequences": "num_return_sequences",
    "beam_width": "beam_width",
    "stream": "streaming",
    "prompt_embedding_table": "prompt_embedding_table",
    "prompt_vocab_size": "prompt_vocab_size",
    "lora_task_id": "lora_task_id",
    "lora_weights": "lora_weights",
    "lora_config": "lora_config",
    "guided_decoding_guide_type": "guided_decoding_guide_type",
    "guided_decoding_guide": "guided_decoding_guide",
}
"""Our input → the engine's, which gets it as it is."""

OURS = ("exclude_input_in_output", "num_draft_tokens", "use_draft_logits")
"""Inputs that no other model gets."""

REFUSED = (
    "decoder_text_input",
    "image_input",
    "image_bytes_input",
    "image_url_input",
    "image_sizes_input",
    "video_bytes_input",
)
"""Inputs that no engine here has a use for."""

ALONE = {
    "beam_width": 1,
    "num_return_sequences": 1,
    "return_context_logits": 0,
    "return_generation_logits": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
}
"""What drafting can't be combined with: inputs and the value that means nothing is asked.

A round's target sees earlier rounds as its prompt, which these treat apart from an answer.
"""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A client's request. `inputs` are its tensors, each [rows, …].

    `parts` says that the answer comes from the engine in parts, which stop strings or late ends are
    to end early or drafting makes, whether the client wants a stream or not.
    """

    inputs: Mapping[str, Array]
    rows: int
    streaming: bool
    parts: bool
    exclude_input: bool
    sequences: int
    beams: int
    min_tokens: int
    draft_tokens: int
    draft_logits: bool

    def stops(self, row: int) -> tuple[str, ...]:
        """A row's stop strings. Raises ValueError where they aren't UTF-8."""
        if "stop_words" not in self.inputs:
            return ()
        try:
            return tuple(stop.decode() for stop in self.inputs["stop_words"][row])
        except UnicodeDecodeError:
            raise ValueError("stop_words: not UTF-8") from None

    def for_engine(self, preprocessed: Mapping[str, Array]) -> Tensors:
        """The engine's inputs. What is empty is left out: it would say nothing."""
        pairs = ((theirs, preprocessed[name]) for name, theirs in PREPROCESSED.items())
        made = {name: value for name, value in pairs if value.size}
        if self.min_tokens > 1:
            # the engine would end at a word before its time; we cut the text, and stop it
            made.pop("stop_words_list", None)
        made |= {PASSED[n]: v for n, v in self.inputs.items() if n in PASSED}
        every = np.ones((self.rows, 1), np.bool_)
        return {**made, "streaming": every & self.parts, "exclude_input_in_output": every}


def read(inputs: Mapping[str, Array], *, drafting: bool, exclude_input: bool, parts: bool) -> Asked:
    """Read a request's inputs; `exclude_input` is the model's own default.

    `parts` says that the engine can answer in parts.
    Raises ValueError naming the input that can't be honoured.
    """
    if given := [name for name in REFUSED if name in inputs]:
        raise ValueError(f"{given[0]}: this engine takes one prompt of text and nothing else")
    # Triton reshapes one value a request from [rows, 1] to [rows]
    whole = {n: v.reshape(-1, 1) if v.ndim == 1 else v for n, v in inputs.items()}
    streaming = bool(_one(whole, "stream", False))
    drafts = int(_one(whole, "num_draft_tokens", 0)) > 0
    min_tokens = int(_one(whole, "min_tokens", 1))
    # what the engine isn't told of, see `for_engine`, is to end it too
    cut = "stop_words" in whole or min_tokens > 1
    cut = cut and parts and int(_one(whole, "beam_width", 1)) == 1
    asked = Asked(
        inputs=whole,
        rows=len(whole["max_tokens"]),
        streaming=streaming,
        parts=streaming or drafts or cut,
        exclude_input=bool(_one(whole, "exclude_input_in_output", exclude_input)),
        sequences=int(_one(whole, "num_return_sequences", 1)),
        beams=int(_one(whole, "beam_width", 1)),
        min_tokens=min_tokens,
        draft_tokens=int(_one(whole, "num_draft_tokens", 0)),
        draft_logits=bool(_one(whole, "use_draft_logits", False)),
    )
    if asked.draft_tokens > 0:
        _require_draftable(asked, drafting)
    return asked


def _require_draftable(asked: Asked, drafting: bool) -> None:
    if not drafting:
        raise ValueError("num_draft_tokens: this model has no draft model")
    if asked.rows > 1:
        raise ValueError("num_draft_tokens: drafting is for one prompt a request")
    for name, idle in ALONE.items():
        if _one(asked.inputs, name, idle) != idle:
            raise ValueError(f"num_draft_tokens: drafting can't be combined with {name}")
    for name in ("guided_decoding_guide_type", "prompt_embedding_table"):
        if name in asked.inputs:
            raise ValueError(f"num_draft_tokens: drafting can't be combined with {name}")


def _one(inputs: Mapping[str, Array], name: str, default: Any) -> Any:
    """The value that all rows share. Raises ValueError where they differ."""
    value = inputs.get(name)
    if value is None or not value.size:
        return default
    if (value != value.flat[0]).any():
        raise ValueError(f"{name}: must be the same for every prompt of a request")
    return value.flat[0]
