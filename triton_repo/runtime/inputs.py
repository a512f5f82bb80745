"""The `tensorrt_llm` model's input tensors, read into a request of our executor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import RequestError
from triton_repo.executor.request import Request, SamplingParams

Tensors = Mapping[str, NDArray[Any]]

SAMPLING = {
    "temperature": "temperature",
    "runtime_top_k": "top_k",
    "runtime_top_p": "top_p",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "min_tokens": "min_tokens",
    "seed": "seed",
}
"""Triton input → SamplingParams field."""

READ = {
    "input_ids",
    "input_lengths",
    "request_output_len",
    "end_id",
    "stop_words_list",
    "return_log_probs",
    "exclude_input_in_output",
    "streaming",
    "stop",
    "return_num_input_tokens",
    "return_num_output_tokens",
    *SAMPLING,
}
"""Inputs that have their effect."""

WITHOUT_EFFECT = {
    "pad_id",
    "len_penalty",
    "early_stopping",
    "beam_search_diversity_rate",
    "decoder_input_ids",
    "decoder_input_lengths",
}
"""Inputs that change nothing for one beam of a decoder-only model, on a GPU either."""

ONLY = {
    "beam_width": 1,
    "num_return_sequences": 1,
    "return_context_logits": False,
    "return_generation_logits": False,
    "return_perf_metrics": False,
}
"""Inputs that this engine takes with one value only. Any other input is taken only when empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What one Triton request asks: of the executor, and of the way its answer is sent."""

    request: Request
    streaming: bool
    exclude_input: bool
    stop: bool


def read_request(tensors: Tensors, *, exclude_input: bool = False) -> Asked:
    """Read a Triton request of batch size 1; `exclude_input` is the model's own default.

    Raises RequestError naming the input that is missing, malformed or can't be honoured.
    """
    _refuse_unsupported(tensors)
    stop = bool(_scalar(tensors, "stop", False))
    return Asked(
        request=Request(
            input_ids=[0] if stop else _prompt(tensors),
            max_tokens=1 if stop else int(_scalar(tensors, "request_output_len")),
            end_id=int(_scalar(tensors, "end_id", -1)),
            stop_words=_words(tensors, "stop_words_list"),
            sampling=_sampling(tensors),
            log_probs=bool(_scalar(tensors, "return_log_probs", False)),
        ),
        streaming=bool(_scalar(tensors, "streaming", False)),
        exclude_input=bool(_scalar(tensors, "exclude_input_in_output", exclude_input)),
        stop=stop,
    )


def _refuse_unsupported(tensors: Tensors) -> None:
    for name, value in tensors.items():
        if name in READ or name in WITHOUT_EFFECT or value.size == 0:
            continue
        if name not in ONLY:
            raise RequestError(f"{name} is not supported by the CPU engine", param=name)
        if _scalar(tensors, name) != ONLY[name]:
            raise RequestError(
                f"{name} can only be {ONLY[name]} on the CPU engine",
                found=str(_scalar(tensors, name)),
                param=name,
            )


def _sampling(tensors: Tensors) -> SamplingParams:
    given = {field: _scalar(tensors, name) for name, field in SAMPLING.items() if name in tensors}
    return SamplingParams(**given)


def _prompt(tensors: Tensors) -> list[int]:
    ids = _required(tensors, "input_ids").reshape(-1)
    length = int(_scalar(tensors, "input_lengths"))
    if not 0 < length <= ids.size:
        raise RequestError(
            f"input_lengths must lie between 1 and the {ids.size} input_ids",
            found=str(length),
            param="input_lengths",
        )
    return ids[:length].astype(np.int64).tolist()  # type: ignore[no-any-return]


def _words(tensors: Tensors, name: str) -> tuple[tuple[int, ...], ...]:
    """Words as [2, n]: token ids, and the exclusive end of each word in them, padded with -1."""
    if name not in tensors or tensors[name].size == 0:
        return ()
    table = tensors[name].reshape(-1, tensors[name].shape[-1])
    ends = [int(end) for end in table[-1] if end >= 0]
    if table.shape[0] != 2 or ends != sorted(ends) or (ends and ends[-1] > table.shape[1]):
        raise RequestError(
            f"{name} must be two rows: token ids, and rising ends of words", param=name
        )
    words = (tuple(map(int, table[0][a:b])) for a, b in pairwise([0, *ends]))
    return tuple(word for word in words if word)


def _required(tensors: Tensors, name: str) -> NDArray[Any]:
    if name not in tensors:
        raise RequestError(f"{name} is missing", param=name)
    return tensors[name]


def _scalar(tensors: Tensors, name: str, default: Any = None) -> Any:
    if default is not None and name not in tensors:
        return default
    value = _required(tensors, name)
    if value.size != 1:
        raise RequestError(
            f"{name} must be one value (a request is one prompt)",
            found=f"shape {list(value.shape)}",
            param=name,
        )
    return value.reshape(-1)[0].item()
