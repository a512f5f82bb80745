"""Baichuan and Baichuan 2: Llama with q, k and v stored as one; the 13B models have ALiBi.

The size is told by the heads and the generation by the vocabulary, as TensorRT-LLM's
`BaichuanConfig.guess_model_version` does. The second generation's head is used with rows of unit
length and stored with others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.families.fields import Field, Refused
from builder.families.llama import (
    CONFIG,
    DENSE,
    EMBEDDINGS,
    MLP,
    NORMS,
    SELF_ATTENTION,
    UNUSED,
)
from builder.families.phi import HEAD_SIZE
from builder.families.rows import CONTIGUOUS, qkv
from builder.families.table import Change, Constant, Family, Part, Row, Split, Stage

_FIRST_VOCABULARY = 64000


def _version(values: Mapping[str, Any]) -> str:
    generation = 1 if values["vocab_size"] == _FIRST_VOCABULARY else 2
    return f"v{generation}_{7 if values['num_attention_heads'] == 32 else 13}b"


BAICHUAN = Family(
    architectures=("BaichuanForCausalLM", "BaiChuanForCausalLM"),
    rows=(
        EMBEDDINGS[0],
        *(
            Row(
                name="lm_head.weight",
                parts=(Part("lm_head.weight", ("V", "D"), change=change),),
                split=Split.VOCABULARY,
                stage=Stage.LAST,
                when={"normalized_head": normalized},
            )
            for normalized, change in ((False, None), (True, Change.UNIT_ROWS))
        ),
        EMBEDDINGS[-1],
        *NORMS,
        *qkv(SELF_ATTENTION + "W_pack", fused=CONTIGUOUS),
        *DENSE,
        *MLP,
    ),
    config={
        **CONFIG,
        "position_embedding_type": "position_embedding_type",
        "rotary_scaling": Constant(value=None),
        "attn_bias": Constant(value=False),
        "mlp_bias": Constant(value=False),
        "model_version": "model_version",
        "normalized_head": "normalized_head",
    },
    fields=(Field("max_position_embeddings", ("max_position_embeddings", "model_max_length")),),
    derived={
        "model_version": _version,
        "normalized_head": lambda values: values["vocab_size"] != _FIRST_VOCABULARY,
        "position_embedding_type": lambda values: (
            "rope_gpt_neox" if values["num_attention_heads"] == 32 else "alibi"
        ),
    },
    refused=(
        Refused("num_attention_heads", (32, 40), "only the 7B and 13B models are known"),
        Refused(
            "num_key_value_heads", (), "TensorRT-LLM's class has a key-value head to each head"
        ),
        Refused("rope_theta", (10000, 10000.0), "TensorRT-LLM's class rotates by 10000"),
        Refused("tie_word_embeddings", (False,), "the head is a tensor of its own"),
    ),
    unfit=(HEAD_SIZE,),
    unused=(*UNUSED, "*alibi_mask", "*future_mask"),
    pipeline=False,
)
