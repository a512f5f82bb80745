"""Promise: each quantized linear's error is that of its weights against the source's."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from builder import safetensors_file
from builder.convert import ConvertOptions, convert
from builder.errors import ModelError
from builder.source import open_source
from quantize.weight_error import WeightError, weight_errors


def checkpoint_of(model: Path, out: Path, **options: int | str) -> Path:
    """A weight-only checkpoint in bfloat16."""
    chosen = {"recipe": "int8_wo", "dtype": "bfloat16", **options}
    convert(model, out, options=ConvertOptions(**chosen))  # type: ignore[arg-type]
    return out


def errors_of(model: Path, checkpoint: Path) -> tuple[WeightError, ...]:
    return weight_errors(open_source(model), checkpoint)


@pytest.mark.parametrize(("recipe", "levels"), [("int8_wo", 128), ("int4_wo", 8)])
def test_the_error_is_the_norm_of_the_change_over_the_weights(
    tiny_models: dict[str, Path], tmp_path: Path, recipe: str, levels: int
) -> None:
    found = errors_of(
        tiny_models["llama"], checkpoint_of(tiny_models["llama"], tmp_path / "out", recipe=recipe)
    )
    tensors = safetensors_file.read(tiny_models["llama"] / "model.safetensors")
    for name, module in (("self_attn.o_proj", "attention.dense"), ("mlp.down_proj", "mlp.proj")):
        weight = tensors[f"model.layers.1.{name}.weight"].numpy().astype(np.float64)
        stored = weight.astype(ml_dtypes.bfloat16).astype(np.float64)
        step = np.abs(stored).max(axis=1, keepdims=True) / levels
        codes = np.minimum(np.floor(np.abs(stored) / step + 0.5) * np.sign(stored), levels - 1)
        change = weight - codes * step
        (error,) = [each for each in found if each.module == f"transformer.layers.1.{module}"]
        expected = np.sqrt((change**2).sum() / (weight**2).sum())
        assert error.relative == pytest.approx(expected, rel=1e-3)
        assert error.largest == pytest.approx(np.abs(change).max() / np.abs(weight).max(), rel=1e-3)


def test_the_worst_come_first_and_unquantized_layers_are_left_out(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    found = errors_of(tiny_models["llama"], checkpoint_of(tiny_models["llama"], tmp_path / "out"))
    assert len(found) == 2 * 5
    assert not [each for each in found if "lm_head" in each.module or "embedding" in each.module]
    relative = [each.relative for each in found]
    assert relative == sorted(relative, reverse=True)
    assert relative[-1] > 0


def test_layers_of_all_ranks_are_told_with_their_number_in_the_model(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    out = checkpoint_of(tiny_models["llama"], tmp_path / "out", tp=2, pp=2)
    found = errors_of(tiny_models["llama"], out)
    assert {(each.rank, each.layer) for each in found} == {(0, 0), (1, 0), (2, 1), (3, 1)}
    assert {each.module.split(".")[2] for each in found} == {"0"}


def test_a_plain_checkpoint_has_no_errors(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    convert(tiny_models["qwen2"], tmp_path / "out", options=ConvertOptions(dtype="bfloat16"))
    assert errors_of(tiny_models["qwen2"], tmp_path / "out") == ()


def test_a_checkpoint_of_another_model_is_refused(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    out = checkpoint_of(tiny_models["mistral"], tmp_path / "out")
    with pytest.raises(ModelError, match="not made from this model"):
        errors_of(tiny_models["llama"], out)


def test_progress_counts_linears(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    out = checkpoint_of(tiny_models["llama"], tmp_path / "out")
    steps: list[tuple[int, int]] = []
    weight_errors(
        open_source(tiny_models["llama"]), out, lambda done, total: steps.append((done, total))
    )
    assert steps[-1][0] == steps[-1][1] == len(steps)
    assert json.loads((out / "config.json").read_text())["quantization"]["quant_algo"] == "W8A16"
