"""From the options of a command to the target's `build`, and what a dry run shows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild import console
from trtbuild.target_options import LLMAPI, OPENVINO, Chosen

if TYPE_CHECKING:
    from builder.manifest import Manifest
    from builder.memory import RankMemory
    from builder.progress import Progress
    from builder.targets.llmapi import LlmApiOptions
    from builder.targets.tensorrt_llm.dry_run import DryRun
    from builder.targets.tensorrt_llm.resolve import BuildOptions

_SHARED = ("max_batch_size", "max_seq_len", "max_num_tokens", "kv_fraction")
_SAME_NAME = (
    *(*_SHARED, "max_input_len", "max_beam_width", "lora", "max_lora_rank", "speculative"),
    *("max_draft_len", "weight_streaming", "multiple_profiles"),
)
_OPENVINO_LIMITS = ("max_batch_size", "max_seq_len", "max_num_tokens", "kv_cache_gib")
_OPENVINO_ENGINE = ("max_beam_width", "lora", "max_lora_rank")
_HOW = ("container", "timing_cache", "workers")


def step(
    chosen: Chosen, source: Path, out: Path, name: str | None
) -> Callable[[Progress], Manifest]:
    """The stage that builds: `source` is a checkpoint, for llmapi a Hugging Face folder."""
    if chosen.target == OPENVINO:
        from builder.limits import LimitOptions
        from builder.targets import openvino

        limits = LimitOptions(**chosen.among(_OPENVINO_LIMITS))
        engine = openvino.EngineOptions(**chosen.among(_OPENVINO_ENGINE))
        return lambda _: openvino.build(source, out, options=limits, engine=engine, name=name)
    if chosen.target == LLMAPI:
        from builder.targets import llmapi

        settings = llmapi_options(chosen)
        return lambda _: _noted(llmapi.build(source, out, options=settings, name=name))
    from builder.targets.tensorrt_llm.build import build

    options, how = engine_options(chosen), chosen.among(_HOW)
    return lambda progress: build(
        source, out, options=options, name=name, progress=progress, say=console.say, **how
    )


def _noted(made: Manifest) -> Manifest:
    for note in made.about.get("notes", ()):
        console.say(f"note: {note}")
    return made


def engine_options(chosen: Chosen) -> BuildOptions:
    """What the options say to the target tensorrt-llm."""
    from builder import gpus
    from builder.targets.tensorrt_llm.resolve import BuildOptions

    options = chosen.among(_SAME_NAME)
    if "set" in chosen.given:
        options["settings"] = chosen.given["set"]
    if "gpu" in chosen.given:
        options["gpu"] = gpus.find(chosen.given["gpu"])
    if gather := chosen.given.get("gather_logits"):
        options["gather"] = ("context", "generation") if gather == "all" else (gather,)
    return BuildOptions(**options)


def llmapi_options(chosen: Chosen) -> LlmApiOptions:
    """What the options say to the target llmapi."""
    from builder.targets.llmapi import LlmApiOptions

    options = chosen.among((*_SHARED, "tp", "pp", "moe_ep", "copy"))
    if "set" in chosen.given:
        options["settings"] = chosen.given["set"]
    return LlmApiOptions(**options)


def show_dry_run(
    chosen: Chosen, source: Path, out: Path, name: str | None, *, as_json: bool
) -> None:
    """Print what a build would do."""
    if chosen.target == LLMAPI:
        from builder.targets import llmapi

        text = llmapi.render(source, options=llmapi_options(chosen), name=name)
        click.echo(json.dumps({"model.yaml": text}, indent=2) if as_json else text.rstrip())
        return
    from builder.targets.tensorrt_llm.dry_run import dry_run

    planned = dry_run(source, out, options=engine_options(chosen), name=name, **chosen.among(_HOW))
    if as_json:
        click.echo(json.dumps(asdict(planned), indent=2))
    else:
        _show_engine(planned, out)


def _show_engine(planned: DryRun, out: Path) -> None:
    from trtbuild.report_table import Row, show

    settings = planned.settings.items()
    show(
        ("value", "why"),
        [Row(state=name, cells=(_text(each.value), each.reason)) for name, each in settings],
    )
    click.echo(f"\ncompiler: {planned.compiler}\ngpu: {planned.gpu or 'not known: --gpu NAME'}")
    if planned.memory:
        click.echo(f"memory of a rank: {_memory(planned.memory)}")
    if planned.missing:
        click.echo(f"can't be done here: {planned.missing}")
    # a container needs the folder to be there
    click.echo(f"\nmkdir -p {shlex.quote(str(out.resolve()))}\n{shlex.join(planned.command)}")


def _memory(rank: RankMemory) -> str:
    """Where a rank's memory goes."""
    parts = {
        "weights": rank.weights_bytes,
        "activations": rank.activation_bytes,
        "runtime": rank.runtime_bytes,
        f"KV cache of {rank.kv_cache_tokens:,} tokens": rank.kv_cache_bytes,
    }
    told = ", ".join(f"{name} {size / (1 << 30):.1f} GiB" for name, size in parts.items())
    return f"{told}, of {rank.gpu_bytes / (1 << 30):.1f} GiB"


def _text(value: Any) -> str:
    """A value as the compiler's command line has it."""
    if isinstance(value, bool) or value is None:
        return "enable" if value else "disable"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
