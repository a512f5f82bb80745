"""Promise: ModelOpt's Hugging Face folder gives the checkpoint that ModelOpt itself exports.

Both exports are of one quantized model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import converted, write_safetensors

from builder import safetensors_file
from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.dtypes import NUMPY, Array
from builder.errors import LimitError, ModelError
from builder.safetensors_file import StoredTensor

pytestmark = pytest.mark.reference

LAYOUTS: tuple[dict[str, Any], ...] = ({}, {"tp": 2, "parallel_embedding": True}, {"pp": 2})
CASES = ("llama-fp8", "mixtral-fp8", "gpt2-fp8", "llama-nvfp4", "gpt2-int4_awq", "llama-int4_awq")
FP8 = NUMPY["float8_e4m3fn"]

DIFFERENCES = {
    "*-fp8": {
        "*.k_cache_scaling_factor": "the loader only joins it to kv_cache_scaling_factor",
        "*.v_cache_scaling_factor": "the same",
        "*.weight": "ModelOpt divides by scales in bfloat16 here, in float32 there",
    },
    "*-nvfp4": {
        "*scaling_factor*": "single numbers have dimension [1], as TensorRT-LLM declares them",
    },
    "llama-int4_awq": {
        "*.qkv.*": "the scales of the inputs are in the norms",
        "*.mlp.fc.*": "the same, and gate's and up's are one, so their weights are scaled anew",
        "*.mlp.gate.*": "the same",
        "*.input_layernorm.weight": "the same",
        "*.post_layernorm.weight": "the same",
    },
}
"""Case → pattern of tensors that differ on purpose → why. What else holds of them is asserted."""


class Exports:
    """A quantized model's Hugging Face folder, and ModelOpt's checkpoint for each layout."""

    def __init__(self, root: Path, case: str, tokenizer: Path) -> None:
        import modelopt_quantized as modelopt

        name, config = case.split("-")
        model = modelopt.quantize(name, config=config, fp8_kv_cache=config == "fp8")
        self.checkpoints = [
            modelopt.export(
                model, root / f"reference{n}", tp=layout.get("tp", 1), pp=layout.get("pp", 1)
            )
            for n, layout in enumerate(LAYOUTS)
        ]
        self.folder = modelopt.export_huggingface(model, root / "model", tokenizer)


@pytest.fixture(scope="module")
def exports(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path
) -> Callable[[str], Exports]:
    made: dict[str, Exports] = {}

    def get(case: str) -> Exports:
        if case not in made:
            made[case] = Exports(tmp_path_factory.mktemp(case), case, tiny_tokenizer)
        return made[case]

    return get


@pytest.fixture
def own(
    tmp_path: Path, exports: Callable[[str], Exports]
) -> Callable[[str, Mapping[str, Array | None]], Path]:
    """A copy of a case's folder with some tensors replaced, or (None) left out."""

    def get(case: str, changes: Mapping[str, Array | None]) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(exports(case).folder, folder)
        tensors = stored(folder) | changes
        kept = {name: array for name, array in tensors.items() if array is not None}
        write_safetensors(folder / "model.safetensors", kept)
        return folder

    return get


def stored(folder: Path) -> dict[str, Any]:
    tensors = safetensors_file.read(folder / "model.safetensors")
    return {name: tensor.numpy().copy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
@pytest.mark.parametrize("case", CASES)
def test_the_checkpoint_is_modelopts(
    exports: Callable[[str], Exports], tmp_path: Path, case: str, layout: int
) -> None:
    convert(exports(case).folder, tmp_path / "out", options=ConvertOptions(**LAYOUTS[layout]))
    check(tmp_path / "out")
    ours = Checkpoint.open(tmp_path / "out")
    theirs = Checkpoint.open(exports(case).checkpoints[layout])
    told = [why for each, why in DIFFERENCES.items() if fnmatchcase(case, each)]
    patterns = {pattern for table in told for pattern in table}
    for rank in range(ours.layout.files):
        unlike = dict(differing(ours.tensors(rank), theirs.tensors(rank)))
        assert not [n for n in unlike if not any(fnmatchcase(n, each) for each in patterns)]
        for name, (mine, other) in unlike.items():
            if case.endswith("-fp8") and name.endswith(".weight"):
                steps = bits(mine).astype(int) - bits(other)
                assert np.abs(steps).max() == 1
                assert (steps != 0).mean() < 0.1
            elif case.endswith("-nvfp4"):
                assert (mine.shape, other.shape) == ((1,), ())
                assert (bits(mine) == bits(other)).all()
    mine, other = (checkpoint.config["quantization"] for checkpoint in (ours, theirs))
    assert [mine[k] for k in other if k != "exclude_modules"] == [
        other[k] for k in other if k != "exclude_modules"
    ]


def differing(
    ours: Mapping[str, StoredTensor], theirs: Mapping[str, StoredTensor]
) -> Iterator[tuple[str, tuple[Array, Array]]]:
    nothing = np.zeros(0)
    for name in ours.keys() | theirs.keys():
        if name not in ours:
            yield name, (nothing, theirs[name].numpy())
        elif name not in theirs:
            yield name, (ours[name].numpy(), nothing)
        elif (ours[name].dtype, ours[name].shape, bytes(ours[name].data())) != (
            theirs[name].dtype,
            theirs[name].shape,
            bytes(theirs[name].data()),
        ):
            yield name, (ours[name].numpy(), theirs[name].numpy())


def bits(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def test_fp8_weights_are_the_folders_own_bytes(
    exports: Callable[[str], Exports], tmp_path: Path
) -> None:
    source = stored(exports("llama-fp8").folder)
    (tensors,) = converted(exports("llama-fp8").folder, tmp_path / "out")
    hf, ours = "model.layers.1.", "transformer.layers.1."
    qkv = np.concatenate([source[f"{hf}self_attn.{each}_proj.weight"] for each in "qkv"])
    assert (bits(tensors[f"{ours}attention.qkv.weight"]) == bits(qkv)).all()
    up = source[f"{hf}mlp.up_proj.weight"]
    assert (bits(tensors[f"{ours}mlp.gate.weight"]) == bits(up)).all()


def test_scales_of_inputs_that_the_folder_has_in_the_norms_are_the_same_all_in_all(
    exports: Callable[[str], Exports], tmp_path: Path
) -> None:
    (ours,) = converted(exports("llama-int4_awq").folder, tmp_path / "out")
    other = Checkpoint.open(exports("llama-int4_awq").checkpoints[0]).tensors()
    theirs = {name: tensor.numpy() for name, tensor in other.items()}
    prefix = "transformer.layers.0."
    qkv = f"{prefix}attention.qkv.weight"
    assert (bits(ours[qkv]) == bits(theirs[qkv])).all()
    mine, given = (
        each[f"{prefix}input_layernorm.weight"].astype(np.float32)
        * each[f"{prefix}attention.qkv.prequant_scaling_factor"].astype(np.float32)
        for each in (ours, theirs)
    )
    np.testing.assert_allclose(mine, given, rtol=2**-7)


def test_joined_parts_with_several_scales_are_rounded_anew_to_the_largest(
    own: Callable[..., Path], tmp_path: Path
) -> None:
    name = "model.layers.0.self_attn.{}_proj.weight_scale"
    scales = {
        each: np.float32(scale) for each, scale in zip("qkv", (0.01, 0.004, 0.0003), strict=True)
    }
    changes = {name.format(each): np.array(scale) for each, scale in scales.items()}
    folder = own("llama-fp8", changes)
    (tensors,) = converted(folder, tmp_path / "out")
    source, prefix = stored(folder), "transformer.layers.0.attention.qkv."
    assert tensors[f"{prefix}weights_scaling_factor"] == scales["q"]
    codes = np.arange(256, dtype=np.uint8).view(FP8).astype(np.float64)
    grid = np.unique(codes[np.isfinite(codes)]) * np.float64(scales["q"])
    found = np.split(tensors[f"{prefix}weight"].astype(np.float64), [256, 384])
    for each, weights in zip("qkv", found, strict=True):
        true = source[f"model.layers.0.self_attn.{each}_proj.weight"].astype(np.float64)
        true *= np.float64(scales[each])
        after = np.clip(np.searchsorted(grid, true), 1, len(grid) - 1)
        best = np.minimum(np.abs(grid[after] - true), np.abs(grid[after - 1] - true))
        error = np.abs(weights * np.float64(scales["q"]) - true)
        assert (error <= best * (1 + 1e-4) + 1e-12).all()


def test_nvfp4_parts_that_do_not_share_their_scale_are_refused(
    own: Callable[..., Path], tmp_path: Path
) -> None:
    name = "model.layers.0.self_attn.v_proj.weight_scale_2"
    folder = own("llama-nvfp4", {name: np.array(0.5, np.float32)})
    with pytest.raises(ModelError, match="need one weight_scale_2"):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def plain(source: dict[str, Any], linear: str) -> dict[str, Array | None]:
    """The changes that leave a linear unquantized."""
    shape = source[f"{linear}.weight"].shape
    weight = np.random.default_rng(0).standard_normal(shape).astype(NUMPY["bfloat16"])
    return {
        f"{linear}.weight": weight,
        f"{linear}.weight_scale": None,
        f"{linear}.input_scale": None,
    }


def test_a_linear_left_plain_is_named_in_the_config_and_copied(
    exports: Callable[[str], Exports], own: Callable[..., Path], tmp_path: Path
) -> None:
    changes = plain(stored(exports("llama-fp8").folder), "model.layers.1.mlp.down_proj")
    folder = own("llama-fp8", changes)
    (tensors,) = converted(folder, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization"]["exclude_modules"][7:] == ["transformer.layers.1.mlp.proj"]
    name = "transformer.layers.1.mlp.proj.weight"
    assert (bits(tensors[name]) == bits(changes["model.layers.1.mlp.down_proj.weight"])).all()
    with pytest.raises(
        LimitError, match=r"layers\.0\.mlp\.proj must be quantized alike on all ranks"
    ):
        convert(folder, tmp_path / "two", options=ConvertOptions(pp=2))


def test_linears_that_all_layers_leave_plain_can_be_named_for_every_pipeline_rank(
    exports: Callable[[str], Exports], own: Callable[..., Path], tmp_path: Path
) -> None:
    source = stored(exports("llama-fp8").folder)
    changes = plain(source, "model.layers.0.self_attn.o_proj")
    changes |= plain(source, "model.layers.1.self_attn.o_proj")
    converted(own("llama-fp8", changes), tmp_path / "out", pp=2)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization"]["exclude_modules"][7:] == ["transformer.layers.0.attention.dense"]


def test_parts_of_which_one_is_plain_are_refused(
    exports: Callable[[str], Exports], own: Callable[..., Path], tmp_path: Path
) -> None:
    source = stored(exports("llama-fp8").folder)
    folder = own("llama-fp8", plain(source, "model.layers.0.self_attn.q_proj"))
    with pytest.raises(ModelError, match=r"attention\.qkv\.weight joins .* one format only"):
        convert(folder, tmp_path / "out")


def test_an_fp8_kv_cache_has_a_scale_for_each_layer_that_is_one_at_least(
    own: Callable[..., Path], tmp_path: Path
) -> None:
    name = "model.layers.1.self_attn.{0}_proj.{0}_scale"
    folder = own(
        "llama-fp8",
        {
            "model.layers.0.self_attn.k_proj.k_scale": None,
            "model.layers.0.self_attn.v_proj.v_scale": None,
            name.format("k"): np.array(0.25, np.float32),
            name.format("v"): np.array(1.5, np.float32),
        },
    )
    (tensors,) = converted(folder, tmp_path / "out")
    factor = "transformer.layers.{}.attention.kv_cache_scaling_factor"
    assert [tensors[factor.format(layer)][0] for layer in (0, 1)] == [1.0, 1.5]


def test_expert_parallel_ranks_have_their_experts_scales(
    exports: Callable[[str], Exports], tmp_path: Path
) -> None:
    folder = exports("mixtral-fp8").folder
    (whole,) = converted(folder, tmp_path / "one")
    halves = converted(folder, tmp_path / "two", tp=2, moe_ep=2)
    for module in ("mlp.fc", "mlp.proj"):
        for last in ("weight", "weights_scaling_factor"):
            name = f"transformer.layers.1.{module}.{last}"
            joined = np.concatenate([half[name] for half in halves])
            assert (bits(joined) == bits(whole[name])).all()


def test_experts_left_plain_are_taken_out_as_a_whole(
    exports: Callable[[str], Exports], own: Callable[..., Path], tmp_path: Path
) -> None:
    source = stored(exports("mixtral-fp8").folder)
    changes: dict[str, Array | None] = {}
    for name in source:
        if ".experts." in name and ".layers.0." in name and name.endswith(".weight"):
            changes |= plain(source, name.removesuffix(".weight"))
    converted(own("mixtral-fp8", changes), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert set(config["quantization"]["exclude_modules"][7:]) == {
        "transformer.layers.0.mlp",
        "transformer.layers.0.mlp.fc",
        "transformer.layers.0.mlp.proj",
    }


def test_nvfp4_experts_are_refused(
    exports: Callable[[str], Exports], tmp_path: Path, tiny_tokenizer: Path
) -> None:
    import modelopt_quantized as modelopt

    model = modelopt.quantize("mixtral", config="nvfp4")
    folder = modelopt.export_huggingface(model, tmp_path / "model", tiny_tokenizer)
    with pytest.raises(LimitError, match=r"experts in FP8 or unquantized.*llmapi"):
        convert(folder, tmp_path / "out")
