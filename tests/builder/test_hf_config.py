"""Old and new spellings of config.json mean the same; what would be lost is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_files import FIELDS

from builder.errors import ModelError, UnknownFamilyError
from builder.families.fields import REQUIRED
from builder.source import ModelConfig
from builder.source.hf_config import model_config
from builder.source.hf_fields import FIELDS as KNOWN

PATH = Path("model/config.json")


def read(changes: dict[str, Any] | None = None, without: tuple[str, ...] = ()) -> ModelConfig:
    fields = {**FIELDS, **(changes or {})}
    return model_config(PATH, {k: v for k, v in fields.items() if k not in without}, "float16")


def test_the_fields_arrive() -> None:
    assert read() == ModelConfig(
        architecture="LlamaForCausalLM",
        dtype="bfloat16",
        vocab_size=384,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_size=16,
        max_position_embeddings=256,
        norm_epsilon=1e-5,
        hidden_act="silu",
        rotary_base=10000.0,
    )


LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
    ],
)
def test_rope_scaling_is_read_in_every_spelling(spelling: dict[str, Any]) -> None:
    config = read(spelling, without=() if "rope_theta" in spelling else ("rope_theta",))
    assert config.rotary_base == 5e5
    assert config.rotary_scaling == {"rope_type": "llama3", **LLAMA3}


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        {"rope_theta": 1000000, "rope_scaling": None},
        {"rope_theta": 1e6, "rope_scaling": {"type": "default"}},
    ],
)
def test_plain_rope_has_no_scaling(rope: dict[str, Any]) -> None:
    config = read(rope)
    assert (config.rotary_base, config.rotary_scaling) == (1e6, None)


def test_the_dtype_is_read_in_both_spellings_and_else_is_that_of_the_weights() -> None:
    assert read({"dtype": "float32"}, without=("torch_dtype",)).dtype == "float32"
    assert read({"torch_dtype": "float32"}).dtype == "float32"
    assert read(without=("torch_dtype",)).dtype == "float16"


def test_absent_kv_heads_are_as_many_as_heads_and_null_is_absent() -> None:
    assert read(without=("num_key_value_heads",)).num_key_value_heads == 4
    assert read({"num_key_value_heads": None, "head_dim": None}).head_size == 16
    assert read({"head_dim": 32}).head_size == 32


@pytest.mark.parametrize(
    "field",
    [f for f in KNOWN if f.default is REQUIRED and not f.same_as],
    ids=lambda f: f.attribute,
)
def test_a_missing_field_is_named_with_the_file(field: Any) -> None:
    with pytest.raises(ModelError, match=f"config.json has no field {field.keys[0]}"):
        read(without=field.keys)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": "64"}, "hidden_size must be a positive int; found '64'"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": 66}, "multiple of num_attention_heads"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps must be a positive float"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be a bool"),
        ({"torch_dtype": "float8"}, "dtype must be one of"),
        ({"hidden_act": "swoosh"}, "hidden_act.*'swoosh'"),
        ({"partial_rotary_factor": 0.5}, "rotary_pct"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2}}, "'longrope'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "no positive low_freq_factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "one rotary embedding"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": 3.0}}, "attention_f"),
        ({"architectures": None}, "no field architectures"),
    ],
)
def test_what_cannot_be_carried_over_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        read(changes)


def test_yarn_says_the_length_that_tensorrt_llm_would_guess() -> None:
    scaling = read({"rope_scaling": {"type": "yarn", "factor": 4.0}}).rotary_scaling
    assert scaling == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 256,
    }


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"sliding_window": 64}, 64),
        ({"sliding_window": 256}, None),
        ({"sliding_window": None}, None),
        ({"sliding_window": 64, "use_sliding_window": False}, None),
        ({"sliding_window": 64, "max_window_layers": 1}, None),
        ({"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 2}, None),
        ({"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 0}, 64),
        ({"sliding_window": 64, "layer_types": ["sliding_attention"] * 2}, 64),
    ],
)
def test_a_sliding_window_counts_where_all_layers_use_it(
    changes: dict[str, Any], window: int | None
) -> None:
    assert read(changes).sliding_window == window


def test_a_sliding_window_in_some_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="1 of 2 layers"):
        read({"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 1})


def test_an_unknown_family_is_told_before_its_fields_and_the_known_are_listed() -> None:
    with pytest.raises(UnknownFamilyError, match=r"MambaForCausalLM; known are .*Llama.*Qwen3"):
        model_config(PATH, {"architectures": ["MambaForCausalLM"]}, "float32")
