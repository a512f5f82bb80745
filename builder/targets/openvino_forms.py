"""Which quantizations the openvino target can run; the others are refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.dequantize import Coding, coded_linear
from builder.errors import ArtifactError
from builder.quantized_shapes import MIXED, is_linear
from builder.safetensors_file import StoredTensor

QUANTIZATIONS: Mapping[str | None, Coding | None] = {
    None: Coding.PLAIN,
    "W8A16": Coding.INT8,
    "W4A16": Coding.INT4,
    "W4A16_AWQ": Coding.INT4,
    "W4A8_AWQ": Coding.INT4,
    "W8A8_SQ_PER_CHANNEL": Coding.INT8,
    "FP8": Coding.FP8,
    MIXED: None,
}
"""quant_algo → the form of its linears' weights, None for any."""

_FLOAT = "in the CPU's float precision, where"
_NOT_ROUNDED = {
    "FP8": "FP8 inputs",
    "W4A8_AWQ": "FP8 inputs, and weights rounded to FP8",
    MIXED: "FP8 inputs to some linears",
}
_NO_FP4 = "a CPU has no way to compute with FP4 weights"


def refuse_quantization(algo: str | None) -> None:
    """Raise ArtifactError for a `quant_algo` that the graph has no form for."""
    if algo in QUANTIZATIONS:
        return
    known = ", ".join(each for each in QUANTIZATIONS if each)
    reason = _NO_FP4 if algo == "NVFP4" else f"of quantizations it knows {known}"
    raise _unable(reason, f"quant_algo {algo}")


def refuse_contradicting_forms(
    config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]
) -> None:
    """Raise ArtifactError when the linears aren't in the form that the config states.

    Plain ones may be among them: the config names these, and `check_names` sees to it.
    """
    algo = (config.get("quantization") or {}).get("quant_algo")
    found = {
        coded_linear(config, tensors, name.removesuffix(".weight")).coding
        for name, tensor in tensors.items()
        if is_linear(name, tensor.shape)
    } - {Coding.PLAIN}
    if Coding.NVFP4 in found:
        raise _unable(_NO_FP4, "linears in NVFP4")
    stated = QUANTIZATIONS[algo]
    if stated is not None and found != {stated} - {Coding.PLAIN}:
        forms = ", ".join(sorted(each.value for each in found))
        raise ArtifactError(
            "the checkpoint's quantization contradicts its tensors",
            found=f"quant_algo {algo}, linears in {forms or 'no form but plain'}",
            do="make the checkpoint again",
        )


def precision(config: Mapping[str, Any]) -> dict[str, str]:
    """What a checkpoint says of its quantization, and what of it the engine doesn't round."""
    block = config.get("quantization") or {}
    algo, cache = block.get("quant_algo"), block.get("kv_cache_quant_algo")
    about = {"quant_algo": algo} if algo else {}
    if algo in _NOT_ROUNDED:
        about["activations"] = f"{_FLOAT} {algo} has {_NOT_ROUNDED[algo]}"
    if cache:
        about["kv_cache"] = f"{_FLOAT} the checkpoint says {cache}"
    return about


def _unable(reason: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"the openvino target can't run this checkpoint: {reason}",
        found=found,
        do="build it with --target tensorrt-llm, or quantize the model with another recipe",
    )
