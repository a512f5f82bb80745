"""How Hugging Face's config.json spells what we need: one table, old and new spellings.

transformers 5 moved `rope_theta` and `rope_scaling` into `rope_parameters` and renamed
`torch_dtype` to `dtype`; folders written by either version are about.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """One attribute of ModelConfig.

    `keys` are tried in order; null counts as absent. An absent field takes the value of the
    attribute named by `same_as`, else `default`; with neither it is an error.
    """

    attribute: str
    keys: tuple[str, ...]
    kind: type
    default: object = None
    same_as: str | None = None

    @property
    def required(self) -> bool:
        """Whether a config without it can't be used."""
        return self.default is None and self.same_as is None


FIELDS = (
    Field("vocab_size", ("vocab_size",), int),
    Field("hidden_size", ("hidden_size",), int),
    Field("intermediate_size", ("intermediate_size",), int),
    Field("num_hidden_layers", ("num_hidden_layers",), int),
    Field("num_attention_heads", ("num_attention_heads",), int),
    Field("num_key_value_heads", ("num_key_value_heads",), int, same_as="num_attention_heads"),
    Field("max_position_embeddings", ("max_position_embeddings",), int),
    Field("norm_epsilon", ("rms_norm_eps",), float),
    Field("hidden_act", ("hidden_act",), str),
    Field("tie_word_embeddings", ("tie_word_embeddings",), bool, default=False),
    Field("attn_bias", ("attention_bias",), bool, default=False),
    Field("mlp_bias", ("mlp_bias",), bool, default=False),
)

DTYPE_KEYS = ("dtype", "torch_dtype")
ROPE_KEYS = ("rope_parameters", "rope_scaling")
ROTARY_BASE_DEFAULT = 10000.0
"""transformers' default of `rope_theta` in all families that we know."""

ROPE_TYPE_ALIASES = {"su": "longrope"}
PLAIN_ROPE = ("default", "none")

ROPE_SCALINGS: dict[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "yarn": ("factor",),
}
"""RoPE scalings that TensorRT-LLM's LLaMA and QWen classes take, with the fields each needs."""

ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
"""Values of `hidden_act` that mean the same to transformers and to TensorRT-LLM."""
