"""An adapter as the two arrays of a request: `lora_weights` and `lora_config`.

The form is that of TensorRT-LLM's `examples/hf_lora_convert.py` and `loraUtils.cpp`: a row for each
module of each layer. All of the weights are sent, also to several ranks: each takes its share.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import ModelError
from builder.lora.adapter import Adapter, Change
from builder.lora.layout import QKV, Place, places
from builder.targets.tensorrt_llm.flags import LORA_MODULES

Weights = NDArray[np.float16]
Config = NDArray[np.int32]


def arrays(
    adapter: Adapter, config: Mapping[str, Any], modules: Collection[str] | None = None
) -> tuple[Weights, Config]:
    """`lora_weights` float16 [rows, width] and `lora_config` int32 [rows, 3].

    A row holds the matrix [rank, in], then [out, rank] with the scale in it, then zeros; its
    numbers are the module's id, the layer and the rank. `config` is the `pretrained_config`,
    `modules` are the engine's `lora_target_modules`: one that has q, k and v apart takes a fused
    projection's adapter in three rows. Raises ModelError for a linear that engines (or this one)
    have no module of, for shapes of another model, and for numbers beyond float16.
    """
    found = []
    numbers = []
    for place, change in _placed(adapter, config, modules):
        into, out = change.matrices()
        rows = place.rows[_order(place, config)]
        found.append(np.concatenate([into.reshape(-1), out[rows].reshape(-1)]))
        numbers.append((LORA_MODULES[place.module], place.layer, change.rank))
    weights = np.zeros((len(found), max(map(len, found))), np.float16)
    with np.errstate(over="ignore"):
        for row, values in zip(weights, found, strict=True):
            row[: len(values)] = values
    if not np.isfinite(weights).all():
        raise ModelError(f"the adapter {adapter.folder} has numbers that float16 can't hold")
    return weights, np.array(numbers, np.int32)


def misread_modules(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Modules whose adapters TensorRT-LLM would read at other sizes than the model's.

    Its `loraModule.cpp` takes `attn_dense` for a square of the hidden size, which it isn't where
    the heads together are wider or narrower: the second matrix would begin at a wrong number.
    """
    hidden, heads, size = map(config.get, ("hidden_size", "num_attention_heads", "head_size"))
    return ("attn_dense",) if hidden and heads and size and heads * size != hidden else ()


def changed_modules(adapters: Iterable[Adapter], config: Mapping[str, Any]) -> tuple[str, ...]:
    """TensorRT-LLM's names of what the adapters change, in the order of their ids.

    Raises ModelError as `arrays` does.
    """
    names = {place.module for each in adapters for place, _ in _placed(each, config, None)}
    if names & set(QKV):
        # the engine takes these three together or not at all
        names |= set(QKV)
    return tuple(sorted(names, key=LORA_MODULES.__getitem__))


def _placed(
    adapter: Adapter, config: Mapping[str, Any], modules: Collection[str] | None
) -> list[tuple[Place, Change]]:
    """The adapter's changes with their places, in the order of layers and modules."""
    by_source: dict[str, list[Place]] = {}
    for place in places(config):
        for name in place.spellings:
            by_source.setdefault(name, []).append(place)
    placed = []
    for name, change in adapter.changes.items():
        if name not in by_source:
            raise ModelError(
                f"the adapter {adapter.folder} changes what engines take no adapter of",
                found=name,
                do="train it on attention's and the MLP's linears, or merge it into the model",
            )
        for place in _chosen(adapter, by_source[name], modules):
            _check_shape(adapter, by_source[name], place, change)
            placed.append((place, change))
    return sorted(placed, key=lambda pair: (pair[0].layer, LORA_MODULES[pair[0].module]))


def _chosen(adapter: Adapter, those: list[Place], modules: Collection[str] | None) -> list[Place]:
    """Of a source's places: a fused projection as one where the engine has that, else its parts."""
    fused = [place for place in those if place.module == "attn_qkv"]
    parts = [place for place in those if place.module != "attn_qkv"]
    if modules is None:
        return fused or parts
    for choice in (fused, parts):
        if choice and all(place.module in modules for place in choice):
            return choice
    raise ModelError(
        f"the adapter {adapter.folder} changes what the engine takes no adapters of",
        found=f"{those[0].source} ({', '.join(place.module for place in those)}) where its "
        f"lora_target_modules are {', '.join(modules)}",
        do=f"build it again with --lora {adapter.folder}",
    )


def _check_shape(adapter: Adapter, those: list[Place], place: Place, change: Change) -> None:
    outputs = 1 + max(int(each.rows.max()) for each in those)
    if (change.into.shape[1], change.out.shape[0]) != (place.sizes[0], outputs):
        raise ModelError(
            f"the adapter {adapter.folder} is another model's",
            found=f"{place.source} with {change.into.shape[1]} inputs and {change.out.shape[0]} "
            f"outputs where the model has {place.sizes[0]} and {outputs}",
        )


def _order(place: Place, config: Mapping[str, Any]) -> NDArray[np.int64]:
    """The module's outputs as tensor-parallel ranks take them, in equal pieces one after another.

    Ranks have heads of q, k and v each (`LoraManager` interleaves them so); key-value heads that
    are fewer than the ranks are there once for each rank.
    """
    ranks = int((config.get("mapping") or {}).get("tp_size") or 1)
    every = np.arange(place.sizes[1])
    if ranks == 1 or place.linear != "attention.qkv":
        return every
    heads, kv_heads, width = (
        int(config[name]) for name in ("num_attention_heads", "num_key_value_heads", "head_size")
    )
    by_rank = []
    for name, count in zip(QKV, (heads, kv_heads, kv_heads), strict=True):
        if place.module in ("attn_qkv", name):
            part, every = every[: count * width], every[count * width :]
            shared = part.reshape(count, width).repeat(max(1, ranks // count), axis=0)
            by_rank.append(shared.reshape(ranks, -1))
    order: NDArray[np.int64] = np.concatenate(by_rank, axis=1).reshape(-1)
    return order
