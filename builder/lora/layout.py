"""Where a model's linears are among the modules that TensorRT-LLM knows adapters of.

The family's table says which rows of which Hugging Face linear are where in the checkpoint; so an
adapter of a fused projection, whatever its order, lands where the weights did.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder import families
from builder.families import Constant, Expected, Family, Group

QKV = ("attn_q", "attn_k", "attn_v")
GATED_FC = ("mlp_gate", "mlp_h_to_4h")
"""The halves of an `fc` that holds both: what is multiplied, then what is activated."""

_MODULES: Mapping[str, str] = {
    "attention.qkv": "attn_qkv",
    "attention.dense": "attn_dense",
    "mlp.fc": "mlp_h_to_4h",
    "mlp.gate": "mlp_gate",
    "mlp.proj": "mlp_4h_to_h",
}
"""A layer's linear in the checkpoint → TensorRT-LLM's name of the module, if it is one."""

_NAME = re.compile(rf"transformer\.layers\.(\d+)\.({'|'.join(_MODULES)})\.weight")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A module of a layer, and what of the checkpoint and of the Hugging Face model it is.

    It is the outputs from `offset` of `linear` (`attention.qkv`, …), `sizes` are its [in, out].
    `rows` are, for each of its outputs in order, those of the Hugging Face linear `source`, whose
    `spellings` differ by publisher.
    """

    layer: int
    module: str
    linear: str
    offset: int
    sizes: tuple[int, int]
    source: str
    spellings: tuple[str, ...]
    rows: NDArray[np.int64]


def places(config: Mapping[str, Any]) -> tuple[Place, ...]:
    """Every module of every layer that an adapter can change.

    `config` is a checkpoint's or an engine's `pretrained_config`. Of q, k and v that are one
    linear there are `attn_qkv` and its three parts, for an engine has either. Where models of
    several families become one architecture, there are the places of each. Raises
    UnknownFamilyError for an architecture without a table.
    """
    return tuple(
        place
        for family in _families(str(config.get("architecture")))
        for expected in family.expected(config)
        if (match := _NAME.fullmatch(expected.name)) and not expected.experts
        for place in _places(int(match[1]), match[2], expected, family.prefixes)
    )


def _families(architecture: str) -> list[Family]:
    """Those whose checkpoints say that they are of this architecture."""
    own = [families.of(architecture)]
    for family in families.FAMILIES.values():
        if family.config.get("architecture") == Constant(value=architecture) and family not in own:
            own.append(family)
    return own


def _places(
    layer: int, linear: str, expected: Expected, prefixes: tuple[str, ...]
) -> Iterator[Place]:
    (groups,) = expected.parts

    def place(module: str, offset: int, group: Group, rows: NDArray[np.int64]) -> Place:
        source = group.source.removesuffix(".weight")
        return Place(
            layer=layer,
            module=module,
            linear=linear,
            offset=offset,
            sizes=(group.shape[1], len(rows)),
            source=source,
            spellings=(source, *(prefix + source for prefix in prefixes)),
            rows=rows,
        )

    sources = {group.source for group in groups}
    names = {"attention.qkv": QKV, "mlp.fc": GATED_FC}.get(linear, ())
    if len(names) != len(groups):
        names = (_MODULES[linear],)
    offset = 0
    rows = [_rows(group) for group in groups]
    if len(names) == 1 or (linear == "attention.qkv" and len(sources) == 1):
        yield place(_MODULES[linear], 0, groups[0], np.concatenate(rows))
    if len(names) > 1:
        for name, group, own in zip(names, groups, rows, strict=True):
            yield place(name, offset, group, own)
            offset += len(own)


def _rows(group: Group) -> NDArray[np.int64]:
    """The rows of the source matrix, in the order of the checkpoint's."""
    starts = group.start + group.every * np.arange(group.shape[0] // group.length)
    return (starts[:, None] + np.arange(group.length)).reshape(-1)
