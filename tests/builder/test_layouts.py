"""Promise: over all ranks each weight is there exactly once, replicated ones on every rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from builder import families
from builder.dtypes import Array
from builder.errors import LimitError
from builder.families import Constant, Expected, Family, Group, Split
from builder.mapping import Layout, Piece

SIZES: dict[str, Any] = {
    "vocab_size": 37,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_size": 4,
    "max_position_embeddings": 19,
    "moe_intermediate_size": 16,
    "moe": {"num_experts": 8, "shared_expert_intermediate_size": 16},
}
LETTER, LAYER = 8, 2
"""What a family's own dimensions and bounds of layers are here."""

LAYOUTS = {
    "one": Layout(),
    "tp2": Layout(tp=2),
    "tp4, parallel embedding": Layout(tp=4, parallel_embedding=True),
    "tp2, embedding by columns": Layout(tp=2, parallel_embedding=True, embedding_sharding_dim=1),
    "pp2": Layout(pp=2),
    "tp4 pp3": Layout(tp=4, pp=3),
    "tp4 ep2": Layout(tp=4, moe_ep=2),
    "tp4 ep4 pp2": Layout(tp=4, moe_ep=4, pp=2),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("switches", [True, False], ids=["all options", "no options"])
@pytest.mark.parametrize("architecture", sorted(families.FAMILIES))
def test_each_weight_is_there_as_often_as_its_split_says(
    architecture: str, switches: bool, layout: Layout
) -> None:
    family = families.of(architecture)
    config = sample(family, switches)
    layout = layout.of(family)
    if (layout.pp > 1 and not family.pipeline) or (layout.moe_ep > 1 and "moe" not in config):
        with pytest.raises(LimitError):
            layout.check(family, config)
        return
    layout.check(family, config)
    expected = list(family.expected(config))
    shapes = {name: shape for each in expected for name, shape in each.sources.items()}
    found = {name: np.zeros(shape, int) for name, shape in shapes.items()}
    for rank in range(layout.files):
        for tensor in layout.tensors(family, config, rank):
            sizes = [int(np.prod(piece.shape)) for piece in tensor.pieces]
            assert sum(sizes) == np.prod(tensor.shape), tensor.name
            for piece in tensor.pieces:
                add(found, piece, [n for rows in piece.rows for n in range(rows.start, rows.stop)])
    wanted = {name: np.zeros(shape, int) for name, shape in shapes.items()}
    for each in expected:
        for groups in each.parts:
            for index, group in enumerate(groups):
                add(wanted, group, rows_of(group), copies(layout, each, index, config))
    for name in shapes:
        assert (found[name] == wanted[name]).all(), name


def add(counts: Mapping[str, Array], part: Piece | Group, rows: list[int], times: int = 1) -> None:
    """Count the elements of some rows and of the part's columns."""
    stored = counts[part.source]
    matrix = stored.reshape(-1, stored.shape[-1]) if stored.ndim > 1 else stored
    matrix = matrix.T if part.transposed else matrix
    if matrix.ndim == 1:
        np.add.at(matrix, rows, times)
    else:
        columns = np.arange(matrix.shape[1])[part.columns]
        np.add.at(matrix, (np.array(rows, int)[:, None], columns[None, :]), times)


def rows_of(group: Group) -> list[int]:
    starts = range(group.shape[0] // group.length)
    return [group.start + n * group.every + i for n in starts for i in range(group.length)]


def copies(layout: Layout, expected: Expected, index: int, config: dict[str, Any]) -> int:
    """Over how many ranks of a pipeline stage the same element is found."""
    if expected.split is Split.COPY:
        return layout.tp
    if expected.split is Split.EMBEDDING:
        return 1 if layout.parallel_embedding else layout.tp
    shared = expected.split is Split.HEADS and index > 0
    if shared or expected.split is Split.KV_HEADS:
        return max(1, layout.tp // int(config["num_key_value_heads"]))
    return 1


def sample(family: Family, switches: bool) -> dict[str, Any]:
    """A checkpoint's config of the family, in which every condition holds, or none that can."""
    config = filled(family.config)
    for path in family.dimensions.values():
        put(config, path, LETTER)
    for row in family.rows:
        for path in (row.from_layer, row.before_layer):
            if path:
                put(config, path, LAYER)
        for path, value in row.when.items():
            if not isinstance(value, bool):
                put(config, path, value)
            elif not isinstance(current(config, path), int) or isinstance(
                current(config, path), bool
            ):
                put(config, path, switches)
    return {**{k: v for k, v in SIZES.items() if k != "moe"}, **config}


def filled(table: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, entry in table.items():
        if isinstance(entry, Mapping):
            fields[name] = {**SIZES["moe"], **filled(entry)}
        elif isinstance(entry, Constant):
            fields[name] = entry.value
        else:
            fields[name] = SIZES.get(name)
    return {name: value for name, value in fields.items() if value is not None}


def current(config: Mapping[str, Any], path: str) -> Any:
    return families.lookup(config, path)


def put(config: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        config = config.setdefault(parent, {})
    config[last] = value
