"""`tensorrt_llm`: the engine, token ids in and out. The same for GPU and CPU engines."""

from __future__ import annotations

from typing import Any

from builder.errors import LimitError
from triton_repo.contract import contract
from triton_repo.engine import ENGINE_DIR, Engine
from triton_repo.models.pbtxt import (
    model_config,
    set_batching,
    set_instances,
    set_parameters,
)
from triton_repo.options import RepositoryOptions

NAME = "tensorrt_llm"
BACKEND = "tensorrtllm"


def config(engine: Engine, options: RepositoryOptions) -> Any:
    """The ModelConfig of `tensorrt_llm`.

    Raises LimitError where the options ask for what the engine wasn't built for.
    """
    message = model_config(contract(NAME), engine, backend=BACKEND)
    # streaming needs it: one request, many responses
    message.model_transaction_policy.decoupled = True
    set_batching(message, engine, options)
    set_instances(message, 1)
    set_parameters(message, contract(NAME), _parameters(engine, options))
    return message


def _parameters(engine: Engine, options: RepositoryOptions) -> dict[str, str | int | float | None]:
    return {
        "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
        "gpt_model_type": "inflight_fused_batching",
        "gpt_model_path": ENGINE_DIR,
        "tokenizer_dir": ENGINE_DIR,
        "executor_worker_path": "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker",
        "max_beam_width": engine.max_beam_width,
        "batch_scheduler_policy": options.batch_scheduler_policy,
        "exclude_input_in_output": True,
        "enable_kv_cache_reuse": _paged("enable_kv_cache_reuse", engine, options),
        "enable_chunked_context": _paged("enable_chunked_context", engine, options),
        "kv_cache_free_gpu_mem_fraction": options.kv_cache_free_gpu_mem_fraction,
        "cancellation_check_period_ms": options.cancellation_check_period_ms,
        "max_tokens_in_paged_kv_cache": options.max_tokens_in_paged_kv_cache,
    }


def _paged(name: str, engine: Engine, options: RepositoryOptions) -> bool:
    """A setting that needs an engine with paged context attention; on by default where it is."""
    chosen: bool | None = getattr(options, name)
    if chosen and not engine.paged_context:
        raise LimitError(
            f"{name} needs an engine with paged context attention",
            found="plugin_config.use_paged_context_fmha false",
            do=f"build the engine with it, or leave {name} off",
        )
    return engine.paged_context if chosen is None else chosen
