"""Promise: an engine takes sequences as long as the model's positions reach, and no longer."""

from __future__ import annotations

from typing import Any

import pytest

from builder.errors import LimitError
from builder.limits import LimitOptions, context_tokens, plan

PLAIN: dict[str, Any] = {
    "dtype": "float16",
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "head_size": 8,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize(
    ("positions", "scaling", "tokens"),
    [
        (2048, None, 2048),
        (131072, LLAMA3, 131072),  # Llama 3.1: scaled already
        (32768, YARN, 131072),  # Qwen2.5 as its model card says
        (131072, YARN, 131072),  # the same in a config that has the product
        (4096, {"type": "linear", "factor": 2.0}, 8192),
        (4096, {"type": "dynamic", "factor": 2.0}, 4096),
    ],
)
def test_sequences_reach_as_far_as_positions(
    positions: int, scaling: dict[str, Any] | None, tokens: int
) -> None:
    config = {**PLAIN, "max_position_embeddings": positions, "rotary_scaling": scaling}
    assert context_tokens(config) == tokens
    assert plan(config, LimitOptions(max_seq_len=tokens)).max_seq_len_tokens == tokens
    assert plan(config, LimitOptions()).max_seq_len_tokens == positions
    with pytest.raises(LimitError, match=f"at most {tokens}"):
        plan(config, LimitOptions(max_seq_len=tokens + 1))
