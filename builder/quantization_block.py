"""What a checkpoint says of its quantization: TensorRT-LLM 1.2's QuantConfig, LayerQuantConfig.

The first is config.json's `quantization`, the second quant_cfg.json, which a checkpoint has whose
linears differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from builder import families
from builder.errors import LimitError
from builder.families import Expected
from builder.mapping import Layout
from builder.quantized_shapes import MIXED, NEVER_QUANTIZED, WEIGHT_ONLY, Form, form, is_linear
from builder.source import Source
from builder.source.hf_quantization import Format
from builder.source.quantized_linear import QuantizedLinear

Blocks = tuple[dict[str, Any], dict[str, Any] | None]


def quantization(
    model: Source, config: Mapping[str, Any], layout: Layout, recipe: str | None
) -> Blocks:
    """The two objects for a model whose checkpoint config is otherwise `config`.

    `recipe` is a name of WEIGHT_ONLY, None for the source's own form. Raises LimitError for a
    recipe that doesn't suit the model, and for linears left plain in a way that the objects can't
    say.
    """
    cache = {"kv_cache_quant_algo": model.quantization and model.quantization.kv_cache}
    linears = any(isinstance(tensor, QuantizedLinear) for tensor in model.tensors.values())
    if recipe is not None:
        if model.quantization and linears:
            raise LimitError(
                "the model is already quantized",
                found=f"{model.quantization.format.value}, --recipe {recipe}",
                do="leave --recipe out",
            )
        _check_dtype(config)
        # No list of exclusions: the loader matches it with tensors, the model with modules.
        return {"quant_algo": WEIGHT_ONLY[recipe], **cache}, None
    if model.quantization is None or not linears:
        return {"quant_algo": None, **cache}, None
    _check_dtype(config)
    modules = _modules(model, config, layout)
    if model.quantization.format is Format.MIXED:
        layers = {name: _fields(found) for name, found in modules.items() if found}
        return {"quant_algo": MIXED, **cache}, {
            "quant_algo": MIXED,
            **cache,
            "quantized_layers": layers,
        }
    plain = [name for name, found in modules.items() if not found]
    block = {**_fields(form(model.quantization)), **cache}
    return {**block, "exclude_modules": [*NEVER_QUANTIZED, *plain]}, None


def _fields(found: Form) -> dict[str, Any]:
    block: dict[str, Any] = {"quant_algo": found.algo}
    if found.group_size:
        block["group_size"] = found.group_size
    if found.algo.endswith("_AWQ"):
        block |= {"has_zero_point": found.zeros, "pre_quant_scale": found.prequant}
    return block


def _check_dtype(config: Mapping[str, Any]) -> None:
    if config["dtype"] == "float32":
        raise LimitError(
            "TensorRT-LLM computes with quantized weights in float16 or bfloat16",
            found="--dtype float32",
        )


def _modules(model: Source, config: Mapping[str, Any], layout: Layout) -> dict[str, Form | None]:
    """The linears' forms by their names on the ranks, which share the list; None for plain."""
    modules: dict[str, Form | None] = {}
    for expected in _linears(model, config, layout):
        source = model.tensors[next(iter(expected.sources))]
        found = form(source.quantization) if isinstance(source, QuantizedLinear) else None
        module = expected.name.removesuffix(".weight")
        # TensorRT-LLM takes a mixture out as a whole.
        whole = [module.rpartition(".")[0]] if expected.experts else []
        for each in (module, *whole):
            if modules.setdefault(each, found) != found:
                raise LimitError(
                    f"{each} must be quantized alike on all ranks of a pipeline",
                    found=" and ".join(_name(form) for form in (modules[each], found)),
                    do="choose another --pp, or 1",
                )
    return modules


def _name(found: Form | None) -> str:
    return found.algo if found else "unquantized"


def _linears(model: Source, config: Mapping[str, Any], layout: Layout) -> Iterator[Expected]:
    family = families.of(model.config.architecture)
    for rank in range(layout.pp):
        layers = layout.layers(rank, config["num_hidden_layers"])
        for expected in family.expected(config, layers=layers):
            if is_linear(expected.name, next(iter(expected.sources.values()))):
                yield expected
