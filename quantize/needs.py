"""What can't be done is refused here, before an hour of calibration: layouts, formats, groups."""

from __future__ import annotations

from collections.abc import Iterator

from builder.convert import ConvertOptions, checkpoint_dtype
from builder.errors import LimitError, ModelError
from builder.plan import plan
from builder.source import Source
from builder.source.calibrated import calibrated, stand_in
from builder.source.hf_quantization import Format
from quantize import gpus
from quantize.options import QuantizeOptions
from quantize.recipes import RECIPES, Recipe

FORMATS = {
    "fp8": Format.FP8,
    "int8_sq": Format.INT8,
    "int4_awq": Format.INT4,
    "w4a8_awq": Format.W4A8,
    "nvfp4": Format.NVFP4,
}
"""A calibrated recipe's name → the format of its linears."""


def refuse_gpu(options: QuantizeOptions, group_size: int | None = None) -> None:
    """Raise LimitError if the GPU that the user named can't run what was chosen."""
    if options.gpu is not None:
        gpus.refuse(
            options.chosen, options.gpu, kv_cache=options.kv_cache, group_size=group_size or None
        )


def refuse_huggingface(options: QuantizeOptions) -> None:
    """Raise LimitError for what ModelOpt's Hugging Face form doesn't have."""
    if not options.chosen.calibrates:
        raise LimitError(
            f"{options.recipe} has no Hugging Face form: TensorRT-LLM quantizes it when it builds",
            found="--hf",
            do="leave --hf out, or choose fp8, int8_sq or int4_awq",
        )
    if options.kv_cache == "int8":
        raise LimitError(
            "ModelOpt's Hugging Face form has no INT8 KV cache",
            found="--hf with --kv-cache int8",
            do="leave --hf out, or choose --kv-cache fp8 or none",
        )


def group_size(source: Source, options: QuantizeOptions, conversion: ConvertOptions) -> int:
    """How many inputs share a scale: what was asked for, or the largest that fits; 0 without.

    `conversion` is the checkpoint that is planned with it. Raises LimitError and ModelError for a
    model, layout or format that no group makes possible.
    """
    if not options.chosen.calibrates:
        return 0
    if options.chosen.candidates and conversion.pp > 1:
        raise LimitError(
            f"{options.recipe} may differ between pipeline ranks, which a checkpoint can't say",
            found=f"--pp {conversion.pp}",
            do="divide it with --tp",
        )
    refused: LimitError | None = None
    for size in _sizes(options.chosen, options.group_size):
        try:
            refuse_gpu(options, size)
            _try(source, options, conversion, size)
        except LimitError as error:
            refused = refused or error
        else:
            return size
    raise refused or LimitError(f"{options.recipe} has no group size that fits")


def _sizes(recipe: Recipe, asked: int | None) -> tuple[int, ...]:
    return recipe.group_sizes or (0,) if asked is None else (asked,)


def _try(
    source: Source, options: QuantizeOptions, conversion: ConvertOptions, group_size: int
) -> None:
    """Plan the checkpoint with invented numbers; no tensor is read."""
    kv_cache = None if options.kv_cache == "none" else options.kv_cache.upper()
    for each in _leaves(options.chosen):
        invented = stand_in(
            source,
            FORMATS[each.name],
            group_size=group_size if each.group_sizes else 0,
            kv_cache=kv_cache,
        )
        if not invented.linears:
            raise ModelError(f"{source.path} has no linear layer that {each.name} quantizes")
        dtype = checkpoint_dtype(source, conversion)
        plan(calibrated(source, invented), conversion.layout, dtype)


def _leaves(recipe: Recipe) -> Iterator[Recipe]:
    """The recipe, or those that a search chooses from."""
    yield from (RECIPES[name] for name in recipe.candidates) if recipe.candidates else (recipe,)
