"""How Hugging Face's config.json spells what most families have: old and new spellings.

transformers 5 moved `rope_theta` and `rope_scaling` into `rope_parameters` and renamed
`torch_dtype` to `dtype`; folders written by either version are about. What transformers maps by a
class's `attribute_map` stands here as further keys.
"""

from __future__ import annotations

from builder.families import Field

ACTIVATIONS = (
    "silu",
    "gelu",
    "gelu_new",
    "gelu_pytorch_tanh",
    "relu",
    "swiglu",
    "squared-relu",
)
"""Words of a checkpoint's `hidden_act`: transformers has the same, except for the last two."""

FIELDS = (
    Field("vocab_size", ("vocab_size",)),
    Field("hidden_size", ("hidden_size", "n_embd", "d_model")),
    Field("num_hidden_layers", ("num_hidden_layers", "n_layer", "n_layers", "num_layers")),
    Field("num_attention_heads", ("num_attention_heads", "n_head", "n_heads")),
    Field("num_key_value_heads", ("num_key_value_heads",), same_as="num_attention_heads"),
    Field("intermediate_size", ("intermediate_size",)),
    Field("max_position_embeddings", ("max_position_embeddings", "n_positions")),
    Field("norm_epsilon", ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"), float),
    Field("hidden_act", ("hidden_act",), str, only=ACTIVATIONS),
    Field("tie_word_embeddings", ("tie_word_embeddings",), bool, default=False),
    Field("attn_bias", ("attention_bias",), bool, default=False),
    Field("mlp_bias", ("mlp_bias",), bool, default=False),
)

NEUTRAL = {
    "attn_bias": False,
    "mlp_bias": False,
    "rotary_pct": 1.0,
    "rotary_scaling": None,
    "sliding_window": None,
}
"""Common attributes with the value that is the same as not having them: others must be carried."""

DTYPE_KEYS = ("dtype", "torch_dtype")
