from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tiny_engine import engine_config, make_engine

from builder.errors import LimitError
from triton_repo import engine as engines
from triton_repo.engine import Engine
from triton_repo.models import builders
from triton_repo.models.pbtxt import BEYOND
from triton_repo.models.tensorrt_llm import REQUIRED
from triton_repo.names import Names
from triton_repo.runtime.tensorrtllm_parameters import UNUSED
from triton_repo.settings import rules
from triton_repo.settings.options import (
    GROUPS,
    SETTINGS,
    UNREACHABLE,
    RepositoryOptions,
    by_any_name,
    with_words,
)

UPSTREAM: dict[str, Any] = json.loads(
    Path(__file__).with_name("upstream_models.json").read_text(encoding="utf-8")
)
PLACES = {
    "triton_max_batch_size",
    "decoupled_mode",
    "max_queue_delay_microseconds",
    "max_queue_size",
    "preprocessing_instance_count",
    "postprocessing_instance_count",
    "bls_instance_count",
}
"""What upstream's templates leave to be filled in outside of the parameters; types apart."""


def make(tmp_path: Path, *, model: dict[str, Any] | None = None, **build: Any) -> Engine:
    """An engine for TensorRT-LLM; `model` replaces fields of its pretrained_config."""
    files = tuple(
        f"rank{rank}.engine"
        for rank in range((model or {}).get("mapping", {}).get("world_size", 1))
    )
    folder = make_engine(tmp_path / "engine", files=files, **build)
    config = engine_config(**build)
    config["pretrained_config"] |= model or {}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    return engines.read(folder)


def settle(engine: Engine, **options: Any) -> RepositoryOptions:
    return rules.settled(RepositoryOptions(**options), engine, Names())


def parameters(engine: Engine, options: RepositoryOptions, model: str = "tensorrt_llm") -> Any:
    config = builders()[model](engine, options, Names())
    return {name: each.string_value for name, each in config.parameters.items()}


@pytest.mark.parametrize("model", UPSTREAM)
def test_every_parameter_of_upstream_is_reached_or_says_why_not(model: str) -> None:
    reached = {each.parameter for each in SETTINGS.values()}
    for name in UPSTREAM[model]["parameters"]:
        assert (name in reached) != (name in UNREACHABLE), name
    assert all(UNREACHABLE.values())


def test_every_place_outside_of_the_parameters_is_reached_too() -> None:
    ours = {"decoupled_mode": "decoupled"}
    for place in PLACES:
        assert SETTINGS[ours.get(place, place)].parameter == ""


def test_a_setting_of_upstreams_c_backend_that_no_template_has_is_reached() -> None:
    for names in BEYOND.values():
        assert set(names) <= SETTINGS.keys()


def test_every_setting_is_in_a_group_and_says_what_it_is() -> None:
    for each in SETTINGS.values():
        assert each.group in GROUPS
        assert each.help.endswith((".", "{1}; by default upstream's mc_sim_7b_63."))
        assert each.checked(each.default) == each.default


@pytest.mark.parametrize("name", [n for n, e in SETTINGS.items() if e.parameter])
def test_a_setting_with_a_value_is_a_parameter_of_some_model(name: str) -> None:
    known = {parameter for model in UPSTREAM.values() for parameter in model["parameters"]}
    known |= {parameter for names in BEYOND.values() for parameter in names}
    assert SETTINGS[name].parameter in known


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("gpt_model_type", "inflight_batching", "inflight_batching"),
        ("batching_strategy", "inflight_batching", "inflight_batching"),
        ("enable_kv_cache_reuse", "True", True),
        ("kv_cache_free_gpu_mem_fraction", "0.25", 0.25),
        ("max_attention_window_size", "64,128", (64, 128)),
        ("gpu_device_ids", "0,1;2,3", ((0, 1), (2, 3))),
        ("medusa_choices", "{0},{0,0},{1}", ((0,), (0, 0), (1,))),
        ("FORCE_CPU_ONLY_INPUT_TENSORS", "yes", "yes"),
    ],
)
def test_a_word_is_read_by_any_name_and_written_as_upstream_reads_it(
    name: str, word: str, value: Any, tmp_path: Path
) -> None:
    setting = by_any_name(name)
    assert getattr(with_words(RepositoryOptions(), {name: word}), setting.name) == value
    written = parameters(make(tmp_path), with_words(RepositoryOptions(), {name: word}))[
        setting.parameter
    ]
    assert setting.read(written) == value
    assert written == (word.lower() if value is True else word)


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("medusa_choices", "{1, 5}, {1, 2, 3}", ((1, 5), (1, 2, 3))),
        ("medusa_choices", "{0},{0,0,},", ((0,), (0, 0))),
        ("max_attention_window_size", "0001, 64,", (1, 64)),
        ("gpu_device_ids", "0,1,;2,3", ((0, 1), (2, 3))),
    ],
)
def test_spaces_and_last_commas_are_taken_as_upstream_takes_them(
    name: str, word: str, value: Any
) -> None:
    assert by_any_name(name).read(word) == value


@pytest.mark.parametrize(
    ("build", "options"),
    [
        ({"speculative_decoding_mode": 4}, {"medusa_choices": ((0,),)}),
        ({}, {"gpu_weights_percent": 1.0}),
        ({}, {"kv_cache_onboard_blocks": True}),
    ],
)
def test_what_upstream_reads_by_itself_is_let_pass(
    tmp_path: Path, build: dict[str, Any], options: dict[str, Any]
) -> None:
    settle(make(tmp_path, **build), **options)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("batching_strategy", "V1"),
        ("enable_kv_cache_reuse", "maybe"),
        ("kv_cache_free_gpu_mem_fraction", "1.5"),
        ("kv_cache_free_gpu_mem_fraction", "lots"),
        ("kv_cache_free_gpu_mem_fraction", "nan"),
        ("max_queue_size", "-1"),
        ("max_queue_size", "1.5"),
        ("gpu_device_ids", "0,x"),
        ("gpu_device_ids", "-1"),
        ("medusa_choices", "{0},0"),
        ("medusa_choices", ""),
        ("cancellation_check_period_ms", "0"),
        ("postprocessing_instance_count", "2"),
    ],
)
def test_a_word_that_is_no_value_of_the_setting_is_refused(name: str, word: str) -> None:
    with pytest.raises(LimitError, match=f"^{name} must be .*; found '?{re.escape(word)}"):
        with_words(RepositoryOptions(), {name: word})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_queue_size": True}, "max_queue_size must be a whole number"),
        ({"decoupled": 1}, "decoupled must be true or false"),
        ({"max_beam_width": 0}, "at least 1|1 to"),
        ({"gpu_device_ids": (0, 1)}, "gpu_device_ids must be lists"),
        ({"timeout_action": "WAIT"}, "REJECT or DELAY"),
    ],
)
def test_a_value_of_another_type_or_range_is_refused(options: Any, said: str) -> None:
    with pytest.raises(LimitError, match=said):
        RepositoryOptions(**options)


def test_a_name_that_is_none_is_refused_and_one_that_cannot_be_set_says_why() -> None:
    with pytest.raises(LimitError, match="no setting is called speed"):
        by_any_name("speed")
    with pytest.raises(LimitError, match=r"encoder_model_path can.t be set; found the engines"):
        by_any_name("encoder_model_path")


PLAIN: dict[str, Any] = {"plugin_config": {"use_paged_context_fmha": False}}
LORA: dict[str, Any] = {"lora_config": {"lora_target_modules": ["attn_q"], "max_lora_rank": 8}}
LOOKAHEAD = {
    "lookahead_window_size": 7,
    "lookahead_ngram_size": 7,
    "lookahead_verification_set_size": 7,
}


@pytest.mark.parametrize(
    ("build", "options", "said"),
    [
        (PLAIN, {"enable_kv_cache_reuse": True}, "needs an engine with paged context"),
        (PLAIN, {"enable_chunked_context": True}, "needs an engine with paged context"),
        (
            {"gather_context_logits": True},
            {"enable_kv_cache_reuse": True},
            "found build_config.gather_context_logits true",
        ),
        ({}, {"triton_max_batch_size": 9}, "at most the engine's 8"),
        ({}, {"max_beam_width": 2}, "at most the engine's 1"),
        ({}, {"max_attention_window_size": (64, 512)}, "at most the engine's 256"),
        ({}, {"decoding_mode": "beam_search"}, "needs an engine for beam search"),
        ({"max_beam_width": 2}, {"decoding_mode": "top_k"}, "doesn't go with max_beam_width"),
        (
            {"max_beam_width": 2},
            {"decoding_mode": "beam_search", "max_beam_width": 1},
            "doesn't go with max_beam_width",
        ),
        ({}, {"decoding_mode": "medusa"}, "needs an engine built for medusa"),
        ({}, {"decoding_mode": "eagle"}, "needs an engine built for eagle"),
        ({}, {"decoding_mode": "redrafter"}, "needs an engine built for explicit_draft"),
        ({}, {"decoding_mode": "lookahead", **LOOKAHEAD}, "built for lookahead_decoding"),
        (
            {"speculative_decoding_mode": 8, "max_draft_len": 83},
            {"decoding_mode": "lookahead"},
            "needs its sizes; found no lookahead_window_size",
        ),
        (
            {"speculative_decoding_mode": 8, "max_draft_len": 82},
            {"decoding_mode": "lookahead", **LOOKAHEAD},
            "at most the engine's 82 tokens; found 83",
        ),
        ({}, LOOKAHEAD, "does nothing without decoding_mode lookahead"),
        ({}, {"medusa_choices": ((0,),)}, "needs an engine built for medusa"),
        ({}, {"gpu_weights_percent": 0.5}, "whose weights may be streamed"),
        ({}, {"gpu_weights_percent": 0.0}, "whose weights may be streamed"),
        (
            {},
            {"kv_cache_host_memory_bytes": 1, "enable_kv_cache_reuse": False},
            "does nothing without enable_kv_cache_reuse",
        ),
        ({}, {"kv_cache_onboard_blocks": False}, "must be brought back"),
        ({}, {"cuda_graph_cache_size": 4}, "does nothing without cuda_graph_mode"),
        ({}, {"timeout_action": "DELAY"}, "does nothing without default_timeout_microseconds"),
        ({}, {"allow_timeout_override": True}, "without default_timeout_microseconds"),
        ({}, {"lora_cache_max_adapter_size": 8}, "needs an engine for LoRA"),
        (
            LORA,
            {"lora_cache_optimal_adapter_size": 16, "lora_cache_max_adapter_size": 8},
            "found 16 and 8",
        ),
        ({}, {"speculative_decoding_fast_logits": True}, "without participant_ids"),
        (
            {"speculative_decoding_mode": 2, "max_draft_len": 4},
            {"enable_kv_cache_reuse": False},
            "that verifies drafts needs enable_kv_cache_reuse",
        ),
        (
            {},
            {"guided_decoding_backend": "none", "xgrammar_tokenizer_info_path": "/info.json"},
            "does nothing without guided_decoding_backend xgrammar",
        ),
        ({"kv_cache_type": "CONTINUOUS"}, {}, "packed inputs and a paged KV cache"),
        ({}, {"tensorrt_llm_instance_count": 2}, "need gpu_device_ids"),
        ({}, {"gpu_device_ids": ((0, 1),)}, "needs 1 for each instance.*found 2"),
        ({}, {"gpu_device_ids": ((0,), (1,))}, "a group for each of the 1 instances"),
        (
            {},
            {"gpu_device_ids": ((1,), (1,)), "tensorrt_llm_instance_count": 2},
            "has a number twice",
        ),
    ],
)
def test_what_the_engine_cannot_honour_or_would_ignore_is_refused(
    tmp_path: Path, build: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    engine = make(tmp_path, **build)
    with pytest.raises(LimitError, match=said):
        settle(engine, **options)


def test_each_rank_of_an_engine_has_a_gpu(tmp_path: Path) -> None:
    engine = make(tmp_path, model={"mapping": {"world_size": 2, "tp_size": 2}})
    options = {"tensorrt_llm_instance_count": 2, "gpu_device_ids": ((0, 1), (2, 3))}
    assert parameters(engine, settle(engine, **options))["gpu_device_ids"] == "0,1;2,3"
    with pytest.raises(LimitError, match="needs 2 for each instance"):
        settle(engine, gpu_device_ids=((0,),))
    with pytest.raises(LimitError, match="num_nodes must divide the engine's 2 ranks; found 3"):
        settle(engine, num_nodes=3)


def test_engines_built_for_it_take_speculative_settings(tmp_path: Path) -> None:
    engine = make(tmp_path, speculative_decoding_mode=8, max_draft_len=83)
    written = parameters(engine, settle(engine, decoding_mode="lookahead", **LOOKAHEAD))
    assert written["decoding_mode"] == "lookahead"
    assert [written[name] for name in LOOKAHEAD] == ["7", "7", "7"]
    beams = make(tmp_path / "beams", max_beam_width=4)
    assert parameters(beams, settle(beams, decoding_mode="beam_search"))["max_beam_width"] == "4"


def test_what_is_left_out_is_the_engines(tmp_path: Path) -> None:
    engine = make(tmp_path)
    written = parameters(engine, settle(engine))
    assert written["enable_kv_cache_reuse"] == written["enable_chunked_context"] == "true"
    assert written["gpt_model_type"] == "inflight_fused_batching"
    assert "kv_cache_free_gpu_mem_fraction" not in written
    plain = make(tmp_path / "plain", **PLAIN)
    written = parameters(plain, settle(plain))
    assert written["enable_kv_cache_reuse"] == written["enable_chunked_context"] == "false"


def test_what_upstreams_backend_looks_up_without_a_default_is_always_there(
    tmp_path: Path,
) -> None:
    engine = make(tmp_path)
    written = parameters(engine, settle(engine, guided_decoding_backend="none"))
    assert set(REQUIRED) <= written.keys()
    assert written["guided_decoding_backend"] == written["xgrammar_tokenizer_info_path"] == ""


def test_queue_settings_reach_triton(tmp_path: Path) -> None:
    engine = make(tmp_path)
    options = settle(
        engine,
        triton_max_batch_size=4,
        max_queue_size=9,
        max_queue_delay_microseconds=50,
        default_timeout_microseconds=7,
        timeout_action="DELAY",
        allow_timeout_override=True,
        decoupled=False,
    )
    config = builders()["tensorrt_llm"](engine, options, Names())
    policy = config.dynamic_batching.default_queue_policy
    assert config.max_batch_size == config.dynamic_batching.preferred_batch_size[0] == 4
    assert config.dynamic_batching.max_queue_delay_microseconds == 50
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (9, 7)
    assert policy.TimeoutAction.Name(policy.timeout_action) == "DELAY"
    assert policy.allow_timeout_override
    assert not config.model_transaction_policy.decoupled


def test_settings_that_do_nothing_on_a_cpu_are_noted_and_written(tmp_path: Path) -> None:
    engine = engines.read(make_engine(tmp_path / "cpu"))
    options = RepositoryOptions(cuda_graph_mode=True, max_queue_size=3)
    (line,) = rules.notes(options, engine)
    assert (
        line == "cuda_graph_mode does nothing on a CPU (there is no GPU); it is written for a GPU"
    )
    assert rules.notes(options, make(tmp_path)) == []
    # the config is that of the deployment that it rehearses
    assert parameters(engine, options)["cuda_graph_mode"] == "true"


def test_what_an_engine_on_a_cpu_would_refuse_at_load_is_refused_now(tmp_path: Path) -> None:
    engine = engines.read(make_engine(tmp_path / "cpu"))
    with pytest.raises(LimitError, match=r"windows that its model was trained with; found .* 64"):
        settle(engine, max_attention_window_size=(64,))
    with pytest.raises(LimitError, match="sink_token_length 4 needs an engine with attention"):
        settle(engine, sink_token_length=4)


@pytest.mark.parametrize("name", UNUSED)
def test_each_parameter_that_a_cpu_has_no_use_for_is_a_setting(name: str) -> None:
    assert (name in {each.parameter for each in SETTINGS.values()}) != (name in UNREACHABLE)


def test_a_default_that_is_not_upstreams_has_a_reason() -> None:
    upstreams = {
        "batch_scheduler_policy": "guaranteed_no_evict",
        "exclude_input_in_output": False,
        "cancellation_check_period_ms": 100,
    }
    for name, value in upstreams.items():
        assert SETTINGS[name].default != value
        assert SETTINGS[name].why
