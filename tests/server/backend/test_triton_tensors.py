"""Promise: requests have upstream's names, types and shapes, and say all that was asked."""

from __future__ import annotations

import struct
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from server.backend.base import BeamSearch, GenerateRequest, Guide
from server.backend.triton.messages import generate_request
from server.backend.triton.tensors import INPUTS, OUTPUTS
from server.config import ServedModel
from server.errors import InvalidRequestError
from triton_repo import contract
from triton_repo.llmapi.contract import CONTRACT as LLMAPI

LAYOUTS = {"INT32": "i", "FP32": "f", "UINT64": "Q", "BOOL": "?"}
ENGINE = ServedModel(name="m", tokenizer_dir=Path(), max_seq_len=100, vocab_size=6)
LLM_API = ServedModel(name="m", tokenizer_dir=Path(), max_seq_len=100, vocab_size=6, kind="llmapi")

FULL = GenerateRequest(
    model="tensorrt_llm", request_id="r1", input_ids=[5, 6, 7], max_tokens=9, end_id=2,
    stop_ids=(11, 12), stop_words=((13, 14),),
    temperature=0.5, top_p=0.25, top_k=3, repetition_penalty=1.5,
    presence_penalty=-0.5, frequency_penalty=2.0, seed=2**64 - 1, min_tokens=4, sequences=2,
    bad_words=((1, 2), (3,)), logit_bias={4: -1.5, 0: 2.0},
    guide=Guide(kind="regex", text="k\u00e4se"), adapter_id=2**40, log_probs=True, top_log_probs=2,
    prompt_log_probs=1,
)  # fmt: skip
PLAIN = GenerateRequest(
    model="tensorrt_llm", request_id="r2", input_ids=[1], max_tokens=4, end_id=-1, seed=0
)
BEAMS = GenerateRequest(
    model="tensorrt_llm", request_id="r3", input_ids=[1], max_tokens=4, end_id=2, seed=0,
    beams=BeamSearch(width=3, length_penalty=0.5, early_stopping=True), log_probs=True,
)  # fmt: skip
REQUESTS = (FULL, PLAIN, BEAMS)


def parsed(request: GenerateRequest, model: ServedModel = ENGINE) -> service_pb2.ModelInferRequest:
    """The message, by protobuf's own parser."""
    return service_pb2.ModelInferRequest.FromString(generate_request(request, model))


def sent(request: GenerateRequest, model: ServedModel = ENGINE) -> dict[str, list[Any]]:
    infer = parsed(request, model)
    return {
        tensor.name: _values(tensor.datatype, raw)
        for tensor, raw in zip(infer.inputs, infer.raw_input_contents, strict=True)
    }


def _values(datatype: str, raw: bytes) -> list[Any]:
    if datatype == "BYTES":
        assert int.from_bytes(raw[:4], "little") == len(raw) - 4
        return [raw[4:].decode()]
    return [value for (value,) in struct.iter_unpack(f"<{LAYOUTS[datatype]}", raw)]


@pytest.mark.parametrize("declared", ["tensorrt_llm", "llmapi"])
@pytest.mark.parametrize("request_", REQUESTS, ids=["full", "plain", "beams"])
def test_every_tensor_is_the_models_with_its_type_and_dims(
    declared: str, request_: GenerateRequest
) -> None:
    model = LLMAPI if declared == "llmapi" else contract.contract("tensorrt_llm")
    served = LLM_API if declared == "llmapi" else ENGINE
    inputs = {tensor.name: tensor for tensor in model.inputs}
    infer = parsed(request_, served)
    for tensor, raw in zip(infer.inputs, infer.raw_input_contents, strict=True):
        upstream = inputs[tensor.name]
        assert tensor.datatype == upstream.dtype.replace("STRING", "BYTES")
        assert tensor.shape[0] == 1, "the model batches"
        assert len(tensor.shape) == len(upstream.dims) + 1
        assert all(d in (-1, n) for d, n in zip(upstream.dims, tensor.shape[1:], strict=True))
        count = 1
        for n in tensor.shape:
            count *= n
        assert len(_values(tensor.datatype, raw)) == count
    required = {tensor.name for tensor in model.inputs if not tensor.optional}
    assert required <= {tensor.name for tensor in infer.inputs}
    outputs = {tensor.name for tensor in model.outputs}
    assert {output.name for output in infer.outputs} <= outputs
    assert infer.parameters["triton_enable_empty_final_response"].bool_param


def test_both_tables_are_the_contracts_own() -> None:
    model = contract.contract("tensorrt_llm")
    inputs = {tensor.name: tensor.dtype for tensor in model.inputs}
    for tensor in INPUTS:
        assert inputs[tensor.name] == tensor.datatype.replace("BYTES", "STRING")
    outputs = {tensor.name: tensor.dtype for tensor in model.outputs}
    for output in OUTPUTS:
        assert outputs[output.name] == output.datatype


def test_every_field_of_a_request_reaches_triton() -> None:
    assert sent(FULL) == {
        "input_ids": [5, 6, 7],
        "input_lengths": [3],
        "request_output_len": [9],
        "num_return_sequences": [2],
        "end_id": [2],
        "pad_id": [2],
        "stop_words_list": [11, 12, 13, 14, 1, 2, 4, -1],
        "bad_words_list": [1, 2, 3, 2, 3, -1],
        "embedding_bias": [2.0, 0.0, 0.0, 0.0, -1.5, 0.0],
        "temperature": [0.5],
        "runtime_top_k": [3],
        "runtime_top_p": [0.25],
        "repetition_penalty": [1.5],
        "presence_penalty": [-0.5],
        "frequency_penalty": [2.0],
        "seed": [2**64 - 1],
        "min_tokens": [4],
        "return_log_probs": [False],
        "return_context_logits": [True],
        "return_generation_logits": [True],
        "return_perf_metrics": [True],
        "streaming": [True],
        "exclude_input_in_output": [True],
        "guided_decoding_guide_type": ["regex"],
        "guided_decoding_guide": ["k\u00e4se"],
        "lora_task_id": [2**40],
    }
    infer = parsed(FULL)
    assert (infer.model_name, infer.id) == ("tensorrt_llm", "r1")
    assert len(fields(GenerateRequest)) == 25, "a new field needs a tensor and a line above"


def test_beams_are_asked_for_without_a_stream_and_come_all() -> None:
    asked = sent(BEAMS)
    assert (asked["beam_width"], asked["len_penalty"]) == ([3], [0.5])
    assert (asked["early_stopping"], asked["streaming"]) == ([True], [False])
    assert "num_return_sequences" not in asked
    assert asked["return_log_probs"] == [True]


def test_defaults_are_sent_explicitly_as_the_engines_own_differ() -> None:
    asked = sent(PLAIN)
    assert (asked["temperature"], asked["runtime_top_p"], asked["runtime_top_k"]) == ([1], [1], [0])
    assert (asked["seed"], asked["min_tokens"], asked["end_id"]) == ([0], [0], [-1])
    assert not {"stop_words_list", "embedding_bias", "beam_width", "lora_task_id"} & asked.keys()
    greedy = GenerateRequest(
        model="m", request_id="r", input_ids=[1], max_tokens=4, end_id=-1, seed=0,
        temperature=None, top_k=0,
    )  # fmt: skip
    assert (sent(greedy)["temperature"], sent(greedy)["runtime_top_k"]) == ([1], [1])


def test_the_llm_api_gives_logits_with_the_end_so_nothing_is_streamed_then() -> None:
    assert sent(FULL, LLM_API)["streaming"] == [False]
    assert sent(PLAIN, LLM_API)["streaming"] == [True]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"input_ids": [2**31]}, "input_ids"),
        ({"max_tokens": 2**40}, "request_output_len"),
        ({"guide": Guide(kind="regex", text="\ud800")}, "guided_decoding_guide"),
    ],
)
def test_a_value_that_no_tensor_can_hold_is_refused_by_name(asked: Any, says: str) -> None:
    values = {"model": "m", "request_id": "r", "input_ids": [1], "max_tokens": 4, "end_id": -1}
    with pytest.raises(InvalidRequestError, match=says):
        generate_request(GenerateRequest(**{**values, "seed": -5, **asked}), ENGINE)


@pytest.mark.parametrize("token", [-1, 6])
def test_a_bias_for_a_token_that_is_none_is_refused(token: int) -> None:
    request = GenerateRequest(
        model="m", request_id="r", input_ids=[1], max_tokens=4, end_id=-1, seed=0,
        logit_bias={token: 1.0},
    )  # fmt: skip
    with pytest.raises(InvalidRequestError, match=r"\[0, 6\)"):
        generate_request(request, ENGINE)
