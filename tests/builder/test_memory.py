"""Promise: what is said of a GPU's memory agrees with what is published, and can't be overrun."""

from __future__ import annotations

from dataclasses import replace

import pytest
from published_models import LLAMA_2_7B, MODELS, checkpoint

from builder.errors import LimitError
from builder.gpus import find
from builder.mapping import Layout
from builder.memory import choose_limits, rank_memory
from builder.memory.activations import activation_bytes, runtime_bytes

GIB = 1 << 30


def test_nvidias_own_example_comes_out() -> None:
    """The log in TensorRT-LLM's memory.md: a 7B Llama in FP8 with an FP8 cache, on an H100."""
    config = checkpoint(LLAMA_2_7B, quant_algo="FP8", kv_cache_quant_algo="FP8")
    found = rank_memory(
        config, gpu=find("H100"), max_batch_size=64, max_num_tokens=8192, max_seq_len=2048
    )
    assert found.weights_bytes == pytest.approx(6695 << 20, rel=0.02)
    assert found.kv_cache_bytes == pytest.approx(63.44 * GIB, rel=0.02)
    assert found.kv_cache_tokens == pytest.approx(259840, rel=0.02)


def test_activations_are_above_what_tensorrt_reserved() -> None:
    """A build log of Llama 3 8B for 16384 tokens and 64 requests (TensorRT-LLM 0.9) has
    "Total Activation Memory: 1577062400".
    """
    config = checkpoint("Llama-3.1-8B")
    found = activation_bytes(config, max_num_tokens=16384, max_batch_size=64)
    assert 1_577_062_400 < found < 1.5 * 1_577_062_400


@pytest.mark.parametrize(("tp", "factor"), [(1, 11), (2, 6.5), (4, 5), (8, 5)])
def test_activations_are_above_nvidias_fit_of_measurements(tp: int, factor: float) -> None:
    """aiconfigurator, for Llamas: 2 bytes * tokens * hidden size * a factor by tensor ranks."""
    config = checkpoint("Llama-3.1-70B", Layout(tp=tp))
    found = activation_bytes(config, max_num_tokens=8192, max_batch_size=1)
    assert 0.99 < found / (2 * 8192 * 8192 * factor) < 1.6


def test_activations_grow_with_tokens_requests_and_experts() -> None:
    config = checkpoint("Mixtral-8x7B")
    sizes = [
        activation_bytes(config, max_num_tokens=tokens, max_batch_size=batch)
        for tokens, batch in ((2048, 1), (4096, 1), (4096, 64), (4096, 256))
    ]
    assert sizes == sorted(set(sizes))
    more = {**config, "moe": {**config["moe"], "top_k": 4}}
    assert activation_bytes(more, max_num_tokens=4096, max_batch_size=256) > sizes[-1]


def test_more_ranks_need_nccl() -> None:
    sizes = [runtime_bytes(ranks) for ranks in (1, 2, 4, 16)]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]


def test_all_parts_fit_the_gpu() -> None:
    config = checkpoint("Llama-3.1-70B", Layout(tp=2, pp=2))
    found = rank_memory(
        config, gpu=find("L40S"), max_batch_size=8, max_num_tokens=4096, max_seq_len=4096
    )
    left = found.gpu_bytes - found.taken_bytes
    assert found.kv_cache_bytes == int(0.9 * left)
    assert found.kv_cache_tokens * found.kv_bytes_per_token <= found.kv_cache_bytes
    assert found.gpu_bytes == 46068 << 20


def test_the_pipeline_rank_with_the_least_room_decides() -> None:
    """The first has the embedding whole, the last a fourth of the head, which is as large."""
    config = checkpoint("Llama-3.1-70B", Layout(tp=4, pp=2))
    found = rank_memory(
        config, gpu=find("L40S"), max_batch_size=8, max_num_tokens=4096, max_seq_len=4096
    )
    layers = 40 * 2 * 855_638_016 // 4
    assert found.weights_bytes - layers == pytest.approx(2_101_346_304, rel=0.01)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    config = checkpoint("Llama-3.1-70B")
    with pytest.raises(LimitError) as caught:
        rank_memory(
            config, gpu=find("H100"), max_batch_size=8, max_num_tokens=8192, max_seq_len=4096
        )
    assert caught.value.what == "the model doesn't fit H100-80GB"
    assert "131.4 GiB of weights" in str(caught.value.found)
    assert str(caught.value.do).startswith("divide it with --tp 2 or quantize")
    divided = checkpoint("Llama-3.1-70B", Layout(tp=2))
    rank_memory(divided, gpu=find("H100"), max_batch_size=8, max_num_tokens=8192, max_seq_len=4096)


def test_a_sequence_that_is_too_long_is_refused_with_the_longest_that_fits() -> None:
    config = checkpoint("Llama-3.1-8B")

    def memory(max_seq_len: int) -> None:
        rank_memory(
            config,
            gpu=find("RTX 4090"),
            max_batch_size=1,
            max_num_tokens=2048,
            max_seq_len=max_seq_len,
        )

    with pytest.raises(LimitError, match=r"one sequence of 131072 tokens.*--max-seq-len") as caught:
        memory(131072)
    longest = int(str(caught.value.do).split()[3])
    memory(longest)
    with pytest.raises(LimitError):
        memory(longest + 1)


def test_a_gpu_of_unknown_memory_is_refused() -> None:
    with pytest.raises(LimitError, match="how much memory sm90 has isn't known"):
        rank_memory(
            checkpoint("Llama-3.1-8B"),
            gpu=find("sm90"),
            max_batch_size=1,
            max_num_tokens=512,
            max_seq_len=512,
        )


@pytest.mark.parametrize("gpu", ["H100", "A100-40GB", "L40S", "RTX 4090", "L4", "B200"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tp", [1, 2, 8])
def test_chosen_limits_fit_the_gpu_or_are_refused(gpu: str, name: str, tp: int) -> None:
    config = checkpoint(name, Layout(tp=tp))
    try:
        batch, length, tokens, reasons = choose_limits(config, gpu=find(gpu))
    except LimitError as error:
        refused = error.what
    else:
        refused = ""
    if refused:
        assert "doesn't fit" in refused
        return
    found = rank_memory(
        config, gpu=find(gpu), max_batch_size=batch, max_num_tokens=tokens, max_seq_len=length
    )
    assert found.kv_cache_tokens >= max(length, batch * 512)
    assert length <= MODELS[name].fields["max_position_embeddings"]
    assert set(reasons) == {"max_batch_size", "max_seq_len", "max_num_tokens"}


def test_a_larger_gpu_gives_no_smaller_limits() -> None:
    config = checkpoint("Llama-3.1-8B")
    chosen = [choose_limits(config, gpu=find(gpu)) for gpu in ("RTX 4090", "L40S", "H200")]
    for which in range(3):
        values = [limits[which] for limits in chosen]
        assert values == sorted(values)
    assert chosen[0].max_seq_len < 131072 == chosen[1].max_seq_len


def test_what_is_asked_for_is_kept() -> None:
    config = checkpoint("Llama-3.1-8B")
    asked = {"max_batch_size": 7, "max_seq_len": 3000, "max_num_tokens": 1234}
    found = choose_limits(config, gpu=find("L40S"), **asked)
    assert found[:3] == (7, 3000, 1234)
    assert set(found.reasons.values()) == {"asked for"}


def test_without_a_gpu_the_models_limits_are_taken() -> None:
    config = checkpoint("Qwen2.5-72B")
    for gpu in (None, find("sm90")):
        assert choose_limits(config, gpu=gpu)[:3] == (64, 32768, 8192)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"max_seq_len": 200000}, "--max-seq-len 200000 is beyond"),
        ({"max_batch_size": 0}, "--max-batch-size is too small"),
        ({"max_num_tokens": 4, "max_batch_size": 8}, "--max-num-tokens is too small"),
        ({"max_num_tokens": 1 << 20}, "doesn't fit"),
    ],
)
def test_limits_that_cannot_be_are_refused(asked: dict[str, int], says: str) -> None:
    with pytest.raises(LimitError, match=says):
        choose_limits(checkpoint("Llama-3.1-8B"), gpu=find("RTX 4090"), **asked)


def test_beams_take_their_share() -> None:
    config, gpu = checkpoint("Llama-3.1-8B"), find("L40S")
    one, four = (choose_limits(config, gpu=gpu, max_beam_width=width) for width in (1, 4))
    assert four.max_batch_size <= one.max_batch_size // 3
    assert four.max_seq_len < one.max_seq_len


def test_weights_alone_may_be_too_much() -> None:
    small = replace(find("L40S"), name="a small one", memory_gib=4.0)
    with pytest.raises(LimitError, match="doesn't fit a small one"):
        choose_limits(checkpoint("Llama-3.1-8B"), gpu=small)
