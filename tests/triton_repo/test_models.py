from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from running import client, echo_triton, stream, text
from tiny_engine import make_engine

from triton_repo import engine as engines
from triton_repo.contract import MODELS, contract
from triton_repo.engine import Engine
from triton_repo.launch.triton import Triton
from triton_repo.models import builders
from triton_repo.models.pbtxt import from_text, set_parameters, to_text
from triton_repo.names import Names
from triton_repo.settings.options import RepositoryOptions

PROMPT = "the  whole\n of it, two  spaces"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engines.read(make_engine(tmp_path_factory.mktemp("models") / "engine"))


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with echo_triton(tmp_path_factory.mktemp("echo")) as running:
        yield running


@pytest.mark.parametrize("model", MODELS)
def test_a_config_survives_being_written_and_read(model: str, engine: Engine) -> None:
    config = builders()[model](engine, RepositoryOptions(), Names())
    assert from_text(to_text(config)) == config
    assert config.max_batch_size == engine.max_batch_size
    assert "${" not in to_text(config)


def test_the_engine_model_is_decoupled_and_has_nvidias_backend(engine: Engine) -> None:
    config = builders()["tensorrt_llm"](engine, RepositoryOptions(), Names())
    values = {name: p.string_value for name, p in config.parameters.items()}
    assert config.backend == "tensorrtllm"
    assert config.model_transaction_policy.decoupled
    assert values["gpt_model_type"] == "inflight_fused_batching"
    assert values["exclude_input_in_output"] == "true"
    assert values["gpt_model_path"] == values["tokenizer_dir"] == "tensorrt_llm/1"
    assert "kv_cache_free_gpu_mem_fraction" not in values


def test_options_reach_the_config(engine: Engine) -> None:
    options = RepositoryOptions(
        kv_cache_free_gpu_mem_fraction=0.5, max_queue_size=9, enable_chunked_context=False
    )
    config = builders()["tensorrt_llm"](engine, options, Names())
    assert config.parameters["kv_cache_free_gpu_mem_fraction"].string_value == "0.5"
    assert config.parameters["enable_chunked_context"].string_value == "false"
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 9


def test_no_model_has_priority_levels_which_stall_the_queue(engine: Engine) -> None:
    for build in builders().values():
        assert build(engine, RepositoryOptions(), Names()).dynamic_batching.priority_levels == 0


def test_a_parameter_outside_the_contract_is_our_own_mistake(engine: Engine) -> None:
    config = builders()["postprocessing"](engine, RepositoryOptions(), Names())
    with pytest.raises(ValueError, match="speed"):
        set_parameters(config, contract("postprocessing"), {"speed": 1})


@pytest.mark.triton
def test_all_models_load_on_a_real_triton(triton: Triton) -> None:
    with client(triton) as connection:
        for model in MODELS:
            assert connection.is_model_ready(model)
            served = connection.get_model_metadata(model)
            assert {t.name for t in served.inputs} == {t.name for t in contract(model).inputs}
            assert {t.name for t in served.outputs} == {t.name for t in contract(model).outputs}


@pytest.mark.triton
def test_the_ensemble_streams_text_in_order(triton: Triton) -> None:
    request = {
        "text_input": text([PROMPT]),
        "max_tokens": np.array([[100]], np.int32),
        "stream": np.array([[True]]),
    }
    parts = [r.as_numpy("text_output")[0, 0].decode() for r in stream(triton, "ensemble", request)]
    assert len(parts) > 10
    assert "".join(parts) == PROMPT


@pytest.mark.triton
def test_ensemble_requests_of_different_lengths_share_a_stream(triton: Triton) -> None:
    prompts = [PROMPT[:n] for n in range(1, len(PROMPT), 3)]
    requests = [
        {"text_input": text([p]), "max_tokens": np.array([[100]], np.int32)} for p in prompts
    ]
    joined = dict.fromkeys(map(str, range(len(prompts))), "")
    for result in stream(triton, "ensemble", *requests):
        part = result.as_numpy("text_output")[0, 0].decode()
        joined[result.get_response().id] += part
    assert list(joined.values()) == prompts


@pytest.mark.triton
def test_the_ensemble_answers_plain_http(triton: Triton) -> None:
    body = json.dumps({"text_input": PROMPT, "max_tokens": 100, "stream": True}).encode()
    url = f"http://{triton.http_address}/v2/models/ensemble/generate_stream"
    with urlopen(Request(url, data=body), timeout=20) as response:
        lines = response.read().decode().splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert "".join(e.get("text_output", "") for e in events) == PROMPT


def test_reading_what_is_no_config_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        from_text("nonsense: 1")
