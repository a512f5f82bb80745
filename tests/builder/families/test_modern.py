"""The newer dense families: tensors are ModelOpt's, configs are those of TensorRT-LLM's classes.

ModelOpt has configs of only some of them without an installed TensorRT-LLM, but tensors of all.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare import LAYOUTS, arrays_of, explained, unlike_modelopt
from modern_fields import read
from modern_models import LONG, TINY, save

from builder.convert import ConvertOptions, convert
from builder.errors import LimitError

WITHOUT_HEAD = "ModelOpt leaves a tied head out; ours is explicit, as for every family"
WITHOUT_GATE = (
    "ModelOpt gives the first ranks all of up and the last all of gate; TensorRT-LLM's MLP halves "
    "each rank's share, so each needs some of both (layers/mlp.py; its chatglm/convert.py does so)"
)
WHOLE_NORMS = (
    "ModelOpt gives every rank all heads' norms; TensorRT-LLM's Attention has those of its own"
)
DIFFERENCES: dict[str, dict[str, str]] = {
    "gemma": {"lm_head.weight": WITHOUT_HEAD},
    "gemma2": {"lm_head.weight": WITHOUT_HEAD},
    "gemma2_uncapped": {"lm_head.weight": WITHOUT_HEAD},
    "gemma3": {"lm_head.weight": WITHOUT_HEAD},
    "phi3": {"*.mlp.fc.weight": WITHOUT_GATE},
    "phi3_long": {"*.mlp.fc.weight": WITHOUT_GATE},
    "glm": {"*.mlp.fc.weight": WITHOUT_GATE},
    "cohere_norm": {
        "*.attention.q_layernorm.weight": WHOLE_NORMS,
        "*.attention.k_layernorm.weight": WHOLE_NORMS,
    },
}
"""Model → tensors that ours and ModelOpt's don't have alike, with the reason."""

ONE_STAGE = ("phi", "phi3", "phi3_long", "glm")
"""Models that TensorRT-LLM's classes can't divide over pipeline ranks."""


@pytest.fixture(scope="session")
def modern_models(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path
) -> dict[str, Path]:
    """Name → Hugging Face folder of every model in TINY."""
    root = tmp_path_factory.mktemp("modern")
    return {name: save(root / name, name, tiny_tokenizer) for name in TINY}


@pytest.mark.reference
@pytest.mark.parametrize("name", TINY)
def test_every_tensor_is_modelopts_but_for_those_that_are_told_of(
    modern_models: dict[str, Path], tmp_path: Path, name: str
) -> None:
    patterns = set(DIFFERENCES.get(name, {}))
    met: set[str] = set()
    for index, layout in enumerate(LAYOUTS):
        if name not in ONE_STAGE or "pp" not in layout:
            found = unlike_modelopt(modern_models[name], tmp_path / str(index), layout)
            met |= explained(found, patterns)
    assert met == patterns


@pytest.mark.reference
@pytest.mark.parametrize("name", ONE_STAGE)
def test_what_upstream_cannot_divide_over_pipeline_ranks_is_refused(
    modern_models: dict[str, Path], tmp_path: Path, name: str
) -> None:
    with pytest.raises(LimitError, match=r"pipeline ranks.*--tp"):
        convert(modern_models[name], tmp_path / "out", options=ConvertOptions(pp=2))


@pytest.mark.reference
@pytest.mark.parametrize("name", ["phi3", "glm"])
def test_each_rank_of_a_fused_gate_has_its_share_of_up_then_of_gate(
    modern_models: dict[str, Path], tmp_path: Path, name: str
) -> None:
    for tp in (1, 2):
        convert(modern_models[name], tmp_path / str(tp), options=ConvertOptions(tp=tp))
    whole = arrays_of(tmp_path / "1")["transformer.layers.0.mlp.fc.weight"]
    up, gate = np.split(whole, 2)
    for rank in range(2):
        share = arrays_of(tmp_path / "2", rank)["transformer.layers.0.mlp.fc.weight"]
        wanted = np.concatenate([np.split(up, 2)[rank], np.split(gate, 2)[rank]])
        assert share.tobytes() == wanted.tobytes()


# Configs: what TensorRT-LLM's config classes read, from config.json as transformers writes it.

CONFIGS: dict[str, dict[str, Any]] = {
    "gemma": {
        "hidden_act": "gelu_pytorch_tanh",
        "head_size": 64,
        "rotary_base": 10000.0,
        "inter_layernorms": False,
        "sliding_window": None,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        "inter_layernorms": True,
        "query_pre_attn_scalar": 96,
        "final_logit_softcapping": 3.0,
        "attn_logit_softcapping": 5.0,
        "runtime_defaults": {"kv_cache_config": {"max_attention_window": [16, 512]}},
    },
    "gemma2_uncapped": {"final_logit_softcapping": None, "attn_logit_softcapping": None},
    "gemma3": {
        "inter_layernorms": True,
        "qk_layernorm": True,
        "query_pre_attn_scalar": 96,
        "rotary_base": 1000000.0,
        "rope_local_base_freq": 100.0,
        "sliding_window": 16,
        "_sliding_window_pattern": 3,
        "runtime_defaults": {"kv_cache_config": {"max_attention_window": [16, 16, 512]}},
    },
    "phi": {
        "rotary_pct": 0.5,
        "hidden_act": "gelu_new",
        "num_key_value_heads": 4,
        "norm_epsilon": 1e-5,
    },
    "phi3": {
        "hidden_act": "swiglu",
        "rotary_pct": 1.0,
        "position_embedding_type": "rope_gpt_neox",
    },
    "phi3_long": {
        "hidden_act": "swiglu",
        "rotary_pct": 0.75,
        "rotary_scaling": None,
        "position_embedding_type": "long_rope",
        "original_max_position_embeddings": 128,
        "longrope_scaling_short_factors": LONG["short_factor"],
        "longrope_scaling_long_factors": LONG["long_factor"],
    },
    "cohere": {
        "position_embedding_type": "rope_gptj",
        "output_multiplier_scale": 0.25,
        "qk_layernorm": False,
        "attn_bias": False,
    },
    "cohere_norm": {"qk_layernorm": True, "attn_bias": True, "output_multiplier_scale": 0.0625},
    "granite": {
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.25 * math.sqrt(32),
        "output_multiplier_scale": 0.5,
        "mlp_bias": True,
    },
    "glm": {
        "architecture": "ChatGLMForCausalLM",
        "chatglm_version": "glm4",
        "position_embedding_type": "rope_gptj",
        "rotary_pct": 0.5,
        "hidden_act": "swiglu",
        "add_qkv_bias": True,
        "add_bias_linear": False,
        "rmsnorm": True,
        "apply_query_key_layer_scaling": False,
        "apply_residual_connection_post_layernorm": False,
    },
}


@pytest.mark.reference
@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_is_what_tensorrt_llms_class_reads(
    modern_models: dict[str, Path], name: str
) -> None:
    config = read(json.loads((modern_models[name] / "config.json").read_text()))
    assert {field: config[field] for field in CONFIGS[name]} == CONFIGS[name]
