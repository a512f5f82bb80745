"""What config.json says in the newer dense families: carried as meant, or refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest
from modern_fields import CHATGLM, baichuan, gemma, plain, read
from modern_models import LONG

from builder.errors import ModelError
from builder.mapping import Layout


def test_only_long_rope_has_its_fields() -> None:
    # TensorRT-LLM's class asks whether they are there, not what they are.
    assert not [name for name in read(plain("Phi3ForCausalLM")) if "long" in name]


def test_gemma_divides_the_embedding_over_tensor_ranks_whatever_is_asked() -> None:
    assert read(gemma(""), Layout(tp=2))["use_parallel_embedding"] is True
    assert read(gemma(""), Layout(tp=1))["use_parallel_embedding"] is False


def test_gemmas_first_activation_was_named_wrongly() -> None:
    for word in ("gelu", "gelu_pytorch_tanh"):
        assert read(gemma("", hidden_act=word))["hidden_act"] == "gelu_pytorch_tanh"


def test_an_absent_cap_is_gemma_2s_own_and_a_null_one_none() -> None:
    caps = ("final_logit_softcapping", "attn_logit_softcapping")
    assert [read(gemma("2"))[cap] for cap in caps] == [30.0, 50.0]
    null = read(gemma("2", **dict.fromkeys(caps)))
    assert [null[cap] for cap in caps] == [None, None]


def test_phi_3s_sliding_window_is_carried_to_the_runtime() -> None:
    config = read(plain("Phi3ForCausalLM", sliding_window=64))
    assert config["runtime_defaults"] == {"kv_cache_config": {"max_attention_window": [64]}}


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": None},
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 5e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
            }
        },
    ],
    ids=["old", "new"],
)
def test_gemma3s_two_rotary_embeddings_are_read_from_either_form(fields: dict[str, Any]) -> None:
    config = read(gemma("3", **fields))
    assert (config["rotary_base"], config["rope_local_base_freq"]) == (5e5, 2e4)


@pytest.mark.parametrize(
    ("changes", "version", "base", "scaling"),
    [
        ({}, "chatglm3", 10000.0, None),
        ({"_name_or_path": "THUDM/chatglm2-6b"}, "chatglm2", 10000.0, None),
        (
            {"_name_or_path": "THUDM/chatglm2-6b-32k", "rope_ratio": 50},
            "chatglm2",
            10000.0,
            {"rope_type": "linear", "factor": 50.0},
        ),
        ({"_name_or_path": "THUDM/chatglm3-6b-32k", "rope_ratio": 50}, "chatglm3", 5e5, None),
        ({"padded_vocab_size": 151552, "rope_ratio": 500}, "glm4", 5e6, None),
        ({"_name_or_path": "THUDM/glm-4-9b-chat", "rope_ratio": 500}, "glm4", 5e6, None),
    ],
)
def test_what_rope_ratio_means_depends_on_the_generation(
    changes: dict[str, Any], version: str, base: float, scaling: dict[str, Any] | None
) -> None:
    config = read({**CHATGLM, **changes})
    found = config["chatglm_version"], config["rotary_base"], config["rotary_scaling"]
    assert found == (version, base, scaling)


def test_a_chatglm_without_shared_heads_has_a_key_value_head_to_each() -> None:
    assert read(CHATGLM)["num_key_value_heads"] == 2
    assert read({**CHATGLM, "multi_query_attention": False})["num_key_value_heads"] == 4


@pytest.mark.parametrize(
    ("heads", "vocabulary", "version", "position"),
    [
        (32, 64000, "v1_7b", "rope_gpt_neox"),
        (40, 64000, "v1_13b", "alibi"),
        (32, 125696, "v2_7b", "rope_gpt_neox"),
        (40, 125696, "v2_13b", "alibi"),
    ],
)
def test_baichuans_version_is_told_by_its_sizes(
    heads: int, vocabulary: int, version: str, position: str
) -> None:
    config = read(baichuan(heads, vocab_size=vocabulary))
    assert (config["model_version"], config["position_embedding_type"]) == (version, position)
    fields = baichuan(heads, vocab_size=vocabulary, model_max_length=4096)
    del fields["max_position_embeddings"]
    assert read(fields)["max_position_embeddings"] == 4096


LINEAR = {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
SLIDING = ["sliding_attention", "full_attention"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (gemma("", attention_bias=True), "attn_bias"),
        (gemma("", hidden_activation="silu"), "hidden_activation"),
        (gemma("2", **LINEAR), "rotary_scaling"),
        (gemma("2", layer_types=SLIDING[::-1]), "every other layer"),
        (gemma("3", **LINEAR), "rotary_scaling"),
        (gemma("3", attn_logit_softcapping=50.0), "softcapping"),
        (gemma("3", use_bidirectional_attention=True), "causal"),
        (
            gemma("3", num_hidden_layers=4, layer_types=[*SLIDING, *SLIDING[::-1]]),
            "slide but for every",
        ),
        (gemma("3", num_key_value_heads=4), "fewer key-value heads"),
        (plain("PhiForCausalLM"), "as many key-value heads"),
        (plain("PhiForCausalLM", num_key_value_heads=4, qk_layernorm=True), "qk_layernorm"),
        (plain("PhiForCausalLM", num_key_value_heads=4, layer_norm_eps=1e-6), "layer_norm_eps"),
        (plain("PhiForCausalLM", num_key_value_heads=4, **LINEAR), "rotary_scaling"),
        (plain("PhiForCausalLM", num_key_value_heads=4, head_dim=32), "divides the hidden size"),
        (plain("Phi3ForCausalLM", **LINEAR), "rotary_scaling"),
        (plain("Phi3ForCausalLM", hidden_act="gelu"), "hidden_act"),
        (plain("Phi3ForCausalLM", rope_scaling=LONG), "one factor for each pair"),
        (plain("Phi3ForCausalLM", attention_bias=True), "attn_bias"),
        (plain("CohereForCausalLM", **LINEAR), "rotary_scaling"),
        (
            plain("CohereForCausalLM", use_qk_norm=True, num_key_value_heads=4),
            "fewer key-value heads",
        ),
        (baichuan(16), "only the 7B and 13B"),
        (baichuan(32, rope_theta=1e6), "rotates by 10000"),
        ({**CHATGLM, "rope_ratio": 50}, "_name_or_path"),
        ({**CHATGLM, "kv_channels": 32}, "divides the hidden size"),
        ({**CHATGLM, "post_layer_norm": False}, "final norm"),
        ({**CHATGLM, "quantization_bit": 4}, "quantized"),
        ({**CHATGLM, "pre_seq_len": 64}, "prefix"),
        (plain("GlmForCausalLM", head_dim=32), "divides the hidden size"),
        (plain("GlmForCausalLM", head_dim=16, **LINEAR), "rotary_scaling"),
    ],
)
def test_what_tensorrt_llms_class_cannot_say_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read(fields)
