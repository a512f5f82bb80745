"""Completes the settings of a repository from its engine, and refuses those that don't fit it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from builder.errors import LimitError
from builder.limits import KV_FRACTION
from triton_repo.engine import Engine
from triton_repo.names import Names
from triton_repo.runtime.tensorrtllm_parameters import UNUSED
from triton_repo.settings.needs import LORA
from triton_repo.settings.options import SETTINGS, RepositoryOptions
from triton_repo.settings.values import Groups

XGRAMMAR_INFO = "xgrammar_tokenizer_info.json"
ADAPTERS = "lora_prefetch"

_LOOKAHEAD = ("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size")
_TOGETHER: dict[str, tuple[str, Any]] = {
    "kv_cache_host_memory_bytes": ("enable_kv_cache_reuse", True),
    "timeout_action": ("default_timeout_microseconds", None),
    "allow_timeout_override": ("default_timeout_microseconds", None),
    "cuda_graph_cache_size": ("cuda_graph_mode", True),
    "xgrammar_tokenizer_info_path": ("guided_decoding_backend", "xgrammar"),
    **dict.fromkeys(_LOOKAHEAD, ("decoding_mode", "lookahead")),
}
"""Setting → another that it does nothing without, and that one's value (None: any but 0)."""


def settled(
    options: RepositoryOptions,
    engine: Engine,
    names: Names,
    *,
    adapters: bool = False,
    sharing: int = 1,
) -> RepositoryOptions:
    """`options` with what they leave to the engine.

    `adapters` says whether the repository brings some, `sharing` how many engines share a GPU.
    Raises LimitError for the first that the engine can't honour, or that does nothing.
    """
    ours = options.guided_decoding_backend in (None, "xgrammar")
    fraction = None if sharing == 1 else round(KV_FRACTION / sharing, 3)
    made: dict[str, Any] = {
        "enable_kv_cache_reuse": engine.reuses_blocks,
        "enable_chunked_context": engine.paged_context,
        "max_beam_width": engine.max_beam_width,
        "kv_cache_free_gpu_mem_fraction": fraction,
        "guided_decoding_backend": "xgrammar",
        "xgrammar_tokenizer_info_path": info_path(names) if ours else None,
        "lora_prefetch_dir": f"{names.engine_dir}/{ADAPTERS}" if adapters else None,
    }
    if adapters:
        _require_adapters(options, engine)
    chosen = replace(
        options, **{name: value for name, value in made.items() if getattr(options, name) is None}
    )
    for refused in (*broken(options, chosen, engine), *too_wide(options, engine)):
        raise refused
    return chosen


def broken(
    options: RepositoryOptions, chosen: RepositoryOptions, engine: Engine
) -> Iterator[LimitError]:
    """Every rule that options break; `chosen` are the same and what the engine adds to them."""
    yield from _unfit(options, engine)
    for check in (_alone, _limits, _cache, _lookahead, _places):
        yield from check(chosen, engine)


def too_wide(options: RepositoryOptions, engine: Engine) -> Iterator[LimitError]:
    """Attention windows beyond the longest sequence, which upstream cuts to it."""
    most = max(options.max_attention_window_size or (0,))
    if most > engine.max_seq_len:
        yield LimitError(
            f"max_attention_window_size is at most the engine's {engine.max_seq_len}",
            found=str(most),
            do="build the engine for more, or ask for less",
        )


def info_path(names: Names) -> str:
    """Where our file of the tokenizer for xgrammar is, from the repository's root."""
    return f"{names.engine_dir}/{XGRAMMAR_INFO}"


def notes(options: RepositoryOptions, engine: Engine) -> list[str]:
    """Settings that were given and do nothing on a CPU, where the engine runs on one.

    They are written all the same: the repository is the deployment's, and here it is rehearsed.
    """
    if engine.target != "openvino":
        return []
    return [
        f"{name} does nothing on a CPU ({UNUSED[each.parameter]}); it is written for a GPU"
        for name, each in SETTINGS.items()
        if each.parameter in UNUSED and getattr(options, name) != each.default
    ]


def _unfit(options: RepositoryOptions, engine: Engine) -> Iterator[LimitError]:
    """Settings that need what the engine doesn't have."""
    for name, each in SETTINGS.items():
        value = getattr(options, name)
        need = each.need(value)
        if need and not need.has(engine):
            asked = name if value is True else f"{name} {value}"
            yield LimitError(f"{asked} needs {need.what}", found=need.found(engine), do=need.do)


def _require_adapters(options: RepositoryOptions, engine: Engine) -> None:
    """Whether the engine takes adapters from files. Raises LimitError where it doesn't."""
    if options.lora_prefetch_dir:
        raise LimitError(
            "adapters come from --lora or from a lora_prefetch_dir, not from both",
            found=options.lora_prefetch_dir,
        )
    if not LORA.has(engine):
        raise LimitError(f"--lora needs {LORA.what}", found=LORA.found(engine), do=LORA.do)
    if engine.target == "tensorrt-llm" and engine.dtype != "float16":
        # its reader of .npy files knows no bfloat16, and adapters must have the engine's dtype
        raise LimitError(
            "TensorRT-LLM loads adapters at its start only into float16 engines",
            found=engine.dtype,
            do="convert the model with --dtype float16, or let requests bring the adapters",
        )


def _alone(options: RepositoryOptions, _: Engine) -> Iterator[LimitError]:
    """Settings that would be ignored for want of another."""
    for name, (other, wanted) in _TOGETHER.items():
        if getattr(options, name) in (SETTINGS[name].default, False, 0):
            continue
        found = getattr(options, other)
        if not (found if wanted is None else found == wanted):
            text = other if wanted in (None, True) else f"{other} {wanted}"
            yield LimitError(f"{name} does nothing without {text}", found=f"{other} {found}")
    if options.speculative_decoding_fast_logits and not options.participant_ids:
        yield LimitError(
            "speculative_decoding_fast_logits does nothing without participant_ids",
            do="it is for orchestrator mode without spawned processes",
        )


def _limits(options: RepositoryOptions, engine: Engine) -> Iterator[LimitError]:
    """Numbers beyond the engine's."""
    windows = options.max_attention_window_size or ()
    for name, most, value in (
        ("triton_max_batch_size", engine.max_batch_size, options.triton_max_batch_size),
        ("max_beam_width", engine.max_beam_width, options.max_beam_width),
    ):
        if value is not None and value > most:
            do = "build the engine for more, or ask for less"
            yield LimitError(f"{name} is at most the engine's {most}", found=str(value), do=do)
    if engine.target == "openvino" and windows and min(windows) < engine.max_seq_len:
        yield LimitError(
            "an engine on a CPU has the attention windows that its model was trained with",
            found=f"max_attention_window_size {min(windows)}",
            do="leave it out",
        )
    optimal, largest = options.lora_cache_optimal_adapter_size, options.lora_cache_max_adapter_size
    if (optimal or 8) > (largest or 64):
        yield LimitError(
            "lora_cache_optimal_adapter_size is at most lora_cache_max_adapter_size",
            found=f"{optimal or 8} and {largest or 64}",
        )
    beams = options.decoding_mode == "beam_search"
    if options.decoding_mode and beams != ((options.max_beam_width or 1) > 1):
        yield LimitError(
            f"decoding_mode {options.decoding_mode} doesn't go with max_beam_width",
            found=str(options.max_beam_width),
            do="beam_search is for more beams than one, the others are for one",
        )


def _cache(options: RepositoryOptions, engine: Engine) -> Iterator[LimitError]:
    """What upstream's engine refuses of a KV cache when it loads."""
    if options.kv_cache_onboard_blocks is False and engine.paged_context:
        yield LimitError(
            "blocks must be brought back where attention is on paged contexts",
            found="kv_cache_onboard_blocks false",
            do="leave it out",
        )
    external = engine.speculative_mode == "draft_tokens_external"
    if external and not options.enable_kv_cache_reuse:
        yield LimitError(
            "an engine that verifies drafts needs enable_kv_cache_reuse",
            found=f"speculative_decoding_mode {engine.speculative_mode}",
            do="leave it on, and build the engine with paged context attention",
        )


def _lookahead(options: RepositoryOptions, engine: Engine) -> Iterator[LimitError]:
    """Lookahead's sizes, and the draft that follows from them (upstream's executor/types)."""
    if options.decoding_mode != "lookahead":
        return
    window, ngram, guesses = (getattr(options, name) for name in _LOOKAHEAD)
    if None in (window, ngram, guesses):
        missing = next(name for name in _LOOKAHEAD if getattr(options, name) is None)
        yield LimitError("decoding_mode lookahead needs its sizes", found=f"no {missing}")
        return
    draft_tokens = max(ngram - 2, 0) + (window - 1 + guesses) * (ngram - 1)
    if draft_tokens > engine.max_draft_len:
        yield LimitError(
            f"lookahead drafts at most the engine's {engine.max_draft_len} tokens",
            found=f"{draft_tokens}, by {window}, {ngram} and {guesses}",
            do="build the engine with a longer --max-draft-len, or ask for less",
        )


def _places(options: RepositoryOptions, engine: Engine) -> Iterator[LimitError]:
    """GPUs and ranks: a group for each instance, a number for each rank of the engine."""
    count = options.tensorrt_llm_instance_count
    on_gpus = engine.target != "openvino"
    if on_gpus and count > 1 and not (options.gpu_device_ids or options.participant_ids):
        yield LimitError(
            "several instances of an engine need gpu_device_ids",
            found=f"tensorrt_llm_instance_count {count}",
            do="give each its GPUs: 0;1 or 0,1;2,3",
        )
    for name in ("gpu_device_ids", "participant_ids"):
        groups: Groups | None = getattr(options, name)
        if groups:
            yield from _groups(name, groups, count, engine)
    if options.num_nodes and engine.world_size % options.num_nodes:
        yield LimitError(
            f"num_nodes must divide the engine's {engine.world_size} ranks",
            found=str(options.num_nodes),
        )


def _groups(name: str, groups: Groups, count: int, engine: Engine) -> Iterator[LimitError]:
    # in orchestrator mode the first participant is the leader of the others
    sizes = {len(group) for group in groups}
    if sizes != {engine.world_size}:
        yield LimitError(
            f"{name} needs {engine.world_size} for each instance, one for each rank",
            found=" and ".join(map(str, sorted(sizes))),
        )
    if len(groups) != count:
        yield LimitError(
            f"{name} needs a group for each of the {count} instances",
            found=str(len(groups)),
            do="set tensorrt_llm_instance_count to their number",
        )
    numbers = [number for group in groups for number in group]
    if len(set(numbers)) < len(numbers):
        yield LimitError(f"{name} has a number twice", found=str(numbers))
