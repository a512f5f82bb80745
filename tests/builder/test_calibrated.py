"""Promise: a checkpoint made from a calibration is the one that ModelOpt exports, byte for byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from test_quantized_source import bits, differing

from builder.calibration import Calibration
from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, Quantizing, convert
from builder.errors import ArtifactError, LimitError, ModelError
from builder.plan import plan
from builder.source import open_source
from builder.source.calibrated import calibrated, stand_in
from builder.source.hf_quantization import Format

pytestmark = pytest.mark.reference

LAYOUTS: tuple[dict[str, Any], ...] = ({}, {"tp": 2, "parallel_embedding": True}, {"pp": 2})
CASES = (
    *(f"llama-{config}" for config in ("fp8", "int8_sq", "int4_awq", "w4a8_awq", "nvfp4")),
    *(f"gpt2-{config}" for config in ("fp8", "int8_sq", "int4_awq", "w4a8_awq")),
    "qwen2-int4_awq",
    "qwen2-w4a8_awq",
    "qwen3-int8_sq",
    "nemotron-int4_awq",
    "gemma-int8_sq",
    "mixtral-fp8",
)
DIFFERENCES = {
    "*": {
        "*.[kv]_cache_scaling_factor": "the loader only joins them to kv_cache_scaling_factor",
    },
    "gemma-*": {"lm_head.weight": "written although it is the embedding, for pipeline ranks"},
    "*-nvfp4": {"*scaling_factor*": "single numbers have dimension [1], as TensorRT-LLM has them"},
}


class Calibrated:
    """A model's folder, what ModelOpt found of it, and ModelOpt's checkpoint of each layout."""

    def __init__(self, root: Path, case: str, tokenizer: Path) -> None:
        import modelopt_quantized as modelopt

        name, config = case.split("-")
        self.folder = modelopt.save(name, root / "model", tokenizer)
        model, self.calibration = modelopt.calibrated(name, config=config)
        self.checkpoints = [
            modelopt.export(
                model, root / f"reference{n}", tp=layout.get("tp", 1), pp=layout.get("pp", 1)
            )
            for n, layout in enumerate(LAYOUTS)
        ]


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path
) -> Callable[[str], Calibrated]:
    made: dict[str, Calibrated] = {}

    def get(case: str) -> Calibrated:
        if case not in made:
            made[case] = Calibrated(tmp_path_factory.mktemp(case), case, tiny_tokenizer)
        return made[case]

    return get


def write(model: Path, calibration: Calibration, out: Path, **options: Any) -> Checkpoint:
    quantizing = Quantizing(calibrate=lambda _: calibration)
    convert(model, out, options=ConvertOptions(**options), quantizing=quantizing)
    check(out)
    return Checkpoint.open(out)


@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
@pytest.mark.parametrize("case", CASES)
def test_every_byte_is_modelopts(
    models: Callable[[str], Calibrated], tmp_path: Path, case: str, layout: int
) -> None:
    model = models(case)
    ours = write(model.folder, model.calibration, tmp_path / "out", **LAYOUTS[layout])
    theirs = Checkpoint.open(model.checkpoints[layout])
    told = [table for each, table in DIFFERENCES.items() if fnmatchcase(case, each)]
    patterns = {pattern for table in told for pattern in table}
    for rank in range(ours.layout.files):
        for name, (mine, other) in differing(ours.tensors(rank), theirs.tensors(rank)):
            assert any(fnmatchcase(name, each) for each in patterns), name
            if case.endswith("-nvfp4"):
                assert (mine.shape, other.shape) == ((1,), ())
                assert (bits(mine) == bits(other)).all()
    mine, other = (checkpoint.config["quantization"] for checkpoint in (ours, theirs))
    assert {k: mine[k] for k in other if k != "exclude_modules"} == {
        k: other[k] for k in other if k != "exclude_modules"
    }


@pytest.mark.parametrize("case", ["llama-int8_max", "llama-int4_max"])
def test_linears_that_nothing_smooths_say_so_where_modelopt_leaves_a_hole(
    models: Callable[[str], Calibrated], tmp_path: Path, case: str
) -> None:
    """ModelOpt calls them smoothed and leaves out the tensor that TensorRT-LLM then looks for."""
    ours = write(models(case).folder, models(case).calibration, tmp_path / "out").tensors()
    theirs = Checkpoint.open(models(case).checkpoints[0]).tensors()
    unlike = dict(differing(ours, theirs))
    assert len(unlike) == 2 * 5
    for name, (mine, other) in unlike.items():
        assert name.endswith(".prequant_scaling_factor")
        assert (mine == 1).all()
        assert not other.size


def test_a_format_that_checkpoints_lack_is_refused() -> None:
    """ModelOpt would write this one as W8A8_SQ_PER_CHANNEL."""
    import modelopt_quantized as modelopt

    with pytest.raises(ModelError, match="a format that TensorRT-LLM's checkpoint doesn't have"):
        modelopt.calibrated("llama", config="mxint8")


def test_a_calibration_that_was_kept_gives_the_same_bytes(
    models: Callable[[str], Calibrated], tmp_path: Path
) -> None:
    model = models("llama-w4a8_awq")
    model.calibration.save(tmp_path / "kept")
    kept = Calibration.load(tmp_path / "kept")
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
    write(model.folder, model.calibration, tmp_path / "one")
    write(model.folder, kept, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir() if path.name[0] != "t")
    assert "rank0.safetensors" in names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("content", [b"", b"{}", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kept").write_bytes(content)
    with pytest.raises(ArtifactError, match="calibrate again"):
        Calibration.load(tmp_path / "kept")


def test_a_calibration_of_another_model_is_refused(
    models: Callable[[str], Calibrated], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"of another model; found transformer\.h\.0\.attn"):
        write(models("llama-fp8").folder, models("gpt2-fp8").calibration, tmp_path / "out")


def test_linears_of_two_formats_that_are_one_tensor_are_refused(
    models: Callable[[str], Calibrated], tmp_path: Path
) -> None:
    fp8, int8 = models("llama-fp8").calibration, models("llama-int8_sq").calibration
    name = "model.layers.1.self_attn.k_proj"
    mixed = replace(fp8, linears={**fp8.linears, name: int8.linears[name]})
    with pytest.raises(LimitError, match=r"attention\.qkv.* in one format only"):
        write(models("llama-fp8").folder, mixed, tmp_path / "out")


def mixed_calibration(models: Callable[[str], Calibrated]) -> Calibration:
    """FP8 in attention, INT4 in the MLPs, one layer's down projection left plain."""
    fp8, int4 = models("llama-fp8").calibration, models("llama-int4_awq").calibration
    linears = {
        name: (int4.linears[name] if ".mlp." in name else linear)
        for name, linear in fp8.linears.items()
        if name != "model.layers.1.mlp.down_proj"
    }
    return replace(fp8, linears=linears)


def test_linears_of_several_formats_are_told_one_by_one(
    models: Callable[[str], Calibrated], tmp_path: Path
) -> None:
    folder = models("llama-fp8").folder
    ours = write(folder, mixed_calibration(models), tmp_path / "out")
    stated = json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]
    assert stated == {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": "FP8"}
    layers = json.loads((tmp_path / "out" / "quant_cfg.json").read_text())["quantized_layers"]
    assert layers["transformer.layers.0.attention.qkv"] == {"quant_algo": "FP8"}
    assert layers["transformer.layers.1.mlp.fc"] == {
        "quant_algo": "W4A16_AWQ",
        "group_size": 128,
        "has_zero_point": False,
        "pre_quant_scale": True,
    }
    assert "transformer.layers.1.mlp.proj" not in layers
    unlike = [
        {
            name
            for name, _ in differing(ours.tensors(), Checkpoint.open(path).tensors())
            if "_cache_" not in name and ".layers.1.mlp.proj" not in name
        }
        for path in (models(f"llama-{each}").checkpoints[0] for each in ("fp8", "int4_awq"))
    ]
    assert not any("attention" in name for name in unlike[0])
    assert all("attention" in name for name in unlike[1])
    with pytest.raises(LimitError, match=r"mlp\.proj must be quantized alike on all ranks"):
        write(folder, mixed_calibration(models), tmp_path / "two", pp=2)


def test_a_mixed_checkpoint_without_its_list_of_layers_is_refused(
    models: Callable[[str], Calibrated], tmp_path: Path
) -> None:
    write(models("llama-fp8").folder, mixed_calibration(models), tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    (tmp_path / "copy" / "quant_cfg.json").unlink()
    with pytest.raises(ArtifactError, match="doesn't say how its linears are quantized"):
        Checkpoint.open(tmp_path / "copy")


@pytest.mark.parametrize(
    ("case", "format", "group_size", "options", "message"),
    [
        ("qwen3-int8_sq", Format.INT4, 128, {"tp": 2}, "can't be divided over 2"),
        ("llama-fp8", Format.INT4, 96, {}, "can't be divided over 1"),
        ("mixtral-fp8", Format.INT8, 0, {}, "experts in FP8 or unquantized"),
        ("mixtral-fp8", Format.W4A8, 128, {}, "experts in FP8 or unquantized"),
    ],
)
def test_what_a_format_cannot_hold_is_known_before_a_calibration(
    models: Callable[[str], Calibrated],
    case: str,
    format: Format,
    group_size: int,
    options: dict[str, Any],
    message: str,
) -> None:
    source = open_source(models(case).folder)
    quantized = calibrated(source, stand_in(source, format, group_size=group_size))
    with pytest.raises(LimitError, match=message):
        plan(quantized, ConvertOptions(**options).layout, "bfloat16")


def test_what_a_format_can_hold_is_planned_without_a_calibration(
    models: Callable[[str], Calibrated],
) -> None:
    model = models("llama-w4a8_awq")
    source = open_source(model.folder)
    quantized = calibrated(source, stand_in(source, Format.W4A8, group_size=128))
    layout = ConvertOptions(tp=2).layout
    planned, made = (
        plan(each, layout, "bfloat16")
        for each in (quantized, calibrated(source, model.calibration))
    )
    assert [[(t.name, t.dtype, t.shape) for t in rank] for rank in planned.ranks] == [
        [(t.name, t.dtype, t.shape) for t in rank] for rank in made.ranks
    ]
