"""OPT: learned positions, of which the first two rows are never used.

Names and fields: TensorRT-LLM's `models/opt/model.py` and its converter. Its class has no
projections around the embedding: OPT-350m's would have to be multiplied into it, and are refused.
"""

from __future__ import annotations

from builder.families.fields import Field, Refused, Unfit
from builder.families.rows import (
    LAYER,
    SIZES,
    TIED,
    activation,
    embeddings,
    linear,
    norm,
    separate_qkv,
)
from builder.families.table import Constant, Family, Part, Row, Rows, Split, Stage

_HF = "decoder.layers.{i}."

OPT = Family(
    architectures=("OPTForCausalLM",),
    rows=(
        *embeddings("decoder.embed_tokens"),
        Row(
            name="transformer.position_embedding.weight",
            parts=(
                Part(
                    "decoder.embed_positions.weight",
                    ("P+2", "D"),
                    rows=Rows(start="2", length="P"),
                ),
            ),
            split=Split.EMBEDDING,
            stage=Stage.FIRST,
        ),
        *norm(
            "transformer.ln_f",
            "decoder.final_layer_norm",
            stage=Stage.LAST,
            when={"do_layer_norm_before": True},
        ),
        *norm(LAYER + "input_layernorm", _HF + "self_attn_layer_norm"),
        *norm(LAYER + "post_layernorm", _HF + "final_layer_norm"),
        *separate_qkv(_HF + "self_attn."),
        *separate_qkv(_HF + "self_attn.", "bias"),
        *linear("attention.dense", _HF + "self_attn.out_proj", ("D", "D"), Split.COLUMNS),
        *linear("mlp.fc", _HF + "fc1", ("I", "D"), Split.ROWS),
        *linear("mlp.proj", _HF + "fc2", ("D", "I"), Split.COLUMNS),
    ),
    config={
        **SIZES,
        "position_embedding_type": Constant(value="learned_absolute"),
        "do_layer_norm_before": "do_layer_norm_before",
    },
    fields=(
        TIED,
        activation("activation_function", "relu"),
        Field("intermediate_size", ("ffn_dim",)),
        Field("norm_epsilon", (), float, default=1e-5),
        Field("do_layer_norm_before", ("do_layer_norm_before",), bool, default=True),
        Field("word_embed_proj_dim", ("word_embed_proj_dim",), same_as="hidden_size"),
    ),
    refused=(
        Refused("_remove_final_layer_norm", (False,), "a norm always ends the layers"),
        Refused("enable_bias", (True,), "linears always have biases"),
        Refused("layer_norm_elementwise_affine", (True,), "norms always have weights"),
    ),
    unfit=(
        Unfit(
            ("word_embed_proj_dim", "hidden_size"),
            lambda values: bool(values["word_embed_proj_dim"] != values["hidden_size"]),
            "the class has no projection between the embedding and the layers",
        ),
    ),
    prefixes=("model.",),
    pipeline=False,
)
