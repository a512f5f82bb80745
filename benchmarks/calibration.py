"""What the settings of a calibration do to quality: samples, chat rendering, searches.

Each setting quantizes a fresh copy of the model (by default SmolLM2-135M, on a GPU where there is
one) with ModelOpt and compares it, fake-quantized, with its source on held-out text. The defaults
of `trtbuild quantize` were chosen by this.

    python benchmarks/calibration.py [--model MODEL] [--only int4_awq]
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from smollm2 import bundled_model

from builder.source import Source, open_source
from builder.source.calibrated import joined
from quantize import modelopt
from quantize.calibration import TransformersTokenizer, batches, sequences
from quantize.evaluate import compare
from quantize.model import CALIBRATING, free_memory, load, plan_load, tokenizer
from quantize.recipes import RECIPES
from quantize.recording import Recording, record
from quantize.scorers.torch_model import TorchScorer

SETTINGS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("fp8", {"samples": 8}),
    ("fp8", {}),
    ("fp8", {"chat_template": False}),
    ("fp8", {"kv_cache": "fp8"}),
    ("int8_sq", {"kv_cache": "int8"}),
    *(("int8_sq", {"alpha": alpha}) for alpha in (0.4, 0.5, 0.6, 0.7, 0.8, 1.0)),
    ("int8_sq", {"alpha": 0.5, "samples": 8}),
    ("int4_awq", {}),
    ("int4_awq", {"samples": 8}),
    ("int4_awq", {"samples": 32}),
    ("int4_awq", {"chat_template": False}),
    ("int4_awq", {"max_length": 128, "samples": 256}),
    ("int4_awq", {"samples": 8, "algorithm": {"method": "awq_lite", "alpha_step": 0.05}}),
    ("w4a8_awq", {}),
)
"""Recipe → what differs from 64 samples of 512 tokens, chat rendered, groups of 64."""


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--only", choices=RECIPES, default=None)
    arguments = parser.parse_args()
    source = open_source(arguments.model or bundled_model())
    free = free_memory("auto")
    plan = plan_load(
        source, dtype="bfloat16", batch_tokens=8 * 512, overhead=2 * CALIBRATING, free=free
    )
    plain, text = load(source, plan), TransformersTokenizer(tokenizer(source))
    held_out = list(sequences(None, text, samples=16, max_length=512, part="held_out"))
    recorded = record(TorchScorer(plain, name="source"), held_out)
    print(f"on {plan.device}; {sum(map(len, held_out))} held-out tokens")
    print(f"{'recipe':10}{'perplexity':>11}{'more':>8}{'KL':>9}{'same top':>9}{'s':>7}  setting")
    for name, setting in SETTINGS:
        if arguments.only in (None, name):
            _run(name, dict(setting), source, copy.deepcopy(plain), text, recorded)


def _run(
    name: str, setting: dict[str, Any], source: Source, model: Any, text: Any, recorded: Recording
) -> None:
    told = ", ".join(f"{key} {value}" for key, value in setting.items()) or "defaults"
    recipe = RECIPES[name]
    if "algorithm" in setting:
        recipe = replace(recipe, algorithm=setting.pop("algorithm"))
    choices = modelopt.Choices(
        recipe=recipe,
        alpha=setting.pop("alpha", None),
        group_size=64 if recipe.group_sizes else None,
        kv_cache=setting.pop("kv_cache", "none"),
    )
    tokens = sequences(None, text, **{"samples": 64, "max_length": 512, **setting})
    started = time.perf_counter()
    calibration = modelopt.calibrate(model, choices, list(batches(tokens, 8)))
    seconds = time.perf_counter() - started
    modelopt.join(model, joined(source, calibration))
    found = compare(recorded, TorchScorer(model, name=name))
    assert found.perplexity_increase is not None  # noqa: S101
    assert found.kl is not None  # noqa: S101
    print(
        f"{name:10}{found.quantized_perplexity:11.3f}{found.perplexity_increase:8.1%}"
        f"{found.kl.mean:9.4f}{found.agreement:9.1%}{seconds:7.1f}  {told} ({len(tokens)} samples)",
        flush=True,
    )


if __name__ == "__main__":
    main()
