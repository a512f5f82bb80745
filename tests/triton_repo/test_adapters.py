"""Promise: adapters are kept by task id as TensorRT-LLM keeps them, and none in use is lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import peft_adapters
import pytest

from builder.errors import ArtifactError, LimitError, RequestError
from builder.lora import arrays, read_adapter, write_prefetch
from triton_repo.executor.adapters import Adapters, CacheLimits

MODULES = ["attn_q", "attn_k", "attn_v", "mlp_4h_to_h"]
MODEL = {
    "architecture": "LlamaForCausalLM",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_size": 4,
    "hidden_size": 16,
    "intermediate_size": 24,
    "vocab_size": 50,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "attn_bias": False,
    "mlp_bias": False,
    "dtype": "float16",
}
ENGINE = {
    "pretrained_config": MODEL,
    "build_config": {
        "plugin_config": {"lora_plugin": "float16"},
        "lora_config": {"max_lora_rank": 4, "lora_target_modules": MODULES},
    },
}
Q, V, DOWN = 1, 3, 6
"""Module ids."""
ROW_BYTES = 2 * 2 * (16 + 16)
"""An adapter of one attn_q of rank 2 in float16: two matrices of 16 by 2."""
LARGEST_BYTES = 2 * 2 * 4 * ((16 + 16) + 2 * (16 + 8) + (24 + 16))
"""One of rank 4 that changes all that the engine allows, in its two layers."""


def cache(bytes_: int = 1 << 20, prefetch: Path | None = None) -> Adapters:
    limits = CacheLimits(host_memory_bytes=bytes_, max_adapter_size=1)
    return Adapters(ENGINE, limits, prefetch)


def one_row(value: float = 1.0, *, row: tuple[int, ...] = (Q, 0, 2)) -> Any:
    """The arrays of an adapter of one module."""
    return np.full((1, 64), value, np.float16), np.array([row], np.int32)


def room_for_four() -> Adapters:
    """A cache with room for four adapters of `one_row`."""
    return cache(max(4 * ROW_BYTES, LARGEST_BYTES // 4))


def test_weights_are_sent_once() -> None:
    adapters = cache()
    sent = adapters.resolve(7, *one_row())
    assert adapters.resolve(7) is sent


def test_an_id_that_is_not_known_is_told_to_send_its_weights() -> None:
    with pytest.raises(RequestError, match="LoRA task 7 not found in cache; send lora_weights"):
        cache().resolve(7)


def test_other_weights_of_a_known_id_change_nothing_as_upstream() -> None:
    adapters = cache()
    first = adapters.resolve(7, *one_row(1.0))
    assert adapters.resolve(7, *one_row(2.0)) is first


def test_rows_become_the_parts_of_their_linears() -> None:
    """q and v are outputs 0 and 24 of attention.qkv; the in-part comes first, row after row."""
    width = 80
    weights = np.arange(3 * width, dtype=np.float16).reshape(1, 3, width)
    rows = [[V, 1, 2, 0], [Q, 1, 1, 0], [DOWN, 0, 2, 0]]
    adapter = cache().resolve(1, weights, np.array([rows], np.int32))
    v, q = adapter.parts["attention.qkv"][1]
    np.testing.assert_array_equal(v.into, weights[0, 0, :32].reshape(2, 16))
    np.testing.assert_array_equal(v.out, weights[0, 0, 32:48].reshape(8, 2))
    np.testing.assert_array_equal(q.into, weights[0, 1, :16].reshape(1, 16))
    np.testing.assert_array_equal(q.out, weights[0, 1, 16:32].reshape(16, 1))
    assert (q.offset, v.offset) == (0, 24)
    (down,) = adapter.parts["mlp.proj"][0]
    assert (down.into.shape, down.out.shape, down.offset) == ((2, 24), (16, 2), 0)
    assert adapter.columns("attention.qkv") == 3
    assert adapter.columns("mlp.proj") == 2
    assert adapter.columns("mlp.fc") == 0


def test_the_longest_unused_is_forgotten_and_comes_back_when_it_is_sent_again() -> None:
    adapters = room_for_four()
    for task_id in (1, 2, 3, 4):
        adapters.resolve(task_id, *one_row())
    adapters.resolve(1)
    adapters.resolve(5, *one_row())
    assert adapters.task_ids == (3, 4, 1, 5)
    with pytest.raises(RequestError, match="LoRA task 2 not found"):
        adapters.resolve(2)
    first = adapters.resolve(3).serial
    adapters.resolve(2, *one_row())
    adapters.resolve(6, *one_row())
    assert adapters.task_ids == (5, 3, 2, 6)
    assert adapters.resolve(3).serial == first


def test_what_runs_is_not_forgotten_and_a_cache_full_of_it_says_so() -> None:
    adapters = room_for_four()
    running = [adapters.resolve(task_id, *one_row()) for task_id in (1, 2, 3, 4)]
    with pytest.raises(RequestError, match=r"cache is full, could not store task 5.*in use"):
        adapters.resolve(5, *one_row())
    assert adapters.task_ids == (1, 2, 3, 4)
    del running[2]
    adapters.resolve(5, *one_row())
    assert adapters.task_ids == (1, 2, 4, 5)


def test_fifty_adapters_take_turns_in_a_cache_of_four() -> None:
    adapters, sent = room_for_four(), 0
    order = np.random.default_rng(0).integers(0, 50, size=400).tolist()
    for task_id in order:
        try:
            adapter = adapters.resolve(task_id)
        except RequestError:
            adapter, sent = adapters.resolve(task_id, *one_row(float(task_id))), sent + 1
        assert (adapter.parts["attention.qkv"][0][0].into == task_id).all()
        del adapter
        assert len(adapters.task_ids) <= 4
    # by hand: the same with a list, the last four that differ
    recent: list[int] = []
    misses = 0
    for task_id in order:
        misses += task_id not in recent
        recent = [*[each for each in recent if each != task_id], task_id][-4:]
    assert sent == misses


def test_threads_share_one_copy() -> None:
    adapters, found = room_for_four(), []

    def ask() -> None:
        for task_id in range(4):
            found.append(adapters.resolve(task_id, *one_row(float(task_id))))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 32
    assert len({id(adapter) for adapter in found}) == 4


BAD_ROWS = [
    ((0, 0, 2), "no adapter of the module attn_qkv in layer 0.*attn_k, attn_q, attn_v"),
    ((4, 0, 2), "no adapter of the module attn_dense"),
    ((99, 0, 2), "module with id 99"),
    ((Q, 2, 2), "layers lie between 0 and 1; found layer 2"),
    ((Q, -1, 2), "found layer -1"),
    ((Q, 0, 5), "max_lora_rank 4; found 5"),
    ((Q, 0, 0), "ranks lie between 1 and"),
    ((DOWN, 0, 2), "too few values for mlp_4h_to_h of layer 0; found 64 where rank 2 takes 80"),
    ((Q, 0, 2, 1), "DoRA"),
    ((Q, 0), "3 or 4 numbers"),
]


@pytest.mark.parametrize(("row", "says"), BAD_ROWS, ids=lambda value: str(value)[:14])
def test_a_row_that_the_engine_cannot_take_is_refused_by_name(
    row: tuple[int, ...], says: str
) -> None:
    adapters = cache()
    with pytest.raises(RequestError, match=says):
        adapters.resolve(1, *one_row(row=row))
    assert adapters.task_ids == ()


@pytest.mark.parametrize(
    ("weights", "config", "says"),
    [
        (np.ones((2, 64), np.float16), np.array([[Q, 0, 2]], np.int32), "as many rows"),
        (np.ones((0, 64), np.float16), np.zeros((0, 3), np.int32), "as many rows"),
        (np.ones(64, np.float16), np.array([[Q, 0, 2]], np.int32), "must have rows"),
        (np.full((1, 64), np.nan, np.float16), np.array([[Q, 0, 2]], np.int32), "finite"),
        (np.ones((1, 64), np.float16), None, "belong together"),
        (None, np.array([[Q, 0, 2]], np.int32), "belong together"),
    ],
)
def test_malformed_arrays_are_refused(weights: Any, config: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says) as refusal:
        cache().resolve(1, weights, config)
    assert refusal.value.param in ("lora_weights", "lora_config")


def test_an_engine_without_adapters_says_how_to_have_them() -> None:
    engine = {"pretrained_config": MODEL, "build_config": {"plugin_config": {}}}
    with pytest.raises(RequestError, match="takes no LoRA adapters; build it with --lora"):
        Adapters(engine).resolve(1, *one_row())


def test_a_cache_too_small_for_the_largest_adapter_is_refused_at_the_start() -> None:
    with pytest.raises(LimitError, match=f"where rank 4 takes {LARGEST_BYTES}"):
        Adapters(ENGINE, CacheLimits(host_memory_bytes=LARGEST_BYTES - 1))
    Adapters(ENGINE, CacheLimits(host_memory_bytes=LARGEST_BYTES))
    smaller = CacheLimits(host_memory_bytes=LARGEST_BYTES // 2, max_adapter_size=2)
    Adapters(ENGINE, smaller)


def prefetch_folder(folder: Path, count: int, **fields: Any) -> Path:
    shapes = {"model.layers.0.self_attn.q_proj": (16, 16)}
    peft_adapters.by_hand(folder / "peft", shapes, **fields)
    adapter = read_adapter(folder / "peft")
    write_prefetch(folder / "lora", {n + 1: adapter for n in range(count)}, MODEL, MODULES)
    return folder / "lora"


def test_adapters_in_the_prefetch_folder_need_not_be_sent(tmp_path: Path) -> None:
    lora = prefetch_folder(tmp_path, 2)
    (lora / "readme").mkdir()
    adapters = cache(prefetch=lora)
    assert adapters.task_ids == (1, 2)
    part = adapters.resolve(2).parts["attention.qkv"][0][0]
    weights, _ = arrays(read_adapter(tmp_path / "peft"), MODEL, MODULES)
    np.testing.assert_array_equal(part.into.reshape(-1), weights[0, :32])
    np.testing.assert_array_equal(part.out.reshape(-1), weights[0, 32:])


def test_more_than_the_cache_holds_are_read_again_when_they_are_asked_for(tmp_path: Path) -> None:
    adapters = Adapters(
        ENGINE,
        CacheLimits(host_memory_bytes=4 * ROW_BYTES, max_adapter_size=1),
        prefetch_folder(tmp_path, 10),
    )
    assert adapters.task_ids == (1, 2, 3, 4)
    assert adapters.resolve(10).task_id == 10
    assert adapters.task_ids == (2, 3, 4, 10)


def test_a_prefetched_adapter_that_does_not_fit_is_refused_at_the_start(tmp_path: Path) -> None:
    lora = prefetch_folder(tmp_path, 1, r=8)
    with pytest.raises(ArtifactError, match=r"lora/1 doesn't fit the engine: ranks lie.*found 8"):
        cache(prefetch=lora)
    (lora / "1/model.lora_config.npy").write_bytes(b"not an array")
    with pytest.raises(ArtifactError, match=r"model\.lora_config\.npy can't be read"):
        cache(prefetch=lora)
    with pytest.raises(ArtifactError, match="lora_prefetch_dir can't be read"):
        cache(prefetch=tmp_path / "none")
