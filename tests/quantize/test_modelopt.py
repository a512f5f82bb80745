"""Promise: a calibration is the same each time, however it was reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_model import save

from builder.calibration import Calibration
from builder.errors import LimitError, ModelError
from builder.source import Source, open_source
from quantize import modelopt
from quantize.model import CALIBRATING, Memory, load, plan_load
from quantize.modelopt import Choices, calibrate
from quantize.modelopt.imposition import impose
from quantize.recipes import RECIPES, modelopt_config

pytestmark = pytest.mark.reference

CHOICES: Mapping[str, Choices] = {
    "fp8": Choices(recipe=RECIPES["fp8"], kv_cache="fp8"),
    "int8_sq": Choices(recipe=RECIPES["int8_sq"], alpha=0.5, kv_cache="int8"),
    "int4_awq": Choices(recipe=RECIPES["int4_awq"], group_size=64),
    "w4a8_awq": Choices(recipe=RECIPES["w4a8_awq"], group_size=128, kv_cache="fp8"),
    "nvfp4": Choices(recipe=RECIPES["nvfp4"]),
    "auto": Choices(recipe=RECIPES["auto"], kv_cache="fp8", bits_per_weight=6.5),
}
BATCHES = [np.random.default_rng(seed).integers(0, 384, (2, 24)) for seed in range(3)]


@pytest.fixture(scope="module")
def source(tiny_models: dict[str, Path]) -> Source:
    return open_source(tiny_models["llama"])


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Source:
    """Four layers, of which some can be done when it is killed."""
    sizes = {"vocab_size": 384, "hidden_size": 128, "intermediate_size": 256, "pad_token_id": 0}
    heads = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    folder = tmp_path_factory.mktemp("deep")
    return open_source(save(folder, "Llama", {**sizes, **heads}, tiny_tokenizer))


def fresh(source: Source) -> Any:
    free = Memory(cpu_bytes=10**12)
    plan = plan_load(source, dtype="bfloat16", batch_tokens=64, overhead=CALIBRATING, free=free)
    return load(source, plan)


def differences(a: Calibration, b: Calibration) -> list[str]:
    """The names of what two calibrations don't share."""
    assert a.linears.keys() == b.linears.keys()
    found = [] if (a.kv_cache, a.kv_amax) == (b.kv_cache, b.kv_amax) else ["kv_amax"]
    for name, linear in a.linears.items():
        for each, value in vars(linear).items():
            other = getattr(b.linears[name], each)
            if not np.array_equal(value, other) and not (value is None and other is None):
                found.append(f"{name}.{each}")
    return found


@pytest.mark.parametrize("name", CHOICES)
def test_the_same_text_gives_the_same_numbers_and_the_progress_ends(
    source: Source, name: str
) -> None:
    seen: list[tuple[int, int]] = []
    first = calibrate(
        fresh(source), CHOICES[name], BATCHES, progress=lambda *step: seen.append(step)
    )
    assert differences(first, calibrate(fresh(source), CHOICES[name], BATCHES)) == []
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    assert len(seen) >= len(BATCHES)
    assert first.linears.keys() == {
        key.removesuffix(".weight") for key in source.tensors if "_proj" in key
    }


@pytest.mark.parametrize("name", CHOICES)
def test_a_kept_calibration_makes_the_model_that_it_was_taken_from(
    source: Source, name: str
) -> None:
    import torch

    model, again = fresh(source), fresh(source)
    impose(again, calibrate(model, CHOICES[name], BATCHES))
    expected, found = model.state_dict(), again.state_dict()
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    if modelopt.runs_on("cpu", CHOICES[name].recipe):
        tokens = torch.from_numpy(BATCHES[0])
        with torch.no_grad():
            assert torch.equal(model(tokens).logits, again(tokens).logits)


@pytest.mark.parametrize("name", ["int8_sq", "int4_awq", "w4a8_awq"])
def test_the_kept_smoothing_is_what_the_weights_were_multiplied_with(
    source: Source, name: str
) -> None:
    """Not the inverse of what ModelOpt keeps, which is rounded to bfloat16."""
    import torch

    plain, model = fresh(source), fresh(source)
    found = calibrate(model, CHOICES[name], BATCHES)
    weights, smoothed = dict(plain.named_parameters()), dict(model.named_parameters())
    for linear, kept in found.linears.items():
        assert kept.smoothing is not None
        factors = torch.from_numpy(np.array(kept.smoothing))
        expected = (weights[f"{linear}.weight"] * factors).to(torch.bfloat16)
        assert torch.equal(smoothed[f"{linear}.weight"], expected)


@pytest.mark.parametrize("name", ["fp8", "int8_sq", "int4_awq"])
def test_a_calibration_that_was_killed_goes_on_where_it_was(
    deep: Source, tmp_path: Path, name: str
) -> None:
    class Killed(Exception):
        """Instead of a signal."""

    def kill(done: int, total: int) -> None:
        if done == 3 * len(BATCHES):
            raise Killed

    steps: list[int] = []
    choices = CHOICES[name]
    with pytest.raises(Killed):
        calibrate(fresh(deep), choices, BATCHES, state=tmp_path, progress=kill)
    resumed = calibrate(
        fresh(deep), choices, BATCHES, state=tmp_path, progress=lambda done, _: steps.append(done)
    )
    assert 0 < len(steps) <= 2 * len(BATCHES), "what was done was done again"
    assert differences(resumed, calibrate(fresh(deep), choices, BATCHES)) == []


def test_a_search_that_was_killed_goes_on_with_what_it_has(source: Source, tmp_path: Path) -> None:
    choices = replace(CHOICES["auto"], kv_cache="none")
    counts: list[int] = []
    found = [
        calibrate(
            fresh(source),
            choices,
            BATCHES,
            state=tmp_path,
            progress=lambda done, _: counts.append(done),
        )
        for _ in range(2)
    ]
    assert differences(*found) == []
    assert counts.count(1) < 2, "the second calibrated again"


def test_a_search_mixes_formats_and_keeps_its_target(source: Source) -> None:
    found = calibrate(fresh(source), CHOICES["auto"], BATCHES)
    shapes = {name: np.prod(source.tensors[f"{name}.weight"].shape) for name in found.linears}
    bits = {"FP8": 8.0, "INT4": 4 + 16 / 128}
    spent = sum(shapes[name] * bits[each.format.name] for name, each in found.linears.items())
    assert {each.format.name for each in found.linears.values()} == {"FP8", "INT4"}
    assert spent / sum(shapes.values()) <= 6.5


def test_a_target_below_the_smallest_format_is_refused_with_the_least(source: Source) -> None:
    with pytest.raises(LimitError, match=r"can reach 4\.125 to 16"):
        calibrate(fresh(source), replace(CHOICES["auto"], bits_per_weight=3), BATCHES)


def test_what_modelopt_prints_is_not_the_users_and_what_is_wrapped_is_put_back(
    source: Source, capfd: pytest.CaptureFixture[str]
) -> None:
    from modelopt.torch.quantization import model_calib

    before = model_calib._apply_weight_pre_quant_scale
    calibrate(fresh(source), CHOICES["int4_awq"], BATCHES)
    assert capfd.readouterr() == ("", "")
    assert model_calib._apply_weight_pre_quant_scale is before


def test_activations_that_overflow_are_named(source: Source) -> None:
    import torch

    model = fresh(source)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(3e38)
    with pytest.raises(ModelError, match=r"NaN or infinite|can't calibrate"):
        calibrate(model, CHOICES["fp8"], BATCHES)


def test_an_export_is_the_same_each_time(source: Source, tmp_path: Path) -> None:
    """ModelOpt alone names what it leaves out in another order each time."""
    for each in ("a", "b"):
        model = fresh(source)
        calibrate(model, CHOICES["fp8"], BATCHES)
        modelopt.export(model, tmp_path / each, "bfloat16")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "hf_quant_config.json" in names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_recipes_are_read_by_modelopt_as_they_are() -> None:
    from modelopt.torch.quantization.config import QuantizeConfig

    for choices in CHOICES.values():
        if not choices.recipe.candidates:
            QuantizeConfig(**modelopt_config(choices.recipe, kv_cache=choices.kv_cache))
