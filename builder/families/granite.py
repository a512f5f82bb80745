"""Granite's dense models: Llama with four multipliers.

Fields: TensorRT-LLM's `LLaMAConfig.from_hugging_face`. Granite's attention multiplier is the whole
factor of the scores; TensorRT-LLM's is on top of one over a head's norm. (TensorRT-LLM takes a
multiplier of exactly 1 for one that isn't set, which it isn't to transformers.)
"""

from __future__ import annotations

import math

from builder.families.fields import Field
from builder.families.llama import CONFIG, LLAMA, UNUSED
from builder.families.table import Family

GRANITE = Family(
    architectures=("GraniteForCausalLM",),
    rows=LLAMA.rows,
    config={
        **CONFIG,
        "embedding_multiplier": "embedding_multiplier",
        "attention_multiplier": "attention_multiplier",
        "residual_multiplier": "residual_multiplier",
        "output_multiplier_scale": "output_multiplier_scale",
    },
    fields=(
        Field("embedding_multiplier", ("embedding_multiplier",), float, default=1.0),
        Field("residual_multiplier", ("residual_multiplier",), float, default=1.0),
        Field("attention_scale", ("attention_multiplier",), float, default=1.0),
        Field("logits_scaling", ("logits_scaling",), float, default=1.0),
    ),
    derived={
        "attention_multiplier": lambda values: (
            values["attention_scale"] * math.sqrt(values["head_size"])
        ),
        "output_multiplier_scale": lambda values: 1 / values["logits_scaling"],
    },
    unused=UNUSED,
    context=True,
)
