"""The command line of trtllm-build for a BuildConfig: plain flags, never `--build_config`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder.targets.tensorrt_llm.config import BuildConfig
from builder.targets.tensorrt_llm.flags import FLAGS, Flag, Kind, Place

TIMING_CACHE = "model.cache"
"""Where upstream leaves its timing cache if nothing is said: in the working directory."""


def arguments(
    config: BuildConfig,
    *,
    checkpoint: Path,
    out: Path,
    workers: int = 1,
    input_timing_cache: Path | None = None,
    output_timing_cache: Path | None = None,
) -> list[str]:
    """The words after `trtllm-build`, the same for the same config.

    `workers` ranks are built at once. A timing cache is always written: beside the engines where
    nothing is said.
    """
    words = ["--checkpoint_dir", str(checkpoint), "--output_dir", str(out)]
    words += ["--workers", str(workers)]
    if input_timing_cache:
        words += ["--input_timing_cache", str(input_timing_cache)]
    words += ["--output_timing_cache", str(output_timing_cache or out / TIMING_CACHE)]
    for flag in FLAGS.values():
        value = value_of(config, flag)
        if flag.stated or value != flag.default:
            words += _words(flag, value)
    return words


def value_of(config: BuildConfig, flag: Flag) -> Any:
    """A flag's value in a config."""
    holders = {
        Place.BUILD: config,
        Place.PLUGIN: config.plugin_config,
        Place.LORA: config.lora_config,
        Place.COMMAND: config.command,
    }
    return getattr(holders[flag.place], flag.field)


def _words(flag: Flag, value: Any) -> list[str]:
    written = f"--{flag.name}"
    if flag.kind is Kind.SWITCH:
        return [written]
    if flag.kind is Kind.TOGGLE:
        return [written, "enable" if value else "disable"]
    if flag.kind is Kind.PLUGIN:
        return [written, value or "disable"]
    if flag.kind is Kind.LIST:
        return [written, *value]
    return [] if value is None else [written, str(value)]
