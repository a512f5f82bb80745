"""TensorRT-LLM 1.2's `BuildConfig`, with its names, types and defaults, without TensorRT-LLM.

Source: `tensorrt_llm/builder.py` (BuildConfig), `plugin/plugin.py` (PluginConfig) and
`lora_helper.py` (LoraConfig). The defaults here are upstream's; `resolve` has those for serving.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from builder.errors import ArtifactError
from builder.limits import TOKENS_PER_BLOCK
from builder.targets.tensorrt_llm.speculative_modes import SPECULATIVE_MODES

_NOT_OF_THE_ENGINE = ("dry_run", "visualize_network")


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """Kernels by plugin, and features.

    A plugin's value is the dtype that it computes with, "auto" for the model's, None for off.
    """

    dtype: str = "float16"
    """The model's: what "auto" stands for."""
    bert_attention_plugin: str | None = "auto"
    gpt_attention_plugin: str | None = "auto"
    gemm_plugin: str | None = None
    gemm_swiglu_plugin: str | None = None
    fp8_rowwise_gemm_plugin: str | None = None
    qserve_gemm_plugin: str | None = None
    identity_plugin: str | None = None
    nccl_plugin: str | None = "auto"
    lora_plugin: str | None = None
    dora_plugin: bool = False
    weight_only_groupwise_quant_matmul_plugin: str | None = None
    weight_only_quant_matmul_plugin: str | None = None
    smooth_quant_plugins: bool = True
    smooth_quant_gemm_plugin: str | None = None
    layernorm_quantization_plugin: str | None = None
    rmsnorm_quantization_plugin: str | None = None
    quantize_per_token_plugin: bool = False
    quantize_tensor_plugin: bool = False
    moe_plugin: str | None = "auto"
    mamba_conv1d_plugin: str | None = "auto"
    low_latency_gemm_plugin: str | None = None
    low_latency_gemm_swiglu_plugin: str | None = None
    gemm_allreduce_plugin: str | None = None
    context_fmha: bool = True
    bert_context_fmha_fp32_acc: bool = False
    paged_kv_cache: bool | None = None
    remove_input_padding: bool = True
    norm_quant_fusion: bool = False
    reduce_fusion: bool = False
    user_buffer: bool = False
    tokens_per_block: int = TOKENS_PER_BLOCK
    use_paged_context_fmha: bool = True
    use_fp8_context_fmha: bool = True
    fuse_fp4_quant: bool = False
    multiple_profiles: bool = False
    paged_state: bool = True
    streamingllm: bool = False
    manage_weights: bool = False
    use_fused_mlp: bool = True
    pp_reduce_scatter: bool = False


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Adapters that the engine takes at run time, and where in each layer."""

    lora_dir: tuple[str, ...] = ()
    lora_ckpt_source: str = "hf"
    max_lora_rank: int = 64
    lora_target_modules: tuple[str, ...] = ()
    trtllm_modules_to_hf_modules: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """What trtllm-build takes beside the BuildConfig."""

    logits_dtype: str | None = None
    """In place of the checkpoint's."""
    model_cls_file: str | None = None
    model_cls_name: str | None = None
    log_level: str = "info"


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What an engine is built for. Lengths and limits are counts of tokens, sequences or beams.

    `max_seq_len` counts prompt and answer together; `max_num_tokens` is the most that one step
    computes. `kv_cache_type` is "paged", "continuous", "disabled" or None for paged.
    """

    max_input_len: int = 1024
    max_seq_len: int | None = None
    opt_batch_size: int = 8
    max_batch_size: int = 2048
    max_beam_width: int = 1
    max_num_tokens: int = 8192
    opt_num_tokens: int | None = None
    max_prompt_embedding_table_size: int = 0
    kv_cache_type: str | None = None
    gather_context_logits: bool = False
    gather_generation_logits: bool = False
    strongly_typed: bool = True
    force_num_profiles: int | None = None
    profiling_verbosity: str = "layer_names_only"
    enable_debug_output: bool = False
    max_draft_len: int = 0
    speculative_decoding_mode: str = "none"
    use_refit: bool = False
    input_timing_cache: str | None = None
    output_timing_cache: str | None = "model.cache"
    lora_config: LoraConfig = field(default_factory=LoraConfig)
    weight_sparsity: bool = False
    weight_streaming: bool = False
    plugin_config: PluginConfig = field(default_factory=PluginConfig)
    use_strip_plan: bool = False
    max_encoder_input_len: int = 1024
    dry_run: bool = False
    visualize_network: str | None = None
    monitor_memory: bool = False
    use_mrope: bool = False
    command: CommandOptions = field(default_factory=CommandOptions)
    """Not a field of upstream's."""

    def to_json(self) -> dict[str, Any]:
        """The `build_config` of an engine's config.json.

        After it an object `command` of CommandOptions that shape the engine, where one is set.
        """
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for name in _NOT_OF_THE_ENGINE:
            del data[name]
        data["kv_cache_type"] = self.kv_cache_type and self.kv_cache_type.upper()
        data["speculative_decoding_mode"] = SPECULATIVE_MODES[self.speculative_decoding_mode]
        command = data.pop("command")
        del command["log_level"]
        if beside := {name: value for name, value in command.items() if value is not None}:
            data["command"] = beside
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> BuildConfig:
        """The same back, also of an engine that another tool built; unknown fields are left out.

        Raises ArtifactError for a field of the wrong type.
        """
        fields = {**asdict(BuildConfig()), **data}
        for name, kind in _WITHIN.items():
            if isinstance(fields[name], Mapping):
                fields[name] = {**asdict(kind()), **fields[name]}
        names = {bit: name for name, bit in SPECULATIVE_MODES.items()}
        cache, mode = fields["kv_cache_type"], data.get("speculative_decoding_mode", 1)
        if mode not in names:
            raise ArtifactError(
                "an engine's speculative_decoding_mode is not known",
                found=repr(mode),
                do=f"known are {', '.join(f'{bit} ({name})' for bit, name in names.items())}",
            )
        fields["kv_cache_type"] = cache.lower() if isinstance(cache, str) else cache
        fields["speculative_decoding_mode"] = names[mode]
        try:
            return msgspec.convert(fields, BuildConfig)
        except msgspec.ValidationError as error:
            raise ArtifactError("an engine's build_config is malformed", found=str(error)) from None


_WITHIN: Mapping[str, type[PluginConfig | LoraConfig | CommandOptions]] = {
    "plugin_config": PluginConfig,
    "lora_config": LoraConfig,
    "command": CommandOptions,
}
