"""The tensors of the model that takes token ids: tables of what goes in and what comes out.

Names, types and dims are those of TensorRT-LLM's inflight_batcher_llm repository, `tensorrt_llm`;
our `llmapi` model has the same for token ids. Both batch, so that every tensor begins with a 1.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.backend.base import BeamSearch, GenerateRequest, Guide
from server.config import ServedModel
from server.errors import InvalidRequestError

SWAP: Final = sys.byteorder != "little"

Data = tuple[tuple[int, ...], bytes]
"""A tensor's shape and its little-endian bytes."""

Make = Callable[[GenerateRequest, ServedModel], "Data | None"]
_ANY_OBJECT: Final = Guide(kind="json_schema", text='{"type":"object"}')
Wanted = Callable[[GenerateRequest], bool]


@dataclass(frozen=True, slots=True)
class Input:
    """One tensor of a request: what makes it; None leaves it out."""

    name: str
    datatype: str
    make: Make


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor of a response, and when it is asked for."""

    name: str
    datatype: str
    wanted: Wanted


def int32s(values: Sequence[int]) -> bytes:
    """Numbers as a tensor's bytes."""
    return _bytes("i", values)


def streams(request: GenerateRequest, model: ServedModel) -> bool:
    """Whether tokens come as they are made: beams are known at the end, and the LLM API gives
    logits then."""
    logits = wants_generation_logits(request) or wants_context_logits(request)
    return request.beams is None and not (model.kind == "llmapi" and logits)


def wants_generation_logits(request: GenerateRequest) -> bool:
    """Of which the alternatives' log probabilities are made, and the chosen one's beside them."""
    return request.top_log_probs > 0


def wants_context_logits(request: GenerateRequest) -> bool:
    """Of which the prompt's log probabilities are made."""
    return request.prompt_log_probs is not None


def wants_log_probs(request: GenerateRequest) -> bool:
    """Where the engine's own do."""
    return request.log_probs and not wants_generation_logits(request)


def _bytes(typecode: str, values: Sequence[float]) -> bytes:
    data: array[Any] = array(typecode, values)
    if SWAP:
        data.byteswap()
    return data.tobytes()


def _scalar(layout: str, value: Any) -> Data:
    return (1, 1), struct.pack(layout, value)


def _int32(read: Callable[[GenerateRequest], int]) -> Make:
    return lambda r, m: _scalar("<i", read(r))


def _fp32(read: Callable[[GenerateRequest], float]) -> Make:
    return lambda r, m: _scalar("<f", read(r))


def _bool(read: Callable[[GenerateRequest], bool]) -> Make:
    return lambda r, m: _scalar("<?", read(r))


def _asked(wanted: Wanted) -> Make:
    """True where it is wanted, else left out, for engines that haven't got it."""
    return lambda r, m: _scalar("<?", True) if wanted(r) else None


def _beams(layout: str, read: Callable[[BeamSearch], Any]) -> Make:
    return lambda r, m: None if r.beams is None else _scalar(layout, read(r.beams))


def _text(value: str) -> Data:
    data = value.encode()
    return (1, 1), len(data).to_bytes(4, "little") + data


def _guide(read: Callable[[Guide], str]) -> Make:
    """The engine's own "json" would be a list or a number, too, but OpenAI's is an object."""
    return lambda r, m: (
        None if r.guide is None else _text(read(_ANY_OBJECT if r.guide.kind == "json" else r.guide))
    )


def _words(words: Sequence[Sequence[int]]) -> Data | None:
    """Row 0 the words' ids, row 1 where each word ends, padded with -1 to equal length."""
    ids = [token for word in words for token in word]
    if not ids:
        return None
    ends: list[int] = []
    for word in words:
        ends.append((ends[-1] if ends else 0) + len(word))
    ends += [-1] * (len(ids) - len(ends))
    return (1, 2, len(ids)), int32s(ids + ends)


def _pad_id(request: GenerateRequest, _: ServedModel) -> Data | None:
    """The end id pads, as is the engine's own default; without one there is nothing to pad."""
    return None if request.end_id < 0 else _scalar("<i", request.end_id)


def _embedding_bias(request: GenerateRequest, model: ServedModel) -> Data | None:
    """A bias for every token of the engine's vocabulary, most of them 0."""
    if not request.logit_bias:
        return None
    size = model.vocab_size
    if size is None:
        raise InvalidRequestError(
            "logit_bias can't be honoured: the model's vocabulary size isn't known",
            param="logit_bias",
        )
    row = array("f", bytes(4 * size))
    for token, bias in request.logit_bias.items():
        if not 0 <= token < size:
            raise InvalidRequestError(
                f"logit_bias must be of token ids in [0, {size})",
                found=str(token),
                param="logit_bias",
            )
        row[token] = bias
    return (1, size), _bytes("f", row)


def _several(request: GenerateRequest, _: ServedModel) -> Data | None:
    """How many are sampled; a beam search gives all its beams without it."""
    several = request.sequences > 1 and request.beams is None
    return _scalar("<i", request.sequences) if several else None


INPUTS: Final = (
    Input("input_ids", "INT32", lambda r, m: ((1, len(r.input_ids)), int32s(r.input_ids))),
    Input("input_lengths", "INT32", _int32(lambda r: len(r.input_ids))),
    Input("request_output_len", "INT32", _int32(lambda r: r.max_tokens)),
    Input("num_return_sequences", "INT32", _several),
    Input("end_id", "INT32", _int32(lambda r: r.end_id)),
    Input("pad_id", "INT32", _pad_id),
    Input("stop_words_list", "INT32", lambda r, m: _words([*zip(r.stop_ids), *r.stop_words])),
    Input("bad_words_list", "INT32", lambda r, m: _words(r.bad_words)),
    Input("embedding_bias", "FP32", _embedding_bias),
    Input("beam_width", "INT32", _beams("<i", lambda beams: beams.width)),
    Input("len_penalty", "FP32", _beams("<f", lambda beams: beams.length_penalty)),
    Input("early_stopping", "BOOL", _beams("<?", lambda beams: beams.early_stopping)),
    # Greedy is one token to choose from; the temperature must be a number above 0 all the same.
    Input("temperature", "FP32", _fp32(lambda r: r.temperature or 1.0)),
    Input("runtime_top_k", "INT32", _int32(lambda r: r.top_k if r.temperature else 1)),
    Input("runtime_top_p", "FP32", _fp32(lambda r: r.top_p)),
    Input("repetition_penalty", "FP32", _fp32(lambda r: r.repetition_penalty)),
    Input("presence_penalty", "FP32", _fp32(lambda r: r.presence_penalty)),
    Input("frequency_penalty", "FP32", _fp32(lambda r: r.frequency_penalty)),
    Input("seed", "UINT64", lambda r, m: _scalar("<Q", r.seed % (1 << 64))),
    Input("min_tokens", "INT32", _int32(lambda r: r.min_tokens)),
    Input("return_log_probs", "BOOL", _bool(wants_log_probs)),
    Input("return_context_logits", "BOOL", _asked(wants_context_logits)),
    Input("return_generation_logits", "BOOL", _asked(wants_generation_logits)),
    Input("return_perf_metrics", "BOOL", _bool(lambda r: True)),
    Input("streaming", "BOOL", lambda r, m: _scalar("<?", streams(r, m))),
    Input("exclude_input_in_output", "BOOL", _bool(lambda r: True)),
    Input("guided_decoding_guide_type", "BYTES", _guide(lambda guide: guide.kind)),
    Input("guided_decoding_guide", "BYTES", _guide(lambda guide: guide.text)),
    Input(
        "lora_task_id",
        "UINT64",
        lambda r, m: None if r.adapter_id is None else _scalar("<Q", r.adapter_id),
    ),
)


def _always(_: GenerateRequest) -> bool:
    return True


LOGITS: Final = "logits"
"""The type of an engine's logits: FP32, FP16 or BF16."""

OUTPUTS: Final = (
    Output("output_ids", "INT32", _always),
    Output("sequence_length", "INT32", _always),
    Output("output_log_probs", "FP32", wants_log_probs),
    Output("context_logits", LOGITS, wants_context_logits),
    Output("generation_logits", LOGITS, wants_generation_logits),
    Output("sequence_index", "INT32", lambda r: r.sequences > 1 and r.beams is None),
    Output("kv_cache_reused_blocks", "INT32", _always),
    Output("arrival_time_ns", "INT64", _always),
    Output("first_scheduled_time_ns", "INT64", _always),
    Output("first_token_time_ns", "INT64", _always),
    Output("last_token_time_ns", "INT64", _always),
)
