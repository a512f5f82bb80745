"""What became of each field of an engine's `config.json` in the LLM API, as data.

The engine's fields are those of TensorRT-LLM 1.2 (`builder.py`, `plugin/plugin.py`,
`lora_helper.py`, `models/modeling_utils.py`); the settings are llmapi/settings.py's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from builder.migrate.row import Fate, Row

OFF = (None, False, 0, "", "disable", "none")
_COMPILER = "it was the engine compiler's, and nothing is compiled"
_KERNELS = "the backend chooses its kernels, and tunes them when it starts"
_WEIGHTS = "it follows from how the model folder's weights are quantized"


def _kept(name: str, setting: str, text: str = "", **more: Any) -> Row:
    return Row(name=name, fate=Fate.KEPT, setting=setting, text=text, **more)


def _lost(name: str, text: str, *, neutral: tuple[Any, ...] = OFF, **more: Any) -> Row:
    return Row(name=name, fate=Fate.LOST, text=text, neutral=neutral, **more)


def _unneeded(text: str, *names: str) -> tuple[Row, ...]:
    return tuple(Row(name=name, fate=Fate.UNNEEDED, text=text) for name in names)


_LIMITS = (
    _kept("max_batch_size", "max_batch_size"),
    _kept("max_seq_len", "max_seq_len"),
    _kept("max_num_tokens", "max_num_tokens"),
    _kept("max_beam_width", "max_beam_width", neutral=(1, None)),
    *_unneeded("a prompt may have all but one of max_seq_len's tokens", "max_input_len"),
    *_unneeded(_KERNELS, "opt_batch_size", "opt_num_tokens"),
    *_unneeded(
        "only encoder-decoder models have one: for those set encoder_max_num_tokens",
        "max_encoder_input_len",
    ),
    _lost(
        "max_prompt_embedding_table_size",
        "no embedding table is taken with a request: merge a tuned prompt into the weights, and "
        "serve images with trtllm-serve",
    ),
)

_CACHE = (
    _lost(
        "kv_cache_type",
        "a model without a cache is an encoder: --set encode_only=true",
        neutral=(),
        only=("DISABLED", "disabled"),
    ),
    *_unneeded("every cache is paged", "kv_cache_type"),
)

_LOGITS = (
    *_unneeded("a request gets them that asks: return_context_logits", "gather_context_logits"),
    _kept("gather_generation_logits", "gather_generation_logits", neutral=OFF),
)

_FINDING = "--set speculative_config.decoding_type="
_SPECULATIVE = (
    Row(
        name="speculative_decoding_mode",
        fate=Fate.UNUSED,
        only=("none", None),
    ),
    _lost(
        "speculative_decoding_mode",
        f"give the draft model's Hugging Face folder: {_FINDING}Draft_Target "
        "--set speculative_config.speculative_model=FOLDER",
        only=("draft_tokens_external",),
    ),
    _lost(
        "speculative_decoding_mode",
        f"Medusa's heads aren't loaded: find or train an EAGLE-3 draft model, {_FINDING}Eagle3 "
        "--set speculative_config.speculative_model=FOLDER",
        only=("medusa",),
    ),
    _lost(
        "speculative_decoding_mode",
        f"lookahead is gone; what also needs no draft model is {_FINDING}NGram, which looks the "
        "draft up in the prompt",
        only=("lookahead_decoding",),
    ),
    _lost(
        "speculative_decoding_mode",
        f"ReDrafter is gone: find or train an EAGLE-3 draft model, {_FINDING}Eagle3 "
        "--set speculative_config.speculative_model=FOLDER",
        only=("explicit_draft_tokens",),
    ),
    _lost(
        "speculative_decoding_mode",
        "draft models of EAGLE 1 and 2 aren't loaded: find or train one of EAGLE 3, "
        f"{_FINDING}Eagle3 --set speculative_config.speculative_model=FOLDER",
        only=("eagle",),
    ),
    _lost("speculative_decoding_mode", "{value} has no equivalent", neutral=()),
    _lost(
        "max_draft_len",
        "it goes with the speculative decoding: --set speculative_config.max_draft_len={value}",
    ),
)

_ADAPTERS = (
    _kept("lora_config.lora_dir", "lora_config.lora_dir", neutral=([], None)),
    _kept("lora_config.lora_ckpt_source", "lora_config.lora_ckpt_source"),
    _kept("lora_config.max_lora_rank", "lora_config.max_lora_rank"),
    _kept(
        *("lora_config.lora_target_modules", "lora_config.lora_target_modules"), neutral=([], None)
    ),
    _kept(
        "lora_config.trtllm_modules_to_hf_modules",
        "lora_config.trtllm_modules_to_hf_modules",
        neutral=({}, None),
    ),
    _kept("lora_config.max_loras", "lora_config.max_loras", neutral=(None,)),
    _kept("lora_config.max_cpu_loras", "lora_config.max_cpu_loras", neutral=(None,)),
    _kept(
        "lora_config.swap_gate_up_proj_lora_b_weight",
        "lora_config.swap_gate_up_proj_lora_b_weight",
    ),
    _lost(
        "lora_config.lora_weights_converters",
        "adapters are converted as the model needs it: compare answers",
        neutral=(["default"], [], None),
    ),
)

_COMPILING = (
    *_unneeded(
        _COMPILER,
        "strongly_typed",
        "force_num_profiles",
        "profiling_verbosity",
        "enable_debug_output",
        "input_timing_cache",
        "output_timing_cache",
        "use_strip_plan",
        "dry_run",
        "visualize_network",
        "monitor_memory",
        "command",
        "auto_parallel_config",
    ),
    *_unneeded("other weights are another model folder", "use_refit"),
    *_unneeded("the model's own code has its position embedding", "use_mrope"),
    _lost(
        "weight_streaming",
        "weights stay in the GPU's memory: take more GPUs (--set tensor_parallel_size=N) or a "
        "smaller recipe (trtbuild quantize --hf)",
    ),
    _lost("weight_sparsity", "pruned weights are computed as dense ones: nothing is to be done"),
)

_PLUGINS = (
    _kept(
        "tokens_per_block",
        "kv_cache_config.tokens_per_block",
        neutral=(32, None),
    ),
    Row(
        name="lora_plugin",
        fate=Fate.KEPT,
        setting="enable_lora",
        text="adapters come with each request",
        words=dict.fromkeys(("auto", "float16", "bfloat16", "float32", True), True),
        neutral=OFF,
    ),
    _lost("dora_plugin", "DoRA adapters aren't taken: merge them into the weights"),
    _lost("streamingllm", "no attention sinks: set kv_cache_config.max_attention_window"),
    *_unneeded("the model folder says it", "dtype"),
    *_unneeded(
        "prefixes can always be reused and prompts be computed in chunks", "use_paged_context_fmha"
    ),
    *_unneeded("every batch is packed", "remove_input_padding"),
    *_unneeded("every cache is paged", "paged_kv_cache", "paged_state"),
    *_unneeded(
        _WEIGHTS,
        "fp8_rowwise_gemm_plugin",
        "qserve_gemm_plugin",
        "weight_only_groupwise_quant_matmul_plugin",
        "weight_only_quant_matmul_plugin",
        "smooth_quant_plugins",
        "smooth_quant_gemm_plugin",
        "layernorm_quantization_plugin",
        "rmsnorm_quantization_plugin",
        "quantize_per_token_plugin",
        "quantize_tensor_plugin",
        "use_fp8_context_fmha",
        "fuse_fp4_quant",
    ),
    *_unneeded(
        _KERNELS,
        "bert_attention_plugin",
        "gpt_attention_plugin",
        "gemm_plugin",
        "gemm_swiglu_plugin",
        "identity_plugin",
        "mamba_conv1d_plugin",
        "low_latency_gemm_plugin",
        "low_latency_gemm_swiglu_plugin",
        "context_fmha",
        "bert_context_fmha_fp32_acc",
        "norm_quant_fusion",
        "use_fused_mlp",
    ),
    *_unneeded("moe_config.backend AUTO chooses them", "moe_plugin"),
    *_unneeded(
        "allreduce_strategy AUTO chooses how ranks exchange",
        "nccl_plugin",
        "gemm_allreduce_plugin",
        "reduce_fusion",
        "user_buffer",
        "pp_reduce_scatter",
    ),
    *_unneeded(_COMPILER, "multiple_profiles", "manage_weights"),
)

_RANKS = (
    _kept("mapping.tp_size", "tensor_parallel_size"),
    _kept("mapping.pp_size", "pipeline_parallel_size"),
    _kept("mapping.cp_size", "context_parallel_size", neutral=(1, None)),
    _kept("mapping.moe_tp_size", "moe_tensor_parallel_size", neutral=(-1, 0, 1, None)),
    _kept("mapping.moe_ep_size", "moe_expert_parallel_size", neutral=(-1, 0, 1, None)),
    _lost(
        "mapping.moe_cluster_size",
        "clusters of experts are deprecated: set moe_expert_parallel_size",
        neutral=(-1, 0, 1, None),
    ),
    *_unneeded("it is the product of the others", "mapping.world_size"),
    *_unneeded("the machine says it", "mapping.gpus_per_node"),
)

_DEFAULTS = tuple(
    _kept(
        f"runtime_defaults.kv_cache_config.{name}",
        f"kv_cache_config.{name}",
        neutral=(None,),
    )
    for name in (
        "enable_block_reuse",
        "max_tokens",
        "max_attention_window",
        "free_gpu_memory_fraction",
        "host_cache_size",
        "cross_kv_cache_fraction",
        "secondary_offload_min_priority",
        "event_buffer_max_size",
        "enable_partial_reuse",
        "copy_on_partial_reuse",
    )
)
_DEFAULTS_LOST = (
    _lost(
        "runtime_defaults.kv_cache_config.sink_token_length",
        "no attention sinks: set kv_cache_config.max_attention_window",
    ),
    *_unneeded("blocks are always brought back", "runtime_defaults.kv_cache_config.onboard_blocks"),
)


def _under(prefix: str, *rows: Row) -> tuple[Row, ...]:
    return tuple(replace(row, name=f"{prefix}.{row.name}") for row in rows)


ROWS = (
    *_under("pretrained_config", _kept("dtype", "dtype"), *_RANKS, *_DEFAULTS, *_DEFAULTS_LOST),
    *_under(
        "build_config",
        *_LIMITS,
        *_CACHE,
        *_LOGITS,
        *_SPECULATIVE,
        *_ADAPTERS,
        *_COMPILING,
        *_under("plugin_config", *_PLUGINS),
    ),
)

OF_THE_MODEL = "the model folder says it"
OF_OLDER_PLUGINS = "an engine's plugin or fusion: the backend chooses its kernels"
UNKNOWN = "trtbuild doesn't know this field: look up what it did, and set what you need with --set"
