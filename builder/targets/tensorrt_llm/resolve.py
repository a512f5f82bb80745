"""Decides every value of a BuildConfig: what was asked for, else what serves best.

Upstream's defaults are for benchmarks on one known model; these are for a server: a paged cache
whose prefixes are reused, prompts in chunks, and a batch that the GPU's memory holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.encoder import refuse_encoder
from builder.errors import LimitError
from builder.families import FAMILIES
from builder.targets.tensorrt_llm.adapters import whole
from builder.targets.tensorrt_llm.case import Case
from builder.targets.tensorrt_llm.config import (
    BuildConfig,
    CommandOptions,
    LoraConfig,
    PluginConfig,
)
from builder.targets.tensorrt_llm.defaults import (
    Choices,
    attention,
    drafts,
    gemm,
    limits,
    lora,
    prompts,
)
from builder.targets.tensorrt_llm.flags import FLAGS, Place
from builder.targets.tensorrt_llm.rules import check
from builder.targets.tensorrt_llm.rules_limits import RANGE
from builder.targets.tensorrt_llm.settings import parse

if TYPE_CHECKING:
    from builder.gpus import Gpu
    from builder.memory import RankMemory


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What the user asked for; None is chosen. Limits count tokens, sequences or beams.

    `settings` are the pairs of `--set` as written, which beat the rest; `gather` holds "context",
    "generation" or both. `kv_fraction` is the part of the memory left that the cache will take.
    """

    max_batch_size: int | None = None
    max_seq_len: int | None = None
    max_input_len: int | None = None
    max_num_tokens: int | None = None
    max_beam_width: int = 1
    gather: tuple[str, ...] = ()
    lora: tuple[Path, ...] = ()
    lora_target_modules: tuple[str, ...] = ()
    max_lora_rank: int | None = None
    speculative: str | None = None
    max_draft_len: int | None = None
    weight_streaming: bool = False
    multiple_profiles: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    gpu: Gpu | None = None
    kv_fraction: float = 0.9


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A config that is ready to be built; `reasons` says why for each flag that isn't upstream's.

    `memory` is what the fullest rank will hold, None where the GPU isn't known.
    """

    config: BuildConfig
    reasons: Mapping[str, str]
    memory: RankMemory | None


def resolve(checkpoint: Mapping[str, Any], options: BuildOptions | None = None) -> Resolved:
    """The config for a checkpoint, of which this is the config.json.

    Raises LimitError for a setting that there isn't, for contradictions (see `rules`) and for
    what the GPU's memory can't hold, ModelError for a folder that is no adapter.
    """
    refuse_encoder(checkpoint["architecture"], "the target tensorrt-llm")
    options = options or BuildOptions()
    asked = _asked(options)
    check(_assemble(asked, checkpoint), checkpoint, rules=RANGE)
    sm = options.gpu.sm if options.gpu else None
    uncounted = _uncounted(checkpoint, asked)
    gpu = None if uncounted else options.gpu
    case = Case(config=BuildConfig(), checkpoint=checkpoint, sm=sm)
    by_memory = partial(
        limits,
        gpu=gpu,
        why_no_gpu=uncounted or "no GPU is named",
        kv_fraction=options.kv_fraction,
    )
    chosen: Choices = {}
    for choose in (attention, gemm, drafts, lora, by_memory, prompts):
        chosen |= choose(case, {**_values(chosen), **asked})
    values = {**_values(chosen), **asked}
    config = _assemble(values, checkpoint)
    check(config, checkpoint, sm)
    reasons = {name: why for name, (_, why) in chosen.items() if name not in asked}
    return Resolved(
        config=config,
        reasons={**reasons, **dict.fromkeys(asked, "as asked")},
        memory=_memory(checkpoint, config, gpu, options.kv_fraction),
    )


def _asked(options: BuildOptions) -> dict[str, Any]:
    """Flag's name → value, of what was said in one way or another."""
    asked: dict[str, Any] = {
        "max_batch_size": options.max_batch_size,
        "max_seq_len": options.max_seq_len,
        "max_input_len": options.max_input_len,
        "max_num_tokens": options.max_num_tokens,
        "max_beam_width": options.max_beam_width if options.max_beam_width != 1 else None,
        "gather_context_logits": "context" in options.gather or None,
        "gather_generation_logits": "generation" in options.gather or None,
        "lora_dir": tuple(map(str, options.lora)) or None,
        "lora_target_modules": options.lora_target_modules or None,
        "max_lora_rank": options.max_lora_rank,
        "speculative_decoding_mode": options.speculative,
        "max_draft_len": options.max_draft_len,
        "weight_streaming": options.weight_streaming or None,
        "multiple_profiles": options.multiple_profiles or None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    given |= parse(options.settings)
    given |= _absolute(given)
    if named := given.get("lora_target_modules"):
        given["lora_target_modules"] = whole(named)
    return given


def _absolute(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are paths, from the root: a container has another working folder.

    Raises LimitError for one where nothing is; adapters are looked at where they are read.
    """
    found: dict[str, Any] = {}
    if "lora_dir" in given:
        found["lora_dir"] = tuple(str(Path(each).resolve()) for each in given["lora_dir"])
    for name in ("model_cls_file", "visualize_network"):
        if name in given:
            found[name] = str(Path(given[name]).resolve())
    needed = [found[name] for name in found if name != "lora_dir"]
    if given.get("lora_ckpt_source") == "nemo":
        needed += found.get("lora_dir", ())
    for path in needed:
        if not Path(path).exists():
            raise LimitError("a --set names what isn't there", found=path, do="make it first")
    return found


def _uncounted(checkpoint: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    """Why what is on the GPU can't be counted, None where it can."""
    if asked.get("weight_streaming"):
        return "how many of the streamed weights are on the GPU isn't known"
    if checkpoint["architecture"] not in FAMILIES:
        return f"the weights of a {checkpoint['architecture']} can't be counted"
    return None


def _values(chosen: Choices) -> dict[str, Any]:
    return {name: value for name, (value, _) in chosen.items()}


def _assemble(values: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> BuildConfig:
    places: dict[Place, dict[str, Any]] = {place: {} for place in Place}
    for name, value in values.items():
        flag = FLAGS[name]
        places[flag.place][flag.field] = value
    return replace(
        BuildConfig(),
        **places[Place.BUILD],
        plugin_config=PluginConfig(dtype=str(checkpoint["dtype"]), **places[Place.PLUGIN]),
        lora_config=LoraConfig(**places[Place.LORA]),
        command=CommandOptions(**places[Place.COMMAND]),
        use_mrope=checkpoint.get("qwen_type") == "qwen2_vl",
    )


def _memory(
    checkpoint: Mapping[str, Any], config: BuildConfig, gpu: Gpu | None, kv_fraction: float
) -> RankMemory | None:
    if gpu is None or gpu.memory_gib is None or config.max_seq_len is None:
        return None
    from builder.memory import rank_memory

    return rank_memory(
        checkpoint,
        gpu=gpu,
        max_batch_size=config.max_batch_size,
        max_num_tokens=config.max_num_tokens,
        max_seq_len=config.max_seq_len,
        max_beam_width=config.max_beam_width,
        kv_fraction=kv_fraction,
    )
