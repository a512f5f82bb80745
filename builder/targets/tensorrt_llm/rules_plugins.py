"""Rules of plugins, fusions, weight streaming and models of one's own."""

from __future__ import annotations

from collections.abc import Callable

from builder.targets.tensorrt_llm.case import WEIGHT_ONLY, Case, Rule

_LLAMA = ("LlamaForCausalLM", "LLaMAForCausalLM")
_REDUCE_FUSION = ("LlamaForCausalLM", "Gemma2ForCausalLM", "MedusaForCausalLM")
_FP8_PLUGINS = ("gemm_swiglu_plugin", "low_latency_gemm_plugin", "low_latency_gemm_swiglu_plugin")
_SWIGLU_PLUGINS = ("gemm_swiglu_plugin", "low_latency_gemm_swiglu_plugin")
_OWN_KERNELS = (*WEIGHT_ONLY, "W4A8_QSERVE_PER_GROUP", "W4A8_QSERVE_PER_CHANNEL")


def _reduce_fusion(case: Case) -> str | None:
    if not case.plugins.reduce_fusion:
        return None
    if case.tp == 1:
        return "reduce_fusion enable and 1 tensor-parallel rank"
    known = case.architecture in _REDUCE_FUSION
    return None if known else f"reduce_fusion enable and {case.architecture}"


def _user_buffer(case: Case) -> str | None:
    if not case.plugins.user_buffer:
        return None
    if not case.plugins.reduce_fusion:
        return "user_buffer enable and reduce_fusion disable"
    if case.algo == "FP8" and case.architecture in _LLAMA:
        return None
    return f"user_buffer enable and {case.architecture}, quant_algo {case.algo}"


def _norm_quant(case: Case) -> str | None:
    if not case.plugins.norm_quant_fusion:
        return None
    if case.plugins.reduce_fusion:
        return "norm_quant_fusion enable and reduce_fusion enable"
    if case.architecture == "LlamaForCausalLM" and case.algo == "NVFP4":
        return None
    return f"norm_quant_fusion enable and {case.architecture}, quant_algo {case.algo}"


def _gemm(case: Case) -> str | None:
    plugin, algo = case.plugins.gemm_plugin, case.algo
    if algo == "NVFP4":
        wrong = plugin not in ("nvfp4", None)
    else:
        wrong = plugin == "nvfp4" or (plugin == "fp8" and algo != "FP8")
    return f"gemm_plugin {plugin} and quant_algo {algo}" if wrong else None


def _needs(plugins: tuple[str, ...], algo: str) -> Callable[[Case], str | None]:
    def found(case: Case) -> str | None:
        on = [name for name in plugins if getattr(case.plugins, name)]
        return f"{on[0]} and quant_algo {case.algo}" if on and case.algo != algo else None

    return found


def _swiglu(case: Case) -> str | None:
    on = [name for name in _SWIGLU_PLUGINS if getattr(case.plugins, name)]
    return f"{on[0]} and use_fused_mlp disable" if on and not case.plugins.use_fused_mlp else None


def _hopper(case: Case) -> str | None:
    if not case.plugins.gemm_swiglu_plugin or case.sm in (None, 90):
        return None
    return f"gemm_swiglu_plugin on SM {case.sm}"


def _allreduce(case: Case) -> str | None:
    plugin = case.plugins.gemm_allreduce_plugin
    return f"gemm_allreduce_plugin {plugin} and 1 rank" if plugin and case.tp == 1 else None


def _streamingllm(case: Case) -> str | None:
    return "streamingllm enable" if case.plugins.streamingllm else None


def _reduce_scatter(case: Case) -> str | None:
    on = case.plugins.pp_reduce_scatter and case.architecture != "MixtralForCausalLM"
    return f"pp_reduce_scatter enable and {case.architecture}" if on else None


def _managed(case: Case) -> str | None:
    plain = bool(case.checkpoint.get("disable_weight_only_quant_plugin"))
    on = case.plugins.manage_weights and plain and case.algo in WEIGHT_ONLY
    return f"fast_build and quant_algo {case.algo} without its plugin" if on else None


def _streamed(case: Case) -> str | None:
    if not case.config.weight_streaming:
        return None
    if case.plugins.gemm_plugin is not None:
        return f"weight_streaming and gemm_plugin {case.plugins.gemm_plugin}"
    owned = [algo for algo in case.algos if algo in _OWN_KERNELS or algo.endswith("_PLUGIN")]
    return f"weight_streaming and {owned[0]}, whose kernels are plugins" if owned else None


def _half_a_class(case: Case) -> str | None:
    file, name = case.config.command.model_cls_file, case.config.command.model_cls_name
    return None if (file is None) == (name is None) else f"{file or name} alone"


PLUGINS = (
    Rule(
        name="reduce-fusion",
        what="reduce_fusion is for Llama, Gemma 2 and Medusa on several tensor-parallel ranks",
        found=_reduce_fusion,
        do="leave it out",
        source="builder.py, build",
    ),
    Rule(
        name="user-buffer",
        what="user_buffer is for FP8 Llama and goes with reduce_fusion",
        found=_user_buffer,
        do="enable reduce_fusion too, or leave it out",
        source="builder.py, build; plugin.py, PluginConfig.user_buffer",
    ),
    Rule(
        name="norm-quant-fusion",
        what="norm_quant_fusion is for NVFP4 Llama without reduce_fusion",
        found=_norm_quant,
        do="leave it out",
        source="builder.py, build",
    ),
    Rule(
        name="gemm-plugin",
        what="gemm_plugin doesn't fit the quantization",
        found=_gemm,
        do="leave it out: trtbuild chooses it by the checkpoint",
        source="builder.py, build; plugin.py, PluginConfig.gemm_plugin",
    ),
    Rule(
        name="fp8-plugins",
        what="the plugin computes in FP8",
        found=_needs(_FP8_PLUGINS, "FP8"),
        do="leave it out, or quantize with --recipe fp8",
        source="plugin.py, PluginConfig",
    ),
    Rule(
        name="fp8-rowwise-plugin",
        what="fp8_rowwise_gemm_plugin is for checkpoints with a scale for each row",
        found=_needs(("fp8_rowwise_gemm_plugin",), "FP8_PER_CHANNEL_PER_TOKEN"),
        do="leave it out",
        source="plugin.py, PluginConfig.fp8_rowwise_gemm_plugin",
    ),
    Rule(
        name="fp4-fusion",
        what="fuse_fp4_quant is for NVFP4 checkpoints",
        found=_needs(("fuse_fp4_quant",), "NVFP4"),
        do="leave it out",
        source="plugin.py, PluginConfig.fuse_fp4_quant",
    ),
    Rule(
        name="swiglu-fused",
        what="the SwiGLU plugins are kinds of use_fused_mlp",
        found=_swiglu,
        do="enable use_fused_mlp",
        source="builder.py, optimize_model_with_config",
    ),
    Rule(
        name="swiglu-gpu",
        what="gemm_swiglu_plugin is for Hopper (SM 90)",
        found=_hopper,
        do="leave it out",
        source="plugin.py, PluginConfig.gemm_swiglu_plugin",
    ),
    Rule(
        name="gemm-allreduce",
        what="gemm_allreduce_plugin is for several tensor-parallel ranks",
        found=_allreduce,
        do="leave it out",
        source="plugin.py, PluginConfig.gemm_allreduce_plugin",
    ),
    Rule(
        name="streamingllm",
        what="TensorRT-LLM 1.2 no longer has StreamingLLM",
        found=_streamingllm,
        do="leave it out",
        source="commands/build.py, build_model",
    ),
    Rule(
        name="pp-reduce-scatter",
        what="pp_reduce_scatter is for Mixtral",
        found=_reduce_scatter,
        do="leave it out",
        source="commands/build.py, build_model",
    ),
    Rule(
        name="fast-build",
        what="fast_build takes weight-only quantization with its plugin only",
        found=_managed,
        do="leave fast_build out",
        source="builder.py, build",
    ),
    Rule(
        name="weight-streaming",
        what="only weights outside plugins can be streamed",
        found=_streamed,
        do="leave --weight-streaming out, or gemm_plugin disabled and the weights unquantized, "
        "FP8 or NVFP4",
        source="examples/llama/README.md, weight streaming",
    ),
    Rule(
        name="model-class",
        what="a model of one's own is a file and a class in it",
        found=_half_a_class,
        do="set model_cls_file and model_cls_name",
        source="commands/build.py, main",
    ),
)
