"""A stand-in for `trtllm-build` of TensorRT-LLM 1.2.1, for machines without it.

It takes the flags that the real one takes, and no others; reads the checkpoint's config; writes the
files that the real one writes, with the config that its `build` would end with; says the lines that
it says. The engines hold nothing. STAND_IN names a way to go wrong, as the real one has gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from trtllm_build_1_2 import build_config, parse

VERSION = "1.2.1"
WARNING = "[TRT-LLM] [W]"
HANG = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
FAILURES = {
    "pool": """Traceback (most recent call last):
  File "/usr/lib/python3.12/concurrent/futures/_base.py", line 401, in __get_result
concurrent.futures.process.BrokenProcessPool: A process in the process pool was terminated abruptly\
 while the future was running or pending.
AssertionError: Engine building failed, please check error log.""",
    "gpu-memory": """[TRT] [W] UNSUPPORTED_STATESkipping tactic 2 due to insufficient memory
[TRT] [E] [virtualMemoryBuffer.cpp::resizePhysical::151] Error Code 2: OutOfMemory (Requested size\
 was 16654532608 bytes.)
[TRT-LLM] [E] Engine building failed, please check the error log.
AssertionError: Engine building failed, please check the error log.""",
    "sm": """[TRT] [E] IBuilder::buildSerializedNetwork: Error Code 9: API Usage Error (Target GPU\
 SM 61 is not supported by this TensorRT release.)
AssertionError: Engine building failed, please check the error log.""",
    "driver": """RuntimeError: The NVIDIA driver on your system is too old; CUDA driver version is\
 insufficient for CUDA runtime version""",
    "no-gpu": "ValueError: max_workers must be greater than 0",
    "libraries": "ImportError: libnvinfer.so.10: cannot open shared object file: No such file",
    "disk": "OSError: [Errno 28] No space left on device",
    "riddle": "RuntimeError: something that nobody has seen before",
}


def say(text: str, source: str = "[TRT-LLM] [I]") -> None:
    print(f"[11/16/2024-00:05:47] {source} {text}", flush=True)


def main() -> int:
    words, mode = sys.argv[1:], os.environ.get("STAND_IN", "")
    try:
        args, build = parse(words), build_config(words)
    except ValueError as error:
        print(f"usage: trtllm-build [-h]\ntrtllm-build: error: {error}", file=sys.stderr)
        return 2
    if calls := os.environ.get("STAND_IN_CALLS"):
        with open(calls, "a") as file:
            file.write(json.dumps({"pid": os.getpid(), "words": words}) + "\n")
    print("TensorRT-LLM version: " + VERSION, flush=True)
    source, out = Path(args.checkpoint_dir), Path(args.output_dir)
    pretrained = json.loads((source / "config.json").read_text())
    pretrained["logits_dtype"] = args.logits_dtype or pretrained["logits_dtype"]
    say("Option --gather_generation_logits is deprecated, use it at runtime.", WARNING)
    if mode == "hang":
        worker = subprocess.Popen([sys.executable, "-c", HANG])
        Path(os.environ["STAND_IN_CALLS"]).with_name("worker").write_text(str(worker.pid))
        time.sleep(3600)
    if mode == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode in FAILURES:
        for line in FAILURES[mode].splitlines():
            print(f"[11/16/2024-00:05:47] {line}" if line[0] == "[" else line, flush=True)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    world_size = pretrained.get("mapping", {}).get("world_size", 1)
    for rank in range(world_size // 2 if mode == "half" else world_size):
        build_rank(rank, out, source, empty=mode == "empty")
    for index, adapter in enumerate(args.lora_dir or ()):
        shutil.copytree(adapter, out / "lora" / str(index))
        build["lora_config"]["lora_dir"][index] = f"lora/{index}"
    timing_cache(args)
    (out / "config.json").write_text(json.dumps(engine_config(pretrained, build, mode)))
    say("Total time of building all engines: 00:00:01")
    return 0


def build_rank(rank: int, out: Path, source: Path, *, empty: bool) -> None:
    if not list(source.glob("rank*.safetensors")):
        raise FileNotFoundError(source)
    time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
    say("Overriding reduce_fusion to False", WARNING)
    say("Total time of constructing network from module object 2.79 seconds")
    say("Build TensorRT engine Unnamed Network 0")
    print(" 50%|#####     |\r100%|##########|", flush=True)
    say("Total time of building Unnamed Network 0: 00:00:20")
    say(f"Serializing engine to {out}/rank{rank}.engine...")
    size_bytes = int(os.environ.get("STAND_IN_BYTES", "1000"))
    (out / f"rank{rank}.engine").write_bytes(b"" if empty else bytes(size_bytes))
    say("Engine serialized. Total time: 00:00:01")


def timing_cache(args: Any) -> None:
    """Builds are counted in it; TensorRT refuses a torn one."""
    builds = 0
    if args.input_timing_cache and Path(args.input_timing_cache).exists():
        begin, count, end = Path(args.input_timing_cache).read_text().split()
        assert (begin, end) == ("begin", "end")
        builds = int(count)
    Path(args.output_timing_cache).write_text(f"begin {builds + 1} end")


def engine_config(pretrained: Any, build: dict[str, Any], mode: str) -> dict[str, Any]:
    """What `build` of tensorrt_llm/builder.py makes of the settings."""
    mapping = {"world_size": 1, "tp_size": 1, "pp_size": 1, **pretrained.get("mapping", {})}
    plugins = {"dtype": pretrained["dtype"], **build["plugin_config"]}
    plugins |= {"paged_kv_cache": True, "paged_state": False, "streamingllm": False}
    plugins["nccl_plugin"] = pretrained["dtype"] if mapping["world_size"] > 1 else None
    build = {**build, "plugin_config": plugins, "opt_batch_size": 8, "strongly_typed": True}
    build["kv_cache_type"] = build["kv_cache_type"] or "PAGED"
    if build["opt_num_tokens"] is None:
        least = min(build["max_batch_size"] * build["max_beam_width"], build["max_num_tokens"])
        build["opt_num_tokens"] = least
    if build["speculative_decoding_mode"] != 1:
        build["max_seq_len"] += build["max_draft_len"]
    if (quant_algo := pretrained.get("quantization", {}).get("quant_algo")) is None:
        plugins["use_fp8_context_fmha"] = False
    elif quant_algo == "W8A16":
        plugins["weight_only_quant_matmul_plugin"] = pretrained["dtype"]
    if mode == "yields":
        plugins["use_fused_mlp"] = not plugins["use_fused_mlp"]
    if mode == "smaller":
        build["max_batch_size"] //= 2
    if mode == "unpaged":
        plugins["use_paged_context_fmha"] = False
    if mode == "other-layout":
        mapping["tp_size"], mapping["pp_size"] = mapping["pp_size"] * 2, 1
    version = "1.1.0" if mode == "other-version" else VERSION
    config = {**pretrained, "mapping": mapping}
    return {"version": version, "pretrained_config": config, "build_config": build}


if __name__ == "__main__":
    sys.exit(main())
