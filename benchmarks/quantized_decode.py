"""Decode speed of quantized engines against bfloat16's, at one client, on the CPU.

The engines take turns, so that a busy machine slows all alike; read the ratios. Prompts of 16
tokens, 64 new tokens, greedy, no end-of-sequence. Checkpoints given are measured beside the
model's own, which are quantized here by rounding to the nearest, without calibration: their speed
is that of calibrated ones, their answers aren't. Needs neither torch nor ModelOpt:

    python benchmarks/quantized_decode.py [--model MODEL] [--work DIR] [CHECKPOINT ...]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from smollm2 import bundled_model

from builder.calibration import Calibration, LinearCalibration
from builder.convert import ConvertOptions, Quantizing, convert
from builder.limits import LimitOptions
from builder.source import Source
from builder.source.calibrated import stand_in
from builder.source.hf_quantization import Format
from builder.targets.openvino import MODEL_FILES, build
from triton_repo.executor.executor import Executor, ExecutorConfig
from triton_repo.executor.request import Output, Request

PROMPT_TOKENS, NEW_TOKENS, ROUNDS = 16, 64, 9
BASELINE = "bfloat16"
WEIGHT_ONLY = ("int8_wo", "int4_wo")
FORMATS = {
    "int4_awq": (Format.INT4, 64),
    "int8_sq": (Format.INT8, 0),
    "fp8": (Format.FP8, 0),
    "w4a8_awq": (Format.W4A8, 64),
}
ASKED = {"int4_awq": 1.2, "int8_wo": 1.2}
"""How many times bfloat16's speed these must have."""


def rounded(format: Format, group_size: int) -> Callable[[Source], Calibration]:
    """A calibration that wasn't made; inputs are scaled all the same, as calibrated ones are."""

    def calibrate(source: Source) -> Calibration:
        made = stand_in(source, format, group_size=group_size)
        if format is Format.FP8:
            return made
        linears = {}
        for name, linear in made.linears.items():
            inputs = source.tensors[f"{name}.weight"].shape[1]
            linears[name] = scaled(linear, inputs)
        return replace(made, linears=linears)

    return calibrate


def scaled(linear: LinearCalibration, inputs: int) -> LinearCalibration:
    """The same with scales of the inputs that leave the products as they are."""
    half = np.full(inputs, 0.5, np.float32)
    return replace(linear, pre_quant_scale=half, smoothing=1 / half)


def checkpoints(model: Path, work: Path) -> dict[str, Path]:
    """bfloat16 and the recipes, each in a folder of its own."""
    plain = ConvertOptions(dtype="bfloat16")
    convert(model, work / BASELINE, options=plain)
    for recipe in WEIGHT_ONLY:
        convert(model, work / recipe, options=replace(plain, recipe=recipe))
    for recipe, (format, group_size) in FORMATS.items():
        quantizing = Quantizing(
            calibrate=rounded(format, group_size), settings={"rounded": format.value}
        )
        convert(model, work / recipe, options=plain, quantizing=quantizing)
    return {name: work / name for name in (BASELINE, *WEIGHT_ONLY, *FORMATS)}


def engine(checkpoint: Path, out: Path) -> Path:
    """Built for one client."""
    build(
        checkpoint, out, options=LimitOptions(max_batch_size=1, max_seq_len=512, kv_cache_gib=0.1)
    )
    return out


def tokens_per_second(executor: Executor, seed: int) -> float:
    """Of one answer after its first token."""
    rng, done = random.Random(seed), threading.Event()
    times: list[float] = []

    def sink(output: Output) -> None:
        times.append(time.perf_counter())
        if output.finish:
            done.set()

    prompt = [rng.randrange(100, 40_000) for _ in range(PROMPT_TOKENS)]
    executor.submit(Request(input_ids=prompt, max_tokens=NEW_TOKENS), sink)
    done.wait()
    return (NEW_TOKENS - 1) / (times[-1] - times[0])


def measure(engines: dict[str, Path], threads: int) -> dict[str, list[float]]:
    """Each round asks every engine once, in an order of its own."""
    executors = {
        name: Executor(folder, ExecutorConfig.of(folder, threads=threads))
        for name, folder in engines.items()
    }
    found: dict[str, list[float]] = {name: [] for name in executors}
    names = list(executors)
    for turn in range(-1, ROUNDS):
        random.Random(turn).shuffle(names)
        for name in names:
            speed = tokens_per_second(executors[name], seed=turn)
            if turn >= 0:
                found[name].append(speed)
    for executor in executors.values():
        executor.close()
    return found


def main() -> None:
    """Measure and print a table; exit code 1 when a recipe isn't as fast as is asked of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="*", metavar="CHECKPOINT")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--work", type=Path, default=Path("work/quantized_decode"))
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    arguments = parser.parse_args()
    folders = checkpoints(arguments.model or bundled_model(), arguments.work)
    folders |= {folder.resolve().name + " (given)": folder for folder in arguments.checkpoints}
    engines = {
        name: engine(folder, arguments.work / "engines" / name) for name, folder in folders.items()
    }
    speeds = measure(engines, arguments.threads)
    print(f"{'engine':20} {'MB':>7} {'tokens/s':>9} {'x bfloat16':>11}  rounds")
    slow = []
    for name, found in speeds.items():
        ratios = [one / base for one, base in zip(found, speeds[BASELINE], strict=True)]
        ratio = statistics.median(ratios)
        size = (engines[name] / MODEL_FILES[1]).stat().st_size / 1e6
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(f"{name:20} {size:7.1f} {statistics.median(found):9.1f} {ratio:10.2f}x  {spread}")
        if ratio < ASKED.get(name, 0):
            slow.append(name)
    if slow:
        sys.exit(f"slower than asked: {', '.join(slow)}")


if __name__ == "__main__":
    main()
