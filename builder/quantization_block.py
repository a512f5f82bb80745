"""The `quantization` object of a checkpoint's config.json: TensorRT-LLM 1.2's QuantConfig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder import families
from builder.errors import LimitError
from builder.mapping import Layout
from builder.quantized_shapes import NEVER_QUANTIZED, WEIGHT_ONLY, form, is_linear
from builder.source import Source
from builder.source.quantized_linear import QuantizedLinear

PLAIN: Mapping[str, Any] = {"quant_algo": None, "kv_cache_quant_algo": None}


def quantization(
    model: Source, config: Mapping[str, Any], layout: Layout, recipe: str | None
) -> dict[str, Any]:
    """The object for a model whose checkpoint config is otherwise `config`.

    `recipe` is a name of WEIGHT_ONLY, None for the source's own form. Raises LimitError for a
    recipe that doesn't suit the model, and for linears left plain in a way that the object can't
    say.
    """
    if recipe is not None:
        if model.quantization is not None:
            raise LimitError(
                "the model is already quantized",
                found=f"{model.quantization.format.value}, --recipe {recipe}",
                do="leave --recipe out",
            )
        _check_dtype(config)
        # No list of exclusions: the loader matches it with tensors, the model with modules.
        return {**PLAIN, "quant_algo": WEIGHT_ONLY[recipe]}
    if model.quantization is None:
        return dict(PLAIN)
    _check_dtype(config)
    found = form(model.quantization)
    block: dict[str, Any] = {
        "quant_algo": found.algo,
        "kv_cache_quant_algo": "FP8" if model.quantization.fp8_kv_cache else None,
    }
    if found.group_size:
        block["group_size"] = found.group_size
    if found.algo == "W4A16_AWQ":
        block |= {"has_zero_point": found.zeros, "pre_quant_scale": found.prequant}
    return {**block, "exclude_modules": [*NEVER_QUANTIZED, *_plain(model, config, layout)]}


def _check_dtype(config: Mapping[str, Any]) -> None:
    if config["dtype"] == "float32":
        raise LimitError(
            "TensorRT-LLM computes with quantized weights in float16 or bfloat16",
            found="--dtype float32",
        )


def _plain(model: Source, config: Mapping[str, Any], layout: Layout) -> list[str]:
    """The linears that the source has plain, by their names on the ranks, which share the list."""
    family = families.of(model.config.architecture)
    quantized: dict[str, bool] = {}
    for rank in range(layout.pp):
        layers = layout.layers(rank, config["num_hidden_layers"])
        for expected in family.expected(config, layers=layers):
            sources = [model.tensors[source] for source in expected.sources]
            if not is_linear(expected.name, next(iter(expected.sources.values()))):
                continue
            module = expected.name.removesuffix(".weight")
            is_quantized = isinstance(sources[0], QuantizedLinear)
            # TensorRT-LLM takes a mixture out as a whole.
            whole = [module.rpartition(".")[0]] if expected.experts else []
            for each in (module, *whole):
                if quantized.setdefault(each, is_quantized) != is_quantized:
                    raise LimitError(
                        f"{each} must be quantized on all ranks of a pipeline, or on none",
                        found="some of it quantized, some not",
                        do="choose another --pp, or 1",
                    )
    return [module for module, is_quantized in quantized.items() if not is_quantized]
