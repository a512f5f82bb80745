"""Every setting of a repository: one table, from which checks, flags and parameters come.

The names are upstream's, of `all_models/inflight_batcher_llm` and of what its C++ backend reads
besides. None leaves the choice to the engine or to the backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from builder.errors import LimitError
from triton_repo.settings.needs import (
    DECODING,
    IN_FLIGHT,
    LORA,
    PAGED_CONTEXT,
    REUSE,
    SINKS,
    STREAMED_WEIGHTS,
)
from triton_repo.settings.table import Kind, Setting, setting, table

BATCHING = "Batching and queue"
CACHE = "KV cache"
ANSWERS = "Answers"
TEXT = "Text"
DRAFTS = "Speculative decoding"
GUIDES = "Guided decoding"
ADAPTERS = "LoRA"
PLACES = "GPUs and ranks"
KERNELS = "Kernels"
PERIODS = "Cancellation and statistics"
GROUPS = BATCHING, CACHE, ANSWERS, TEXT, DRAFTS, GUIDES, ADAPTERS, PLACES, KERNELS, PERIODS

_FLAG, _WHOLE, _FRACTION, _CHOICE = Kind.FLAG, Kind.WHOLE, Kind.FRACTION, Kind.CHOICE
_MOST = 2**31 - 1
_MOST_BYTES = 2**63 - 1
_COUNT: dict[str, Any] = {"low": 1, "high": _MOST}
_SIZE: dict[str, Any] = {"low": 0, "high": _MOST}
_BYTES: dict[str, Any] = {"low": 0, "high": _MOST_BYTES}
_PART: dict[str, Any] = {"low": 0, "high": 1}
_SOME: dict[str, Any] = {"low": 0.001, "high": 1}


@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """Settings of the models of one engine."""

    # Batching and queue
    triton_max_batch_size: int | None = setting(
        _WHOLE,
        None,
        BATCHING,
        "Requests that Triton gives the models at once; by default the engine's.",
        parameter="",
        **_COUNT,
    )
    batching_strategy: str = setting(
        _CHOICE,
        "inflight_fused_batching",
        BATCHING,
        "How requests share the engine; both mean the same to TensorRT-LLM 1.2, V1 is gone.",
        parameter="gpt_model_type",
        choices=("inflight_fused_batching", "inflight_batching"),
        needs=IN_FLIGHT,
    )
    batch_scheduler_policy: str = setting(
        _CHOICE,
        "max_utilization",
        BATCHING,
        "Whether a request starts when its prompt fits, or when its longest answer does.",
        choices=("max_utilization", "guaranteed_no_evict"),
        why="guaranteed_no_evict sets aside the longest possible answer, which for a client that"
        " names no limit is the whole sequence length",
    )
    enable_chunked_context: bool | None = setting(
        _FLAG,
        None,
        BATCHING,
        "Compute long prompts in parts; by default where the engine can.",
        needs=PAGED_CONTEXT,
        why="a long prompt then doesn't hold up the answers of others",
    )
    decoupled: bool = setting(
        _FLAG,
        True,
        BATCHING,
        "Let a request have many responses, which streams need.",
        parameter="",
        why="without it no client can stream",
    )
    max_queue_delay_microseconds: int = setting(
        _WHOLE,
        0,
        BATCHING,
        "How long Triton waits to fill a batch.",
        parameter="",
        **_SIZE,
    )
    max_queue_size: int = setting(
        _WHOLE,
        0,
        BATCHING,
        "Requests that may wait before others are refused; 0 is no limit.",
        parameter="",
        **_SIZE,
    )
    default_timeout_microseconds: int = setting(
        _WHOLE,
        0,
        BATCHING,
        "How long a request may wait in Triton's queue; 0 is for ever.",
        parameter="",
        **_BYTES,
    )
    timeout_action: str = setting(
        _CHOICE,
        "REJECT",
        BATCHING,
        "What becomes of a request that has waited so long.",
        parameter="",
        choices=("REJECT", "DELAY"),
    )
    allow_timeout_override: bool = setting(
        _FLAG,
        False,
        BATCHING,
        "Let a request bring a shorter timeout of its own.",
        parameter="",
    )

    # KV cache
    kv_cache_free_gpu_mem_fraction: float | None = setting(
        _FRACTION,
        None,
        CACHE,
        "Part of the memory that is free once the engine is loaded; by default 0.9, shared by the"
        " engines of a GPU.",
        **_SOME,
    )
    max_tokens_in_paged_kv_cache: int | None = setting(
        _WHOLE, None, CACHE, "Tokens that the KV cache holds at most.", **_COUNT
    )
    enable_kv_cache_reuse: bool | None = setting(
        _FLAG,
        None,
        CACHE,
        "Keep the blocks of prompts for others that begin alike; by default where the engine can.",
        needs=REUSE,
    )
    kv_cache_host_memory_bytes: int | None = setting(
        _WHOLE,
        None,
        CACHE,
        "Memory of the host for blocks that the GPU has no room for.",
        **_BYTES,
    )
    kv_cache_onboard_blocks: bool | None = setting(
        _FLAG,
        None,
        CACHE,
        "Bring blocks back from the host before they are used.",
    )
    max_attention_window_size: tuple[int, ...] | None = setting(
        Kind.LIST,
        None,
        CACHE,
        "Tokens that attention looks back on; several are for the layers in turn.",
        **_COUNT,
    )
    sink_token_length: int | None = setting(
        _WHOLE,
        None,
        CACHE,
        "Tokens at the start that an attention window always keeps.",
        needs=SINKS,
        **_SIZE,
    )

    # Answers
    max_beam_width: int | None = setting(
        _WHOLE,
        None,
        ANSWERS,
        "Beams of a request at most; by default the engine's.",
        **_COUNT,
    )
    decoding_mode: str | None = setting(
        _CHOICE,
        None,
        ANSWERS,
        "How tokens are chosen; by default by top_k and top_p, or by beams.",
        choices=("top_k", "top_p", "top_k_top_p", *DECODING),
        needs=DECODING,
    )
    exclude_input_in_output: bool = setting(
        _FLAG,
        True,
        ANSWERS,
        "Leave the prompt out of the answer where a request doesn't say.",
        why="an answer that repeats the prompt surprises everyone",
    )
    normalize_log_probs: bool = setting(
        _FLAG,
        False,
        ANSWERS,
        "Give log probabilities among the top_k tokens, not among all.",
        why="among the one token of a greedy answer each is 0",
    )

    # Text
    add_special_tokens: bool = setting(
        _FLAG, True, TEXT, "Let the tokenizer put its special tokens around a prompt."
    )
    skip_special_tokens: bool = setting(_FLAG, True, TEXT, "Leave special tokens out of the text.")
    accumulate_tokens: bool = setting(
        _FLAG,
        False,
        TEXT,
        "Send all of a stream's text so far each time, not what is new (tensorrt_llm_bls). Upstream"
        " needs it for whole letters, ours doesn't.",
    )
    preprocessing_instance_count: int = setting(
        _WHOLE, 1, TEXT, "Instances of preprocessing.", parameter="", **_COUNT
    )
    postprocessing_instance_count: int = setting(
        _WHOLE,
        1,
        TEXT,
        "Instances of postprocessing; several hand out a stream's parts in a wrong order.",
        parameter="",
        low=1,
        high=1,
    )
    bls_instance_count: int = setting(
        _WHOLE,
        1,
        TEXT,
        "Instances of ensemble and of tensorrt_llm_bls; ours take many requests in one.",
        parameter="",
        **_COUNT,
    )

    # Speculative decoding
    lookahead_window_size: int | None = setting(
        _WHOLE, None, DRAFTS, "Lookahead's window, in tokens.", **_COUNT
    )
    lookahead_ngram_size: int | None = setting(
        _WHOLE, None, DRAFTS, "Lookahead's n-grams, in tokens.", **_COUNT
    )
    lookahead_verification_set_size: int | None = setting(
        _WHOLE, None, DRAFTS, "Lookahead's n-grams verified at once.", **_SIZE
    )
    medusa_choices: tuple[tuple[int, ...], ...] | None = setting(
        Kind.PATHS,
        None,
        DRAFTS,
        "Medusa's tree of drafts, {0},{0,0},{1}; by default upstream's mc_sim_7b_63.",
        needs=DECODING["medusa"],
    )
    eagle_choices: tuple[tuple[int, ...], ...] | None = setting(
        Kind.PATHS, None, DRAFTS, "Eagle's tree of drafts.", needs=DECODING["eagle"]
    )
    speculative_decoding_fast_logits: bool | None = setting(
        _FLAG,
        None,
        DRAFTS,
        "Send a draft's logits between GPUs; in orchestrator mode without spawned processes.",
    )

    # Guided decoding
    guided_decoding_backend: str | None = setting(
        _CHOICE,
        None,
        GUIDES,
        "What holds answers to a grammar, none to refuse those; by default xgrammar where the"
        " tokenizer allows it.",
        choices=("xgrammar", "none"),
        why="it costs nothing where no request asks for it",
    )
    xgrammar_tokenizer_info_path: str | None = setting(
        Kind.TEXT,
        None,
        GUIDES,
        "xgrammar's file of the tokenizer, from the repository's root; by default ours.",
    )

    # LoRA
    lora_cache_optimal_adapter_size: int | None = setting(
        _WHOLE, None, ADAPTERS, "The rank that the caches are laid out for.", needs=LORA, **_COUNT
    )
    lora_cache_max_adapter_size: int | None = setting(
        _WHOLE, None, ADAPTERS, "The largest rank that the caches take.", needs=LORA, **_COUNT
    )
    lora_cache_gpu_memory_fraction: float | None = setting(
        _FRACTION,
        None,
        ADAPTERS,
        "Part of the memory left after loading for adapters.",
        needs=LORA,
        **_PART,
    )
    lora_cache_host_memory_bytes: int | None = setting(
        _WHOLE, None, ADAPTERS, "Memory of the host for adapters.", needs=LORA, **_BYTES
    )
    lora_prefetch_dir: str | None = setting(
        Kind.TEXT,
        None,
        ADAPTERS,
        "A folder of adapters to load at the start, from the repository's root; by default that of"
        " --lora.",
        needs=LORA,
    )

    # GPUs and ranks
    tensorrt_llm_instance_count: int = setting(
        _WHOLE,
        1,
        PLACES,
        "Instances of the engine, each on GPUs of its own.",
        parameter="",
        **_COUNT,
    )
    gpu_device_ids: tuple[tuple[int, ...], ...] | None = setting(
        Kind.GROUPS,
        None,
        PLACES,
        "GPUs of each instance, a rank each: 0,1;2,3.",
        **_SIZE,
    )
    participant_ids: tuple[tuple[int, ...], ...] | None = setting(
        Kind.GROUPS,
        None,
        PLACES,
        "MPI ranks of each instance, where they aren't spawned.",
        **_SIZE,
    )
    num_nodes: int | None = setting(
        _WHOLE, None, PLACES, "Machines, in orchestrator mode.", **_COUNT
    )
    executor_worker_path: str = setting(
        Kind.TEXT,
        "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker",
        PLACES,
        "The program of a rank, in orchestrator mode.",
    )
    force_cpu_only_input_tensors: str = setting(
        _CHOICE,
        "no",
        PLACES,
        "Whether Triton hands inputs over in the host's memory.",
        parameter="FORCE_CPU_ONLY_INPUT_TENSORS",
        choices=("no", "yes"),
    )

    # Kernels
    gpu_weights_percent: float | None = setting(
        _FRACTION,
        None,
        KERNELS,
        "Part of the weights that stays on the GPU, 0 to 1.",
        needs=STREAMED_WEIGHTS,
        idle=(None, 1),
        **_PART,
    )
    enable_context_fmha_fp32_acc: bool | None = setting(
        _FLAG, None, KERNELS, "Add up attention of prompts in float32."
    )
    multi_block_mode: bool | None = setting(
        _FLAG, None, KERNELS, "Divide attention on long texts over more of the GPU."
    )
    cuda_graph_mode: bool | None = setting(_FLAG, None, KERNELS, "Replay steps as CUDA graphs.")
    cuda_graph_cache_size: int | None = setting(_WHOLE, None, KERNELS, "CUDA graphs kept.", **_SIZE)
    enable_trt_overlap: bool | None = setting(
        _FLAG, None, KERNELS, "Prepare a batch while another is computed."
    )

    # Cancellation and statistics
    cancellation_check_period_ms: int = setting(
        _WHOLE,
        10,
        PERIODS,
        "How often clients that went away are looked for.",
        why="a slot is worth a step; on a CPU some are looked for each time; upstream's is 100",
        **_COUNT,
    )
    stats_check_period_ms: int | None = setting(
        _WHOLE, None, PERIODS, "How often statistics are reported.", **_COUNT
    )
    iter_stats_max_iterations: int | None = setting(
        _WHOLE, None, PERIODS, "Steps whose statistics are kept.", **_SIZE
    )
    request_stats_max_iterations: int | None = setting(
        _WHOLE, None, PERIODS, "Steps whose requests' statistics are kept.", **_SIZE
    )
    recv_poll_period_ms: int | None = setting(
        _WHOLE,
        None,
        PERIODS,
        "Pause between looks for messages of other ranks; by default none.",
        **_SIZE,
    )

    def __post_init__(self) -> None:
        """Raise LimitError for a value that isn't one of its setting's."""
        for name, each in SETTINGS.items():
            each.checked(getattr(self, name))


SETTINGS: Mapping[str, Setting] = table(RepositoryOptions)
"""Every setting by name."""

UNREACHABLE: Mapping[str, str] = {
    "encoder_model_path": "the engines built here are decoders",
    "cross_kv_cache_fraction": "only an encoder's output needs it",
    "multimodal_model_path": "the engines built here take text",
    "multimodal_encoders_name": "the engines built here take text",
    "max_num_images": "the engines built here take text",
    "gpt_model_path": "it is where the repository has the engine",
    "tokenizer_dir": "it is where the repository has the tokenizer",
    "tensorrt_llm_model_name": "it follows from the engine's name",
    "tensorrt_llm_draft_model_name": "it is the engine of --draft",
}
"""Upstream's parameters that no setting reaches, and why."""


def by_any_name(name: str) -> Setting:
    """The setting called `name` here or among upstream's parameters. Raises LimitError."""
    for each in SETTINGS.values():
        if name in (each.name, each.parameter):
            return each
    why = UNREACHABLE.get(name)
    raise LimitError(
        f"{name} can't be set" if why else f"no setting is called {name}",
        found=why,
        do="trtbuild repo --help lists the settings",
    )


def with_words(options: RepositoryOptions, words: Mapping[str, str]) -> RepositoryOptions:
    """`options` with settings replaced by words of the command line, by any of their names."""
    found = {each.name: each.read(word) for each, word in _named(words)}
    return replace(options, **found)


def _named(words: Mapping[str, str]) -> list[tuple[Setting, str]]:
    return [(by_any_name(name), word) for name, word in words.items()]
