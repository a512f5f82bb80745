"""`trtbuild quantize` on a model of 1.2 B random parameters: wall time and peak memory.

The shapes are Llama-3.2-1B's with a head of its own. On a GPU where there is one; the memory that
it has in use is asked of nvidia-smi five times a second, the process's is its largest resident
set, mapped pages of the model's files counted. Quality isn't measured: the weights are random.

    python benchmarks/quantizing.py [--work DIR] [--recipes fp8 int4_awq] [--layers 16]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from export import make_model

CONFIG = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}


def gpu_mb() -> float:
    """Memory in use on the first GPU, 0 without one."""
    if shutil.which("nvidia-smi") is None:
        return 0.0
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    found = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return float(found.splitlines()[0]) * 1.048576 if found.strip() else 0.0


def main() -> None:
    """Print a line for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--recipes", nargs="+", default=["fp8", "int4_awq"])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--tokenizer", type=Path, required=True, help="A tokenizer's folder.")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="trtbuild-quantize-"))
    folder = work / "model"
    if not folder.is_dir():
        make_model(folder, arguments.layers, CONFIG)
        shutil.copytree(arguments.tokenizer, folder, dirs_exist_ok=True)
    idle = gpu_mb()
    print(f"{'recipe':10}{'seconds':>9}{'GPU MB':>9}{'peak MB':>9}{'written MB':>12}", flush=True)
    for recipe in arguments.recipes:
        out = work / recipe
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "trtbuild", "quantize", str(folder), "-o", str(out)]
        started = time.perf_counter()
        process = subprocess.Popen([*command, "--recipe", recipe, "--no-eval"])
        largest = 0.0
        while (found := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            largest = max(largest, gpu_mb() - idle)
            time.sleep(0.2)
        seconds = time.perf_counter() - started
        if found[1]:
            sys.exit(f"{recipe}: exit status {os.waitstatus_to_exitcode(found[1])}")
        written = sum(path.stat().st_size for path in out.glob("rank*.safetensors")) / 1e6
        rss = found[2].ru_maxrss * 1.024e-3
        print(f"{recipe:10}{seconds:9.1f}{largest:9.0f}{rss:9.0f}{written:12.0f}", flush=True)
    if arguments.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
