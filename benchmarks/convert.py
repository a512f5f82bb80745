"""Conversion against `cp -r`, and against ModelOpt's export: wall time and peak memory.

A synthetic sharded checkpoint of Llama-3-8B's shapes (10 layers, 6.5 GB) is made once in --work;
then, in turns, copied and converted. `trtbuild convert` returns when the bytes are on the disk,
`cp` when they are in the page cache: so `cp -r` and `cp -r` with `sync` are both shown, and what
each wrote: tensor ranks have the whole embedding each, unless it is divided. A cold
round drops the page cache before (root only). Memory is the largest resident set of the process
(ru_maxrss), mapped pages of files counted too; it can't be less than this script's own 50 MB.
ModelOpt is compared on 2 layers, if it is there.

    python benchmarks/convert.py [--work DIR] [--rounds 5] [--layers 10] [--no-modelopt]
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
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from builder import families
from builder.dtypes import NUMPY
from builder.safetensors_writer import Compute, PendingTensor, Segment, write

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 128001,
}
SHARD_BYTES = 2_000_000_000
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
NO_DIGEST = """
import sys
from pathlib import Path
from builder import convert, digest
class Nothing:
    def update(self, data): pass
    def hexdigest(self): return ""
digest.ALGORITHMS[digest.DEFAULT] = Nothing
convert.convert(Path(sys.argv[1]), Path(sys.argv[2]))
"""
MODELOPT = """
import os, sys, time, torch, transformers
from modelopt.torch.export import export_tensorrt_llm_checkpoint
started = time.perf_counter()
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
export_tensorrt_llm_checkpoint(
    model, "llama", torch.bfloat16, sys.argv[2], inference_tensor_parallel=1
)
os.sync()
open(sys.argv[3], "w").write(str(time.perf_counter() - started))
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something that writes `out` from the model; what it took is compared with `cp`."""

    name: str
    command: Callable[[Path, Path], list[str]]
    sync: bool = False


def make_model(folder: Path, layers: int) -> None:
    """Llama-3-8B's tensors with random numbers, as a hub's folder has them."""
    config = {**CONFIG, "num_hidden_layers": layers}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    rng = np.random.default_rng(0)
    block = (rng.standard_normal(1 << 19, np.float32) * 0.02).astype(NUMPY["bfloat16"])
    sized = {**config, "head_size": 128}
    shapes = {
        name: shape
        for expected in families.of("LlamaForCausalLM").expected(sized)
        for name, shape in expected.sources.items()
    }
    shards: list[list[PendingTensor]] = [[]]
    for name, shape in shapes.items():
        tensor = PendingTensor(
            name=name, dtype="bfloat16", shape=shape, segments=lambda s=shape: filled(s, block)
        )
        if sum(t.nbytes for t in shards[-1]) + tensor.nbytes > SHARD_BYTES and shards[-1]:
            shards.append([])
        shards[-1].append(tensor)
    places = {}
    for number, tensors in enumerate(shards):
        name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        write(folder / name, tensors)
        places |= {tensor.name: name for tensor in tensors}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def filled(shape: tuple[int, ...], block: np.ndarray) -> list[Segment]:
    """The block again and again, up to the shape's size."""
    left, segments = int(np.prod(shape)), []
    while left:
        part = block[: min(left, len(block))]
        segments.append(Compute(size_bytes=part.nbytes, run=lambda p=part: p))
        left -= len(part)
    return segments


def convert(*options: str) -> Callable[[Path, Path], list[str]]:
    """The command that converts so."""
    start = [sys.executable, "-m", "trtbuild", "convert"]
    return lambda source, out: [*start, str(source), "-o", str(out), *options]


CASES = (
    Case(name="cp -r", command=lambda source, out: ["cp", "-r", str(source), str(out)]),
    Case(
        name="cp -r, sync",
        command=lambda source, out: ["cp", "-r", str(source), str(out)],
        sync=True,
    ),
    Case(name="convert, tp=1", command=convert()),
    Case(
        name="convert, tp=1, no digest",
        command=lambda source, out: [sys.executable, "-c", NO_DIGEST, str(source), str(out)],
    ),
    Case(name="convert, tp=4", command=convert("--tp", "4")),
    Case(name="convert, tp=4, divided", command=convert("--tp", "4", "--parallel-embedding")),
    Case(name="convert to float16", command=convert("--dtype", "float16")),
)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a case took, and wrote."""

    seconds: float
    peak_mb: float
    written_gb: float


def measure(case: Case, source: Path, out: Path, *, cold: bool) -> Taken:
    """Run the case once; its memory is the largest resident set."""
    os.sync()
    if cold:
        DROP_CACHES.write_text("3")
    else:
        for file in source.iterdir():
            subprocess.run(["cat", str(file)], stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    process = subprocess.Popen(case.command(source, out), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if case.sync:
        os.sync()
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"{case.name} failed")
    written = sum(file.stat().st_size for file in out.iterdir())
    return Taken(seconds=seconds, peak_mb=usage.ru_maxrss / 1e3 * 1.024, written_gb=written / 1e9)


def compare(cases: tuple[Case, ...], source: Path, out: Path, rounds: int, *, cold: bool) -> None:
    """Run the cases in turns and print medians, and medians of the ratios within a round."""
    found = [
        {case.name: measure(case, source, out, cold=cold) for case in cases} for _ in range(rounds)
    ]
    first, second = cases[0].name, cases[1].name
    print(f"\n{'cold' if cold else 'warm'} page cache, {rounds} rounds")
    print(f"{'':26}{'GB':>6}{'seconds':>9}{'peak MB':>9}{f'/ {first}':>16}{f'/ {second}':>20}")
    for case in cases:
        taken = [turn[case.name] for turn in found]
        seconds = statistics.median(each.seconds for each in taken)
        memory = max(each.peak_mb for each in taken)
        ratios = [
            statistics.median(turn[case.name].seconds / turn[base].seconds for turn in found)
            for base in (first, second)
        ]
        print(
            f"{case.name:26}{taken[0].written_gb:6.1f}{seconds:9.2f}{memory:9.0f}"
            f"{ratios[0]:16.2f}{ratios[1]:20.2f}"
        )


def compare_modelopt(work: Path, rounds: int) -> None:
    """ModelOpt's export on a smaller model: without its imports in time, with all in memory."""
    source = work / "small"
    if not source.exists():
        make_model(source, 2)
    ours = Case(name="convert", command=convert())
    clock = work / "seconds"
    script = [sys.executable, "-W", "ignore", "-c", MODELOPT]
    theirs = Case(
        name="ModelOpt", command=lambda source, out: [*script, str(source), str(out), str(clock)]
    )
    times, memory = [], []
    for _ in range(rounds):
        mine = measure(ours, source, work / "out", cold=False)
        peak_mb = measure(theirs, source, work / "out", cold=False).peak_mb
        times.append((float(clock.read_text()), mine.seconds))
        memory.append((peak_mb, mine.peak_mb))
    print("\nModelOpt's load and export, and sync, against convert's whole process, 2 layers")
    for name, unit, pairs in (("time", "s", times), ("peak memory", "MB", memory)):
        their, our = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name}: {their:.1f} {unit} against {our:.1f} {unit}: {ratio:.1f} times")


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--no-modelopt", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="trtbuild-benchmark-"))
    source, out = work / f"model-{arguments.layers}", work / "out"
    try:
        if not source.exists():
            make_model(source, arguments.layers)
        compare(CASES, source, out, arguments.rounds, cold=False)
        if os.access(DROP_CACHES, os.W_OK):
            compare(CASES, source, out, arguments.rounds, cold=True)
        else:
            print("\nno cold page cache: dropping it needs root")
        if not arguments.no_modelopt and find_spec("modelopt"):
            compare_modelopt(work, arguments.rounds)
    finally:
        shutil.rmtree(out, ignore_errors=True)
        if not arguments.work:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
