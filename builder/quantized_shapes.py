"""Which tensors a quantized linear has in a TensorRT-LLM checkpoint: names, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from builder.dtypes import FLOATS
from builder.source.hf_quantization import Format, Quantization

WEIGHT_ONLY = {"int8_wo": "W8A16", "int4_wo": "W4A16"}
"""Recipe → quant_algo of those that TensorRT-LLM's loader quantizes itself."""

AWQ = ("W4A16_AWQ", "W4A8_AWQ")
SCALED = {"FP8": 0, "W8A8_SQ_PER_CHANNEL": 0, "NVFP4": 16, "W4A16_AWQ": 128, "W4A8_AWQ": 128}
"""quant_algo → inputs per scale when nothing is said, of those that have scales in the file."""

PLAIN = (Format.INT4, Format.W4A8)
"""Formats of 4 bits without zero points, the inputs scaled before."""

MIXED = "MIXED_PRECISION"
"""quant_algo of a checkpoint whose linears differ: quant_cfg.json has theirs."""

KNOWN = (None, *WEIGHT_ONLY.values(), *SCALED, MIXED)
"""Values of `quant_algo` whose tensors are known here."""

NEVER_QUANTIZED = (
    "*lm_head",
    "*router",
    "*vocab_embedding",
    "*position_embedding",
    "*block_embedding",
    "*shared_expert_gate",
    "*fused_a",
)
"""Modules that TensorRT-LLM leaves out by default; a list of one's own replaces the default."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A checkpoint's quantization: TensorRT-LLM's name, inputs per scale (0: all)."""

    algo: str
    group_size: int = 0
    zeros: bool = False
    prequant: bool = False


def form(found: Quantization) -> Form:
    """The form that a quantized source takes."""
    if found.format is Format.FP8:
        return Form(algo="FP8")
    if found.format is Format.INT8:
        return Form(algo="W8A8_SQ_PER_CHANNEL", prequant=True)
    if found.format is Format.NVFP4:
        return Form(algo="NVFP4", group_size=16)
    plain = found.format in PLAIN
    algo = "W4A8_AWQ" if found.format is Format.W4A8 else "W4A16_AWQ"
    return Form(algo=algo, group_size=found.group_size, zeros=not plain, prequant=plain)


def stated(quantization: Mapping[str, Any]) -> Form | None:
    """The form that a checkpoint's config states, None where its tensors aren't known here."""
    algo = str(quantization.get("quant_algo"))
    if algo not in SCALED:
        return None
    default = SCALED[algo]
    size = quantization.get("group_size")
    return Form(
        algo=algo,
        group_size=size if default and type(size) is int and size > 0 else default,
        zeros=bool(quantization.get("has_zero_point")),
        prequant=bool(quantization.get("pre_quant_scale")) or algo == "W8A8_SQ_PER_CHANNEL",
    )


def shapes(
    found: Form, weight: tuple[int, ...], dtype: str
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each tensor, for a weight of logical shape [(experts,) out, in].

    `dtype` is the checkpoint's.
    """
    *experts, rows, columns = weight
    if found.algo == "FP8":
        return {
            "weight": ("float8_e4m3fn", weight),
            "weights_scaling_factor": ("float32", (*experts, 1)),
            "activation_scaling_factor": ("float32", (1,)),
        }
    if found.algo == "NVFP4":
        return {
            "weight": ("uint8", (*experts, rows, columns // 2)),
            "weights_scaling_factor": ("float8_e4m3fn", (*experts, rows, columns // 16)),
            "weights_scaling_factor_2": ("float32", (1,)),
            "activation_scaling_factor": ("float32", (1,)),
        }
    if found.algo == "W8A8_SQ_PER_CHANNEL":
        return {
            "weight": ("int8", weight),
            "weights_scaling_factor": ("float32", (*experts, rows)),
            "activation_scaling_factor": ("float32", (1,)),
            "prequant_scaling_factor": (dtype, (*experts, columns)),
        }
    groups = columns // found.group_size
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "weight": ("int8", (*experts, rows // 2, columns)),
        "weights_scaling_factor": ("float32", (*experts, rows, groups)),
    }
    if found.zeros:
        tensors["zero"] = (dtype, (*experts, groups, rows))
    if found.prequant:
        tensors["prequant_scaling_factor"] = (dtype, (*experts, columns))
    if found.algo == "W4A8_AWQ":
        tensors["activation_scaling_factor"] = ("float32", (1,))
        tensors["weights_scaling_factor_2"] = ("float32", (1,))
    return tensors


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a tensor of a checkpoint may be; a single number may have no dimension."""

    dtypes: tuple[str, ...]
    shape: tuple[int, ...]

    def fits(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Whether it is so."""
        number = self.shape == (1,) and shape == ()
        return dtype in self.dtypes and (shape == self.shape or number)


def checkpoint_tensors(
    config: Mapping[str, Any], plain: Iterable[tuple[str, str | None, tuple[int, ...]]]
) -> dict[str, Wanted]:
    """The tensors of a rank by name, from those that it has unquantized (name, dtype, shape).

    `config` is the checkpoint's; None for a dtype stands for the config's.
    """
    quantization, dtype = config.get("quantization") or {}, config["dtype"]
    overall, layers = stated(quantization), quantization.get("quantized_layers") or {}
    listed = quantization.get("exclude_modules")
    patterns = [str(pattern) for pattern in listed] if isinstance(listed, list) else []
    wanted: dict[str, Wanted] = {}
    for name, own, shape in plain:
        module = name.removesuffix(".weight")
        excluded = any(fnmatchcase(module, pattern) for pattern in patterns)
        found = stated(layers[module]) if module in layers else overall
        if found is None or excluded or not is_linear(name, shape):
            wanted[name] = Wanted(dtypes=(own or dtype,), shape=shape)
            continue
        for role, (kind, size) in shapes(found, shape, dtype).items():
            scales = found.algo in AWQ and role != "weight"
            wanted[f"{module}.{role}"] = Wanted(dtypes=FLOATS if scales else (kind,), shape=size)
    return wanted


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the weight of a module that could be quantized."""
    module = name.removesuffix(".weight")
    never = any(fnmatchcase(module, pattern) for pattern in NEVER_QUANTIZED)
    return name.endswith(".weight") and len(shape) > 1 and not never
