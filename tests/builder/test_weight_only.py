"""Promise: a weight-only recipe changes the config and no weight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.errors import LimitError


@pytest.mark.parametrize(("recipe", "algo"), [("int8_wo", "W8A16"), ("int4_wo", "W4A16")])
def test_the_loader_is_told_and_the_weights_stay(
    tiny_folder: Path, tmp_path: Path, recipe: str, algo: str
) -> None:
    plain, out = tmp_path / "plain", tmp_path / "out"
    convert(tiny_folder, plain)
    convert(tiny_folder, out, options=ConvertOptions(recipe=recipe))
    check(out)
    file = "rank0.safetensors"
    assert (out / file).read_bytes() == (plain / file).read_bytes()
    before, after = (json.loads((each / "config.json").read_text()) for each in (plain, out))
    assert after == {
        **before,
        "quantization": {"quant_algo": algo, "kv_cache_quant_algo": None},
    }


def test_another_recipe_is_another_checkpoint(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(tiny_folder, out, options=ConvertOptions(recipe="int8_wo"))
    convert(tiny_folder, out, options=ConvertOptions(recipe="int4_wo"))
    assert json.loads((out / "config.json").read_text())["quantization"]["quant_algo"] == "W4A16"


@pytest.mark.parametrize(
    ("options", "said"),
    [({"recipe": "int2"}, "'int2'"), ({"recipe": "int8_wo", "dtype": "float32"}, "float32")],
)
def test_what_tensorrt_llm_cannot_do_is_refused(
    tiny_folder: Path, tmp_path: Path, options: dict[str, str], said: str
) -> None:
    with pytest.raises(LimitError, match=said):
        convert(tiny_folder, tmp_path / "out", options=ConvertOptions(**options))
