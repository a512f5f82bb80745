"""Settings that are right one by one and wrong together: each rule with its source.

Upstream says most of these when the model is loaded, and some only in its log; here they are said
before. Sources are validators of TensorRT-LLM's `llmapi/llm_args.py`, unless another is named.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from builder.errors import LimitError
from builder.targets.llmapi.setting import names
from builder.targets.llmapi.settings import MODEL_YAML

_NEURAL = ("Eagle3", "Eagle", "MTP", "PARD", "DFlash", "DSpark", "Draft_Target")
_MUST_DRAFT = ("Eagle3", "Eagle", "NGram", "SA", "Draft_Target", "PARD", "DFlash", "DSpark")


_DEFAULTS = {name: setting.default for name, setting in names(MODEL_YAML)}


class Values:
    """Settings by dotted name: what was set, else TensorRT-LLM's default."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def set(self, name: str) -> Any:
        """What was set, None for nothing."""
        found: Any = self._settings
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def get(self, name: str) -> Any:
        """What holds."""
        found = self.set(name)
        return _DEFAULTS.get(name) if found is None else found

    def all(self, *names: str) -> bool:
        """Whether every one is set to something that isn't false or nothing."""
        return all(self.get(name) for name in names)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What can't be: `broken` gives what was found, None where it doesn't apply."""

    what: str
    source: str
    broken: Callable[[Values], str | None]
    do: str | None = None


def check(settings: Mapping[str, Any]) -> None:
    """Raise LimitError for the first rule that the settings break."""
    values = Values(settings)
    for rule in RULES:
        if found := rule.broken(values):
            raise LimitError(rule.what, found=found, do=rule.do)


def _both(one: str, other: str) -> Callable[[Values], str | None]:
    """Found where both hold."""
    return lambda v: f"{one} with {other}" if v.all(one, other) else None


def _without(one: str, other: str) -> Callable[[Values], str | None]:
    """Found where the first holds and the second doesn't."""
    return lambda v: f"{one} without {other}" if v.get(one) and not v.get(other) else None


def _experts(v: Values) -> str | None:
    names = ("moe_tensor_parallel_size", "moe_expert_parallel_size", "moe_cluster_parallel_size")
    parts, tp = [v.set(name) for name in names], v.get("tensor_parallel_size")
    given = math.prod(part for part in parts if part)
    whole = parts[0] and parts[1]
    wrong = given != tp if whole else tp % given
    shown = ", ".join(f"{name} {part}" for name, part in zip(names, parts, strict=True) if part)
    return f"{shown} with tensor_parallel_size {tp}" if wrong else None


def _partition(v: Values) -> str | None:
    layers, pp = v.set("pp_partition"), v.get("pipeline_parallel_size")
    return f"{len(layers)} ranks of {pp}" if layers and len(layers) != pp else None


def _graph_sizes(v: Values) -> str | None:
    sizes, most = (
        v.set("cuda_graph_config.batch_sizes"),
        v.set("cuda_graph_config.max_batch_size"),
    )
    return f"max_batch_size {most} with {sizes}" if sizes and most and most != max(sizes) else None


def _batch(v: Values) -> str | None:
    batch, tokens = v.set("max_batch_size"), v.get("max_num_tokens")
    return f"{batch} and {tokens}" if batch and tokens and batch > tokens else None


def _draft(v: Values) -> str | None:
    kind, length = _kind(v), v.set("speculative_config.max_draft_len")
    if kind in _MUST_DRAFT and not length:
        return f"{kind} with max_draft_len {length}"
    return f"MTP with max_draft_len {length}" if kind == "MTP" and length == 0 else None


def _draft_model(v: Values) -> str | None:
    kind = _kind(v)
    needs = kind in ("Eagle3", "Eagle", "Draft_Target")
    return (
        f"{kind} without one" if needs and not v.set(f"{_SPECULATIVE}speculative_model") else None
    )


def _schedule(v: Values) -> str | None:
    schedule = v.set(f"{_SPECULATIVE}draft_len_schedule") or {}
    length = v.set(f"{_SPECULATIVE}max_draft_len")
    if any(batch < 1 or draft < 0 for batch, draft in schedule.items()):
        return str(schedule)
    if not schedule or length is None:
        return None
    fits = schedule[min(schedule)] == length and max(schedule.values()) <= length
    return None if fits else f"{schedule} with max_draft_len {length}"


def _tree(v: Values) -> str | None:
    if not v.set(f"{_SPECULATIVE}use_dynamic_tree"):
        return None
    width, depth = (
        v.set(f"{_SPECULATIVE}dynamic_tree_max_topK"),
        v.set(f"{_SPECULATIVE}max_draft_len"),
    )
    nodes = v.set(f"{_SPECULATIVE}max_total_draft_tokens")
    if not width or not depth or v.set(f"{_SPECULATIVE}eagle_choices"):
        return f"dynamic_tree_max_topK {width}, max_draft_len {depth}"
    fits = nodes is None or depth <= nodes <= width * depth
    return None if fits else f"max_total_draft_tokens {nodes} for {width} times {depth}"


def _suffixes(v: Values) -> str | None:
    if _kind(v) != "SA":
        return None
    size = v.set(f"{_SPECULATIVE}max_matching_ngram_size")
    pool = v.set(f"{_SPECULATIVE}global_pool_size")
    shared = v.set(f"{_SPECULATIVE}enable_global_pool")
    if size == 0 or (shared and size is not None and size > 64):
        return f"max_matching_ngram_size {size}"
    if pool and not shared:
        return f"global_pool_size {pool} without enable_global_pool"
    batch = v.get("max_batch_size")
    return f"global_pool_size {pool} for max_batch_size {batch}" if pool and pool < batch else None


def _rejection(v: Values) -> str | None:
    if not v.set(f"{_SPECULATIVE}use_rejection_sampling"):
        return None
    if _kind(v) not in _NEURAL:
        return f"{_kind(v)} has no probabilities to reject by"
    return "sa_config with it" if v.set(f"{_SPECULATIVE}sa_config") else None


def _block(v: Values) -> str | None:
    size, length = v.set(f"{_SPECULATIVE}block_size"), v.set(f"{_SPECULATIVE}max_draft_len")
    return f"{size} and {length}" if size and size != length else None


def _connector(v: Values) -> str | None:
    config = v.set("kv_connector_config")
    if config is None or config.get("connector"):
        return None
    parts = ("connector_module", "connector_scheduler_class", "connector_worker_class")
    missing = [part for part in parts if not config.get(part)]
    return f"no {', '.join(missing)}" if missing else None


def _ratio(v: Values) -> str | None:
    parts = v.set("kv_cache_config.pool_ratio")
    fits = not parts or math.isclose(sum(parts), 1, rel_tol=0, abs_tol=1e-6)
    return None if fits else f"{parts}, which are {sum(parts):g} together"


def _snapshots(v: Values) -> str | None:
    state = v.set("kv_cache_config.mamba_state_config") or {}
    wanted = [name for name in state if name != "periodic_snapshot_interval" and state[name]]
    old = v.set("kv_cache_config.use_kv_cache_manager_v2") is False
    return f"{', '.join(wanted)} with use_kv_cache_manager_v2 false" if wanted and old else None


def _helix(v: Values) -> str | None:
    one, other = v.set("cp_config.tokens_per_block"), v.get("kv_cache_config.tokens_per_block")
    helix = v.set("cp_config.cp_type") == "HELIX" and v.get("context_parallel_size") > 1
    return f"{one} and {other}" if helix and one and one != other else None


def _buckets(v: Values) -> str | None:
    for name, bounds in (v.set("prometheus_metrics_config") or {}).items():
        if bounds is not None and (
            not bounds or any(a >= b for a, b in itertools.pairwise(bounds))
        ):
            return f"{name} {bounds}"
    return None


def _prefill_graphs(v: Values) -> str | None:
    kind = v.get("prefill_cuda_graph_backend")
    if kind != "disabled" and v.get("encode_only"):
        return f"{kind} with encode_only"
    if kind == "breakable":
        for other in ("torch_compile_config", "enable_lora", "lora_config"):
            if v.get(other):
                return f"breakable with {other}"
    return None


def _ray(v: Values) -> str | None:
    needs = [n for n in ("ray_worker_extension_cls", "ray_placement_config") if v.set(n)]
    return needs[0] if needs and v.get("orchestrator_type") != "ray" else None


def _collecting(v: Values) -> str | None:
    config = v.set("layer_wise_benchmarks_config") or {}
    collects = config.get("calibration_mode") == "COLLECT"
    return (
        "no calibration_file_path" if collects and not config.get("calibration_file_path") else None
    )


def _kind(v: Values) -> Any:
    return v.set("speculative_config.decoding_type")


_SPECULATIVE = "speculative_config."

RULES = (
    Rule(
        what="the experts' ranks must be the tensor-parallel ones",
        source="tensorrt_llm/mapping.py: moe_tp * moe_ep * moe_cluster is tp",
        broken=_experts,
        do="choose a moe_expert_parallel_size that divides tensor_parallel_size",
    ),
    Rule(
        what="pp_partition must name the layers of every pipeline rank",
        source="tensorrt_llm/mapping.py",
        broken=_partition,
    ),
    Rule(
        what="max_batch_size can't be more than max_num_tokens: a request takes a token a step",
        source="BaseLlmArgs.validate_runtime_args, which warns",
        broken=_batch,
    ),
    Rule(
        what="cuda_graph_config.max_batch_size must be the largest of its batch_sizes",
        source="BaseCudaGraphConfig.validate_base_cuda_graph_config",
        broken=_graph_sizes,
        do="leave one of them out",
    ),
    Rule(
        what="a Triton model of texts needs its tokenizer",
        source="triton_backend/all_models/llmapi: text_input and text_output",
        broken=lambda v: "skip_tokenizer_init" if v.get("skip_tokenizer_init") else None,
        do="leave skip_tokenizer_init out",
    ),
    Rule(
        what="this speculative decoding needs a max_draft_len of at least 1",
        source="the validators of each DecodingConfig",
        broken=_draft,
        do="set speculative_config.max_draft_len",
    ),
    Rule(
        what="this speculative decoding needs a draft model",
        source="EagleDecodingConfig and DraftTargetDecodingConfig",
        broken=_draft_model,
        do="set speculative_config.speculative_model to its folder",
    ),
    Rule(
        what="a speculation cut-off and a schedule of draft lengths exclude each other",
        source="DecodingBaseConfig.validate_max_concurrency_and_draft_len_schedule_…",
        broken=_both(f"{_SPECULATIVE}max_concurrency", f"{_SPECULATIVE}draft_len_schedule"),
        do="leave max_concurrency out",
    ),
    Rule(
        what="a draft_len_schedule must begin with max_draft_len and not exceed it",
        source="DecodingBaseConfig.validate_draft_len_schedule_and_sort",
        broken=_schedule,
    ),
    Rule(
        what="a dynamic tree needs dynamic_tree_max_topK and max_draft_len, and no fixed choices",
        source="EagleDecodingConfig.validate_eagle_config, MTPDecodingConfig",
        broken=_tree,
    ),
    Rule(
        what="the suffix automaton's settings don't fit",
        source="SADecodingConfig.validate_sa_config",
        broken=_suffixes,
    ),
    Rule(
        what="use_rejection_sampling needs a draft model's probabilities",
        source="TorchLlmArgs.validate_speculative_config",
        broken=_rejection,
        do="leave it out",
    ),
    Rule(
        what="DSpark's block_size must be its max_draft_len",
        source="TorchLlmArgs.validate_speculative_config",
        broken=_block,
    ),
    Rule(
        what="a disk cache needs a folder",
        source="KvCacheConfig.validate_disk_cache_config",
        broken=_without("kv_cache_config.disk_cache_size", "kv_cache_config.disk_cache_path"),
    ),
    Rule(
        what="kv_cache_config.pool_ratio must add up to 1",
        source="KvCacheConfig.validate_pool_ratio",
        broken=_ratio,
    ),
    Rule(
        what="these snapshots need the second KV cache manager",
        source="KvCacheConfig.validate_mamba_snapshot_offsets",
        broken=_snapshots,
    ),
    Rule(
        what="an fp8_ds_mla cache can't be rebalanced",
        source="KvCacheConfig.reject_fp8_ds_mla_pool_rebalance",
        broken=lambda v: (
            "enable_kv_pool_rebalance"
            if v.get("kv_cache_config.dtype") == "fp8_ds_mla"
            and v.get("kv_cache_config.enable_kv_pool_rebalance")
            else None
        ),
    ),
    Rule(
        what="cp_config and kv_cache_config must have the same tokens_per_block",
        source="TorchLlmArgs.validate_helix_tokens_per_block",
        broken=_helix,
    ),
    Rule(
        what="a KV cache connector needs a preset, or its module and both classes",
        source="KvCacheConnectorConfig",
        broken=_connector,
        do="set kv_connector_config.connector",
    ),
    Rule(
        what="the PyTorch backend doesn't tune batches by itself",
        source="SchedulerConfig.dynamic_batch_config's description",
        broken=lambda v: (
            "dynamic_batch_config" if v.set("scheduler_config.dynamic_batch_config") else None
        ),
        do="leave it out",
    ),
    Rule(
        what="LoRA's own CUDA graphs exclude attention data parallelism",
        source="BaseLlmArgs.validate_lora_config_consistency",
        broken=_both("lora_config.cuda_graph_specialize_lora", "enable_attention_dp"),
    ),
    Rule(
        what="adapters can't be prefetched",
        source="BaseLlmArgs.validate_peft_cache_config",
        broken=lambda v: v.set("peft_cache_config.lora_prefetch_dir"),
        do="leave lora_prefetch_dir out",
    ),
    Rule(
        what="statistics of requests need those of iterations",
        source="TorchLlmArgs.enable_iter_req_stats' description",
        broken=_without("enable_iter_req_stats", "enable_iter_perf_stats"),
        do="set enable_iter_perf_stats",
    ),
    Rule(
        what="histogram buckets must rise",
        source="PrometheusMetricsConfig.validate_histogram_buckets",
        broken=_buckets,
    ),
    Rule(
        what="skip-correction needs attn_backend TRTLLM",
        source="TorchLlmArgs.validate_mla_skip_correction_config",
        broken=lambda v: (
            v.get("attn_backend")
            if v.get("enable_mla_skip_correction") and v.get("attn_backend") != "TRTLLM"
            else None
        ),
    ),
    Rule(
        what="these CUDA graphs for prefill don't go with the rest",
        source="TorchLlmArgs.normalize_prefill_cuda_graph_config",
        broken=_prefill_graphs,
    ),
    Rule(
        what="graphs of an encoder need encoder_max_batch_size",
        source="TorchLlmArgs.validate_encoder_cuda_graph_config",
        broken=_without("encoder_cuda_graph_config", "encoder_max_batch_size"),
    ),
    Rule(
        what="graphs of an encoder of its own are cuda_graph_config's",
        source="TorchLlmArgs.validate_encoder_cuda_graph_config",
        broken=_both("encoder_cuda_graph_config", "encode_only"),
    ),
    Rule(
        what="encode_only and mm_encoder_only exclude each other",
        source="TorchLlmArgs.validate_encoder_modes",
        broken=_both("encode_only", "mm_encoder_only"),
    ),
    Rule(
        what="the encoder can't be left out and be all that runs",
        source="TorchLlmArgs.validate_encoder_modes",
        broken=_both("disable_mm_encoder", "mm_encoder_only"),
    ),
    Rule(
        what="encoder graphs exclude encoding ahead",
        source="MultimodalConfig.validate_encoder_optimization_compatibility",
        broken=_both(
            "multimodal_config.encoder_cuda_graph",
            "multimodal_config.encoder_side_stream_max_ahead",
        ),
    ),
    Rule(
        what="the speculative beam history excludes the sampler's own worker",
        source="TorchLlmArgs.validate_speculative_beam_history_d2h",
        broken=_both("enable_speculative_beam_history_d2h", "sampler_force_async_worker"),
    ),
    Rule(
        what="weights from the GPU Memory Service exclude an expert load balancer",
        source="TorchLlmArgs.validate_gms_moe_compat",
        broken=lambda v: (
            "moe_config.load_balancer"
            if v.get("load_format") == "gms" and v.set("moe_config.load_balancer")
            else None
        ),
    ),
    Rule(
        what="this needs orchestrator_type ray",
        source="TorchLlmArgs.validate_ray_worker_extension_cls, …_ray_placement_config",
        broken=_ray,
    ),
    Rule(
        what="collecting layer by layer needs a file",
        source="LayerwiseBenchmarksConfig.validate_calibration_file_path",
        broken=_collecting,
    ),
)
