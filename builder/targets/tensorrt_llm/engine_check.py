"""Whether what the compiler left is the engine that was asked for: every rank, and every setting.

trtllm-build changes settings that contradict each other with no more than a warning in its log,
and a worker that dies can leave ranks out; an engine that is not what its manifest says would only
show it under load. What the compiler may change is read from `tensorrt_llm/builder.py` of 1.2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from builder.errors import ArtifactError
from builder.targets.tensorrt_llm.config import BuildConfig
from builder.versions import numbers

CONFIG = "config.json"
_LAYOUT = ("world_size", "tp_size", "pp_size", "cp_size", "moe_tp_size", "moe_ep_size")
_AGAIN = "read its warnings, mend the setting they name and build again"

DERIVED = frozenset(
    {
        # of the build rather than of the engine, or advisory (max_input_len)
        *("input_timing_cache", "output_timing_cache", "force_num_profiles", "use_refit"),
        *("dry_run", "visualize_network", "monitor_memory", "command", "opt_batch_size"),
        *("strongly_typed", "use_mrope", "max_input_len"),
        # objects, whose own fields are compared
        *("plugin_config", "lora_config"),
        # rewritten to paths in the engine's folder
        *("lora_dir", "trtllm_modules_to_hf_modules"),
        # set by the model: its dtype, its quantization, its kind of cache, its ranks
        *("dtype", "nccl_plugin", "paged_kv_cache", "paged_state"),
        *("weight_only_groupwise_quant_matmul_plugin", "weight_only_quant_matmul_plugin"),
        *("smooth_quant_gemm_plugin", "layernorm_quantization_plugin"),
        *("rmsnorm_quantization_plugin", "quantize_per_token_plugin", "quantize_tensor_plugin"),
        *("qserve_gemm_plugin", "fp8_rowwise_gemm_plugin"),
    }
)
"""Fields that need not be what the command line said."""

YIELDING = frozenset(
    {"use_fp8_context_fmha", "reduce_fusion", "user_buffer", "norm_quant_fusion", "use_fused_mlp"}
)
"""Optimizations that the compiler turns off by itself where they don't apply: told, not refused."""

_DRAFTING: Mapping[str, Callable[[Any, Any], bool]] = {
    # it adds the draft's tokens to the sequence, and room for every sequence's draft to a step
    "max_seq_len": lambda asked, found: found >= asked,
    "max_num_tokens": lambda asked, found: found >= asked,
}
_CHOSEN = frozenset({"max_seq_len", "opt_num_tokens", "kv_cache_type"})
"""Fields of which None leaves the choice to the compiler; the cache it then chooses is paged."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting that came out other than asked."""

    name: str
    asked: Any
    found: Any

    @property
    def matters(self) -> bool:
        """Whether it makes another engine, rather than a slower one."""
        return self.name.rpartition(".")[2] not in YIELDING

    def __str__(self) -> str:
        return f"{self.name} {self.found!r} where {self.asked!r} was asked for"


def engine_file(rank: int) -> str:
    """Name of the engine of one rank."""
    return f"rank{rank}.engine"


def check(
    folder: Path, *, asked: BuildConfig, mapping: Mapping[str, Any], tensorrt_llm: str
) -> tuple[BuildConfig, list[Difference]]:
    """What the engine says it was built with, and where the compiler gave up an optimization.

    `mapping` is the checkpoint's, `tensorrt_llm` the version that was to build. Raises
    ArtifactError for a missing or empty rank and for a setting that came out different.
    """
    config = _config(folder)
    _check_ranks(folder, int(mapping.get("world_size", 1)))
    found = BuildConfig.from_json(_section(config, "build_config"))
    pretrained = _section(config, "pretrained_config")
    differences = [
        *_version(tensorrt_llm, str(config.get("version"))),
        *_layout(mapping, pretrained.get("mapping") or {}),
        *_settings(asked, found),
        *_compare(_beside(asked), pretrained, "pretrained_config.", {}),
    ]
    if wrong := [each for each in differences if each.matters]:
        what = "the compiler built another engine than asked for"
        raise ArtifactError(what, found="; ".join(map(str, wrong)), do=_AGAIN)
    return found, differences


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except FileNotFoundError:
        raise _unfinished(f"no {CONFIG}") from None
    except (ValueError, RecursionError) as error:
        raise _unfinished(f"{CONFIG}: {error}") from error
    if not isinstance(config, dict):
        raise _unfinished(f"no object in {CONFIG}")
    return config


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise _unfinished(f"no {name} in {CONFIG}")
    return section


def _check_ranks(folder: Path, world_size: int) -> None:
    names = [engine_file(rank) for rank in range(world_size)]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise _unfinished(f"no {', '.join(missing)} ({world_size} ranks)")
    if empty := [name for name in names if not (folder / name).stat().st_size]:
        raise _unfinished(f"{', '.join(empty)} without content")
    if strange := {path.name for path in folder.glob("rank*.engine")} - set(names):
        raise _unfinished(f"{', '.join(sorted(strange))} for {world_size} ranks")


def _unfinished(found: str) -> ArtifactError:
    return ArtifactError(
        "the compiler ended well, but its engine is not whole", found=found, do="build it again"
    )


def _version(asked: str, found: str) -> Iterator[Difference]:
    """Containers name builds of a version, as in 1.0.3.2510: what counts is the version."""
    if numbers(asked)[:3] != numbers(found)[:3]:
        yield Difference(name="version", asked=asked, found=found)


def _layout(asked: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Difference]:
    stated = {name: asked[name] for name in _LAYOUT if name in asked and name in found}
    yield from _compare(stated, found, "mapping.", {})
    for name in ("tp_size", "pp_size"):
        if name not in found:
            yield Difference(name=f"mapping.{name}", asked=asked.get(name, 1), found=None)


def _settings(asked: BuildConfig, found: BuildConfig) -> Iterator[Difference]:
    drafting = found.speculative_decoding_mode != "none"
    wanted = _values(asked)
    wanted = {n: value for n, value in wanted.items() if not (value is None and n in _CHOSEN)}
    if not asked.max_draft_len:
        # a Medusa or Eagle checkpoint brings its own
        wanted.pop("max_draft_len", None)
    yield from _compare(wanted, _values(found), "", _DRAFTING if drafting else {})
    dtype = found.plugin_config.dtype
    plugins, got = (
        {name: dtype if value == "auto" else value for name, value in _values(each).items()}
        for each in (asked.plugin_config, found.plugin_config)
    )
    yield from _compare(plugins, got, "plugin_config.", {})
    if asked.plugin_config.lora_plugin is not None:
        lora = {name: value for name, value in _values(asked.lora_config).items() if value != ()}
        yield from _compare(lora, _values(found.lora_config), "lora_config.", {})


def _beside(asked: BuildConfig) -> dict[str, Any]:
    """What the command line changes in the model's own config."""
    dtype = asked.command.logits_dtype
    return {"logits_dtype": dtype} if dtype else {}


def _values(config: Any) -> dict[str, Any]:
    """The fields that can be compared, by name."""
    names = (each.name for each in fields(config))
    return {name: getattr(config, name) for name in names if name not in DERIVED}


def _compare(
    asked: Mapping[str, Any],
    found: Mapping[str, Any],
    prefix: str,
    fits: Mapping[str, Callable[[Any, Any], bool]],
) -> Iterator[Difference]:
    for name, wanted in asked.items():
        value = found.get(name)
        if not (wanted == value or (name in fits and fits[name](wanted, value))):
            yield Difference(name=f"{prefix}{name}", asked=wanted, found=value)
