"""Promise: a quantization is taken for what its folder says it is, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ModelError
from builder.source.hf_quantization import Format, Quantization, quantization

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
FP8_CACHE = {"dynamic": False, "num_bits": 8, "type": "float"}
FP4 = {"group_0": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}}


def modelopt(algo: str, **more: Any) -> dict[str, Any]:
    return {"quant_method": "modelopt", "quant_algo": algo, **more}


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        (AWQ, Quantization(format=Format.AWQ, group_size=128)),
        ({**AWQ, "group_size": 64}, Quantization(format=Format.AWQ, group_size=64)),
        (GPTQ, Quantization(format=Format.GPTQ, group_size=128)),
        ({**GPTQ, "checkpoint_format": "gptq"}, Quantization(format=Format.GPTQ, group_size=128)),
        (
            {**GPTQ, "checkpoint_format": "gptq_v2"},
            Quantization(format=Format.GPTQ_V2, group_size=128),
        ),
        (modelopt("FP8"), Quantization(format=Format.FP8)),
        (
            modelopt("FP8", kv_cache_scheme=FP8_CACHE),
            Quantization(format=Format.FP8, kv_cache="FP8"),
        ),
        (
            modelopt("NVFP4", config_groups=FP4),
            Quantization(format=Format.NVFP4, group_size=16),
        ),
        ({"quant_library": "modelopt", "quant_algo": "FP8"}, Quantization(format=Format.FP8)),
        (None, None),
    ],
)
def test_config_json_says_what_it_is(
    tmp_path: Path, stated: dict[str, Any] | None, found: Quantization | None
) -> None:
    assert quantization(tmp_path, {"quantization_config": stated}) == found


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        (
            {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
            Quantization(format=Format.FP8, kv_cache="FP8"),
        ),
        (
            {"quant_algo": "W4A16_AWQ", "group_size": 64, "pre_quant_scale": True},
            Quantization(format=Format.INT4, group_size=64),
        ),
    ],
)
def test_modelopts_own_file_comes_first(
    tmp_path: Path, stated: dict[str, Any], found: Quantization
) -> None:
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": stated}))
    assert quantization(tmp_path, {}) == found
    assert quantization(tmp_path, {"quantization_config": modelopt("NVFP4")}) == found


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "fbgemm_fp8"}, "for rows; .*fbgemm_fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "blocks .*fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "no TensorRT-LLM kernel"),
        ({"quant_method": "mxfp4"}, "never had it"),
        ({"quant_method": "hqq"}, "hqq"),
        ({"bits": 4}, "an unknown method"),
        ({**AWQ, "version": "gemv"}, "save it again .*version 'gemv'"),
        ({**AWQ, "bits": 8}, "bits 8"),
        ({**AWQ, "zero_point": False}, "zero_point False"),
        ({**AWQ, "backend": "llm-awq"}, "backend 'llm-awq'"),
        ({**AWQ, "group_size": 32}, "64 or 128; found group_size 32"),
        ({**GPTQ, "bits": 8}, "4-bit weights only; found quantization_config.bits 8"),
        ({**GPTQ, "desc_act": True}, "order of activation; .*desc_act true"),
        ({**GPTQ, "group_size": -1}, "group_size -1"),
        ({**GPTQ, "checkpoint_format": "marlin"}, "'marlin'"),
        ({**GPTQ, "is_marlin_format": True}, "marlin"),
        (modelopt("MIXED_PRECISION"), "known are FP8, NVFP4, W4A16_AWQ; .*'MIXED_PRECISION'"),
        (modelopt("W8A8_SQ_PER_CHANNEL"), "W8A8_SQ_PER_CHANNEL"),
        (modelopt("FP8", kv_cache_scheme="NVFP4"), "only FP8 is known; .*'NVFP4'"),
        (modelopt("NVFP4", group_size=32), "only 16"),
    ],
)
def test_what_cannot_be_converted_rightly_is_refused_with_the_reason(
    tmp_path: Path, stated: Any, said: str
) -> None:
    with pytest.raises(ModelError, match=f"already quantized .*{said}.*start from the unquantized"):
        quantization(tmp_path, {"quantization_config": stated})


def test_a_file_of_modelopts_without_its_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hf_quant_config.json").write_text("[]")
    with pytest.raises(ModelError, match="no object quantization"):
        quantization(tmp_path, {})
