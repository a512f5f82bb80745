"""What a rule is asked about: a BuildConfig, the checkpoint that it is for, and the GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from builder.limits import context_tokens
from builder.targets.tensorrt_llm.config import BuildConfig, PluginConfig

FP8_COMPUTE = ("FP8", "W4A8_AWQ", "NVFP4")
"""quant_algo of which TensorRT-LLM computes attention in FP8 where it is told to."""

WEIGHT_ONLY = ("W8A16", "W4A16", "W4A16_AWQ", "W4A8_AWQ", "W8A16_GPTQ", "W4A16_GPTQ")
"""Those that `QuantMode` counts as INT8 or INT4 weight-only; both of AWQ's are among them."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """`checkpoint` is its config.json; `sm` is the GPU's compute capability, None if not known."""

    config: BuildConfig
    checkpoint: Mapping[str, Any]
    sm: int | None = None

    @property
    def plugins(self) -> PluginConfig:
        return self.config.plugin_config

    @property
    def architecture(self) -> str:
        return str(self.checkpoint["architecture"])

    @property
    def mixture(self) -> bool:
        """Whether it is a mixture of experts."""
        return bool((self.checkpoint.get("moe") or {}).get("num_experts"))

    @property
    def quantization(self) -> Mapping[str, Any]:
        return self.checkpoint.get("quantization") or {}

    @property
    def algo(self) -> str | None:
        """quant_algo of the whole."""
        return self.quantization.get("quant_algo")

    @property
    def algos(self) -> Mapping[str, Mapping[str, Any]]:
        """Every quant_algo in the checkpoint → what is said of it: more than one in a mixed one."""
        layers = (self.quantization.get("quantized_layers") or {}).values()
        found = (self.quantization, *layers)
        return {each["quant_algo"]: each for each in found if each.get("quant_algo")}

    @property
    def cache(self) -> str | None:
        """kv_cache_quant_algo: "FP8", "INT8" or None for the model's dtype."""
        return self.quantization.get("kv_cache_quant_algo")

    @property
    def fp8_attention(self) -> bool:
        """Whether attention of prompts can be computed in FP8."""
        return self.algo in FP8_COMPUTE and (self.sm is None or self.sm >= 89)

    @property
    def mapping(self) -> Mapping[str, int]:
        return self.checkpoint.get("mapping") or {}

    @property
    def tp(self) -> int:
        return self.mapping.get("tp_size") or 1

    @property
    def pp(self) -> int:
        return self.mapping.get("pp_size") or 1

    @property
    def own_mode(self) -> str:
        """The speculative mode that the checkpoint's draft heads are for, "none" without any."""
        if "num_medusa_heads" in self.checkpoint:
            return "medusa"
        if "num_eagle_layers" in self.checkpoint:
            return "eagle"
        return "explicit_draft_tokens" if "redrafter_num_beams" in self.checkpoint else "none"

    @property
    def own_draft_len(self) -> int | None:
        """Tokens of the drafts that the checkpoint's heads make, None without any."""
        if self.own_mode == "explicit_draft_tokens":
            beams = int(self.checkpoint["redrafter_num_beams"])
            return beams * int(self.checkpoint.get("redrafter_draft_len_per_beam") or 0)
        return self.checkpoint.get("max_draft_len")

    @property
    def positions(self) -> int | None:
        """Tokens that the model was made for, None where positions have no end."""
        trained = self.checkpoint.get("max_position_embeddings")
        if trained is None or self.checkpoint.get("position_embedding_type") == "relative":
            return None
        return context_tokens(self.checkpoint)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One contradiction. `found` says what was found, None where there is none."""

    name: str
    what: str
    found: Callable[[Case], str | None]
    do: str
    source: str
