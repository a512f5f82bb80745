"""Promise: a mixture of experts becomes the checkpoint that TensorRT-LLM's class takes, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import moe_models
import numpy as np
import pytest
from compare import LAYOUTS, unlike_modelopt

from builder import families
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.errors import LimitError, ModelError, UnknownFamilyError
from builder.limits import LimitOptions
from builder.source.hf_config import model_config

MODELS = (*moe_models.TINY, "deepseek")
UNKNOWN_TO_MODELOPT = {
    "granite_moe": "it finds no layer of experts in Granite-MoE",
    "granite_moe_bias": "it finds no layer of experts in Granite-MoE",
    "dbrx": "it looks for DBRX's experts one by one, as its own quantizer leaves them",
    "deepseek": "its reference is the published model's code, which isn't in transformers",
}
LIMITS = LimitOptions(max_batch_size=8, max_num_tokens=64, max_seq_len=64, kv_cache_gib=0.05)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> dict[str, Path]:
    """Name → Hugging Face folder."""
    root = tmp_path_factory.mktemp("moe_models")
    made = {name: moe_models.save(root / name, name, tiny_tokenizer) for name in moe_models.TINY}
    return {**made, "deepseek": moe_models.save_deepseek(root / "deepseek", tiny_tokenizer)}


@pytest.mark.reference
@pytest.mark.parametrize("layout", LAYOUTS, ids=["one", "tp2", "pp2"])
@pytest.mark.parametrize("name", [name for name in MODELS if name not in UNKNOWN_TO_MODELOPT])
def test_every_tensor_is_the_one_that_modelopt_exports(
    folders: dict[str, Path], tmp_path: Path, name: str, layout: dict[str, Any]
) -> None:
    if name.startswith("phi_moe") and "pp" in layout:
        with pytest.raises(LimitError, match="pipeline ranks by TensorRT-LLM"):
            convert(folders[name], tmp_path / "out", options=ConvertOptions(**layout))
        return
    assert unlike_modelopt(folders[name], tmp_path, layout) == set()


@pytest.mark.reference
@pytest.mark.parametrize("name", MODELS)
def test_the_checkpoint_computes_what_the_model_computes(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    from test_openvino import all_logits, reference_logits

    from builder.targets.openvino import build

    convert(folders[name], tmp_path / "checkpoint", options=ConvertOptions(dtype="float32"))
    build(tmp_path / "checkpoint", tmp_path / "engine", options=LIMITS)
    ids = np.random.default_rng(3).integers(3, 384, size=48).tolist()
    twin = folders[name] / "twin"
    expected = reference_logits(twin if twin.exists() else folders[name], ids)
    found = all_logits(tmp_path / "engine", ids, 48)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-3


@pytest.mark.reference
@pytest.mark.parametrize("name", MODELS)
def test_check_finds_the_checkpoint_whole(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    convert(folders[name], tmp_path / "out", options=ConvertOptions(tp=2, moe_ep=2))
    check(tmp_path / "out")


SWIGLU = {"hidden_act": "swiglu", "position_embedding_type": "rope_gpt_neox"}
LLAMA = {**SWIGLU, "attn_bias": False, "mlp_bias": False}
QWEN = {**SWIGLU, "mlp_only_layers": [], "decoder_sparse_step": 1, "moe_intermediate_size": 48}
QWEN2 = {"num_experts": 4, "top_k": 2, "shared_expert_intermediate_size": 80}
PHI = {**SWIGLU, "architecture": "PhiMoEForCausalLM", "rotary_pct": 1.0, "attention_bias": True}
PHI_ROUTER = {"top_k": 2, "normalization_mode": 2, "sparse_mixer_epsilon": 0.02}
CONFIGS: dict[str, dict[str, Any]] = {
    # LLaMAConfig: the chosen experts' weights have a sum of one
    "mixtral": {**LLAMA, "moe": {"num_experts": 4, "top_k": 2, "normalization_mode": 1}},
    "granite_moe": {
        **LLAMA,
        "moe": {"num_experts": 6, "top_k": 3, "normalization_mode": 1},
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.125 * 16**0.5,
        "residual_multiplier": 0.5,
        "output_multiplier_scale": 0.25,
    },
    # QWenConfig, but for the normalization, which its class takes as the config says
    "qwen2_moe": {
        **QWEN,
        "qwen_type": "qwen2_moe",
        "attn_bias": True,
        "moe": {**QWEN2, "normalization_mode": 0},
        "moe_shared_expert_intermediate_size": 80,
    },
    "qwen2_moe_norm": {"attn_bias": False, "moe": {**QWEN2, "normalization_mode": 1}},
    "qwen3_moe": {
        **QWEN,
        "qwen_type": "qwen3_moe",
        "attn_bias": False,
        "qk_layernorm": True,
        "head_size": 32,
        "moe": {"num_experts": 8, "top_k": 2, "normalization_mode": 0},
    },
    "qwen3_moe_norm": {"moe": {"num_experts": 8, "top_k": 2, "normalization_mode": 1}},
    # Phi3Config: a scaling of any kind means long rope, which is said in fields of its own
    "phi_moe": {**PHI, "moe": {"num_experts": 4, **PHI_ROUTER}},
    "phi_moe_long": {
        **PHI,
        "position_embedding_type": "long_rope",
        "original_max_position_embeddings": 64,
        "longrope_scaling_short_factors": moe_models.LONG_ROPE["short_factor"],
        "longrope_scaling_long_factors": moe_models.LONG_ROPE["long_factor"],
        "longrope_short_mscale": 1.1,
        "longrope_long_mscale": 1.25,
    },
    # DbrxConfig and its convert script
    "dbrx": {
        **SWIGLU,
        "bias": False,
        "clip_qkv": 0.4,
        "rotary_base": 500000.0,
        "norm_epsilon": 1e-5,
        "intermediate_size": 48,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "moe": {"num_experts": 4, "top_k": 2, "normalization_mode": 1},
    },
    # DeepSeekV1Config: shared experts are one, as wide as all of them
    "deepseek": {
        **SWIGLU,
        "moe_intermediate_size": 48,
        "moe": {
            "num_experts": 4,
            "top_k": 2,
            "normalization_mode": 0,
            "shared_expert_intermediate_size": 2 * 48,
        },
    },
}


@pytest.mark.reference
@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_is_what_tensorrt_llms_class_reads(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    convert(folders[name], tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: config.get(key) for key in CONFIGS[name]} == CONFIGS[name]
    if name == "phi_moe":
        # its class takes their mere presence for long rope
        assert not [key for key in config if key.startswith("longrope")]
        assert "rotary_scaling" not in config


MIXTRAL = {"architectures": ["MixtralForCausalLM"], **moe_models.SIZES, "rms_norm_eps": 1e-5}
QWEN2_MOE = {
    "architectures": ["Qwen2MoeForCausalLM"],
    **moe_models.QWEN2_MOE,
    "rms_norm_eps": 1e-6,
}
QWEN3_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    **moe_models.QWEN3_MOE,
    "rms_norm_eps": 1e-6,
}
PHI_MOE = {"architectures": ["PhiMoEForCausalLM"], **moe_models.PHI_MOE, "rms_norm_eps": 1e-5}
DBRX = {"architectures": ["DbrxForCausalLM"], **moe_models.DBRX}
DEEPSEEK = moe_models.deepseek_config()
LONG_ROPE = {k: v for k, v in moe_models.LONG_ROPE.items() if k != "long_mscale"}


@pytest.mark.parametrize(
    ("fields", "changes", "says"),
    [
        (MIXTRAL, {"num_local_experts": 1}, "a dense layer for a single expert"),
        (MIXTRAL, {"hidden_act": "gelu"}, "hidden_act"),
        (QWEN2_MOE, {"mlp_only_layers": [0]}, "experts in every layer"),
        (QWEN2_MOE, {"decoder_sparse_step": 2}, "experts in every layer"),
        (QWEN3_MOE, {"mlp_only_layers": [1]}, "experts in every layer"),
        (QWEN3_MOE, {"num_key_value_heads": 4}, "fewer key-value heads"),
        (QWEN3_MOE, {"attention_bias": True}, "attn_bias"),
        (PHI_MOE, {"num_experts_per_tok": 3}, "num_experts_per_tok"),
        (PHI_MOE, {"attention_bias": False}, "always has these biases"),
        (PHI_MOE, {"lm_head_bias": False}, "always has these biases"),
        (PHI_MOE, {"rope_scaling": LONG_ROPE}, "long rope without its magnitudes"),
        (PHI_MOE, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rotary_scaling"),
        (PHI_MOE, {"head_dim": 32}, "divides the hidden size by the heads"),
        (DBRX, {"ffn_config": {"moe_normalize_expert_weights": 2.0}}, "moe_normalize"),
        (DBRX, {"ffn_config": {"ffn_act_fn": {"name": "gelu"}}}, "ffn_act_fn"),
        (DBRX, {"tie_word_embeddings": True}, "a head of its own"),
        (DEEPSEEK, {"first_k_dense_replace": 3}, "first_k_dense_replace"),
        (DEEPSEEK, {"first_k_dense_replace": 0}, "first_k_dense_replace"),
        (DEEPSEEK, {"moe_layer_freq": 2}, "experts in all other layers"),
        (DEEPSEEK, {"scoring_func": "sigmoid"}, "softmax"),
        (DEEPSEEK, {"n_shared_experts": None}, "n_shared_experts"),
        (DEEPSEEK, {"attention_bias": True}, "attn_bias"),
    ],
)
def test_what_the_class_cannot_express_is_refused(
    fields: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    path = Path("config.json")
    assert model_config(path, dict(fields), "float32")
    with pytest.raises(ModelError, match=says):
        model_config(path, {**fields, **changes}, "float32")


@pytest.mark.parametrize(("stated", "mode"), [({}, 1), ({"norm": 1.0}, 1), ({"norm": None}, 0)])
def test_dbrx_scales_the_experts_weights_unless_told_not_to(
    stated: dict[str, Any], mode: int
) -> None:
    ffn = dict(DBRX["ffn_config"])
    if "norm" in stated:
        ffn["moe_normalize_expert_weights"] = stated["norm"]
    config = model_config(Path("config.json"), {**DBRX, "ffn_config": ffn}, "float32")
    assert config.extra["normalization_mode"] == mode


def test_deepseek_v2_is_refused_because_no_engine_can_be_built() -> None:
    with pytest.raises(UnknownFamilyError, match=r"can't build an engine.*DeepseekV2"):
        families.of("DeepseekV2ForCausalLM")
