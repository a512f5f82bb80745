"""Every family table agrees with the model that transformers makes, name by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from builder import families
from builder.checkpoint_config import pretrained_config
from builder.errors import UnknownFamilyError
from builder.families.elsewhere import LLMAPI_ONLY
from builder.families.shapes import size
from builder.mapping import Layout
from builder.source import ModelConfig, open_source

ARCHITECTURES = sorted(families.FAMILIES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_checkpoints_config_says_all_that_its_tensors_depend_on(architecture: str) -> None:
    family = families.of(architecture)
    for row in family.rows:
        for path in (*row.when, row.from_layer, row.before_layer):
            assert path is None or _has(family.config, path), (row.name, path)
    for letter, path in family.dimensions.items():
        assert _has(family.config, path), letter


def _has(config: Any, path: str) -> bool:
    for key in path.split("."):
        if key not in config:
            return False
        config = config[key]
    return True


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_table_speaks_of_attributes_that_there_are(architecture: str) -> None:
    family = families.of(architecture)
    common = {field.name for field in fields(ModelConfig)}
    own = {field.attribute for field in family.fields} | set(family.derived)
    long_rope = {"original_max_position_embeddings"} | {
        f"longrope_scaling_{length}_factors" for length in ("short", "long")
    }
    assert family.attributes <= common | own | long_rope


@pytest.mark.reference
def test_the_tables_name_every_tensor_of_a_real_model(tiny_models: dict[str, Path]) -> None:
    for name, folder in tiny_models.items():
        source = open_source(folder)
        family = families.of(source.config.architecture)
        config = pretrained_config(source.config, "float32", Layout())
        expected = list(family.expected(config))
        assert set(Counter(tensor.name for tensor in expected).values()) == {1}, name
        sources = {n: shape for tensor in expected for n, shape in tensor.sources.items()}
        stored = {n: t.shape for n, t in source.tensors.items()}
        tied = source.config.tie_word_embeddings
        left = {n for n in stored.keys() - sources.keys() if not family.is_unused(n, tied=tied)}
        assert not left, name
        assert sources.items() <= stored.items(), name


@pytest.mark.parametrize("architecture", sorted(LLMAPI_ONLY))
def test_what_never_had_an_engine_is_sent_on(architecture: str) -> None:
    with pytest.raises(UnknownFamilyError, match=f"{architecture}; .*--target llmapi"):
        families.of(architecture)


def test_a_shape_in_letters_is_a_sum_of_products() -> None:
    config = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_size": 5}
    assert [size(letters, config, {}) for letters in ("2", "3d", "Hd+2Kd", "Gd", "0")] == [
        2, 15, 50, 15, 0,
    ]  # fmt: skip
