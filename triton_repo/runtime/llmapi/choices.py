"""What a request chooses beside numbers: a guide, an adapter, a logits processor, retention."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest

import numpy as np

from triton_repo.runtime.llmapi.folder import Adapter, EngineFolder
from triton_repo.runtime.llmapi.refused import Refused
from triton_repo.runtime.llmapi.tensors import Tensors, scalar, text

GUIDES = {
    "json": "json_object",
    "json_schema": "json",
    "regex": "regex",
    "ebnf_grammar": "grammar",
}
"""guided_decoding_guide_type → field of the LLM API's GuidedDecodingParams."""

_RANGE = "retention_token_range"
_DECODE_PRIORITY = 35
"""TensorRT-LLM's default."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long the KV cache keeps what; a range is start, end, priority and duration."""

    ranges: tuple[tuple[int, int | None, int, timedelta | None], ...]
    decode_priority: int
    decode_duration: timedelta | None


def guide(tensors: Tensors, engine: EngineFolder) -> dict[str, str | bool] | None:
    """The fields of GuidedDecodingParams, None for a free answer."""
    kind = text(tensors, "guided_decoding_guide_type")
    grammar = text(tensors, "guided_decoding_guide")
    if kind is None:
        if grammar is not None:
            raise Refused("guided_decoding_guide must have a guided_decoding_guide_type beside it")
        return None
    if kind not in GUIDES:
        raise Refused(f"guided_decoding_guide_type must be one of {', '.join(GUIDES)}")
    if not engine.settings.get("guided_decoding_backend"):
        raise Refused(
            "guided_decoding_guide_type is not supported by this model: build it with"
            " --set guided_decoding_backend=xgrammar"
        )
    if kind == "json":
        return {GUIDES[kind]: True}
    if grammar is None:
        raise Refused(f"guided_decoding_guide must be there for the guide type {kind}")
    return {GUIDES[kind]: grammar}


def retention(tensors: Tensors) -> Retention | None:
    """What the KV cache is to keep, None where nothing is said."""
    if not any(name.startswith("retention_") for name in tensors):
        return None
    starts, ends, priorities, durations = (
        tensors.get(f"{_RANGE}_{name}", np.empty(0)).reshape(-1).tolist()
        for name in ("starts", "ends", "priorities", "durations_ms")
    )
    if not len(starts) == len(ends) == len(priorities) or len(durations) > len(starts):
        raise Refused(f"{_RANGE}_starts, _ends and _priorities must be of one length")
    return Retention(
        ranges=tuple(
            (int(start), int(end) if end >= 0 else None, int(priority), _milliseconds(duration))
            for start, end, priority, duration in zip_longest(starts, ends, priorities, durations)
        ),
        decode_priority=int(scalar(tensors, "retention_decode_priority", _DECODE_PRIORITY)),
        decode_duration=_milliseconds(scalar(tensors, "retention_decode_duration_ms", None)),
    )


def _milliseconds(value: float | None) -> timedelta | None:
    return None if value is None or value < 0 else timedelta(milliseconds=value)


def adapter(tensors: Tensors, engine: EngineFolder) -> Adapter | None:
    """The adapter that is meant, by number, name or path; each that is given must fit."""
    numbers = [
        int(scalar(tensors, name)) for name in ("lora_id", "lora_task_id") if name in tensors
    ]
    name, path = text(tensors, "lora_name"), text(tensors, "lora_path")
    source = text(tensors, "lora_ckpt_source")
    if not numbers and name is None and path is None:
        if source is not None:
            raise Refused("lora_ckpt_source must have an adapter beside it")
        return None
    for each in engine.adapters:
        if (
            all(number == each.number for number in numbers)
            and name in (None, each.name)
            and (path is None or str((engine.path / path).resolve()) == each.path)
            and source in (None, engine.adapters_source)
        ):
            return each
    known = ", ".join(f"{each.name} ({each.number})" for each in engine.adapters) or "none"
    asked = " and ".join(str(each) for each in (*numbers, name, path, source) if each is not None)
    raise Refused(f"lora: the adapter must be one of this model's: {known}; found {asked}")


def processor(tensors: Tensors, engine: EngineFolder) -> str | None:
    """The logits processor's `module:attribute`, None for none."""
    name = text(tensors, "sampling_param_logits_post_processor_name")
    if name is not None and name not in engine.processors:
        raise Refused(
            "sampling_param_logits_post_processor_name must be one of model.yaml's:"
            f" {', '.join(engine.processors) or 'none'}; found {name}"
        )
    return None if name is None else engine.processors[name]
