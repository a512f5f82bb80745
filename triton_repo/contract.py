"""Every model's tensors and parameters, as data, so that upstream's Triton clients fit ours.

The table is `tensors.json`. A tensor there is `TYPE[dims]` and its flags: `optional`, `scalar`
(one value a request, which Triton reshapes from [batch, 1] to [batch]) and `ragged` (requests of
different lengths may share a batch). The type `logits` is the engine's own.
Names, types and shapes are those of NVIDIA's `all_models/inflight_batcher_llm`, TensorRT-LLM 1.2;
`DIFFERENCES` says where, and why, ours aren't. `embedding`, which runs an encoder, is ours alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

MODELS = ("preprocessing", "tensorrt_llm", "postprocessing", "ensemble", "tensorrt_llm_bls")
EMBEDDING = "embedding"
LOGITS = "logits"

_TABLE = Path(__file__).with_name("tensors.json")
_SPEC = re.compile(r"(?P<dtype>\w+)\[(?P<dims>[-\d,]*)\](?P<flags>( optional| scalar| ragged)*)")


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input or output; `dims` leave out the batch, -1 is any length."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False
    scalar: bool = False
    ragged: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelContract:
    """What a model of the repository takes and gives, and the parameters it knows."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One place where our repository isn't upstream's template, and why."""

    model: str
    where: str
    upstream: str
    ours: str
    why: str


DIFFERENCES = (
    Difference(
        model="ensemble",
        where="output kv_cache_alloc_total_blocks",
        upstream="declared twice",
        ours="declared once",
        why="a slip upstream; Triton keeps one",
    ),
    Difference(
        model="ensemble, tensorrt_llm_bls",
        where="input messages, input text_input",
        upstream="text_input required",
        ours="either text_input or messages: a conversation as OpenAI's JSON, one a row",
        why="no client should have to know the model's chat template",
    ),
    Difference(
        model="preprocessing",
        where="input MESSAGES, input QUERY",
        upstream="QUERY required",
        ours="either QUERY or MESSAGES",
        why="the same",
    ),
    Difference(
        model="ensemble, tensorrt_llm_bls",
        where="output finish_reason",
        upstream="not told",
        ours="stop, length, or empty while the answer goes on; one for each text",
        why="a client can't tell otherwise whether an answer was cut",
    ),
    Difference(
        model="ensemble",
        where="platform, parameter tensorrt_llm_model_name",
        upstream="an ensemble of three steps",
        ours="a Python model that calls tensorrt_llm; its tensors are the ensemble's",
        why="a step of Triton's has no state, so streams break letters and lose spaces; a client"
        " that goes doesn't end the step's work; with two instances a stream is out of order",
    ),
    Difference(
        model="ensemble, tensorrt_llm_bls",
        where="parameter tokenizer_dir, parameter gpt_model_path, parameter add_special_tokens,"
        " parameter skip_special_tokens, parameter exclude_input_in_output",
        upstream="calls preprocessing and postprocessing, each response of a stream too",
        ours="does their work itself, so it has their parameters",
        why="a call for each token costs more than the text, and text needs what came before",
    ),
    Difference(
        model="ensemble, tensorrt_llm_bls",
        where="parameter triton_grpc_address",
        upstream="calls models by the Python backend's own means",
        ours="calls them at Triton's gRPC endpoint, host:port: this parameter, else the variable"
        " TRTBUILD_TRITON_GRPC, which the launcher sets, else 127.0.0.1:8001",
        why="those calls crash Triton 2.51 when streams run side by side, and pass no cancel on",
    ),
    Difference(
        model="ensemble, tensorrt_llm_bls",
        where="stop_words",
        upstream="token sequences; the string itself stays in the text",
        ours="text, whatever its tokens; the answer ends before it",
        why="the same string has other tokens in other places",
    ),
    Difference(
        model="ensemble, tensorrt_llm_bls",
        where="the prompt in the answer",
        upstream="there unless exclude_input_in_output",
        ours="not there unless exclude_input_in_output is false",
        why="an answer that repeats the prompt surprises everyone",
    ),
    Difference(
        model="tensorrt_llm_bls",
        where="drafting",
        upstream="not in a stream",
        ours="in a stream too; refused with beams, penalties of presence and frequency, and guides",
        why="a round's target sees earlier rounds as its prompt, which these treat apart",
    ),
    Difference(
        model="tensorrt_llm, ensemble, tensorrt_llm_bls",
        where="type of draft_logits, type of context_logits, type of generation_logits",
        upstream="filled in by hand",
        ours="the engine's logits type",
        why="another type than the engine's is refused by its backend",
    ),
    Difference(
        model="tensorrt_llm, tensorrt_llm_bls",
        where="type of encoder_input_features, type of prompt_embedding_table",
        upstream="filled in by hand",
        ours="FP16",
        why="the ensemble, also upstream's, passes FP16",
    ),
    Difference(
        model="tensorrt_llm",
        where="backend",
        upstream="tensorrtllm or python",
        ours="tensorrtllm",
        why="the launcher provides a backend of that name where NVIDIA's isn't there",
    ),
    Difference(
        model="all",
        where="parameters without a value",
        upstream="left as ${name}",
        ours="left out",
        why="both mean unset; an absent one can't be read as a value",
    ),
    Difference(
        model="all",
        where="paths in parameters",
        upstream="absolute",
        ours="relative to the repository",
        why="a repository can be moved, mounted and copied",
    ),
    Difference(
        model="preprocessing, tensorrt_llm_bls",
        where="images, videos, a decoder's own prompt",
        upstream="processed",
        ours="refused, by name",
        why="the engines built here are decoders of text",
    ),
    Difference(
        model="preprocessing",
        where="ends of sequence",
        upstream="one",
        ours="all that the model's files name: the first as end id, others as one-token stop words",
        why="models that end a turn with another token than a text would never stop",
    ),
    Difference(
        model="preprocessing",
        where="BOS of a prompt that brings its own",
        upstream="twice",
        ours="once",
        why="a second one makes the answers worse",
    ),
    Difference(
        model="preprocessing",
        where="REQUEST_OUTPUT_LEN",
        upstream="as the client has it",
        ours="at most what the prompt leaves of the engine's length; a longer prompt is refused",
        why="the engine clips it in silence, and nobody could tell why an answer ended",
    ),
    Difference(
        model="preprocessing",
        where="DECODER_INPUT_ID, OUT_PROMPT_TABLE_EXTRA_IDS when nothing was given",
        upstream="a pad id, zeros",
        ours="empty",
        why="the backend takes both for nothing given; empty says so",
    ),
    Difference(
        model="postprocessing",
        where="a space at the start of a response",
        upstream="dropped by tokenizers in the manner of SentencePiece",
        ours="kept",
        why="a stream would lose its spaces",
    ),
    Difference(
        model="postprocessing",
        where="instances",
        upstream="filled in by hand",
        ours="1",
        why="two instances reorder the responses of one stream",
    ),
)
"""`model` and `where` are lists with commas; "input X", "output X", "parameter X" and "type of X"
are of the tables, the others of what a model does."""


@cache
def contract(model: str) -> ModelContract:
    """The contract of `model`, one of MODELS or EMBEDDING."""
    entry = _table()[model]
    return ModelContract(
        name=model,
        inputs=_tensors(entry["inputs"]),
        outputs=_tensors(entry["outputs"]),
        parameters=tuple(entry.get("parameters", ())),
    )


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text())
    return table


def _tensors(specs: dict[str, str]) -> tuple[Tensor, ...]:
    return tuple(_tensor(name, spec) for name, spec in specs.items())


def _tensor(name: str, spec: str) -> Tensor:
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ValueError(f"{_TABLE.name}: {name}: {spec!r} is not a tensor")
    flags = match["flags"].split()
    return Tensor(
        name=name,
        dtype=match["dtype"],
        dims=tuple(int(dim) for dim in match["dims"].split(",")),
        optional="optional" in flags,
        scalar="scalar" in flags,
        ragged="ragged" in flags,
    )
