"""Plans a conversion: the config, each rank's tensors, and where each one's bytes come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from builder import families
from builder.checkpoint_check import some
from builder.checkpoint_config import pretrained_config
from builder.errors import LimitError, ModelError
from builder.families import Family
from builder.mapping import Layout
from builder.pieces import segments
from builder.quantization_block import quantization
from builder.quantized import kv_scale, pending
from builder.rank_linear import rank_linear
from builder.safetensors_file import StoredTensor
from builder.safetensors_writer import PendingTensor
from builder.source import Source
from builder.source.quantized_linear import QuantizedLinear


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a conversion will write: config.json's fields, and each rank's tensors.

    `layers` are quant_cfg.json's, where linears differ in their quantization.
    """

    config: dict[str, Any]
    layers: dict[str, Any] | None
    ranks: list[list[PendingTensor]]


def plan(model: Source, layout: Layout, dtype: str, recipe: str | None = None) -> Plan:
    """What `model` becomes in this layout and dtype; no tensor is read yet.

    Raises ModelError, with names, for tensors that are missing, left over or misshapen, and
    LimitError for a model that can't be divided or quantized so.
    """
    family = families.of(model.config.architecture)
    config = pretrained_config(model.config, dtype, layout)
    _check_source(model, family, config)
    if family.encoder and (recipe or model.quantization):
        raise LimitError(
            "an encoder stays as it is: TensorRT-LLM's class has no quantized form",
            found=recipe or "a quantized model",
            do="convert it without a recipe, from the unquantized model",
        )
    layout.check(family, config)
    config["quantization"], layers = quantization(model, config, layout, recipe)
    ranks = range(layout.files)
    return Plan(
        config=config,
        layers=layers,
        ranks=[list(_rank(model, layout.of(family), config, rank)) for rank in ranks],
    )


def _rank(
    model: Source, layout: Layout, config: Mapping[str, Any], rank: int
) -> Iterator[PendingTensor]:
    family, dtype = families.of(model.config.architecture), config["dtype"]
    for tensor in layout.tensors(family, config, rank):
        if linear := rank_linear(tensor, model.tensors):
            yield from pending(linear, dtype, layout.tp)
            continue
        own = tensor.dtype or dtype
        yield PendingTensor(
            name=tensor.name,
            dtype=own,
            shape=tensor.shape,
            segments=partial(segments, tensor.pieces, model.tensors, own),
        )
    if model.quantization and (cache := model.quantization.kv_cache):
        layers = layout.layers(rank // layout.tp, config["num_hidden_layers"])
        for local, layer in enumerate(layers):
            yield PendingTensor(
                name=f"transformer.layers.{local}.attention.kv_cache_scaling_factor",
                dtype="float32",
                shape=(1,),
                segments=partial(kv_scale, model.kv_scales.get(layer, ()), cache),
            )


def _check_source(model: Source, family: Family, config: Mapping[str, Any]) -> None:
    expected = list(family.expected(config))
    parts = {name: shape for tensor in expected for name, shape in tensor.sources.items()}
    _complain(model, "lacks tensors", [name for name in parts if name not in model.tensors])
    tied = model.config.tie_word_embeddings
    left = [n for n in model.tensors if n not in parts and not family.is_unused(n, tied=tied)]
    left = [name for name in left if not _is_empty_bias(model, name)]
    _complain(model, "has tensors that have no place in the checkpoint", left)
    turned = {
        group.source
        for tensor in expected
        for part in tensor.parts
        for group in part
        if group.transposed and isinstance(model.tensors[group.source], QuantizedLinear)
    }
    wrong = [
        f"{name} {list(model.tensors[name].shape)}, expected {list(shape)}"
        for name, shape in parts.items()
        if model.tensors[name].shape != (shape[::-1] if name in turned else shape)
    ]
    _complain(model, "has tensors whose shapes don't fit its config", wrong)


def _is_empty_bias(model: Source, name: str) -> bool:
    """A bias of zeros beside a quantized weight: GPTQ writers gave one to every linear."""
    prefix, _, last = name.rpartition(".")
    tensor = model.tensors[name]
    if last != "bias" or not isinstance(model.tensors.get(f"{prefix}.weight"), QuantizedLinear):
        return False
    return isinstance(tensor, StoredTensor) and not np.any(tensor.numpy())


def _complain(model: Source, what: str, names: list[str]) -> None:
    if names:
        raise ModelError(
            f"{model.path} {what}",
            found=some(names),
            do=f"check that it is a whole {model.config.architecture} with its own config",
        )
