"""Writing a quantized checkpoint: ours from a kept calibration, against ModelOpt's own export.

A random Llama of 1.1 B parameters (bfloat16, 2.1 GB) is made once in --work and calibrated on a few
tokens for each recipe; that isn't timed. Then, in turns, each in a process of its own: ModelOpt's
`export_tensorrt_llm_checkpoint` of the model that it has calibrated, and `builder.convert` of the
model's folder with the calibration. Memory is the largest resident set while it is written: of
ModelOpt's process that includes the model, without which it can't.

    python benchmarks/export.py [--work DIR] [--rounds 3] [--layers 20] [--recipes fp8 int4_awq]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
RECIPES = ("fp8", "int8_sq", "int4_awq", "w4a8_awq")

CALIBRATE = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, torch
from transformers import AutoModelForCausalLM
from quantize import modelopt
from quantize.recipes import RECIPES
model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.bfloat16)
recipe = RECIPES[RECIPE]
choices = modelopt.Choices(recipe=recipe, group_size=max(recipe.group_sizes, default=0) or None)
calibration = modelopt.calibrate(model, choices, [np.arange(16)[None] + 5])
"""
MEASURE = """
import json, time
from pathlib import Path
def measured(write):
    Path("/proc/self/clear_refs").write_text("5")
    started = time.perf_counter()
    write()
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "peak_mb": int(peak.split()[1]) / 1e3}))
"""
THEIRS = """
from modelopt.torch.export import export_tensorrt_llm_checkpoint
import contextlib, io
def write():
    with contextlib.redirect_stdout(io.StringIO()):
        export_tensorrt_llm_checkpoint(
            model, "llama", torch.bfloat16, OUT, inference_tensor_parallel=1
        )
calibration.save(Path(KEPT))
measured(write)
"""
OURS = """
from builder.calibration import Calibration
from builder.convert import Quantizing, convert
def write():
    quantizing = Quantizing(calibrate=lambda _: Calibration.load(Path(KEPT)))
    convert(Path(FOLDER), Path(OUT), quantizing=quantizing)
measured(write)
"""


def make_model(folder: Path, layers: int, fields: Mapping[str, Any] = CONFIG) -> None:
    """Random weights, in Hugging Face's form."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LlamaConfig(**fields, num_hidden_layers=layers, dtype="bfloat16")
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16)
        LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")


def run(code: str, **names: str) -> dict[str, float]:
    """Run it in a process of its own; returns what it measured."""
    values = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    shutil.rmtree(names["OUT"], ignore_errors=True)
    os.sync()
    result = subprocess.run(
        [sys.executable, "-c", values + code], capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.exit(result.stderr)
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["fp8", "int4_awq"])
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="trtbuild-export-"))
    folder = work / f"model-{arguments.layers}"
    if not folder.is_dir():
        make_model(folder, arguments.layers)
    print(f"{'':10}{'ModelOpt s':>12}{'ours s':>9}{'ratio':>7}{'MB':>9}{'MB':>7}{'ratio':>7}")
    for recipe in arguments.recipes:
        names = {
            "FOLDER": str(folder),
            "RECIPE": recipe,
            "KEPT": str(work / f"{recipe}.safetensors"),
            "OUT": str(work / "out"),
        }
        pairs = [
            (run(CALIBRATE + MEASURE + THEIRS, **names), run(MEASURE + OURS, **names))
            for _ in range(arguments.rounds)
        ]
        line = f"{recipe:10}"
        for key, width in (("seconds", 12), ("peak_mb", 9)):
            theirs, ours = (statistics.median(pair[n][key] for pair in pairs) for n in (0, 1))
            line += f"{theirs:{width}.1f}{ours:{width - 3 if width == 12 else 7}.1f}"
            line += f"{statistics.median(b[key] / a[key] for a, b in pairs):7.2f}"
        print(line, flush=True)
    if arguments.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
