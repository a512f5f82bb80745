"""What a rank's weights take, from a checkpoint's config alone: the family's table, counted.

No weights are read, so a model can be planned for before it is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from builder import families, weight_only
from builder.dtypes import NUMPY
from builder.families import Family
from builder.mapping import Layout, RankTensor
from builder.quantized_shapes import checkpoint_tensors

Config = Mapping[str, Any]

_EMBEDDING = "transformer.vocab_embedding.weight"
_HEAD = "lm_head.weight"
_TABLES = (_EMBEDDING, "transformer.position_embedding.weight")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A rank's weights in bytes, and how many of them a token is multiplied with.

    `looked_up_bytes` of the bytes are tables of which a token reads one row, `expert_bytes` are
    the routed experts'. `parameters` are those of the matrices that every token meets, without
    the head, and `expert_parameters` all routed experts'.
    """

    total_bytes: int
    looked_up_bytes: int
    expert_bytes: int
    head_bytes: int
    parameters: int
    expert_parameters: int
    head_parameters: int


def weights_of_ranks(config: Config) -> tuple[Weights, ...]:
    """Those of each pipeline rank."""
    return tuple(weights_of_rank(config, pp_rank) for pp_rank in range(Layout.of_config(config).pp))


def weights_of_rank(config: Config, pp_rank: int = 0) -> Weights:
    """The weights of a pipeline rank's tensor ranks, which are alike.

    `config` is a checkpoint's, with `mapping` and `quantization`. Scales count; a head that is the
    embedding again counts once where TensorRT-LLM shares the two. Raises UnknownFamilyError, and
    LimitError for a layout that can't be.
    """
    # ModelOpt's config.json has `bias` for what TensorRT-LLM's has as `attn_bias`.
    config = {**config, "attn_bias": config.get("attn_bias", config.get("bias", False))}
    counted = tensors_of_rank(config, pp_rank)
    sizes = {tensor.name: times * stored_bytes(config, tensor) for tensor, times in counted}
    matrices = {
        tensor.name: times * prod(tensor.shape)
        for tensor, times in counted
        if len(tensor.shape) > 1 and tensor.name not in _TABLES
    }
    experts = {tensor.name for tensor, _ in counted if len(tensor.shape) == 3}
    shared = _shared_head(config, {tensor.name: tensor.shape for tensor, _ in counted})
    return Weights(
        total_bytes=sum(sizes.values()) - (sizes[_HEAD] if shared else 0),
        looked_up_bytes=0 if shared else sum(sizes.get(name, 0) for name in _TABLES),
        expert_bytes=sum(sizes[name] for name in experts),
        head_bytes=sizes.get(_HEAD, 0),
        parameters=sum(size for name, size in matrices.items() if name not in {_HEAD, *experts}),
        expert_parameters=sum(matrices[name] for name in experts),
        head_parameters=matrices.get(_HEAD, 0),
    )


def tensors_of_rank(config: Config, pp_rank: int = 0) -> list[tuple[RankTensor, int]]:
    """A rank's tensors, unquantized, each with how often: layers that are alike are listed once.

    Raises UnknownFamilyError, and LimitError for a layout that can't be.
    """
    layout, family = Layout.of_config(config), families.of(config["architecture"])
    layout.check(family, config)
    layout, count = layout.of(family), config["num_hidden_layers"]
    if not _alike(config, family):
        return [(tensor, 1) for tensor in layout.tensors(family, config, pp_rank * layout.tp)]
    one = {**config, "num_hidden_layers": layout.pp}
    times = len(layout.layers(pp_rank, count))
    return [
        (tensor, times if tensor.name.startswith("transformer.layers.") else 1)
        for tensor in layout.tensors(family, one, pp_rank * layout.tp)
    ]


def _alike(config: Config, family: Family) -> bool:
    """Whether all layers have the same tensors in the same forms."""
    quantization = config.get("quantization") or {}
    excluded = quantization.get("exclude_modules") or ()
    return not (
        any(row.from_layer or row.before_layer for row in family.rows)
        or quantization.get("quantized_layers")
        or any("layers." in str(pattern) for pattern in excluded)
    )


def stored_bytes(config: Config, tensor: RankTensor) -> int:
    """What a tensor takes in the engine, in the form that the config's quantization gives it."""
    dtype = tensor.dtype or config["dtype"]
    if bits := _loader_bits(config, tensor):
        scales = prod(tensor.shape[:-1]) * NUMPY[dtype].itemsize
        return prod(tensor.shape) * bits // 8 + scales
    forms = checkpoint_tensors(config, [(tensor.name, tensor.dtype, tensor.shape)])
    return sum(prod(form.shape) * NUMPY[form.dtypes[0]].itemsize for form in forms.values())


def _loader_bits(config: Config, tensor: RankTensor) -> int:
    """Of a matrix that TensorRT-LLM's loader quantizes itself; else 0."""
    if len(tensor.shape) < 2 or not tensor.name.endswith(".weight"):
        return 0
    module = tensor.name.removesuffix(".weight")
    return weight_only.bits(module, config.get("quantization") or {})


def _shared_head(config: Config, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether TensorRT-LLM keeps one table for both (`share_embedding` of its modeling_utils.py).

    It does where a rank has both of one shape: tensor ranks only with a parallel embedding.
    """
    tied = bool(config.get("tie_word_embeddings"))
    return tied and _HEAD in shapes and shapes.get(_EMBEDDING) == shapes[_HEAD]
