"""The tensors of the `llmapi` model, as data: those of upstream's, and those of `tensorrt_llm`.

Upstream's llmapi model takes and gives text. Ours takes also the token-id tensors of the
inflight_batcher_llm repository's `tensorrt_llm`, as far as the LLM API can honour them, so that
the clients of that model, our proxy among them, work with this one unchanged. The table is
`tensors.json`, a tensor there is `TYPE[dims]`; every input is optional, for a prompt is text or
ids. Names, types and dims are those of NVIDIA's `all_models/llmapi`, TensorRT-LLM 1.2 to 1.4, and
`all_models/inflight_batcher_llm`, 1.2; `DIFFERENCES` says where, and why, ours aren't.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from triton_repo.contract import Difference, ModelContract, Tensor

_TABLE = Path(__file__).with_name("tensors.json")


def _difference(where: str, *, upstream: str, ours: str, why: str) -> Difference:
    return Difference(model="llmapi", where=where, upstream=upstream, ours=ours, why=why)


DIFFERENCES = (
    _difference(
        "inputs and outputs",
        upstream="text alone",
        ours="token ids too, as of tensorrt_llm",
        why="one proxy serves every target, and it owns the text",
    ),
    _difference(
        "text_input",
        upstream="required",
        ours="optional: exactly one of text_input and input_ids",
        why="a prompt is text or ids",
    ),
    _difference(
        "max_batch_size",
        upstream="0: shapes have no batch, [1]",
        ours="1: shapes begin with it, [1, 1]",
        why="all other models' have it, and streaming and stop belong to both contracts; "
        "/generate adds it by itself; two prompts in one request are refused either way",
    ),
    _difference(
        "decoupled, max_batch_size",
        upstream="from model.yaml, by auto-completion",
        ours="in config.pbtxt",
        why="Triton is started without auto-completion, which upstream's launcher does too",
    ),
    _difference(
        "text_output while streaming",
        upstream="all of the text so far",
        ours="what is new; never the beginning of a stop string",
        why="as of every other model here",
    ),
    _difference(
        "finish_reason, stop_reason",
        upstream="the text None where there is none",
        ours="an empty text",
        why="None is no reason",
    ),
    _difference(
        "cumulative_logprob, perf outputs",
        upstream="texts in tensors of numbers",
        ours="numbers",
        why="a slip upstream: clients can't read them",
    ),
    _difference(
        "text_output when sampling_param_exclude_input_from_output isn't given",
        upstream="begins with the prompt",
        ours="is the answer alone",
        why="as of every other model here",
    ),
    _difference(
        "max_tokens",
        upstream="no input, though upstream's own example sends it: it has no effect",
        ours="an input, the same as sampling_param_max_tokens",
        why="nothing that a client asks for is ignored",
    ),
    _difference(
        "request parameters, unknown fields of /generate",
        upstream="without effect",
        ours="refused by name",
        why="nothing that a client asks for is ignored",
    ),
    _difference(
        "lora_path",
        upstream="any folder of the server, with lora_id and lora_name beside it",
        ours="one of the repository's adapters; its id or name alone will do",
        why="a client doesn't choose what a server reads",
    ),
    _difference(
        "lora_weights, lora_config",
        upstream="tensors of tensorrt_llm",
        ours="left out",
        why="the LLM API loads adapters from folders",
    ),
    _difference(
        "bad_words_list",
        upstream="words of any number of ids",
        ours="words of one id, others are refused",
        why="the LLM API has no more than that for ids",
    ),
    _difference(
        "penalties, bad_words_list, runtime_top_p_decay and its like, beams' fields",
        upstream="taken, and without effect by the TorchSampler of before 1.3.0rc26",
        ours="refused there by name, unless sampler_type is TRTLLMSampler",
        why="nothing that a client asks for is ignored; but for seed, which the proxy always sends",
    ),
    _difference(
        "draft, decoder, encoder, prompt table, cross attention, mrope, lookahead tensors",
        upstream="tensors of tensorrt_llm",
        ours="left out",
        why="the LLM API has no such inputs for a request",
    ),
    _difference(
        "image_url",
        upstream="in the newest version",
        ours="left out",
        why="what is built here are models of text",
    ),
    _difference(
        "metrics",
        upstream="none of TensorRT-LLM's",
        ours="nv_trt_llm_*, as of engines, where model.yaml has enable_iter_perf_stats",
        why="the same dashboards",
    ),
    _difference(
        "model.py",
        upstream="multi-instance on GPUs named by gpu_device_ids",
        ours="one instance",
        why="several engines are several repositories, each with its CUDA_VISIBLE_DEVICES",
    ),
)


def _tensors(table: Mapping[str, str], *, optional: bool) -> tuple[Tensor, ...]:
    made = []
    for name, spec in table.items():
        dtype, _, dims = spec.rstrip("]").partition("[")
        shape = tuple(map(int, dims.split(",")))
        made.append(Tensor(name=name, dtype=dtype, dims=shape, optional=optional))
    return tuple(made)


def _contract() -> ModelContract:
    table = json.loads(_TABLE.read_text())
    return ModelContract(
        name="tensorrt_llm",
        inputs=_tensors(table["inputs"], optional=True),
        outputs=_tensors(table["outputs"], optional=False),
    )


CONTRACT = _contract()
"""What the model takes and gives."""
