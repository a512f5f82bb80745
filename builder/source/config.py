"""What a decoder-only language model is, in one plain record, whatever folder it came from.

The attributes bear the names of TensorRT-LLM's checkpoint config, so that a family table and a
checkpoint's `config.json` are read with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model's hyperparameters. Sizes are counts of elements, tokens, layers or heads."""

    architecture: str
    """Hugging Face's `architectures[0]`, for example "LlamaForCausalLM"."""
    dtype: str
    """What the model was published in: "float32", "float16" or "bfloat16"."""
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_size: int
    max_position_embeddings: int
    norm_epsilon: float
    hidden_act: str
    rotary_base: float
    rotary_scaling: dict[str, Any] | None = None
    """Hugging Face's rope scaling with its type under `rope_type`; None for plain RoPE."""
    rotary_pct: float = 1.0
    """The part of each head that is rotated."""
    position_embedding_type: str = "rope_gpt_neox"
    tie_word_embeddings: bool = False
    attn_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    """Tokens that every layer attends to, where that is less than max_position_embeddings."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What only this family has."""

    def values(self) -> dict[str, Any]:
        """Every attribute by name, the family's own among them, which come before the common."""
        common = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**common, **common.pop("extra")}
