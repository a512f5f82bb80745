"""The recipes by name, each spelled out as data, and what ModelOpt is asked to do for one.

Nothing here imports ModelOpt: a recipe is known, listed and refused without it. The numbers are
those of ModelOpt 0.47's presets (`modelopt_recipes/configs/ptq`), which a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from builder.errors import LimitError

KvCache = Literal["none", "fp8", "int8"]


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """How a tensor is rounded: one scale for all of it, for each index of `axis`, or for blocks."""

    bits: int | tuple[int, int]
    """Of a signed integer, or of a float's exponent and mantissa: (4, 3) is e4m3."""

    axis: int | None = None
    block: int | None = None
    """Neighbouring inputs that share a scale."""

    scale_bits: tuple[int, int] | None = None
    """Of the blocks' scales where they are floats of a few bits themselves, taken on the fly."""

    def attributes(self, block: int | None = None) -> dict[str, Any]:
        """ModelOpt's QuantizerAttributeConfig. `block` replaces the block, where there is one."""
        if self.block is None:
            return {"num_bits": self.bits, "axis": self.axis}
        sizes: dict[int | str, Any] = {-1: block or self.block, "type": "static"}
        if self.scale_bits is None:
            return {"num_bits": self.bits, "block_sizes": sizes}
        sizes |= {"type": "dynamic", "scale_bits": self.scale_bits}
        return {
            "num_bits": self.bits,
            "effective_bits": _width(self.bits) + _width(self.scale_bits) / self.block,
            "block_sizes": sizes,
        }


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way to quantize."""

    name: str
    quant_algo: str
    """TensorRT-LLM's name for it, in the checkpoint's config."""

    bits_per_weight: float
    """Scales counted, with the largest group; of a search, the default target."""

    weight: tuple[Quantizer, ...] = ()
    """One after the other: the second rounds what the first left."""

    input: Quantizer | None = None
    activations: str
    """What the linears compute with."""

    algorithm: Mapping[str, Any]
    """ModelOpt's calibration method and its settings."""

    calibrates: bool = True
    """Whether it needs to see text; else the weights are enough, and ModelOpt isn't needed."""

    group_sizes: tuple[int, ...] = ()
    """Inputs that share a scale, where that is a choice. None asked for means the largest of
    these that divides every quantized linear's inputs on a rank."""

    untested_sm: range = range(0)
    """GPU generations that TensorRT-LLM builds for, though NVIDIA's own table leaves them out.
    Those that it doesn't build for are in `builder.targets.tensorrt_llm.rules_gpu`."""

    candidates: tuple[str, ...] = ()
    """Of a search: the recipes that each linear chooses from, or stays as it is."""

    on_cpu: str
    use: str


_FP8 = Quantizer(bits=(4, 3))
_INT8_ROWS = Quantizer(bits=8, axis=0)
_INT4_GROUPS = Quantizer(bits=4, block=128)
_NVFP4 = Quantizer(bits=(2, 1), block=16, scale_bits=(4, 3))

_SMALL_BLACKWELL = range(120, 130)
"""GeForce RTX 50, RTX PRO, DGX Spark. The hardware matrix of TensorRT-LLM's quantization.md has
no AWQ for them; its builder.py doesn't refuse it."""

_CALIBRATES_AND_RUNS = "calibrates and runs"

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="fp8",
            quant_algo="FP8",
            bits_per_weight=8,
            weight=(_FP8,),
            input=_FP8,
            activations="fp8",
            algorithm={"method": "max"},
            on_cpu=_CALIBRATES_AND_RUNS,
            use="the first choice on Ada, Hopper and Blackwell: half the size, close to lossless",
        ),
        Recipe(
            name="int8_sq",
            quant_algo="W8A8_SQ_PER_CHANNEL",
            bits_per_weight=8,
            weight=(_INT8_ROWS,),
            input=Quantizer(bits=8),
            activations="int8",
            algorithm={"method": "smoothquant"},
            on_cpu=_CALIBRATES_AND_RUNS,
            use="many clients on Ampere, which has no FP8; measure the quality",
        ),
        Recipe(
            name="int4_awq",
            quant_algo="W4A16_AWQ",
            bits_per_weight=4.125,
            weight=(_INT4_GROUPS,),
            activations="16-bit",
            algorithm={"method": "awq_lite", "alpha_step": 0.1},
            group_sizes=(128, 64),
            untested_sm=_SMALL_BLACKWELL,
            on_cpu=_CALIBRATES_AND_RUNS,
            use="few clients, or little memory: a quarter of the size, fast decode",
        ),
        Recipe(
            name="w4a8_awq",
            quant_algo="W4A8_AWQ",
            bits_per_weight=4.125,
            weight=(_INT4_GROUPS, _FP8),
            input=_FP8,
            activations="fp8",
            algorithm={"method": "awq_lite"},
            group_sizes=(128, 64),
            untested_sm=_SMALL_BLACKWELL,
            on_cpu=_CALIBRATES_AND_RUNS,
            use="little memory and many clients, on Ada and Hopper",
        ),
        Recipe(
            name="int8_wo",
            quant_algo="W8A16",
            bits_per_weight=8,
            weight=(_INT8_ROWS,),
            activations="16-bit",
            algorithm={"method": "max"},
            calibrates=False,
            on_cpu="runs, nothing to calibrate",
            use="half the size at once, without calibration, close to lossless",
        ),
        Recipe(
            name="int4_wo",
            quant_algo="W4A16",
            bits_per_weight=4,
            weight=(Quantizer(bits=4, axis=0),),
            activations="16-bit",
            algorithm={"method": "max"},
            calibrates=False,
            on_cpu="runs, nothing to calibrate",
            use="to see whether it fits: int4_awq is as small and much better",
        ),
        Recipe(
            name="nvfp4",
            quant_algo="NVFP4",
            bits_per_weight=4.5,
            weight=(_NVFP4,),
            input=_NVFP4,
            activations="nvfp4",
            algorithm={"method": "max"},
            on_cpu="calibrates and exports, doesn't run",
            use="the smallest and fastest on Blackwell",
        ),
        Recipe(
            name="auto",
            quant_algo="MIXED_PRECISION",
            bits_per_weight=6,
            activations="each linear's",
            algorithm={"method": "gradient"},
            group_sizes=(128, 64),
            untested_sm=_SMALL_BLACKWELL,
            candidates=("int4_awq", "fp8"),
            on_cpu=_CALIBRATES_AND_RUNS,
            use="a size between two recipes: the linears that hurt most keep more bits",
        ),
    )
}
"""Name → recipe."""

KV_CACHES: Mapping[KvCache, Quantizer | None] = {
    "none": None,
    "fp8": _FP8,
    "int8": Quantizer(bits=8),
}
"""`--kv-cache` → how keys and values are kept: one scale for a layer's."""

UNQUANTIZED = (
    "*embed_out*",
    "*block_sparse_moe.gate*",
    "*linear_attn.conv1d*",
    "*self_attention.conv1d*",
    "*linear_attn.in_proj_a*",
    "*linear_attn.in_proj_b*",
    "*lm_head*",
    "*mixer.conv1d*",
    "*mlp.gate.*",
    "*mlp.shared_expert_gate.*",
    "*output_layer*",
    "*proj_out.*",
    "*router*",
    "mtp.*",
    "output.*",
    "*embed_vision*",
    "*vision_tower*",
    "*visual*",
    "*vision_model*",
    "*multi_modal_projector*",
)
"""What every recipe leaves as it is: globs on names of quantizers, MODULE.weight_quantizer.

They are ModelOpt's, and GPT-NeoX's head, which ModelOpt would quantize."""

_UNQUANTIZED_CLASSES = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LeakyReLU", "Embedding")


def modelopt_config(
    recipe: Recipe,
    *,
    alpha: float | None = None,
    group_size: int | None = None,
    kv_cache: KvCache = "none",
) -> dict[str, Any]:
    """What `mtq.quantize` takes as `config`; for a search, see `modelopt_search`.

    `alpha` is SmoothQuant's, 0 to 1 (ModelOpt's default is 1): how much of the difficulty moves
    from the activations into the weights. Raises LimitError for a setting that the recipe hasn't.
    """
    check_group_size(recipe, group_size)
    if alpha is not None:
        check_alpha(recipe, alpha)
    weight = [quantizer.attributes(group_size) for quantizer in recipe.weight]
    entries: list[dict[str, Any]] = [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*weight_quantizer", "cfg": weight if len(weight) > 1 else weight[0]},
        {"quantizer_name": "*input_quantizer"}
        | ({"cfg": recipe.input.attributes()} if recipe.input else {"enable": False}),
        *({"quantizer_name": glob, "enable": False} for glob in UNQUANTIZED),
        *(
            {"quantizer_name": "*", "parent_class": f"nn.{name}", "enable": False}
            for name in _UNQUANTIZED_CLASSES
        ),
    ]
    if (cache := KV_CACHES[kv_cache]) is not None:
        entries.append({"quantizer_name": "*[kv]_bmm_quantizer", "cfg": cache.attributes()})
    algorithm = dict(recipe.algorithm) | ({} if alpha is None else {"alpha": alpha})
    return {
        "quant_cfg": entries,
        "algorithm": algorithm["method"] if len(algorithm) == 1 else algorithm,
    }


def modelopt_search(
    recipe: Recipe, *, bits_per_weight: float | None = None, group_size: int | None = None
) -> dict[str, Any]:
    """The keywords of `mtq.auto_quantize` that a search's recipe decides.

    The target counts scales, and only the linears that are searched: ModelOpt alone would count
    the unquantized lm_head, a fifth of a small model, among them. Raises LimitError for a target
    that the candidates can't reach.
    """
    check_group_size(recipe, group_size)
    target = recipe.bits_per_weight if bits_per_weight is None else bits_per_weight
    candidates = [RECIPES[name] for name in recipe.candidates]
    least = min(_bits_per_weight(each, group_size) for each in candidates)
    if not least <= target <= 16:
        raise LimitError(
            f"{recipe.name} can reach {least} to 16 bits per weight",
            found=f"{target}",
            do="choose a target between",
        )
    # Of modules, not of quantizers: `*mlp.gate.*` must match `mlp.gate`.
    plain = sorted({*UNQUANTIZED, *(glob.removesuffix(".*") for glob in UNQUANTIZED)})
    return {
        "constraints": {
            "effective_bits": target,
            "cost": {"excluded_module_name_patterns": plain},
        },
        "quantization_formats": [
            modelopt_config(each, group_size=group_size if each.group_sizes else None)
            | {"effective_bits": _bits_per_weight(each, group_size)}
            for each in candidates
        ],
        "disabled_layers": plain,
        "method": recipe.algorithm["method"],
    }


def check_group_size(recipe: Recipe, size: int | None) -> None:
    """Raise LimitError for a group that the recipe doesn't take; None is its own choice."""
    if size is None or size in recipe.group_sizes:
        return
    sizes = " or ".join(map(str, recipe.group_sizes))
    raise LimitError(
        f"{recipe.name} takes groups of {sizes}" if sizes else f"{recipe.name} has no groups",
        found=f"--group-size {size}",
        do=None if sizes else "leave --group-size out",
    )


def check_alpha(recipe: Recipe, alpha: float) -> None:
    """Raise LimitError for an alpha that the recipe doesn't take."""
    if recipe.algorithm["method"] != "smoothquant":
        raise LimitError(
            f"{recipe.name} doesn't smooth", found=f"--alpha {alpha}", do="leave --alpha out"
        )
    if not 0 <= alpha <= 1:
        raise LimitError("SmoothQuant's alpha is between 0 and 1", found=f"--alpha {alpha}")


def _bits_per_weight(recipe: Recipe, size: int | None) -> float:
    """With another group than the largest."""
    if size is None or not recipe.group_sizes:
        return recipe.bits_per_weight
    return recipe.bits_per_weight - 16 / recipe.group_sizes[0] + 16 / size


def _width(bits: int | tuple[int, int]) -> int:
    """Bits of a number, with its sign."""
    return bits if isinstance(bits, int) else 1 + sum(bits)
