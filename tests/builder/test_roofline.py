"""Promise: the estimates are the roofline's arithmetic, and move the way that hardware does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from published_models import checkpoint

from builder.errors import LimitError
from builder.gpus import find
from builder.mapping import Layout
from builder.roofline import (
    COMPUTE_EFFICIENCY,
    KERNEL_LATENCY_S,
    KERNELS,
    LINK_EFFICIENCY,
    LINK_LATENCY_S,
    MEMORY_EFFICIENCY,
    Roofline,
    Speed,
)

H100 = find("H100")


def speed(config: dict[str, Any], gpu: str = "H100", **asked: int) -> Speed:
    wanted = {"batch_size": 1, "input_len": 2048, "output_len": 512, "chunk": 8192, **asked}
    return Roofline.of(config, find(gpu)).speed(**wanted)


def test_a_token_of_one_sequence_reads_all_weights_and_its_cache() -> None:
    """Llama 3.1 8B: all but the embedding, and 128 KiB for each of 2048 + 256 tokens."""
    read = 16_060_522_496 - 128256 * 4096 * 2 + 2304 * 131072
    step = read / (3.35e12 * MEMORY_EFFICIENCY) + 32 * KERNELS * KERNEL_LATENCY_S
    assert speed(checkpoint("Llama-3.1-8B")).decode_tokens_s == pytest.approx(1 / step)


def test_a_prompt_takes_two_flop_for_each_weight_and_token() -> None:
    """And 2 * layers * heads * head size * tokens² for the causal attention."""
    linear = 32 * (4096 * 4096 * 2 + 2 * 1024 * 4096 + 3 * 4096 * 14336)
    flop = 2 * 2048 * linear + 2 * 32 * 4096 * 2048**2 + 2 * 128256 * 4096
    seconds = flop / (989.4e12 * COMPUTE_EFFICIENCY) + 32 * KERNELS * KERNEL_LATENCY_S
    found = speed(checkpoint("Llama-3.1-8B"))
    assert found.ttft_ms == pytest.approx(1000 * seconds, rel=1e-6)
    assert found.prefill_tokens_s == pytest.approx(2048 / seconds, rel=1e-6)


def test_tensor_ranks_pay_for_their_all_reduces() -> None:
    """Two a layer; a ring sends (n - 1) / n of the hidden state twice."""
    config = checkpoint("Llama-3.1-70B", Layout(tp=4))
    slow = replace(H100, link_gb_s=16.0)
    fast, wired = (Roofline.of(config, gpu) for gpu in (H100, slow))
    found = [
        each.speed(batch_size=64, input_len=2048, output_len=512, chunk=8192)
        for each in (fast, wired)
    ]
    sent = 160 * 2 * 3 / 4 * 64 * 8192 * 2
    more = sent / (1e9 * LINK_EFFICIENCY) * (1 / 16 - 1 / 450)
    assert found[1].itl_ms - found[0].itl_ms == pytest.approx(1000 * more)
    assert found[0].itl_ms > 1000 * 160 * LINK_LATENCY_S


def test_one_token_reads_the_chosen_experts_and_a_batch_reads_all() -> None:
    config = checkpoint("Mixtral-8x7B", Layout(tp=2))
    roofline = Roofline.of(config, H100)
    [weights] = roofline.ranks
    rest = weights.total_bytes - weights.looked_up_bytes - weights.expert_bytes
    assert roofline._read_bytes(0, 1) == pytest.approx(rest + weights.expert_bytes * 2 / 8)
    assert roofline._read_bytes(0, 256) == pytest.approx(rest + weights.expert_bytes)
    some = roofline._read_bytes(0, 4) - rest
    assert some / weights.expert_bytes == pytest.approx(1 - (6 / 8) ** 4)


def test_eight_bits_are_faster_where_the_gpu_computes_in_them() -> None:
    plain, fp8, stored = (
        speed(checkpoint("Llama-3.1-8B", quant_algo=algo)) for algo in (None, "FP8", "W8A16")
    )
    assert 1.6 < fp8.decode_tokens_s / plain.decode_tokens_s < 2
    assert 1.6 < plain.ttft_ms / fp8.ttft_ms < 2
    assert stored.decode_tokens_s == pytest.approx(fp8.decode_tokens_s, rel=0.01)
    assert stored.ttft_ms == pytest.approx(plain.ttft_ms)


def test_nvfp4_computes_at_the_rate_of_four_bits() -> None:
    plain, fp4 = (
        speed(checkpoint("Llama-3.1-70B", quant_algo=algo), "B200") for algo in (None, "NVFP4")
    )
    assert 2.5 < plain.ttft_ms / fp4.ttft_ms < 4


def test_a_batch_serves_more_and_each_of_it_waits_longer() -> None:
    found = [speed(checkpoint("Llama-3.1-8B"), batch_size=size) for size in (1, 8, 64)]
    totals = [each.decode_tokens_s for each in found]
    delays = [each.itl_ms for each in found]
    assert totals == sorted(totals)
    assert delays == sorted(delays)
    assert totals[2] < 64 * totals[0]


def test_pipeline_ranks_do_not_hasten_one_sequence_but_many() -> None:
    whole, divided = (checkpoint("Llama-3.1-8B", Layout(pp=pp)) for pp in (1, 2))
    alone = speed(divided).decode_tokens_s / speed(whole).decode_tokens_s
    many = [speed(config, batch_size=256).decode_tokens_s for config in (whole, divided)]
    assert 0.9 < alone <= 1.0
    assert many[1] > 1.5 * many[0]


def test_prompts_follow_each_other_through_pipeline_ranks() -> None:
    """16 layers each: the first token waits for both, but the next prompt only for the slower."""
    whole, divided = (speed(checkpoint("Llama-3.1-8B", Layout(pp=pp))) for pp in (1, 2))
    assert divided.prefill_tokens_s == pytest.approx(2 * whole.prefill_tokens_s, rel=0.02)
    assert divided.ttft_ms == pytest.approx(whole.ttft_ms, rel=0.02)


def test_prompts_in_chunks_read_the_weights_again() -> None:
    config = checkpoint("Llama-3.1-8B")
    assert speed(config, chunk=64).ttft_ms > speed(config, chunk=2048).ttft_ms


def test_a_gpu_without_figures_is_refused() -> None:
    with pytest.raises(LimitError, match="how fast sm90 is isn't known"):
        Roofline.of(checkpoint("Llama-3.1-8B"), find("sm90"))
