"""The `tensorrt_llm` model's input tensors, read into requests of our executor.

Values are refused where TensorRT-LLM's backend or executor refuse them, and where they
would pass over in silence what a client asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from builder.errors import RequestError
from triton_repo.executor.request import (
    DEFAULT_PRIORITY,
    BeamParams,
    Request,
    Retention,
    SamplingParams,
)
from triton_repo.runtime.inputs_names import (
    BEAMS,
    READ,
    REFUSED,
    RETENTION,
    SAMPLING,
    WITHOUT_EFFECT,
)
from triton_repo.runtime.inputs_row import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepts:
    """What the engine was built for, and what the model's parameters allow."""

    vocab_size: int
    gather_context_logits: bool = False
    gather_generation_logits: bool = False
    guides: bool = False
    normalize_log_probs: bool = True
    decoupled: bool = True
    exclude_input: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What one prompt asks: of the executor, and of the way its answer is sent.

    `request` lacks its guide and adapter, which take time to make: `guide` is (kind, text),
    `adapter` (task id, weights float16 or None, config int32 or None).
    """

    request: Request
    streaming: bool = False
    exclude_input: bool = True
    num_input_tokens: bool = False
    num_output_tokens: bool = False
    perf_metrics: bool = False
    guide: tuple[str, str] | None = None
    adapter: tuple[int, Any, Any] | None = None


def read_request(row: Row, accepts: Accepts) -> Asked:
    """Read one prompt's tensors.

    Raises RequestError naming the input that is missing, malformed or can't be honoured.
    """
    _refuse(row)
    streaming = row.flag("streaming")
    several = row.scalar("num_return_sequences", 1) > 1 and row.scalar("beam_width", 1) == 1
    for name, asked in (("streaming", streaming), ("num_return_sequences", several)):
        if asked and not accepts.decoupled:
            raise RequestError(
                f"{name} needs a model with a decoupled transaction policy, which sends many "
                "responses",
                param=name,
            )
    request = Request(
        input_ids=_prompt(row),
        max_tokens=int(row.scalar("request_output_len")),
        end_id=int(row.scalar("end_id", -1)),
        stop_words=row.words("stop_words_list", accepts.vocab_size),
        bad_words=row.words("bad_words_list", accepts.vocab_size),
        embedding_bias=row.floats("embedding_bias", (accepts.vocab_size,))
        if "embedding_bias" in row
        else None,
        sampling=SamplingParams(**_given(row, SAMPLING)),
        beams=_beams(row, streaming),
        num_return_sequences=int(row.scalar("num_return_sequences"))
        if "num_return_sequences" in row
        else None,
        log_probs=row.flag("return_log_probs"),
        normalize_log_probs=accepts.normalize_log_probs,
        context_logits=_logits(row, "context", accepts.gather_context_logits),
        generation_logits=_logits(row, "generation", accepts.gather_generation_logits),
        streaming=streaming,
        retention=_retention(row),
        **_drafts(row, accepts),
    )
    return Asked(
        request=request,
        streaming=streaming,
        exclude_input=row.flag("exclude_input_in_output", accepts.exclude_input),
        num_input_tokens=row.flag("return_num_input_tokens"),
        num_output_tokens=row.flag("return_num_output_tokens"),
        perf_metrics=row.flag("return_perf_metrics"),
        guide=_guide(row, accepts),
        adapter=_adapter(row),
    )


def _refuse(row: Row) -> None:
    for name in row.names:
        if name in READ or name in WITHOUT_EFFECT:
            continue
        if name not in REFUSED:
            raise RequestError(f"{name} is not an input of tensorrt_llm", param=name)
        if row.asks(name):
            raise RequestError(
                f"{name} is not supported by the CPU engine",
                found=f"a value, and {REFUSED[name]}",
                do=f"leave {name} out",
                param=name,
            )


def _given(row: Row, fields: dict[str, str]) -> dict[str, Any]:
    return {field: row.scalar(name) for name, field in fields.items() if name in row}


def _prompt(row: Row) -> list[int]:
    ids = row.vector("input_ids")
    if not ids:
        raise RequestError("input_ids is missing", found="no token ids", param="input_ids")
    length = int(row.scalar("input_lengths"))
    if not 0 < length <= len(ids):
        raise RequestError(
            f"input_lengths must lie between 1 and the {len(ids)} input_ids",
            found=str(length),
            param="input_lengths",
        )
    return ids[:length]


def _beams(row: Row, streaming: bool) -> BeamParams | None:
    given = {"width": 1, **_given(row, BEAMS)}
    given["early_stopping"] = int(given.get("early_stopping", 1))
    beams = BeamParams(**given)
    if beams.width == 1:
        return None
    if "guided_decoding_guide_type" in row:
        raise RequestError(
            "guided_decoding_guide_type does not go with a beam_width above 1",
            param="guided_decoding_guide_type",
        )
    if streaming:
        raise RequestError(
            "streaming does not go with a beam_width above 1: beams are known at the end",
            param="streaming",
        )
    return beams


def _logits(row: Row, kind: str, gathered: bool) -> bool:
    name = f"return_{kind}_logits"
    asked = row.flag(name)
    if asked and not gathered:
        raise RequestError(
            f"{name} needs an engine built with gather_{kind}_logits",
            do=f"build the engine with --gather-{kind}-logits",
            param=name,
        )
    return asked


def _drafts(row: Row, accepts: Accepts) -> dict[str, Any]:
    ids = row.vector("draft_input_ids")
    for name in ("draft_logits", "draft_acceptance_threshold"):
        if name in row and not ids:
            raise RequestError(f"{name} needs draft_input_ids", param=name)
    if not ids:
        return {}
    return {
        "draft_ids": tuple(ids),
        "draft_logits": row.floats("draft_logits", (len(ids), accepts.vocab_size))
        if "draft_logits" in row
        else None,
        "draft_acceptance_threshold": float(row.scalar("draft_acceptance_threshold"))
        if "draft_acceptance_threshold" in row
        else None,
    }


def _retention(row: Row) -> Retention | None:
    if not any(name in row for name in RETENTION):
        return None
    starts, ends, priorities, durations = (row.vector(name) for name in RETENTION[:4])
    for name, values in zip(RETENTION[1:4], (ends, priorities, durations), strict=True):
        if len(values) != len(starts) and (values or name != RETENTION[3]):
            raise RequestError(
                f"{name} must be as many as {RETENTION[0]}",
                found=f"{len(values)} for {len(starts)}",
                param=name,
            )
    durations = durations or [-1] * len(starts)
    ranges = zip(
        starts,
        [None if end == -1 else end for end in ends],
        priorities,
        [_duration(RETENTION[3], duration) for duration in durations],
        strict=True,
    )
    return Retention(
        ranges=tuple(sorted(ranges, key=lambda found: found[0])),
        decode_priority=int(row.scalar("retention_decode_priority", DEFAULT_PRIORITY)),
        decode_duration_ms=_duration(
            "retention_decode_duration_ms", int(row.scalar("retention_decode_duration_ms", -1))
        ),
    )


def _duration(name: str, value_ms: int) -> int | None:
    if value_ms < -1:
        raise RequestError(f"{name} must be -1 (for ever) or more", found=str(value_ms), param=name)
    return None if value_ms == -1 else value_ms


def _guide(row: Row, accepts: Accepts) -> tuple[str, str] | None:
    kind = row.text("guided_decoding_guide_type")
    text = row.text("guided_decoding_guide")
    if text and not kind:
        raise RequestError(
            "guided_decoding_guide needs guided_decoding_guide_type", param="guided_decoding_guide"
        )
    if not kind:
        return None
    if not accepts.guides:
        raise RequestError(
            "guided_decoding_guide_type: guided decoding is off for this model",
            do="set its parameters guided_decoding_backend and tokenizer_dir",
            param="guided_decoding_guide_type",
        )
    return kind, text


def _adapter(row: Row) -> tuple[int, Any, Any] | None:
    names = ("lora_weights", "lora_config")
    weights, config = (row.array(name, 2) if name in row else None for name in names)
    if "lora_task_id" in row:
        return int(row.scalar("lora_task_id")), weights, config
    for name in names:
        if name in row:
            raise RequestError(f"{name} needs lora_task_id", param=name)
    return None
