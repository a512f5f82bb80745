"""An engine for the `tensorrtllm` backend: what its `config.json` and the parameters make of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import ArtifactError, LimitError, MissingToolError
from builder.limits import kv_bytes_per_token
from builder.machine.resources import memory
from triton_repo.executor.adapters import Adapters, CacheLimits
from triton_repo.executor.config import ExecutorConfig
from triton_repo.executor.executor import Executor
from triton_repo.runtime.inputs import Accepts
from triton_repo.runtime.tensorrtllm_parameters import Parameters

if TYPE_CHECKING:
    from triton_repo.executor.guide import Guides


@dataclass(frozen=True, kw_only=True)
class LoadedEngine:
    """A running executor and what belongs to it. `guides` is None where they are off."""

    executor: Executor
    accepts: Accepts
    guides: Guides | None
    adapters: Adapters


def load(parameters: Parameters) -> LoadedEngine:
    """Load the engine that the parameters name.

    Raises TrtbuildError when it can't be loaded, or wasn't built for what they ask.
    """
    path = Path(parameters.gpt_model_path)
    limits = ExecutorConfig.of(path)
    config = json.loads((path / "config.json").read_text())
    build = config["build_config"]
    _check(parameters, build)
    accepts = _accepts(parameters, build, limits)
    return LoadedEngine(
        accepts=accepts,
        guides=_guides(parameters, limits.vocab_size) if accepts.guides else None,
        adapters=_adapters(parameters, config),
        executor=Executor(path, _executor_config(path, parameters, limits, config)),
    )


def _check(parameters: Parameters, build: dict[str, Any]) -> None:
    built = int(build.get("max_beam_width") or 1)
    if parameters.max_beam_width > built:
        raise LimitError(
            f"tensorrt_llm: parameter max_beam_width exceeds the engine's {built}",
            found=str(parameters.max_beam_width),
            do="build the engine with a larger --max-beam-width",
        )
    window = parameters.max_attention_window_size
    if window is not None and window < build["max_seq_len"]:
        raise LimitError(
            "tensorrt_llm: the CPU engine has the windows that its model was trained with",
            found=f"parameter max_attention_window_size {window}",
            do="leave it out",
        )


def _accepts(parameters: Parameters, build: dict[str, Any], limits: ExecutorConfig) -> Accepts:
    return Accepts(
        vocab_size=limits.vocab_size,
        gather_context_logits=bool(build.get("gather_context_logits")),
        gather_generation_logits=bool(build.get("gather_generation_logits")),
        guides=parameters.guided_decoding and parameters.tokenizer_dir is not None,
        normalize_log_probs=parameters.normalize_log_probs,
        decoupled=parameters.decoupled,
        exclude_input=parameters.exclude_input_in_output,
    )


def _executor_config(
    path: Path, parameters: Parameters, limits: ExecutorConfig, config: dict[str, Any]
) -> ExecutorConfig:
    """As on a GPU the KV cache has the smaller of a number of tokens and a share of memory.

    The number is the parameter's, else what the engine was planned with; the share, of the memory
    that is free now, counts only where it is set.
    """
    tokens = parameters.max_tokens_in_paged_kv_cache or limits.kv_cache_tokens
    share = parameters.kv_cache_free_gpu_mem_fraction
    if share is not None:
        token_bytes = kv_bytes_per_token(config["pretrained_config"], cache_dtype=limits.dtype)
        tokens = min(tokens, int(share * memory().available_bytes) // token_bytes)
    return ExecutorConfig.of(
        path,
        kv_cache_tokens=tokens,
        max_beam_width=parameters.max_beam_width,
        max_queue_size=parameters.max_queue_size,
        enable_chunked_context=parameters.enable_chunked_context,
        enable_kv_cache_reuse=parameters.enable_kv_cache_reuse,
        guaranteed_no_evict=parameters.guaranteed_no_evict,
    )


def _guides(parameters: Parameters, vocab_size: int) -> Guides:
    from text.tokenizer_folder import TokenizerFolder

    try:
        from triton_repo.executor.guide import Guides
    except ImportError as error:
        raise MissingToolError(
            "guided decoding on a CPU needs llguidance",
            found=str(error),
            do="pip install llguidance, or leave guided_decoding_backend out",
        ) from error
    folder = Path(parameters.tokenizer_dir or "")
    if not (folder / "tokenizer.json").is_file():
        raise ArtifactError(
            "tensorrt_llm: parameter tokenizer_dir must be a tokenizer's folder",
            found=f"no {folder / 'tokenizer.json'}",
            do="write the repository again",
        )
    return Guides(folder, vocab_size, TokenizerFolder(folder).eos_ids)


def _adapters(parameters: Parameters, config: dict[str, Any]) -> Adapters:
    prefetch_dir = parameters.lora_prefetch_dir
    limits = CacheLimits(
        host_memory_bytes=parameters.lora_cache_host_memory_bytes,
        max_adapter_size=parameters.lora_cache_max_adapter_size,
        optimal_adapter_size=parameters.lora_cache_optimal_adapter_size,
    )
    return Adapters(config, limits, Path(prefetch_dir) if prefetch_dir else None)
