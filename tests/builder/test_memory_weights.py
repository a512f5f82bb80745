"""Promise: weights and KV cache are counted as published, rank by rank, from a config alone."""

from __future__ import annotations

import pytest
from published_models import MODELS, checkpoint

from builder.errors import LimitError
from builder.limits import kv_bytes_of_sequence, kv_bytes_per_token
from builder.mapping import Layout
from builder.memory.weights import weights_of_rank, weights_of_ranks

ROUTER = 32 * 8 * 4096 * 2
"""Mixtral's router is float32 in TensorRT-LLM's checkpoint: two bytes more for each weight."""


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_cache_are_the_published_ones(name: str) -> None:
    config, published = checkpoint(name), MODELS[name]
    found = weights_of_rank(config).total_bytes
    assert found == pytest.approx(published.weights_bytes, rel=0.02)
    assert found - (ROUTER if "Mixtral" in name else 0) == published.weights_bytes
    assert kv_bytes_per_token(config) == published.kv_bytes


def test_an_fp8_llama_is_as_large_as_the_published_one() -> None:
    """RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8: 9,081,280,648 bytes of tensors."""
    config = checkpoint("Llama-3.1-8B", quant_algo="FP8")
    assert weights_of_rank(config).total_bytes == pytest.approx(9_081_280_648, rel=1e-4)


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_algo": "FP8"}, 8),
        ({"quant_algo": "W8A8_SQ_PER_CHANNEL"}, 8),
        ({"quant_algo": "W8A16"}, 8),
        ({"quant_algo": "W4A16"}, 4),
        # a float16 scale for 128 weights
        ({"quant_algo": "W4A16_AWQ", "group_size": 128}, 4.125),
        ({"quant_algo": "W4A8_AWQ", "group_size": 64}, 4.25),
        # a byte for 16
        ({"quant_algo": "NVFP4"}, 4.5),
    ],
)
def test_a_recipe_makes_the_linears_as_small_as_it_says(
    quantization: dict[str, object], bits: float
) -> None:
    plain = weights_of_rank(checkpoint("Llama-3.1-70B"))
    found = weights_of_rank(checkpoint("Llama-3.1-70B", **quantization))
    kept = plain.total_bytes - 2 * plain.parameters
    assert (found.total_bytes - kept) * 8 / plain.parameters == pytest.approx(bits, rel=2e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tp", [2, 4, 8])
def test_tensor_ranks_share_the_linears_out(name: str, tp: int) -> None:
    whole, rank = (weights_of_rank(checkpoint(name, Layout(tp=size))) for size in (1, tp))
    router = 32 * 8 * 4096 if "Mixtral" in name else 0
    assert tp * (rank.parameters - router) == whole.parameters - router
    assert tp * rank.expert_parameters == whole.expert_parameters
    assert tp * rank.head_parameters == whole.head_parameters


def test_pipeline_ranks_hold_every_tensor_once() -> None:
    for pp in (2, 3, 4):
        ranks = weights_of_ranks(checkpoint("Llama-3.1-70B", Layout(pp=pp)))
        total = sum(rank.total_bytes for rank in ranks)
        assert total == MODELS["Llama-3.1-70B"].weights_bytes


def test_a_tied_head_is_counted_once_where_a_rank_has_both() -> None:
    table = 256000 * 4608 * 2
    whole = MODELS["Gemma-2-27B"].weights_bytes
    ranks = weights_of_ranks(checkpoint("Gemma-2-27B", Layout(pp=2)))
    assert sum(rank.total_bytes for rank in ranks) == whole + table


def test_layers_that_differ_are_counted_one_by_one() -> None:
    fields = checkpoint("Llama-3.1-8B")
    module = "transformer.layers.7.mlp.fc"
    layers = {module: {"quant_algo": "FP8"}}
    mixed = {
        **fields,
        "quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers},
    }
    saved = weights_of_rank(fields).total_bytes - weights_of_rank(mixed).total_bytes
    assert saved == 4096 * 14336 - 2 * 4


def test_a_layout_that_cannot_be_is_refused() -> None:
    with pytest.raises(LimitError, match="64 attention heads"):
        weights_of_rank(checkpoint("Llama-3.1-70B", Layout(tp=3)))


def test_ranks_share_the_cache_and_repeat_heads_that_are_too_few() -> None:
    sizes = {
        tp: kv_bytes_per_token(checkpoint("Llama-3.1-70B", Layout(tp=tp))) for tp in (1, 2, 8, 16)
    }
    assert sizes == {1: 327680, 2: 163840, 8: 40960, 16: 40960}
    # 80 layers over 3 ranks: 27 on the first
    assert kv_bytes_per_token(checkpoint("Llama-3.1-70B", Layout(pp=3))) == 27 * 4096


@pytest.mark.parametrize("algo", ["FP8", "INT8"])
def test_a_quantized_cache_takes_a_byte_for_a_number(algo: str) -> None:
    assert kv_bytes_per_token(checkpoint("Llama-3.1-70B", kv_cache_quant_algo=algo)) == 160 << 10


def test_layers_with_a_window_keep_no_more_than_it() -> None:
    """Gemma 2: every second layer keeps 4096 tokens."""
    config, layer = checkpoint("Gemma-2-27B"), 2 * 16 * 128 * 2
    assert kv_bytes_of_sequence(config, 8192, range(46)) == 23 * (4096 + 8192) * layer
    assert kv_bytes_of_sequence(config, 4096, range(46)) == 46 * 4096 * layer
    # blocks of 32 tokens
    assert kv_bytes_of_sequence(config, 33, range(46)) == 46 * 64 * layer
