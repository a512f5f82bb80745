"""An encoder's engine of the target `openvino`: what is refused, and its `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.checkpoint import Checkpoint
from builder.encoder import Encoder, is_encoder
from builder.errors import ArtifactError, LimitError
from builder.limits import Limits
from builder.targets.openvino_needs import HIDDEN_ACTS
from builder.targets.openvino_options import EngineOptions

_DECODERS = ("max_beam_width", "lora", "max_lora_rank")
"""Options that mean something where text is written."""


def refuse_options(config: Mapping[str, Any], options: EngineOptions) -> None:
    """Raise LimitError for an option that an encoder has no use for; decoders pass."""
    if not is_encoder(config.get("architecture")):
        return
    for name in _DECODERS:
        value = getattr(options, name)
        if value != getattr(EngineOptions(), name):
            flag = f"--{name.replace('_', '-')}"
            raise LimitError(
                "an encoder writes no text", found=f"{flag} {value}", do=f"leave {flag} out"
            )


def refuse_unsupported(source: Checkpoint) -> None:
    """Raise ArtifactError for an encoder's checkpoint that the graph can't express."""
    config = source.config
    Encoder.of(config)
    for accepted, what, found in (
        (
            source.world_size == 1,
            "the openvino target runs a checkpoint of one rank",
            f"world size {source.world_size}",
        ),
        (
            source.quant_algo is None,
            "the openvino target runs encoders with plain weights",
            f"quant_algo {source.quant_algo}",
        ),
        (
            config.get("hidden_act") in HIDDEN_ACTS,
            f"of activations the openvino target knows {', '.join(sorted(HIDDEN_ACTS))}",
            f"hidden_act {config.get('hidden_act')!r}",
        ),
        (
            config.get("position_embedding_type") == "learned_absolute",
            "an encoder's positions are learned",
            f"position_embedding_type {config.get('position_embedding_type')!r}",
        ),
    ):
        if not accepted:
            do = "make the checkpoint with trtbuild convert, of one rank"
            raise ArtifactError(what, found=found, do=do)


def encoder_config(config: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """The engine's `config.json`, in the shape of TensorRT-LLM 1.2's.

    `max_num_tokens` is the most that one call computes, padding among them.
    """
    return {
        "version": "1.2.1",
        "pretrained_config": dict(config),
        "build_config": {
            "max_input_len": limits.max_seq_len_tokens,
            "max_seq_len": limits.max_seq_len_tokens,
            "max_batch_size": limits.max_batch_size,
            "max_beam_width": 1,
            "max_num_tokens": limits.max_num_tokens,
            "kv_cache_type": "DISABLED",
            "gather_context_logits": False,
            "gather_generation_logits": False,
            "plugin_config": {
                "remove_input_padding": False,
                "use_paged_context_fmha": False,
            },
        },
    }
