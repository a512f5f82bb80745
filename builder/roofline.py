"""How fast an engine could be, from a GPU's bandwidth and FLOP/s: an estimate, not a measurement.

A step takes as long as the longer of what it reads and what it computes, plus the all-reduces of
tensor parallelism (Williams et al. 2009, "Roofline"; for transformers, Pope et al. 2022,
arXiv 2211.05102). The datasheets' peaks are reached in part only; the parts that are assumed are
the constants below. Not in it: scheduling, sampling, and what the host adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.errors import LimitError
from builder.gpus import Gpu
from builder.limits import kv_bytes_of_sequence
from builder.mapping import Layout
from builder.memory.weights import Weights, weights_of_ranks

Config = Mapping[str, Any]

MEMORY_EFFICIENCY = 0.8
"""Of the memory bandwidth (aiconfigurator's `mem_bw_empirical_scaling_factor`)."""

COMPUTE_EFFICIENCY = 0.6
"""Of the dense FLOP/s: what whole prefills reach, large matrix products alone do better."""

LINK_EFFICIENCY = 0.7
"""Of the link's bandwidth."""

LINK_LATENCY_S = 10e-6
"""Of one all-reduce, or of handing a token to the next pipeline rank (aiconfigurator's
`p2p_latency`)."""

KERNELS, KERNEL_LATENCY_S = 8, 3e-6
"""Kernels of a layer (two norms, four products, attention, activation), and what each takes at
least (aiconfigurator's `mem_empirical_constant_latency`)."""

ALL_REDUCES = 2
"""In a layer: after the attention, and after the MLP."""

_RATES = {
    "FP8": "fp8_tflops",
    "W4A8_AWQ": "fp8_tflops",
    "W8A8_SQ_PER_CHANNEL": "int8_tops",
    "NVFP4": "fp4_tflops",
}
"""`quant_algo` → what its linears compute with; the others compute in 16 bits."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Estimates: tokens a second over all sequences of a batch, and the first token's delay.

    The prefill's are of prompts one after the other; `ttft_ms` is of one alone.
    """

    batch_size: int
    decode_tokens_s: float
    prefill_tokens_s: float
    ttft_ms: float

    @property
    def itl_ms(self) -> float:
        """Between two tokens of one sequence."""
        return 1000 * self.batch_size / self.decode_tokens_s


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """A checkpoint's config on a GPU; `ranks` are the weights of its pipeline ranks."""

    config: Config
    gpu: Gpu
    ranks: tuple[Weights, ...]

    @staticmethod
    def of(config: Config, gpu: Gpu, weights: Sequence[Weights] | None = None) -> Roofline:
        """`weights` are `weights_of_ranks(config)`. Raises LimitError for a GPU without figures."""
        if None in (gpu.bandwidth_gb_s, gpu.fp16_tflops, gpu.link_gb_s):
            raise LimitError(
                f"how fast {gpu.name} is isn't known here",
                do="name a GPU of the table, such as H100-80GB, A100-40GB or L40S",
            )
        ranks = tuple(weights or weights_of_ranks(config))
        return Roofline(config=config, gpu=gpu, ranks=ranks)

    def speed(self, *, batch_size: int, input_len: int, output_len: int, chunk: int) -> Speed:
        """Of a batch of alike sequences, halfway through their answers.

        Prompts come one after the other, in steps of at most `chunk` tokens. Over pipeline ranks
        the batch goes in as many parts, which are at work at the same time, as are prompts.
        """
        stages = len(self.ranks)
        part = -(-batch_size // stages)
        length = input_len + output_len // 2
        step = max(self._decode_s(stage, part, length) for stage in range(stages))
        prefill = [self._prefill_s(stage, input_len, chunk) for stage in range(stages)]
        return Speed(
            batch_size=batch_size,
            decode_tokens_s=batch_size / (step * stages),
            prefill_tokens_s=input_len / max(prefill),
            ttft_ms=1000 * sum(prefill),
        )

    def _decode_s(self, stage: int, batch: int, length: int) -> float:
        """Seconds of a stage for one token of each sequence."""
        kv = batch * kv_bytes_of_sequence(self.config, length, self._layers(stage))
        read = self._read_bytes(stage, batch) + kv
        math = self._compute_s(stage, tokens=batch, heads=batch)
        math += batch * self._attention_s(stage, length)
        return max(self._memory_s(read), math) + self._fixed_s(stage) + self._link_s(stage, batch)

    def _prefill_s(self, stage: int, tokens: int, chunk: int) -> float:
        steps = -(-tokens // chunk)
        read = steps * self._read_bytes(stage, min(tokens, chunk))
        math = self._compute_s(stage, tokens=tokens, heads=1)
        # causal: half of all pairs of a query and a key
        math += tokens * self._attention_s(stage, tokens) / 2
        fixed = steps * self._fixed_s(stage)
        return max(self._memory_s(read), math) + fixed + self._link_s(stage, tokens, steps=steps)

    def _read_bytes(self, stage: int, tokens: int) -> float:
        """Weights that a step of so many tokens reads: of the experts, those that any chooses."""
        weights = self.ranks[stage]
        moe = self.config.get("moe") or {}
        idle = 0.0
        if weights.expert_bytes:
            idle = (1 - moe["top_k"] / moe["num_experts"]) ** tokens
        return weights.total_bytes - weights.looked_up_bytes - idle * weights.expert_bytes

    def _compute_s(self, stage: int, *, tokens: int, heads: int) -> float:
        """Seconds of the matrix products: 2 FLOP for each weight; `heads` tokens get logits."""
        weights = self.ranks[stage]
        moe = self.config.get("moe") or {}
        active = moe["top_k"] / moe["num_experts"] if weights.expert_parameters else 0.0
        linear = weights.parameters + active * weights.expert_parameters
        algo = str((self.config.get("quantization") or {}).get("quant_algo"))
        rate = getattr(self.gpu, _RATES.get(algo, "fp16_tflops")) or self.gpu.fp16_tflops
        head = 2 * heads * weights.head_parameters / self._flops(self.gpu.fp16_tflops)
        return 2 * tokens * linear / self._flops(rate) + head

    def _attention_s(self, stage: int, length: int) -> float:
        """Seconds of one token's scores and sums over `length` others, in 16 bits."""
        heads = self.config["num_attention_heads"] / Layout.of_config(self.config).tp
        flop = 4 * length * heads * self.config["head_size"] * len(self._layers(stage))
        return float(flop / self._flops(self.gpu.fp16_tflops))

    def _link_s(self, stage: int, tokens: int, *, steps: int = 1) -> float:
        """Seconds of the all-reduces (each rank sends its part around twice), and of handing on."""
        layout = Layout.of_config(self.config)
        size_bytes = 2 * tokens * self.config["hidden_size"]
        link = 1e9 * LINK_EFFICIENCY * (self.gpu.link_gb_s or 0)
        total = 0.0
        if layout.tp > 1:
            sent = 2 * (layout.tp - 1) / layout.tp * size_bytes / link
            times = ALL_REDUCES * len(self._layers(stage))
            total += times * (sent + steps * LINK_LATENCY_S)
        if layout.pp > 1:
            total += size_bytes / layout.tp / link + steps * LINK_LATENCY_S
        return float(total)

    def _layers(self, stage: int) -> range:
        return Layout.of_config(self.config).layers(stage, self.config["num_hidden_layers"])

    def _fixed_s(self, stage: int) -> float:
        return len(self._layers(stage)) * KERNELS * KERNEL_LATENCY_S

    def _memory_s(self, size_bytes: float) -> float:
        return size_bytes / (1e9 * MEMORY_EFFICIENCY * (self.gpu.bandwidth_gb_s or 0))

    @staticmethod
    def _flops(tera: float | None) -> float:
        return 1e12 * COMPUTE_EFFICIENCY * (tera or 0)
