"""Promise: an engine of the LLM API becomes a repository of one model, of both contracts."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from llmapi_repository import ADAPTERS, STAND_IN, make_engine, make_model

from builder.errors import ArtifactError
from builder.targets.llmapi import LlmApiOptions, build
from triton_repo.contract import contract
from triton_repo.layout import check, describe, write_repository
from triton_repo.llmapi.contract import CONTRACT, DIFFERENCES
from triton_repo.models.pbtxt import from_text
from triton_repo.runtime.llmapi.api import Api, UnusableError
from triton_repo.runtime.llmapi.asked import read_request
from triton_repo.runtime.llmapi.folder import EngineFolder
from triton_repo.runtime.llmapi.outputs import OUTPUTS
from triton_repo.runtime.llmapi.refused import Refused

UPSTREAM_INPUTS = {
    "text_input": ("STRING", (-1,)),
    "streaming": ("BOOL", (1,)),
    "sampling_param_best_of": ("INT32", (1,)),
    "sampling_param_temperature": ("FP32", (1,)),
    "sampling_param_top_k": ("INT32", (1,)),
    "sampling_param_top_p": ("FP32", (1,)),
    "sampling_param_frequency_penalty": ("FP32", (1,)),
    "sampling_param_presence_penalty": ("FP32", (1,)),
    "sampling_param_max_tokens": ("INT32", (1,)),
    "sampling_param_stop": ("STRING", (-1,)),
    "sampling_param_seed": ("UINT64", (1,)),
    "sampling_param_exclude_input_from_output": ("BOOL", (1,)),
    "sampling_param_return_perf_metrics": ("BOOL", (1,)),
    "return_finish_reason": ("BOOL", (1,)),
    "return_stop_reason": ("BOOL", (1,)),
    "return_cumulative_logprob": ("BOOL", (1,)),
    "stop": ("BOOL", (1,)),
    "lora_id": ("UINT64", (1,)),
    "lora_name": ("STRING", (1,)),
    "lora_path": ("STRING", (1,)),
    "lora_ckpt_source": ("STRING", (1,)),
}
UPSTREAM_OUTPUTS = {
    "text_output": ("STRING", (-1,)),
    "finish_reason": ("STRING", (-1,)),
    "stop_reason": ("STRING", (-1,)),
    "cumulative_logprob": ("FP32", (-1,)),
    "kv_cache_reused_block": ("INT32", (-1,)),
    "kv_cache_missed_block": ("INT32", (-1,)),
    "kv_cache_alloc_new_blocks": ("INT32", (-1,)),
    "kv_cache_alloc_total_blocks": ("INT32", (-1,)),
    "kv_cache_hit_rate": ("FP32", (-1,)),
    "arrival_time_ns": ("INT64", (1,)),
    "first_scheduled_time_ns": ("INT64", (1,)),
    "first_token_time_ns": ("INT64", (1,)),
    "last_token_time_ns": ("INT64", (1,)),
    "acceptance_rate": ("FP32", (1,)),
    "total_accepted_draft_tokens": ("INT32", (1,)),
    "total_draft_tokens": ("INT32", (1,)),
}
"""Upstream's llmapi/tensorrt_llm/config.pbtxt, autumn 2026, but for image_url."""

LEFT_OUT = ("draft", "decoder", "encoder", "prompt_", "cross_", "mrope", "lookahead")
LEFT_OUT_NAMES = {"lora_weights", "lora_config", "context_phase_params", "skip_cross_attn_blocks"}


@pytest.fixture
def engine(tmp_path: Path, tiny_tokenizer: Path) -> Path:
    return make_engine(make_model(tmp_path / "model", tiny_tokenizer), tmp_path)


@pytest.fixture
def repository(engine: Path, tmp_path: Path) -> Path:
    write_repository(engine, tmp_path / "repository", name="served")
    return tmp_path / "repository"


def test_upstreams_text_tensors_are_all_there() -> None:
    inputs = {t.name: (t.dtype, t.dims) for t in CONTRACT.inputs}
    outputs = {t.name: (t.dtype, t.dims) for t in CONTRACT.outputs}
    assert UPSTREAM_INPUTS.items() <= inputs.items()
    assert UPSTREAM_OUTPUTS.items() <= outputs.items()


def test_every_tensor_of_tensorrt_llm_is_there_or_left_out_with_a_reason() -> None:
    ours = {t.name: t for t in (*CONTRACT.inputs, *CONTRACT.outputs)}
    theirs = contract("tensorrt_llm")
    for tensor in (*theirs.inputs, *theirs.outputs):
        if tensor.name.startswith(LEFT_OUT) or tensor.name in LEFT_OUT_NAMES:
            assert tensor.name not in ours
            continue
        mine = ours[tensor.name]
        dims = UPSTREAM_OUTPUTS[tensor.name][1] if tensor.name in UPSTREAM_OUTPUTS else tensor.dims
        assert mine.dims == dims, tensor.name
        assert tensor.dtype in (mine.dtype, "logits"), tensor.name
    told = " ".join(each.where for each in DIFFERENCES)
    words = ("draft", "decoder", "encoder", "prompt", "cross", "mrope", "lookahead", "lora_weights")
    assert all(word in told for word in words)


class Noting(Mapping[str, "np.ndarray"]):
    """Tensors that note which were asked for."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.tensors, self.asked = tensors, set[Any]()

    def __getitem__(self, name: str) -> np.ndarray:
        self.asked.add(name)
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        self.asked.add(name)
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        # retention's inputs are looked for by their beginning
        self.asked.update(t.name for t in CONTRACT.inputs if t.name.startswith("retention_"))
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def test_every_input_is_looked_at_and_every_output_is_made(engine: Path) -> None:
    one = np.array([[1]], np.int32)
    prompt = {"input_ids": one, "request_output_len": one}
    named = {"lora_task_id": one, "guided_decoding_guide_type": np.array([[b"json"]], object)}
    asked = set()
    for tensors in (prompt, {**prompt, **named}):
        noting = Noting(tensors)
        read_request(noting, EngineFolder(engine), wants_text=True)
        asked |= noting.asked
    assert asked | {"stop"} == {t.name for t in CONTRACT.inputs}
    assert OUTPUTS.keys() == {t.name for t in CONTRACT.outputs}


def test_one_decoupled_model_that_needs_nothing_of_its_place(
    repository: Path, tmp_path: Path
) -> None:
    served = describe(repository)
    assert (served.name, served.target) == ("served", "llmapi")
    assert (served.max_seq_len, served.max_batch_size) == (128, 8)
    assert served.engines[0].models == {"tensorrt_llm": "tensorrt_llm"}
    assert served.engines[0].adapters == dict(zip(ADAPTERS, (1, 2), strict=True))
    config = from_text((repository / "tensorrt_llm" / "config.pbtxt").read_text())
    assert (config.backend, config.max_batch_size) == ("python", 1)
    assert config.model_transaction_policy.decoupled
    shutil.move(repository, tmp_path / "moved")
    folder = tmp_path / "moved" / "tensorrt_llm" / "1"
    found = EngineFolder(folder)
    assert found.settings["model"] == str(folder)
    assert [each.path for each in found.adapters] == [
        str(folder / "lora" / str(i) / name) for i, name in enumerate(ADAPTERS)
    ]
    assert "triton_config" not in found.settings


def test_its_weights_are_the_engines_files(repository: Path, engine: Path) -> None:
    kept = repository / "tensorrt_llm" / "1" / "model.safetensors"
    assert kept.samefile(engine / "model.safetensors")
    check(repository)
    (repository / "tensorrt_llm" / "1" / "model.yaml").write_text("model: elsewhere\n")
    with pytest.raises(ArtifactError, match=r"model\.yaml has changed"):
        check(repository)


def test_a_model_that_stays_where_it_is_is_named_by_its_whole_path(
    tmp_path: Path, tiny_tokenizer: Path
) -> None:
    model = make_model(tmp_path / "model", tiny_tokenizer)
    build(model, tmp_path / "engine", options=LlmApiOptions())
    write_repository(tmp_path / "engine", tmp_path / "repository")
    found = EngineFolder(tmp_path / "repository" / "tensorrt_llm" / "1")
    assert found.settings["model"] == str(model)


def test_a_model_without_a_context_length_needs_one(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make_model(tmp_path / "model", tiny_tokenizer, max_position_embeddings=None)
    build(model, tmp_path / "engine", options=LlmApiOptions())
    with pytest.raises(ArtifactError, match="--set max_seq_len"):
        write_repository(tmp_path / "engine", tmp_path / "repository")


def test_a_models_own_code_is_not_in_the_way_of_ours(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make_model(tmp_path / "model", tiny_tokenizer)
    (model / "queue.py").write_text("raise AssertionError('imported')\n")
    build(model, tmp_path / "engine", options=LlmApiOptions(copy=True))
    write_repository(tmp_path / "engine", tmp_path / "repository")
    folder = tmp_path / "repository" / "tensorrt_llm" / "1"
    assert (folder / "queue.py").is_file()
    # as Triton does: the version folder comes last
    program = f"""
import sys, types
sys.modules["triton_python_backend_utils"] = types.SimpleNamespace(
    TRITONSERVER_RESPONSE_COMPLETE_FINAL=1
)
sys.path.append({str(folder)!r})
import model
from triton_repo.runtime.llmapi import backend
assert backend.__file__.startswith({str(folder)!r}), backend.__file__
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_a_models_own_code_may_not_take_the_name_of_tritons(
    tmp_path: Path, tiny_tokenizer: Path
) -> None:
    model = make_model(tmp_path / "model", tiny_tokenizer)
    (model / "model.py").write_text("")
    build(model, tmp_path / "engine", options=LlmApiOptions(copy=True))
    with pytest.raises(ArtifactError, match=r"found model\.py"):
        write_repository(tmp_path / "engine", tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_the_tokenizer_ends_are_all_known(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make_model(tmp_path / "model", tiny_tokenizer)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    build(model, tmp_path / "engine", options=LlmApiOptions(copy=True))
    asked = read_request(
        {"text_input": np.array([[b"abc"]], object)},
        EngineFolder(tmp_path / "engine"),
        wants_text=True,
    )
    assert asked.sampling["stop_token_ids"] == [7]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stand-in for TensorRT-LLM, as long as the test takes."""
    monkeypatch.syspath_prepend(str(STAND_IN.parent))
    yield importlib.import_module("tensorrt_llm")
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt_llm"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("version", "sampler", "refused"),
    [
        ("1.2.1", "auto", True),
        ("1.2.1", "TRTLLMSampler", False),
        ("1.3.0rc9", "auto", True),
        ("1.3.0rc26", "auto", False),
        ("1.3.0", "auto", False),
        ("1.4.0rc1", "auto", False),
    ],
)
def test_what_an_older_sampler_would_ignore_is_refused(
    engine: Path, installed: ModuleType, version: str, sampler: str, refused: bool
) -> None:
    installed.__version__ = version
    folder = EngineFolder(engine)
    folder.settings["sampler_type"] = sampler
    asks = {"input_ids": np.array([[5]], np.int32), "request_output_len": np.array([[1]])}
    for name in ("repetition_penalty", "bad_words_list", "runtime_top_p_decay"):
        value = np.array([[[5], [1]]]) if name == "bad_words_list" else np.array([[0.5]])
        asked = read_request({**asks, name: value}, folder, wants_text=True)
        with pytest.raises(Refused, match=name) if refused else nullcontext():
            Api({}).arguments(asked, folder)


@pytest.mark.parametrize("needs", [{"since": "1.4"}, {"since": "1.2", "until": "1.3"}])
def test_a_version_that_lacks_settings_is_refused(
    installed: ModuleType, needs: dict[str, str]
) -> None:
    with pytest.raises(UnusableError, match=r"lacks settings.*found 1\.3\.0"):
        Api(needs)
