"""What the openvino target can run. Everything else is refused with the reason, never run wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from builder.checkpoint import Checkpoint
from builder.errors import ArtifactError
from builder.families.mixture import MODES
from builder.limits import Limits
from builder.safetensors_file import StoredTensor
from builder.targets.openvino_forms import refuse_contradicting_forms, refuse_quantization
from builder.targets.openvino_frequencies import SCALINGS

ARCHITECTURES = frozenset(
    {
        "BaiChuanForCausalLM",
        "BaichuanForCausalLM",
        "BloomForCausalLM",
        "ChatGLMForCausalLM",
        "ChatGLMForConditionalGeneration",
        "ChatGLMModel",
        "CohereForCausalLM",
        "DbrxForCausalLM",
        "DeepseekForCausalLM",
        "ExaoneForCausalLM",
        "FalconForCausalLM",
        "GPT2LMHeadModel",
        "GPTBigCodeForCausalLM",
        "GPTJForCausalLM",
        "GPTNeoXForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "GemmaForCausalLM",
        "GraniteForCausalLM",
        "GraniteMoeForCausalLM",
        "InternLM2ForCausalLM",
        "LLaMAForCausalLM",
        "LlamaForCausalLM",
        "MPTForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "MptForCausalLM",
        "NemotronForCausalLM",
        "OPTForCausalLM",
        "Phi3ForCausalLM",
        "PhiForCausalLM",
        "PhiMoEForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
        "SkyworkForCausalLM",
        "Starcoder2ForCausalLM",
    }
)
HIDDEN_ACTS = frozenset(
    {
        "gelu",
        "gelu_fast",
        "gelu_new",
        "gelu_pytorch_tanh",
        "quick_gelu",
        "relu",
        "silu",
        "squared-relu",
        "swiglu",
    }
)
LEARNED = "learned_absolute"
POSITIONS = frozenset(
    {LEARNED, "rope_gpt_neox", "rope_gptj", "long_rope", "alibi", "alibi_with_scale"}
)
_POSITION_TABLE = "transformer.position_embedding.weight"


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something that the graph takes some ways only: a config field, which, and the reason."""

    field: str
    accepts: Callable[[Any], bool]
    reason: str


def _absent(value: Any) -> bool:
    return not value


NEEDS = (
    Need(
        field="architecture",
        accepts=lambda value: value in ARCHITECTURES,
        reason="its graph hasn't been compared with a model of this architecture",
    ),
    Need(
        field="position_embedding_type",
        accepts=lambda value: value in POSITIONS,
        reason="of positions it knows learned, rotary and ALiBi's",
    ),
    Need(
        field="hidden_act",
        accepts=lambda value: value in HIDDEN_ACTS,
        reason=f"of activations it knows {', '.join(sorted(HIDDEN_ACTS))}",
    ),
    Need(
        field="rotary_scaling",
        accepts=lambda value: _kind(value) in SCALINGS,
        reason=f"of scalings of rotary positions it knows {', '.join(SCALINGS)}",
    ),
    Need(
        field="attn_logit_softcapping",
        accepts=_absent,
        reason="OpenVINO's paged attention can't cap the scores",
    ),
    Need(
        field="moe",
        accepts=lambda value: not value or value.get("normalization_mode") in MODES,
        reason="of a router's modes it knows none, renormalizing and sparse mixer",
    ),
    *(
        Need(field=field, accepts=_absent, reason="it has no such layer")
        for field in (
            "apply_query_key_layer_scaling",
            "apply_residual_connection_post_layernorm",
            "inner_layernorm",
            "residual_mlp",
            "use_logn_attn",
        )
    ),
    Need(
        field="dtype",
        accepts=lambda value: value in ("float32", "float16", "bfloat16"),
        reason="only plain weights",
    ),
)


def _kind(scaling: Any) -> Any:
    return (scaling or {}).get("rope_type", (scaling or {}).get("type", "default"))


def refuse_unsupported(source: Checkpoint, limits: Limits) -> None:
    """Raise ArtifactError for a checkpoint that the graph can't express, saying what and why."""
    config = source.config
    for need in NEEDS:
        if not need.accepts(config.get(need.field)):
            raise ArtifactError(
                f"the openvino target can't run this checkpoint: {need.reason}",
                found=f"{need.field} {config.get(need.field)!r}",
                do="build it with --target tensorrt-llm",
            )
    if source.world_size != 1:
        raise ArtifactError(
            "the openvino target runs a checkpoint of one rank",
            found=f"world size {source.world_size}",
            do="make the checkpoint again with --tp 1 --pp 1",
        )
    refuse_quantization(source.quant_algo)
    _refuse_long_rope(config, limits)


def _refuse_long_rope(config: Mapping[str, Any], limits: Limits) -> None:
    """Beyond the original context a sequence's positions are scaled by its whole length, which a
    step doesn't know and cached keys can't change to.
    """
    if config["position_embedding_type"] != "long_rope":
        return
    original = config["original_max_position_embeddings"]
    if limits.max_seq_len_tokens > original:
        raise ArtifactError(
            "the openvino target runs long rope within the original context only",
            found=f"sequences of {limits.max_seq_len_tokens} tokens where it is {original}",
            do=f"build with --max-seq-len {original} or less",
        )


def refuse_contradictions(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> None:
    """Raise ArtifactError when the tensors belie what the config says of positions and weights.

    ModelOpt writes rotary positions into the config of models that have a table of learned ones.
    """
    kind = config["position_embedding_type"]
    if (kind == LEARNED) != (_POSITION_TABLE in tensors):
        raise ArtifactError(
            "the checkpoint's positions contradict its tensors",
            found=f"position_embedding_type {kind!r} "
            f"{'without' if kind == LEARNED else 'with'} {_POSITION_TABLE}",
            do="make the checkpoint with trtbuild convert",
        )
    refuse_contradicting_forms(config, tensors)
