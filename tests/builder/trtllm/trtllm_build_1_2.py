"""A strict reading of `trtllm-build` 1.2's command line, to hold our command lines against.

Written from upstream's `commands/build.py` and `plugin/plugin.py`, not from our own table: names,
types, choices and defaults stand here a second time on purpose. Upstream parses with argparse, and
so do we, but without abbreviations.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn


def _words(text: str) -> list[str]:
    return text.split()


PLUGIN_DTYPES = _words("auto float16 float32 bfloat16 int32 disable")

PATHS = _words(
    """checkpoint_dir model_config build_config model_cls_file model_cls_name input_timing_cache
    visualize_network"""
)
INTEGERS = {
    "max_batch_size": 2048,
    "max_input_len": 1024,
    "max_beam_width": 1,
    "max_num_tokens": 8192,
    "opt_num_tokens": None,
    "max_encoder_input_len": 1024,
    "workers": 1,
    "max_lora_rank": 64,
    "max_draft_len": 0,
    "tokens_per_block": 32,
}
SWITCHES = _words(
    """strip_plan weight_sparsity weight_streaming fast_build enable_debug_output dry_run
    monitor_memory gather_context_logits gather_generation_logits gather_all_token_logits"""
)
CHOICES = {
    "profiling_verbosity": ("layer_names_only", "layer_names_only detailed none"),
    "log_level": ("info", "internal_error error warning info verbose debug"),
    "logits_dtype": (None, "float16 float32"),
    "lora_ckpt_source": ("hf", "hf nemo"),
    "speculative_decoding_mode": (
        None,
        "draft_tokens_external lookahead_decoding medusa explicit_draft_tokens eagle",
    ),
}
TOGGLES = {
    "dora_plugin": "disable",
    "context_fmha": "enable",
    "bert_context_fmha_fp32_acc": "disable",
    "remove_input_padding": "enable",
    "norm_quant_fusion": "disable",
    "reduce_fusion": "disable",
    "user_buffer": "disable",
    "use_paged_context_fmha": "enable",
    "use_fp8_context_fmha": "enable",
    "fuse_fp4_quant": "disable",
    "multiple_profiles": "disable",
    "paged_state": "enable",
    "streamingllm": "disable",
    "use_fused_mlp": "enable",
    "pp_reduce_scatter": "disable",
}
PLUGINS = {
    "bert_attention_plugin": ("auto", PLUGIN_DTYPES),
    "gpt_attention_plugin": ("auto", PLUGIN_DTYPES),
    "gemm_plugin": (None, [*PLUGIN_DTYPES, "fp8", "nvfp4"]),
    "gemm_swiglu_plugin": ("disable", ["fp8", "disable"]),
    "fp8_rowwise_gemm_plugin": ("disable", PLUGIN_DTYPES),
    "nccl_plugin": ("auto", PLUGIN_DTYPES),
    "lora_plugin": ("disable", PLUGIN_DTYPES),
    "moe_plugin": ("auto", PLUGIN_DTYPES),
    "mamba_conv1d_plugin": ("auto", PLUGIN_DTYPES),
    "low_latency_gemm_plugin": ("disable", ["fp8", "disable"]),
    "low_latency_gemm_swiglu_plugin": ("disable", ["fp8", "disable"]),
    "gemm_allreduce_plugin": ("disable", ["float16", "bfloat16", "disable"]),
}
WITHOUT_FLAG = {
    "smooth_quant_plugins": True,
    "quantize_per_token_plugin": False,
    "quantize_tensor_plugin": False,
    "paged_kv_cache": None,
    "manage_weights": False,
    "qserve_gemm_plugin": None,
    "identity_plugin": None,
    "smooth_quant_gemm_plugin": None,
    "layernorm_quantization_plugin": None,
    "rmsnorm_quantization_plugin": None,
    "weight_only_quant_matmul_plugin": None,
    "weight_only_groupwise_quant_matmul_plugin": None,
}
"""Fields of PluginConfig that the compiler sets itself, with their defaults."""
BUILD_WITHOUT_FLAG = {
    "opt_batch_size": 8,
    "strongly_typed": True,
    "force_num_profiles": None,
    "use_refit": False,
    "use_mrope": False,
    "input_timing_cache": None,
}
"""Fields of BuildConfig that no flag sets (the last one is a path), with their defaults."""
LORA_MODULES = _words(
    """attn_qkv attn_q attn_k attn_v attn_dense mlp_h_to_4h mlp_4h_to_h mlp_gate
    cross_attn_qkv cross_attn_q cross_attn_k cross_attn_v cross_attn_dense
    moe_h_to_4h moe_4h_to_h moe_gate moe_router mlp_router mlp_gate_up"""
)
SPECULATIVE_BITS = {
    None: 1,
    "draft_tokens_external": 2,
    "medusa": 4,
    "lookahead_decoding": 8,
    "explicit_draft_tokens": 16,
    "eagle": 32,
}
NAMES = {
    *PATHS,
    *INTEGERS,
    *SWITCHES,
    *CHOICES,
    *TOGGLES,
    *PLUGINS,
    *("output_dir", "output_timing_cache", "max_seq_len", "kv_cache_type", "paged_kv_cache"),
    *("max_prompt_embedding_table_size", "lora_dir", "lora_target_modules"),
}


class _Strict(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Strict(allow_abbrev=False, add_help=False)
    for name in PATHS:
        parser.add_argument(f"--{name}", type=str)
    parser.add_argument("--output_dir", type=str, default="engine_outputs")
    parser.add_argument("--output_timing_cache", type=str, default="model.cache")
    for name, default in INTEGERS.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--max_seq_len", "--max_decoder_seq_len", dest="max_seq_len", type=int)
    parser.add_argument(
        "--max_prompt_embedding_table_size", "--max_multimodal_len", type=int, default=0
    )
    for name in SWITCHES:
        parser.add_argument(f"--{name}", action="store_true")
    kinds = ["continuous", "paged", "disabled"]
    parser.add_argument("--kv_cache_type", default=argparse.SUPPRESS, choices=kinds)
    parser.add_argument("--paged_kv_cache", type=str, default=argparse.SUPPRESS)
    for name, (preset, choices) in CHOICES.items():
        parser.add_argument(f"--{name}", default=preset, choices=choices.split())
    parser.add_argument("--lora_dir", nargs="+")
    parser.add_argument("--lora_target_modules", nargs="+", choices=LORA_MODULES)
    for name, word in TOGGLES.items():
        parser.add_argument(f"--{name}", default=word, choices=["enable", "disable"])
    for name, (dtype, dtypes) in PLUGINS.items():
        parser.add_argument(f"--{name}", default=dtype, choices=dtypes)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """What `trtllm-build` reads of a command line. Raises ValueError where it would stop."""
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    if twice := {flag for flag in flags if flags.count(flag) > 1}:
        raise ValueError(f"{twice} twice")
    return _parser().parse_args(list(words))


def build_config(words: Sequence[str]) -> dict[str, Any]:
    """The engine's `build_config` that upstream's main() would go on to build with."""
    args = vars(parse(words))
    assert args["build_config"] is None
    plugins: dict[str, Any] = {name: args[name] == "enable" for name in TOGGLES}
    off = ("disable", None)
    plugins |= {name: None if args[name] in off else args[name] for name in PLUGINS}
    plugins |= {"tokens_per_block": args["tokens_per_block"], "manage_weights": args["fast_build"]}
    lora = {
        "lora_dir": args["lora_dir"] or [],
        "lora_ckpt_source": args["lora_ckpt_source"],
        "max_lora_rank": args["max_lora_rank"],
        "lora_target_modules": args["lora_target_modules"] or [],
    }
    same = """max_input_len max_seq_len max_batch_size max_beam_width max_num_tokens opt_num_tokens
        max_prompt_embedding_table_size gather_context_logits gather_generation_logits
        weight_sparsity profiling_verbosity enable_debug_output max_draft_len
        max_encoder_input_len weight_streaming monitor_memory"""
    return {
        **{name: args[name] for name in same.split()},
        "use_strip_plan": args["strip_plan"],
        "kv_cache_type": args["kv_cache_type"].upper() if "kv_cache_type" in args else None,
        "speculative_decoding_mode": SPECULATIVE_BITS[args["speculative_decoding_mode"]],
        "plugin_config": plugins,
        "lora_config": lora,
    }
