"""The `tensorrt_llm` model's parameters, typed: what they mean on a CPU, and which mean nothing.

Names, defaults and meanings are those of TensorRT-LLM's backend (model_instance_state.cc). There
most values that can't be read are passed over with a warning; here they are an error at load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.errors import ArtifactError

QUIET = {
    "FORCE_CPU_ONLY_INPUT_TENSORS": "it is set whatever the machine",
    "executor_worker_path": "it is set whatever the machine",
    "xgrammar_tokenizer_info_path": "the tokenizer of grammars is read from tokenizer_dir",
}
"""Parameters that mean nothing on a CPU and always stand in a repository for both."""

UNUSED = {
    "cross_kv_cache_fraction": "there is no encoder",
    "kv_cache_host_memory_bytes": "the KV cache is in the host's memory",
    "kv_cache_onboard_blocks": "the KV cache is in the host's memory",
    "iter_stats_max_iterations": "statistics are read as they are, not kept by iteration",
    "request_stats_max_iterations": "statistics are read as they are, not kept by iteration",
    "recv_poll_period_ms": "there is no orchestrator",
    "gpu_device_ids": "there is no GPU",
    "participant_ids": "there are no ranks",
    "num_nodes": "there are no ranks",
    "lora_cache_gpu_memory_fraction": "there is no GPU",
    "lookahead_window_size": "the engine decodes without lookahead",
    "lookahead_ngram_size": "the engine decodes without lookahead",
    "lookahead_verification_set_size": "the engine decodes without lookahead",
    "medusa_choices": "the engine has no Medusa heads",
    "eagle_choices": "the engine has no EAGLE heads",
    "gpu_weights_percent": "there is no GPU",
    "enable_context_fmha_fp32_acc": "there is no GPU",
    "multi_block_mode": "there is no GPU",
    "cuda_graph_mode": "there is no GPU",
    "cuda_graph_cache_size": "there is no GPU",
    "enable_trt_overlap": "there is no GPU",
    "speculative_decoding_fast_logits": "draft logits come as a tensor",
}
"""Parameters that mean nothing on a CPU, and why; the log notes those that are set."""

_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_MOST = 2**31 - 1
_SPECULATIVE = ("medusa", "redrafter", "lookahead", "eagle")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What the model's configuration says; None where it leaves the choice to the engine."""

    gpt_model_path: str
    tokenizer_dir: str | None
    max_beam_width: int
    max_tokens_in_paged_kv_cache: int | None
    kv_cache_free_gpu_mem_fraction: float | None
    guaranteed_no_evict: bool
    exclude_input_in_output: bool
    cancellation_check_period_ms: int
    stats_check_period_ms: int
    enable_kv_cache_reuse: bool
    enable_chunked_context: bool
    normalize_log_probs: bool
    guided_decoding: bool
    lora_cache_optimal_adapter_size: int
    lora_cache_max_adapter_size: int
    lora_cache_host_memory_bytes: int
    lora_prefetch_dir: str | None
    max_attention_window_size: int | None
    max_queue_size: int
    decoupled: bool
    unused: tuple[str, ...]

    @classmethod
    def of(cls, model_config: Mapping[str, Any]) -> Parameters:
        """Read a model's configuration, as Triton gives it to `initialize`.

        Raises ArtifactError for a value that can't be meant or that the CPU engine can't honour.
        """
        values = _Values(model_config.get("parameters") or {})
        values.one_of("gpt_model_type", ("inflight_fused_batching", "inflight_batching"))
        values.forbid("encoder_model_path", "the CPU engine has no encoder")
        if values.whole("sink_token_length", 0, low=0):
            values.refuse("sink_token_length", "0: the CPU engine attends to every token")
        mode = values.one_of(
            "decoding_mode", ("top_k", "top_p", "top_k_top_p", "beam_search", *_SPECULATIVE)
        )
        if mode in _SPECULATIVE:
            values.refuse("decoding_mode", "one without draft heads: the CPU engine has none")
        queue = (model_config.get("dynamic_batching") or {}).get("default_queue_policy") or {}
        policy = ("guaranteed_no_evict", "max_utilization")
        return cls(
            gpt_model_path=values.required("gpt_model_path"),
            tokenizer_dir=values.text("tokenizer_dir"),
            max_beam_width=values.whole("max_beam_width", 1),
            max_tokens_in_paged_kv_cache=values.whole("max_tokens_in_paged_kv_cache", None),
            kv_cache_free_gpu_mem_fraction=values.fraction("kv_cache_free_gpu_mem_fraction"),
            guaranteed_no_evict=values.one_of("batch_scheduler_policy", policy) != policy[1],
            exclude_input_in_output=values.flag("exclude_input_in_output", False),
            cancellation_check_period_ms=values.whole("cancellation_check_period_ms", 100),
            stats_check_period_ms=values.whole("stats_check_period_ms", 100),
            enable_kv_cache_reuse=values.flag("enable_kv_cache_reuse", True),
            enable_chunked_context=values.flag("enable_chunked_context", False),
            normalize_log_probs=values.flag("normalize_log_probs", True),
            guided_decoding=values.one_of("guided_decoding_backend", ("xgrammar",)) is not None,
            lora_cache_optimal_adapter_size=values.whole("lora_cache_optimal_adapter_size", 8),
            lora_cache_max_adapter_size=values.whole("lora_cache_max_adapter_size", 64),
            lora_cache_host_memory_bytes=values.whole(
                "lora_cache_host_memory_bytes", 1 << 30, low=0, high=1 << 62
            ),
            lora_prefetch_dir=values.text("lora_prefetch_dir"),
            max_attention_window_size=values.least("max_attention_window_size"),
            max_queue_size=int(queue.get("max_queue_size") or 0),
            decoupled=bool((model_config.get("model_transaction_policy") or {}).get("decoupled")),
            unused=tuple(name for name in UNUSED if values.text(name) is not None),
        )


class _Values:
    """A model's parameters by name; an unfilled `${…}` of a template and "" are unset."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        texts = {name: str(value["string_value"]) for name, value in parameters.items()}
        self._texts = {
            name: text.strip()
            for name, text in texts.items()
            if text.strip() and not text.strip().startswith("${")
        }

    def text(self, name: str) -> str | None:
        return self._texts.get(name)

    def required(self, name: str) -> str:
        if name not in self._texts:
            self.refuse(name, "a path")
        return self._texts[name]

    def flag(self, name: str, default: bool) -> bool:
        text = self._texts.get(name)
        if text is None:
            return default
        if text.lower() not in _BOOLS:
            self.refuse(name, "true or false")
        return _BOOLS[text.lower()]

    def whole(self, name: str, default: Any, *, low: int = 1, high: int = _MOST) -> Any:
        """A whole number in [low, high], or `default`."""
        text = self._texts.get(name)
        if text is None:
            return default
        if not text.lstrip("-").isdecimal() or not low <= int(text) <= high:
            self.refuse(name, f"a whole number, {low} or more")
        return int(text)

    def fraction(self, name: str) -> float | None:
        text = self._texts.get(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value <= 1:
            self.refuse(name, "a number above 0, up to 1")
        return value

    def one_of(self, name: str, choices: tuple[str, ...]) -> str | None:
        text = self._texts.get(name)
        if text is not None and text not in choices:
            self.refuse(name, " or ".join(choices))
        return text

    def least(self, name: str) -> int | None:
        """The least of whole numbers with commas between them."""
        text = self._texts.get(name)
        if text is None:
            return None
        numbers = [part.strip() for part in text.split(",") if part.strip()]
        if not numbers or not all(part.isdecimal() and int(part) for part in numbers):
            self.refuse(name, "positive whole numbers with commas between them")
        return min(map(int, numbers))

    def forbid(self, name: str, why: str) -> None:
        if name in self._texts:
            self.refuse(name, f"left out: {why}")

    def refuse(self, name: str, expected: str) -> None:
        raise ArtifactError(
            f"tensorrt_llm: parameter {name} must be {expected}",
            found=self._texts.get(name, "nothing"),
            do="correct it in tensorrt_llm/config.pbtxt, or write the repository again",
        )
