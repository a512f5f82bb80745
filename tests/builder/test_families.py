"""Every family table agrees with the model that transformers makes, name by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from builder import families
from builder.families import Constant
from builder.source import ModelConfig, open_source


@pytest.mark.parametrize("architecture", sorted(families.FAMILIES))
def test_a_table_speaks_of_attributes_that_there_are(architecture: str) -> None:
    family = families.of(architecture)
    known = {field.name for field in fields(ModelConfig)}
    sources = {value for value in family.config.values() if not isinstance(value, Constant)}
    conditions = {row.when[0] for row in family.rows if row.when}
    assert sources | conditions <= known


@pytest.mark.parametrize("architecture", sorted(families.FAMILIES))
@pytest.mark.parametrize("tied", [False, True])
def test_no_tensor_is_written_twice(architecture: str, tied: bool) -> None:
    config = {
        "vocab_size": 10,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_size": 2,
        "tie_word_embeddings": tied,
        "attn_bias": True,
        "mlp_bias": True,
    }
    expected = list(families.of(architecture).expected(config))
    assert set(Counter(tensor.name for tensor in expected).values()) == {1}
    shapes = {tensor.name: tensor.shape for tensor in expected}
    assert shapes["transformer.layers.2.attention.qkv.weight"] == (16, 8)
    assert shapes["lm_head.weight"] == (10, 8)


@pytest.mark.reference
def test_the_tables_name_every_tensor_of_a_real_model(tiny_models: dict[str, Path]) -> None:
    for name, folder in tiny_models.items():
        source = open_source(folder)
        family = families.of(source.config.architecture)
        parts = {
            part: shape
            for tensor in family.expected(asdict(source.config))
            for part, shape in tensor.parts
        }
        assert {n: t.shape for n, t in source.tensors.items()} == parts, name
