"""Promise: positions turn as fast as transformers turns them, however they are scaled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from builder.targets.openvino_frequencies import frequencies

SIZE, BASE, POSITIONS = 48, 50_000.0, 4096
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512}


@pytest.mark.reference
@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        LLAMA3,
        YARN,
        {**YARN, "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.5},
        {**YARN, "mscale": 0.7, "mscale_all_dim": 0.5, "truncate": False},
        {**YARN, "factor": 1.0},
    ],
    ids=["linear", "dynamic", "llama3", "yarn", "yarn betas", "yarn magnitudes", "yarn of one"],
)
def test_scaled_frequencies_are_those_of_transformers(scaling: dict[str, Any]) -> None:
    expected, factor = _reference(scaling["rope_type"], rope_scaling=scaling)
    config = {"rotary_scaling": scaling, "max_position_embeddings": POSITIONS}
    found, found_factor = frequencies(config, BASE, SIZE)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found_factor == pytest.approx(factor)


@pytest.mark.reference
@pytest.mark.parametrize("original", [512, POSITIONS])
def test_long_rope_is_that_of_transformers_within_the_original_context(original: int) -> None:
    short = [1.0 + n / 8 for n in range(SIZE // 2)]
    scaling = {"rope_type": "longrope", "short_factor": short, "long_factor": [9.0] * (SIZE // 2)}
    expected, factor = _reference(
        "longrope", rope_scaling=scaling, original_max_position_embeddings=original
    )
    config = {
        "position_embedding_type": "long_rope",
        "max_position_embeddings": POSITIONS,
        "original_max_position_embeddings": original,
        "longrope_scaling_short_factors": short,
    }
    found, found_factor = frequencies(config, BASE, SIZE)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found_factor == pytest.approx(factor)


def _reference(kind: str, **fields: Any) -> tuple[Any, float]:
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(
        head_dim=SIZE, rope_theta=BASE, max_position_embeddings=POSITIONS, **fields
    )
    expected, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    return expected.numpy(), factor
