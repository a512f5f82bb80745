"""Promise: a recipe asks ModelOpt for what ModelOpt's preset of it says, or refuses the setting."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import pytest

from builder.errors import LimitError
from quantize import recipes
from quantize.recipes import RECIPES, UNQUANTIZED, modelopt_config, modelopt_search

PRESETS: Mapping[str, str] = {
    "fp8": "FP8_DEFAULT_CFG",
    "int8_sq": "INT8_SMOOTHQUANT_CFG",
    "int4_awq": "INT4_AWQ_CFG",
    "w4a8_awq": "W4A8_AWQ_BETA_CFG",
    "int8_wo": "INT8_WEIGHT_ONLY_CFG",
    "nvfp4": "NVFP4_DEFAULT_CFG",
}
WIDTHS: Mapping[Any, int] = {8: 8, 4: 4, (4, 3): 8, (2, 1): 4}


def modelopt() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import modelopt.torch.quantization as mtq
    return mtq


def as_json(config: Mapping[str, Any]) -> Any:
    """Tuples as lists, and all keys as strings, as a preset's file has them."""
    return json.loads(json.dumps(config))


def as_modelopt_has_it(config: Mapping[str, Any]) -> Any:
    """Without GPT-NeoX's head among what stays unquantized: that is an addition of ours."""
    head = {"quantizer_name": "*embed_out*", "enable": False}
    assert head in config["quant_cfg"]
    return as_json({**config, "quant_cfg": [e for e in config["quant_cfg"] if e != head]})


def test_the_recipes_are_those_of_the_command_line() -> None:
    assert list(RECIPES) == [
        "fp8",
        "int8_sq",
        "int4_awq",
        "w4a8_awq",
        "int8_wo",
        "int4_wo",
        "nvfp4",
        "auto",
    ]
    assert all(name == recipe.name for name, recipe in RECIPES.items())


@pytest.mark.reference
@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_is_what_modelopts_preset_says(name: str) -> None:
    preset = getattr(modelopt(), PRESETS[name])
    assert as_modelopt_has_it(modelopt_config(RECIPES[name])) == as_json(preset)


@pytest.mark.reference
@pytest.mark.parametrize("name", PRESETS)
def test_an_fp8_cache_is_added_as_modelopt_adds_it(name: str) -> None:
    mtq = modelopt()
    cache = mtq.FP8_KV_CFG["quant_cfg"]
    expected = mtq.update_quant_cfg_with_kv_cache_quant(getattr(mtq, PRESETS[name]), cache)
    found = modelopt_config(RECIPES[name], kv_cache="fp8")
    assert as_modelopt_has_it(found) == as_json(expected)


def test_an_int8_cache_has_one_scale_for_keys_and_values() -> None:
    entry = modelopt_config(RECIPES["int8_sq"], kv_cache="int8")["quant_cfg"][-1]
    assert entry == {
        "quantizer_name": "*[kv]_bmm_quantizer",
        "cfg": {"num_bits": 8, "axis": None},
    }


@pytest.mark.reference
@pytest.mark.parametrize("name", [name for name in RECIPES if name != "auto"])
def test_modelopt_takes_every_recipe_with_every_cache(name: str) -> None:
    from modelopt.torch.quantization.config import QuantizeConfig

    for cache in recipes.KV_CACHES:
        QuantizeConfig(**modelopt_config(RECIPES[name], kv_cache=cache))


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.weight])
def test_bits_per_weight_count_the_scales(name: str) -> None:
    quantizer = RECIPES[name].weight[0]
    scales = 0.0
    if quantizer.block:
        scales = (WIDTHS[quantizer.scale_bits] if quantizer.scale_bits else 16) / quantizer.block
    assert RECIPES[name].bits_per_weight == WIDTHS[quantizer.bits] + scales


def test_the_settings_of_a_recipe_reach_modelopt() -> None:
    smooth = modelopt_config(RECIPES["int8_sq"], alpha=0.5)
    assert smooth["algorithm"] == {"method": "smoothquant", "alpha": 0.5}
    for name in ("int4_awq", "w4a8_awq"):
        weight = modelopt_config(RECIPES[name], group_size=64)["quant_cfg"][1]["cfg"]
        first = weight[0] if isinstance(weight, list) else weight
        assert first["block_sizes"][-1] == 64


@pytest.mark.parametrize(
    ("name", "settings", "found"),
    [
        ("int4_awq", {"group_size": 32}, "32"),
        ("fp8", {"group_size": 64}, "64"),
        ("fp8", {"alpha": 0.5}, "0.5"),
        ("int8_sq", {"alpha": 1.5}, "1.5"),
        ("int8_sq", {"alpha": float("nan")}, "nan"),
    ],
)
def test_a_setting_that_the_recipe_has_not_is_refused(
    name: str, settings: dict[str, Any], found: str
) -> None:
    with pytest.raises(LimitError, match=found):
        modelopt_config(RECIPES[name], **settings)


def test_a_config_is_the_callers_own() -> None:
    modelopt_config(RECIPES["int4_awq"])["algorithm"]["method"] = "max"
    assert modelopt_config(RECIPES["int4_awq"])["algorithm"]["method"] == "awq_lite"


@pytest.mark.reference
def test_a_search_counts_scales_and_leaves_the_head_out() -> None:
    from modelopt.torch.quantization._auto_quantize_cost import normalize_auto_quantize_constraints
    from modelopt.torch.quantization.algorithms import QuantRecipe

    search = modelopt_search(RECIPES["auto"], bits_per_weight=5, group_size=64)
    bits = [
        QuantRecipe(each, name="mine").compression * 16 for each in search["quantization_formats"]
    ]
    assert bits == [4.25, 8]
    found = normalize_auto_quantize_constraints(None, search["constraints"])
    assert found["effective_bits"] == 5
    assert "*lm_head*" in found["cost"]["excluded_module_name_patterns"]


def test_a_search_leaves_the_routers_alone() -> None:
    from fnmatch import fnmatch

    plain = modelopt_search(RECIPES["auto"])["disabled_layers"]
    for name in ("lm_head", "model.layers.0.mlp.gate", "model.layers.0.block_sparse_moe.gate"):
        assert any(fnmatch(name, glob) for glob in plain), name
    assert not any(fnmatch("model.layers.0.mlp.gate_proj", glob) for glob in plain)
    assert set(UNQUANTIZED) <= set(plain)


@pytest.mark.parametrize("target", [4, 17, float("nan")])
def test_a_search_for_what_no_candidate_reaches_is_refused(target: float) -> None:
    with pytest.raises(LimitError, match=r"4\.125 to 16 bits per weight"):
        modelopt_search(RECIPES["auto"], bits_per_weight=target)
