"""Every flag of TensorRT-LLM 1.2's `trtllm-build`, as data.

Source: `tensorrt_llm/commands/build.py` (parse_arguments) and `plugin/plugin.py` (PluginConfig,
cli_plugin_args). `--build_config` would replace what these flags say but for the plugins, LoRA
and the logits, and has no field of use that has no flag, so that it is never needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from builder.targets.tensorrt_llm.config import (
    BuildConfig,
    CommandOptions,
    LoraConfig,
    PluginConfig,
)
from builder.targets.tensorrt_llm.speculative_modes import SPECULATIVE_MODES


class Kind(Enum):
    """How a flag is written, and what it holds."""

    INTEGER = auto()
    TEXT = auto()
    CHOICE = auto()
    SWITCH = auto()
    """Stands alone (`--weight_streaming`): on where it is given."""
    TOGGLE = auto()
    """Is followed by `enable` or `disable`."""
    PLUGIN = auto()
    """Is followed by a dtype, or by `disable`."""
    LIST = auto()
    """Is followed by one or more words."""


class Place(Enum):
    """The object that holds a flag's value."""

    BUILD = BuildConfig
    PLUGIN = PluginConfig
    LORA = LoraConfig
    COMMAND = CommandOptions


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag. `field` is what its value is called in its place.

    `stated` flags are written out even where they say the default: it moved between releases.
    """

    name: str
    kind: Kind
    place: Place
    field: str
    what: str
    choices: tuple[str, ...] = ()
    stated: bool = False

    @property
    def default(self) -> Any:
        """Upstream's."""
        return getattr(self.place.value(), self.field)


DTYPES = ("auto", "float16", "float32", "bfloat16", "int32")
_FP8 = ("fp8",)

LORA_MODULES: Mapping[str, int] = {
    "attn_qkv": 0,
    "attn_q": 1,
    "attn_k": 2,
    "attn_v": 3,
    "attn_dense": 4,
    "mlp_h_to_4h": 5,
    "mlp_4h_to_h": 6,
    "mlp_gate": 7,
    "cross_attn_qkv": 8,
    "cross_attn_q": 9,
    "cross_attn_k": 10,
    "cross_attn_v": 11,
    "cross_attn_dense": 12,
    "moe_h_to_4h": 13,
    "moe_4h_to_h": 14,
    "moe_gate": 15,
    "moe_router": 16,
    "mlp_router": 17,
    "mlp_gate_up": 18,
}
"""Module of a layer → its id, the first number of a row of `lora_config` in a request."""


def _flag(name: str, kind: Kind, what: str, place: Place, **more: Any) -> Flag:
    return Flag(name=name, kind=kind, what=what, place=place, **{"field": name, **more})


def _build(name: str, kind: Kind, what: str, **more: Any) -> Flag:
    return _flag(name, kind, what, Place.BUILD, **more)


def _plugin(name: str, what: str, choices: tuple[str, ...] = DTYPES, **more: Any) -> Flag:
    return _flag(name, Kind.PLUGIN, what, Place.PLUGIN, choices=choices, **more)


def _toggle(name: str, what: str, **more: Any) -> Flag:
    return _flag(name, Kind.TOGGLE, what, Place.PLUGIN, **more)


FLAGS: Mapping[str, Flag] = {
    flag.name: flag
    for flag in (
        _build("max_batch_size", Kind.INTEGER, "sequences in flight at once", stated=True),
        _build("max_input_len", Kind.INTEGER, "tokens of the longest prompt", stated=True),
        _build("max_seq_len", Kind.INTEGER, "tokens of a prompt and its answer", stated=True),
        _build("max_beam_width", Kind.INTEGER, "beams of a request", stated=True),
        _build("max_num_tokens", Kind.INTEGER, "tokens that a step computes", stated=True),
        _build("opt_num_tokens", Kind.INTEGER, "tokens of the step that kernels are chosen for"),
        _build("max_encoder_input_len", Kind.INTEGER, "tokens of an encoder's input"),
        _build(
            "max_prompt_embedding_table_size",
            Kind.INTEGER,
            "rows of a request's own embeddings (prompt tuning, images)",
        ),
        _build(
            "kv_cache_type",
            Kind.CHOICE,
            "how keys and values are kept",
            choices=("continuous", "paged", "disabled"),
            stated=True,
        ),
        _build(
            "profiling_verbosity",
            Kind.CHOICE,
            "what the engine tells a profiler of its layers",
            choices=("layer_names_only", "detailed", "none"),
        ),
        _build(
            "strip_plan",
            Kind.SWITCH,
            "leave the weights out of the engine, to be put in again",
            field="use_strip_plan",
        ),
        _build("weight_sparsity", Kind.SWITCH, "use kernels for weights of 2:4 sparsity"),
        _build("weight_streaming", Kind.SWITCH, "let weights stay in host memory at run time"),
        _flag(
            "fast_build",
            Kind.SWITCH,
            "keep weights in a file beside the engine: builds faster, runs slower",
            Place.PLUGIN,
            field="manage_weights",
        ),
        _build("enable_debug_output", Kind.SWITCH, "make debug tensors outputs of the engine"),
        _build("visualize_network", Kind.TEXT, "folder for the network as ONNX"),
        _build("monitor_memory", Kind.SWITCH, "log the memory that the compiler takes"),
        _flag(
            "log_level",
            Kind.CHOICE,
            "how much the compiler says",
            Place.COMMAND,
            choices=("internal_error", "error", "warning", "info", "verbose", "debug"),
        ),
        _flag(
            "logits_dtype",
            Kind.CHOICE,
            "dtype of the logits, in place of the checkpoint's",
            Place.COMMAND,
            choices=("float16", "float32"),
        ),
        _flag("model_cls_file", Kind.TEXT, "Python file of a model of one's own", Place.COMMAND),
        _flag("model_cls_name", Kind.TEXT, "its class", Place.COMMAND),
        _build("gather_context_logits", Kind.SWITCH, "give a prompt's logits on request"),
        _build("gather_generation_logits", Kind.SWITCH, "give an answer's logits on request"),
        _flag("lora_dir", Kind.LIST, "adapters' folders", Place.LORA),
        _flag(
            "lora_ckpt_source",
            Kind.CHOICE,
            "the form of the adapters",
            Place.LORA,
            choices=("hf", "nemo"),
        ),
        _flag(
            "lora_target_modules",
            Kind.LIST,
            "what adapters change in a layer",
            Place.LORA,
            choices=tuple(LORA_MODULES),
        ),
        _flag("max_lora_rank", Kind.INTEGER, "the largest rank of an adapter", Place.LORA),
        _build(
            "speculative_decoding_mode",
            Kind.CHOICE,
            "who drafts the tokens that the engine then checks",
            choices=tuple(mode for mode in SPECULATIVE_MODES if mode != "none"),
        ),
        _build("max_draft_len", Kind.INTEGER, "tokens of a draft"),
        _plugin("bert_attention_plugin", "attention of encoders"),
        _plugin("gpt_attention_plugin", "attention of decoders, with the KV cache"),
        _plugin(
            "gemm_plugin",
            "unquantized matrix products by cuBLASLt",
            (*DTYPES, "fp8", "nvfp4"),
            stated=True,
        ),
        _plugin("gemm_swiglu_plugin", "a gated MLP's first half in one kernel", _FP8),
        _plugin("fp8_rowwise_gemm_plugin", "FP8 products with a scale for each row"),
        _plugin("nccl_plugin", "communication between GPUs"),
        _plugin("lora_plugin", "adapters at run time"),
        _toggle("dora_plugin", "adapters with magnitudes (DoRA)"),
        _plugin("moe_plugin", "mixtures of experts"),
        _plugin("mamba_conv1d_plugin", "Mamba's convolution"),
        _plugin("low_latency_gemm_plugin", "FP8 products for few tokens", _FP8),
        _plugin("low_latency_gemm_swiglu_plugin", "the same of a gated MLP", _FP8),
        _plugin(
            "gemm_allreduce_plugin",
            "a product and the sum over GPUs in one kernel",
            ("float16", "bfloat16"),
        ),
        _toggle("context_fmha", "fused attention of prompts", stated=True),
        _toggle("bert_context_fmha_fp32_acc", "sums of an encoder's attention in FP32"),
        _toggle("remove_input_padding", "pack sequences without padding", stated=True),
        _toggle("norm_quant_fusion", "norm and quantization in one kernel"),
        _toggle("reduce_fusion", "sum over GPUs, residual and norm in one kernel"),
        _toggle("user_buffer", "spare the copies of that sum"),
        _flag(
            "tokens_per_block",
            Kind.INTEGER,
            "tokens of a block of the KV cache",
            Place.PLUGIN,
            stated=True,
        ),
        _toggle(
            "use_paged_context_fmha",
            "prompts against cached blocks: prefix reuse, long prompts in chunks",
            stated=True,
        ),
        _toggle("use_fp8_context_fmha", "attention of prompts in FP8", stated=True),
        _toggle("fuse_fp4_quant", "FP4 quantization within attention"),
        _toggle("multiple_profiles", "kernels for several sizes of a step"),
        _toggle("paged_state", "Mamba's state in blocks"),
        _toggle("streamingllm", "attention sinks; no longer works"),
        _toggle("use_fused_mlp", "a gated MLP's two products as one"),
        _toggle("pp_reduce_scatter", "less traffic between the stages of a large mixture"),
    )
}
"""Name → flag, of those that `--set` reaches, in the order in which they are written."""

SPELLINGS: Mapping[str, str] = {
    "max_decoder_seq_len": "max_seq_len",
    "max_multimodal_len": "max_prompt_embedding_table_size",
}
"""A flag's other name → its name."""

NOT_SET: Mapping[str, str] = {
    "checkpoint_dir": "it is the checkpoint given to trtbuild build",
    "output_dir": "it is -o",
    "workers": "it is --workers",
    "input_timing_cache": "it is --timing-cache",
    "output_timing_cache": "it is --timing-cache",
    "dry_run": "it is --dry-run",
    "model_config": "an engine is built from a checkpoint, never with random weights",
    "build_config": "give its fields one by one with --set",
    "paged_kv_cache": "set kv_cache_type=paged",
    "gather_all_token_logits": "set gather_context_logits=on and gather_generation_logits=on",
}
"""The other flags → how to say it instead."""
