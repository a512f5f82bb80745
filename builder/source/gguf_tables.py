"""GGUF's words and Hugging Face's, as data.

Sources: gguf-py's `constants.py` (architectures, metadata keys, tensor names) and the model
classes of llama.cpp's converter (which architectures have their q and k permuted).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A GGUF architecture that is one of our families."""

    huggingface: str
    permuted: bool
    """Whether rows of q and k are stored in the order of interleaved rotary pairs."""


ARCHITECTURES = {
    "llama": Architecture(huggingface="LlamaForCausalLM", permuted=True),
    "qwen2": Architecture(huggingface="Qwen2ForCausalLM", permuted=False),
    "qwen3": Architecture(huggingface="Qwen3ForCausalLM", permuted=False),
}

ENCODERS = (
    "bert",
    "eurobert",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "t5encoder",
)
"""Architectures that give embeddings."""

TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{i}.attn_norm": "model.layers.{i}.input_layernorm",
    "blk.{i}.attn_q": "model.layers.{i}.self_attn.q_proj",
    "blk.{i}.attn_k": "model.layers.{i}.self_attn.k_proj",
    "blk.{i}.attn_v": "model.layers.{i}.self_attn.v_proj",
    "blk.{i}.attn_output": "model.layers.{i}.self_attn.o_proj",
    "blk.{i}.attn_q_norm": "model.layers.{i}.self_attn.q_norm",
    "blk.{i}.attn_k_norm": "model.layers.{i}.self_attn.k_norm",
    "blk.{i}.ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "blk.{i}.ffn_gate": "model.layers.{i}.mlp.gate_proj",
    "blk.{i}.ffn_up": "model.layers.{i}.mlp.up_proj",
    "blk.{i}.ffn_down": "model.layers.{i}.mlp.down_proj",
}
"""Names without their ending (".weight" or ".bias"); `{i}` is the layer."""

PERMUTED_HEADS = {
    "self_attn.q_proj": "num_attention_heads",
    "self_attn.k_proj": "num_key_value_heads",
}
"""The permuted tensors, each with the attribute that counts its heads."""

ROPE_FACTORS = "rope_freqs.weight"
"""Llama 3's scaling as a vector; it becomes `rotary_scaling` of the config."""

UNUSED = (ROPE_FACTORS,)

INTEGERS = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
}
"""ModelConfig attribute → required key after "<architecture>."."""

OPTIONAL_INTEGERS = {
    "num_key_value_heads": "attention.head_count_kv",
    "head_size": "attention.key_length",
    "sliding_window": "attention.sliding_window",
}

NORM_EPSILON = "attention.layer_norm_rms_epsilon"
ROTARY_BASE = "rope.freq_base"
ROTARY_BASE_DEFAULT = 10000.0
ROPE_TYPE = "rope.scaling.type"
ROPE_SCALING = {
    "factor": "rope.scaling.factor",
    "original_max_position_embeddings": "rope.scaling.original_context_length",
}
ROPE_TYPES = ("linear", "yarn")

LLAMA3_FREQUENCIES = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""What every published Llama 3.1, 3.2 and 3.3 has; GGUF keeps only the resulting vector."""

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Tensor types that are stored as they are; every other one is dequantized to float32."""

QUANTIZED_DTYPE = "bfloat16"
"""The dtype of a model whose weights are quantized: the one that such models are trained in."""
