"""A request's values as fields of the LLM API's SamplingParams.

Source of the fields and of what they mean: TensorRT-LLM's `sampling_params.py`, 1.2 to 1.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from triton_repo.runtime.llmapi.folder import EngineFolder
from triton_repo.runtime.llmapi.refused import Refused
from triton_repo.runtime.llmapi.tensors import Tensors, flag, scalar, words

FIELDS = {
    "request_output_len": "max_tokens",
    "max_tokens": "max_tokens",
    "sampling_param_max_tokens": "max_tokens",
    "temperature": "temperature",
    "sampling_param_temperature": "temperature",
    "runtime_top_k": "top_k",
    "sampling_param_top_k": "top_k",
    "runtime_top_p": "top_p",
    "sampling_param_top_p": "top_p",
    "runtime_top_p_min": "top_p_min",
    "runtime_top_p_decay": "top_p_decay",
    "runtime_top_p_reset_ids": "top_p_reset_ids",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "sampling_param_presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "sampling_param_frequency_penalty": "frequency_penalty",
    "min_tokens": "min_tokens",
    "seed": "seed",
    "sampling_param_seed": "seed",
    "pad_id": "pad_id",
    "len_penalty": "length_penalty",
    "early_stopping": "early_stopping",
    "beam_search_diversity_rate": "beam_search_diversity_rate",
    "return_context_logits": "return_context_logits",
    "return_generation_logits": "return_generation_logits",
    "return_perf_metrics": "return_perf_metrics",
    "sampling_param_return_perf_metrics": "return_perf_metrics",
}
"""Input of one value → field."""

_NEUTRAL: dict[str, float] = {
    "top_p_min": 1e-6,
    "top_p_decay": 1.0,
    "top_p_reset_ids": -1,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "beam_search_diversity_rate": 0.0,
    "return_context_logits": False,
    "return_generation_logits": False,
    "return_perf_metrics": False,
}
"""Values that ask for nothing. They are left out: what is set may make TensorRT-LLM slower."""

_LEAST = {"max_tokens": 1, "min_tokens": 0, "temperature": 0, "top_k": 0, "top_p": 0}


def read_fields(tensors: Tensors, engine: EngineFolder, stops: list[str]) -> dict[str, Any]:
    """The fields of SamplingParams that a request sets; `stops` are its stop strings.

    Raises Refused naming an input that is malformed or can't be honoured.
    """
    of_ids = "input_ids" in tensors
    fields = _values(tensors)
    fields |= _several(tensors, engine.max_beam_width)
    if of_ids and "best_of" not in fields:
        _as_the_executor(fields)
    fields = {name: value for name, value in fields.items() if not _is_neutral(name, value)}
    if "early_stopping" in fields:
        fields["early_stopping"] = int(fields["early_stopping"])
    fields |= _ends(tensors, engine, stops)
    if bad := words(tensors, "bad_words_list"):
        if any(len(word) > 1 for word in bad):
            raise Refused("bad_words_list must have words of one id: the LLM API takes no others")
        fields["bad_token_ids"] = [word[0] for word in bad]
    if "embedding_bias" in tensors and tensors["embedding_bias"].size:
        fields["embedding_bias"] = tensors["embedding_bias"].reshape(-1)
    if flag(tensors, "return_log_probs") or flag(tensors, "return_cumulative_logprob"):
        fields["logprobs"] = 1
    return fields


def _values(tensors: Tensors) -> dict[str, Any]:
    """The fields that single values set."""
    fields: dict[str, Any] = {}
    for name, field in FIELDS.items():
        if name in tensors:
            value = scalar(tensors, name)
            _require(name, field, value)
            if fields.setdefault(field, value) != value:
                raise Refused(f"{name} must be what the other input of its meaning is")
    return fields


def _require(name: str, field: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused(f"{name} must be a number, found {value}")
    if field in _LEAST and value < _LEAST[field]:
        raise Refused(f"{name} must be at least {_LEAST[field]}, found {value}")
    if field == "repetition_penalty" and value <= 0:
        raise Refused(f"{name} must be above 0, found {value}")


def _several(tensors: Tensors, max_beam_width: int) -> dict[str, Any]:
    """Beams, samples, and candidates of which the best are given."""
    width, count = scalar(tensors, "beam_width", 1), scalar(tensors, "num_return_sequences", 1)
    best_of = max(scalar(tensors, "sampling_param_best_of", 1), count, width)
    if width > max_beam_width:
        raise Refused(f"beam_width must be at most {max_beam_width} for this model, found {width}")
    if min(width, count) < 1 or (width > 1 and count > width):
        raise Refused(f"num_return_sequences must lie between 1 and beam_width, found {count}")
    if best_of == 1:
        return {}
    if width > 1 and "num_return_sequences" not in tensors:
        count = width
    fields = {"n": int(count), "best_of": int(best_of)}
    return {**fields, "use_beam_search": True} if width > 1 else fields


def _as_the_executor(fields: dict[str, Any]) -> None:
    """What tensorrt_llm's values mean: 0 is off, and neither top k nor top p is greedy."""
    if not fields.get("top_k") and not fields.get("top_p"):
        fields["top_k"] = 1
    if not fields.get("top_p"):
        fields.pop("top_p", None)


def _is_neutral(name: str, value: Any) -> bool:
    if name == "min_tokens":
        return bool(value <= 1)
    return name in _NEUTRAL and math.isclose(value, _NEUTRAL[name], rel_tol=1e-6)


def _ends(tensors: Tensors, engine: EngineFolder, stops: Sequence[str]) -> dict[str, Any]:
    """What ends the answer.

    Ids keep to what tensorrt_llm does: nothing ends them unless it is given, and ids that ended
    the answer are part of it. A text ends at each end of the model's.
    """
    of_ids = "input_ids" in tensors
    fields: dict[str, Any] = {}
    ids = [word[0] for word in words(tensors, "stop_words_list") if len(word) == 1]
    end = scalar(tensors, "end_id", -1 if of_ids else None)
    if end is None:
        ids += engine.further_ends
    elif end >= 0 and not stops:
        fields["end_id"] = int(end)
    else:
        # the LLM API encodes stop strings only where the end is left to the tokenizer
        fields["ignore_eos"] = True
        ids += [int(end)] if end >= 0 else []
    if ids:
        fields["stop_token_ids"] = ids
    if stops:
        fields["stop"] = list(stops)
    elif of_ids:
        fields["include_stop_str_in_output"] = True
    return fields
