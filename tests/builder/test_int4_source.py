"""Promise: an AWQ or GPTQ folder's weights are the checkpoint's, number for number, or refused.

What the checkpoint's weights are: TensorRT-LLM 1.2, weight = code * scale + zero, codes signed,
two output channels in a byte with the even one low.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from int4_files import CONFIGS, GROUP, INT4_FIELDS, write_folder
from model_files import converted, write_safetensors

from builder import safetensors_file
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert, planned
from builder.dtypes import Array
from builder.errors import ArtifactError, LimitError, ModelError
from builder.source import open_source

FORMS = [
    ("awq", {}),
    ("awq", {"version": "GEMM"}),
    ("gptq", {}),
    ("gptq", {"checkpoint_format": "gptq_v2"}),
]
HEADS, KV_HEADS = INT4_FIELDS["num_attention_heads"], INT4_FIELDS["num_key_value_heads"]
LAYER = "model.layers.1."


def weights(tensors: dict[str, Array]) -> dict[str, Array]:
    """What the linears of a rank compute with, [out, in], by name."""
    found = {}
    for name, packed in tensors.items():
        if packed.dtype != np.int8:
            continue
        prefix = name.removesuffix("weight")
        octets = packed.view(np.uint8).astype(np.int64)
        codes = np.empty((2 * len(octets), octets.shape[1]), np.int64)
        codes[0::2], codes[1::2] = octets & 15, octets >> 4
        signed = codes - 16 * (codes > 7)
        scales = tensors[f"{prefix}weights_scaling_factor"].astype(np.float64)
        zeros = tensors[f"{prefix}zero"].astype(np.float64).T
        found[name] = signed * scales.repeat(GROUP, axis=1) + zeros.repeat(GROUP, axis=1)
    return found


def share(matrix: Array, rank: int, of: int, axis: int) -> Array:
    return np.split(matrix, of, axis)[rank]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("method", "changes"), FORMS)
def test_every_weight_is_the_sources(
    tmp_path: Path, tiny_tokenizer: Path, method: str, changes: dict[str, Any], dtype: str
) -> None:
    truth = write_folder(tmp_path / "model", tiny_tokenizer, method, **changes)
    (tensors,) = converted(tmp_path / "model", tmp_path / "out", dtype=dtype)
    found = weights(tensors)
    prefix, hf = "transformer.layers.1.", LAYER + "self_attn."
    qkv = np.concatenate([truth[f"{hf}{each}_proj.weight"] for each in "qkv"])
    assert (found[f"{prefix}attention.qkv.weight"] == qkv).all()
    for ours, theirs in (
        ("attention.dense", "self_attn.o_proj"),
        ("mlp.fc", "mlp.gate_proj"),
        ("mlp.gate", "mlp.up_proj"),
        ("mlp.proj", "mlp.down_proj"),
    ):
        assert (found[f"{prefix}{ours}.weight"] == truth[f"{LAYER}{theirs}.weight"]).all()
    assert len(found) == 5 * INT4_FIELDS["num_hidden_layers"]


@pytest.mark.parametrize(("method", "tp"), [("awq", 2), ("gptq", 2), ("awq", 4), ("gptq", 4)])
def test_each_rank_has_its_own_share(
    tmp_path: Path, tiny_tokenizer: Path, method: str, tp: int
) -> None:
    truth = write_folder(tmp_path / "model", tiny_tokenizer, method)
    head = INT4_FIELDS["hidden_size"] // HEADS
    for rank, tensors in enumerate(converted(tmp_path / "model", tmp_path / "out", tp=tp)):
        found, prefix = weights(tensors), "transformer.layers.1."
        q, k, v = (truth[f"{LAYER}self_attn.{each}_proj.weight"] for each in "qkv")
        mine = slice(rank * KV_HEADS // tp * head, None)
        count = max(1, KV_HEADS // tp) * head
        parts = [share(q, rank, tp, 0), k[mine][:count], v[mine][:count]]
        assert (found[f"{prefix}attention.qkv.weight"] == np.concatenate(parts)).all()
        for ours, theirs, axis in (
            ("attention.dense", "self_attn.o_proj", 1),
            ("mlp.fc", "mlp.gate_proj", 0),
            ("mlp.gate", "mlp.up_proj", 0),
            ("mlp.proj", "mlp.down_proj", 1),
        ):
            whole = truth[f"{LAYER}{theirs}.weight"]
            assert (found[f"{prefix}{ours}.weight"] == share(whole, rank, tp, axis)).all()


def test_the_config_names_a_form_that_tensorrt_llm_arranges_itself(
    tmp_path: Path, tiny_tokenizer: Path
) -> None:
    write_folder(tmp_path / "model", tiny_tokenizer, "gptq")
    convert(tmp_path / "model", tmp_path / "out")
    stated = json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]
    assert stated == {
        "quant_algo": "W4A16_AWQ",
        "kv_cache_quant_algo": None,
        "group_size": GROUP,
        "has_zero_point": True,
        "pre_quant_scale": False,
        "exclude_modules": [
            "*lm_head",
            "*router",
            "*vocab_embedding",
            "*position_embedding",
            "*block_embedding",
            "*shared_expert_gate",
            "*fused_a",
        ],
    }


def test_a_plan_is_what_is_written(tmp_path: Path, tiny_tokenizer: Path) -> None:
    write_folder(tmp_path / "model", tiny_tokenizer, "awq")
    options = ConvertOptions(tp=2)
    plan = planned(tmp_path / "model", options)
    for rank, tensors in enumerate(converted(tmp_path / "model", tmp_path / "out", tp=2)):
        assert {t.name: t.shape for t in plan[rank]} == {n: a.shape for n, a in tensors.items()}


def change(folder: Path, name: str, array: Array | None) -> None:
    """Put another tensor in a folder, or none."""
    file = folder / "model.safetensors"
    tensors = {each: tensor.numpy().copy() for each, tensor in safetensors_file.read(file).items()}
    tensors.pop(name, None)
    write_safetensors(file, tensors if array is None else {**tensors, name: array})


def test_biases_of_zeros_that_gptq_writers_add_are_left_out_and_no_others(
    tmp_path: Path, tiny_tokenizer: Path
) -> None:
    folder, name = tmp_path / "model", f"{LAYER}mlp.up_proj.bias"
    write_folder(folder, tiny_tokenizer, "gptq")
    change(folder, name, np.zeros(512, np.float16))
    convert(folder, tmp_path / "out")
    change(folder, name, np.ones(512, np.float16))
    with pytest.raises(ModelError, match=r"no place in the checkpoint; found .*up_proj\.bias"):
        convert(folder, tmp_path / "out2")


@pytest.mark.parametrize(
    ("member", "array", "said"),
    [
        ("g_idx", np.arange(256, dtype=np.int32)[::-1] // GROUP, "order of activation"),
        ("qzeros", np.full((4, 64), -1, np.int32), "zero points that readers of GPTQ take diff"),
        ("scales", None, "don't make a quantized linear .*no scales"),
        ("scales", np.ones((2, 512), np.float16), r"don't make .*scales float16 \[2, 512\]"),
        ("qweight", np.ones((32, 512), np.int16), "no place in the checkpoint|lacks tensors"),
    ],
)
def test_a_tensor_that_would_be_misread_is_refused(
    tmp_path: Path, tiny_tokenizer: Path, member: str, array: Array | None, said: str
) -> None:
    folder = tmp_path / "model"
    write_folder(folder, tiny_tokenizer, "gptq")
    change(folder, f"{LAYER}mlp.up_proj.{member}", array)
    with pytest.raises(ModelError, match=said):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_quantized_head_is_refused(tmp_path: Path, tiny_tokenizer: Path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, tiny_tokenizer, "awq")
    change(folder, "lm_head.weight", None)
    for member, array in {
        "qweight": np.zeros((256, 48), np.int32),
        "qzeros": np.zeros((4, 48), np.int32),
        "scales": np.ones((4, 384), np.float16),
    }.items():
        change(folder, f"lm_head.{member}", array)
    with pytest.raises(ModelError, match=r"lm_head\.weight unquantized only"):
        convert(folder, tmp_path / "out")


def test_a_folder_that_is_quantized_in_words_only_is_refused(tiny_folder: Path) -> None:
    fields = json.loads((tiny_folder / "config.json").read_text())
    fields["quantization_config"] = {"quant_method": "gptq", **CONFIGS["gptq"]}
    (tiny_folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match=r"stated to be quantized \(GPTQ\), but no linear is"):
        open_source(tiny_folder)


def test_a_division_that_tensorrt_llm_would_pad_is_refused(
    tmp_path: Path, tiny_tokenizer: Path
) -> None:
    write_folder(tmp_path / "model", tiny_tokenizer, "awq", intermediate_size=320)
    convert(tmp_path / "model", tmp_path / "one")
    said = r"mlp\.fc\.weight can't be divided over 2 .* 320 outputs .* multiples of 128"
    with pytest.raises(LimitError, match=said):
        convert(tmp_path / "model", tmp_path / "two", options=ConvertOptions(tp=2))


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"recipe": "int8_wo"}])
def test_what_a_quantized_model_cannot_be_converted_to_is_refused(
    tmp_path: Path, tiny_tokenizer: Path, options: dict[str, Any]
) -> None:
    write_folder(tmp_path / "model", tiny_tokenizer, "awq")
    with pytest.raises(LimitError, match=next(iter(options.values()))):
        convert(tmp_path / "model", tmp_path / "out", options=ConvertOptions(**options))


def test_check_finds_a_quantized_tensor_of_another_shape(
    tmp_path: Path, tiny_tokenizer: Path
) -> None:
    write_folder(tmp_path / "model", tiny_tokenizer, "awq")
    (mapped,) = converted(tmp_path / "model", tmp_path / "out")
    tensors = {name: array.copy() for name, array in mapped.items()}
    (tmp_path / "out" / "trtbuild.json").unlink()
    name = "transformer.layers.0.mlp.fc.zero"
    for wrong, said in (
        ({name: tensors[name].T.copy()}, rf"{name} float16 \[512, 4\], expected float16"),
        ({"transformer.layers.0.mlp.fc.bias": tensors[name][0]}, "too many"),
    ):
        write_safetensors(tmp_path / "out" / "rank0.safetensors", tensors | wrong)
        with pytest.raises(ArtifactError, match=said):
            check(tmp_path / "out")
    del tensors[name]
    write_safetensors(tmp_path / "out" / "rank0.safetensors", tensors)
    with pytest.raises(ArtifactError, match=f"lacks tensors; found {name}"):
        check(tmp_path / "out")
