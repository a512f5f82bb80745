"""Promise: a linear's matrix is the one that its codes and scales stand for, in every form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from int4_files import write_folder
from model_files import write_safetensors

from builder import dequantize, safetensors_file, weight_only
from builder.checkpoint import Checkpoint
from builder.convert import ConvertOptions, convert
from builder.dequantize import Coding, coded_linear, dequantized
from builder.dtypes import Array
from builder.errors import ArtifactError

LAYER = "transformer.layers.0."
MODULES = {
    "attention.dense": ("self_attn.o_proj",),
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.fc": ("mlp.gate_proj",),
    "mlp.gate": ("mlp.up_proj",),
    "mlp.proj": ("mlp.down_proj",),
}


def norm_error(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.reference
@pytest.mark.parametrize(
    # int8: the export rounds the inputs' scales to bfloat16. int4: and takes some codes otherwise.
    ("config", "tolerance"),
    [("fp8", 1e-6), ("int8_sq", 2e-3), ("int4_awq", 0.015), ("w4a8_awq", 0.015)],
)
def test_matrices_are_those_of_modelopts_fake_quantized_model(
    tmp_path: Path, config: str, tolerance: float
) -> None:
    import modelopt_quantized as modelopt
    import torch

    model = modelopt.quantize("llama", config=config)
    source = Checkpoint.open(modelopt.export(model, tmp_path / "out"))
    tensors, layer = source.tensors(), model.float().model.layers[0]
    for module, names in MODULES.items():
        parts = []
        for linear in map(layer.get_submodule, names):
            with torch.no_grad():
                weight = linear.weight_quantizer(linear.weight)
            scale = linear.input_quantizer.pre_quant_scale
            parts.append((weight if scale is None else weight * scale).numpy())
        found = dequantized(source.config, tensors, LAYER + module)
        assert norm_error(found, np.concatenate(parts)) < tolerance


@pytest.mark.reference
def test_fp4_is_what_modelopt_makes_of_its_own_codes(tmp_path: Path) -> None:
    import modelopt_quantized as modelopt
    import torch
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor

    model = modelopt.quantize("llama", config="nvfp4")
    source = Checkpoint.open(modelopt.export(model, tmp_path / "out"))
    tensors = source.tensors()
    module = f"{LAYER}mlp.proj"
    codes, scale, second = (
        torch.from_numpy(tensors[f"{module}.{role}"].numpy().copy().view(kind))
        for role, kind in (
            ("weight", np.uint8),
            ("weights_scaling_factor", np.uint8),
            ("weights_scaling_factor_2", np.float32),
        )
    )
    shape = torch.Size((codes.shape[0], 2 * codes.shape[1]))
    expected = NVFP4QTensor(shape, torch.float32, codes).dequantize(
        dtype=torch.float32,
        scale=scale.view(torch.float8_e4m3fn),
        double_scale=second,
        block_sizes={-1: 16},
    )
    found = dequantized(source.config, tensors, module)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_int4_with_zeros_is_the_sources_weights(
    tmp_path: Path, tiny_tokenizer: Path, method: str
) -> None:
    truth = write_folder(tmp_path / "model", tiny_tokenizer, method)
    convert(tmp_path / "model", tmp_path / "out")
    source = Checkpoint.open(tmp_path / "out")
    for module, names in MODULES.items():
        expected = np.concatenate([truth[f"model.layers.0.{name}.weight"] for name in names])
        found = dequantized(source.config, source.tensors(), LAYER + module)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("recipe", "bits"), [("int8_wo", 8), ("int4_wo", 4)])
def test_weight_only_is_what_the_loader_makes(
    tiny_folder: Path, tmp_path: Path, recipe: str, bits: int
) -> None:
    """By the loader's words, a number at a time: the scale is amax / 2^(bits - 1)."""
    convert(tiny_folder, tmp_path / "out", options=ConvertOptions(recipe=recipe))
    source = Checkpoint.open(tmp_path / "out")
    tensors, module = source.tensors(), f"{LAYER}mlp.proj"
    stored = tensors[f"{module}.weight"].numpy()
    found = dequantized(source.config, tensors, module)
    most = 2 ** (bits - 1)
    for row in (0, 7):
        scale = np.float32(max(abs(float(each)) for each in stored[row])) / np.float32(most)
        kept = np.float32(scale.astype(stored.dtype))
        for column in range(stored.shape[1]):
            parts = np.float32(stored[row, column]) / scale
            code = int(abs(parts) + np.float32(0.5)) * (1 if parts > 0 else -1)
            assert found[row, column] == np.float32(min(max(code, -most), most - 1)) * kept


def test_the_loader_leaves_other_tensors_as_they_are() -> None:
    block = {"quant_algo": "W8A16"}
    layer = "transformer.layers.3."
    for module in ("attention.qkv", "attention.dense", "mlp.fc", "mlp.gate", "mlp.proj"):
        assert weight_only.bits(layer + module, block) == 8
        assert weight_only.bits(layer + module, {"quant_algo": "W4A16"}) == 4
        assert weight_only.bits(layer + module, {"quant_algo": "FP8"}) == 0
        assert weight_only.bits(layer + module, {**block, "exclude_modules": [f"*{module}"]}) == 0
    for module in ("mlp.router", "mlp.shared_expert_gate", "input_layernorm", "mlp.q_layernorm"):
        assert weight_only.bits(layer + module, block) == 0
    assert weight_only.bits("lm_head", block) == weight_only.bits("transformer.ln_f", block) == 0


def test_rows_of_a_matrix_are_those_of_the_whole_whatever_the_block(
    tmp_path: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "model", tiny_tokenizer, "awq")
    convert(tmp_path / "model", tmp_path / "out")
    source = Checkpoint.open(tmp_path / "out")
    tensors, module = source.tensors(), f"{LAYER}mlp.fc"
    whole = dequantized(source.config, tensors, module)
    assert (dequantized(source.config, tensors, module, slice(6, 50)) == whole[6:50]).all()
    monkeypatch.setattr(dequantize, "BLOCK_NUMBERS", 256 * 10)
    linear = coded_linear(source.config, tensors, module)
    assert len(list(linear.places())) == -(-512 // 10)
    assert (dequantized(source.config, tensors, module) == whole).all()


def stored(folder: Path, **members: Array) -> dict[str, Any]:
    file = folder / "some.safetensors"
    write_safetensors(file, {f"linear.{role}": array for role, array in members.items()})
    return dict(safetensors_file.read(file))


def test_experts_have_scales_of_their_own(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(-20, 20, (3, 4, 6)).astype(np.float32)
    f8 = codes.astype(dequantize.NUMPY["float8_e4m3fn"])
    scales = np.array([[0.5], [2.0], [4.0]], np.float32)
    tensors = stored(tmp_path, weight=f8, weights_scaling_factor=scales)
    found = dequantized({}, tensors, "linear")
    assert (found == f8.astype(np.float32) * scales[:, :, None]).all()


def test_fp8_that_is_stored_as_int8_is_known_by_its_single_scale(tmp_path: Path) -> None:
    bits = np.arange(0, 64, dtype=np.int8).reshape(8, 8)
    one = np.ones(1, np.float32)
    tensors = stored(tmp_path, weight=bits, weights_scaling_factor=one)
    assert coded_linear({}, tensors, "linear").coding is Coding.FP8
    expected = bits.view(dequantize.NUMPY["float8_e4m3fn"]).astype(np.float32)
    assert (dequantized({}, tensors, "linear") == expected).all()


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"weight": np.zeros((4, 8), np.int8)},
        {"weight": np.zeros((4, 8), np.int8), "weights_scaling_factor": np.ones(5, np.float32)},
        {"weight": np.zeros((4, 8), np.float32), "weights_scaling_factor": np.ones(4, np.float32)},
    ],
)
def test_tensors_that_make_no_known_linear_are_refused(
    tmp_path: Path, members: dict[str, Array]
) -> None:
    tensors = stored(tmp_path, other=np.zeros(1, np.float32), **members)
    with pytest.raises(ArtifactError, match="linear make no linear that is known"):
        dequantized({}, tensors, "linear")
