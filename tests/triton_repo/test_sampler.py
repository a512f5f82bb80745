"""Promise: tokens are chosen as the parameters say, in TensorRT-LLM's order of operations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from builder.errors import RequestError
from triton_repo.executor.request import Request, SamplingParams
from triton_repo.executor.sampler import Floats, process, sample
from triton_repo.executor.sequence import Sequence

VOCAB = 3000
ROW = np.random.default_rng(1).normal(size=VOCAB).astype(np.float32) * 3


def sequence(
    prompt: list[int] | None = None, *, log_probs: bool = False, end_id: int = -1, **sampling: Any
) -> Sequence:
    request = Request(
        input_ids=prompt or [0],
        max_tokens=10_000,
        end_id=end_id,
        sampling=SamplingParams(**sampling),
        log_probs=log_probs,
    )
    return Sequence(request, 100_000, lambda output: None)


def probabilities(logits: Floats) -> Any:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def draws(count: int, **sampling: Any) -> list[int]:
    one = sequence(**sampling)
    return [sample(ROW[None], [one])[0].token for _ in range(count)]


def test_nothing_set_is_greedy() -> None:
    assert sample(ROW[None], [sequence()])[0].token == ROW.argmax()


def test_top_k_one_is_greedy_at_any_temperature() -> None:
    assert set(draws(20, top_k=1, top_p=0.9, temperature=5.0)) == {int(ROW.argmax())}


def test_the_seed_alone_decides() -> None:
    assert draws(50, top_p=1.0, seed=5) == draws(50, top_p=1.0, seed=5)
    assert draws(50, top_p=1.0, seed=5) != draws(50, top_p=1.0, seed=6)
    assert draws(50, top_p=1.0) == draws(50, top_p=1.0, seed=0)


def test_a_sequence_draws_the_same_alone_and_in_a_batch() -> None:
    alone = draws(20, top_p=0.8, seed=3)
    batch = [sequence(top_p=0.8, seed=seed) for seed in range(6)]
    together = [sample(np.stack([ROW] * 6), batch)[3].token for _ in range(20)]
    assert together == alone


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_plain_sampling_follows_the_softmax(temperature: float) -> None:
    count = 20_000
    found = Counter(draws(count, top_p=1.0, temperature=temperature, seed=1))
    expected = probabilities(ROW / temperature)
    for token in np.argsort(-expected)[:5]:
        deviation = 5 * np.sqrt(expected[token] * (1 - expected[token]) / count)
        assert abs(found[int(token)] / count - expected[token]) < deviation


def test_top_k_keeps_the_k_likeliest() -> None:
    assert set(draws(2000, top_k=5, temperature=3.0)) == set(np.argsort(-ROW)[:5].tolist())


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.99999])
def test_top_p_keeps_the_smallest_nucleus(top_p: float) -> None:
    order = np.argsort(-ROW)
    cumulative = probabilities(ROW)[order].cumsum()
    nucleus = order[: int(np.searchsorted(cumulative, top_p)) + 1]
    found = set(draws(3000, top_p=top_p, seed=2))
    assert found <= set(nucleus.tolist())
    assert int(order[0]) in found


def test_top_k_comes_before_top_p() -> None:
    best = np.argsort(-ROW)[:4]
    cumulative = probabilities(ROW[best]).cumsum()
    size = int(np.searchsorted(cumulative, 0.6)) + 1
    assert size < 4
    assert set(draws(1000, top_k=4, top_p=0.6)) == set(best[:size].tolist())


def test_a_flat_distribution_needs_more_than_the_first_candidates() -> None:
    flat = np.zeros((1, VOCAB), np.float32)
    one = sequence(top_p=0.9, seed=0)
    found = {sample(flat, [one])[0].token for _ in range(5000)}
    assert len(found) > 2000


def test_penalties_follow_temperature_in_upstreams_order() -> None:
    one = sequence(
        [5, 6],
        temperature=2.0,
        repetition_penalty=1.5,
        presence_penalty=0.25,
        frequency_penalty=0.125,
        top_p=1.0,
    )
    for token in (6, 7, 7):
        one.append(token)
    row = np.zeros(10, np.float32)
    row[[5, 6, 7, 8]] = [4.0, -4.0, 6.0, 8.0]
    logits = process(row, one)
    assert logits[5] == pytest.approx(2.0 / 1.5), "in the prompt only"
    assert logits[6] == pytest.approx(-2.0 * 1.5 - 0.25 - 0.125), "in prompt and answer"
    assert logits[7] == pytest.approx(3.0 / 1.5 - 0.25 - 2 * 0.125), "twice in the answer"
    assert logits[8] == pytest.approx(4.0), "nowhere"


def test_the_end_is_held_back_until_min_tokens() -> None:
    end_id = int(ROW.argmax())
    one = sequence(end_id=end_id, min_tokens=3)
    chosen = []
    for _ in range(4):
        chosen.append(sample(ROW[None], [one])[0].token)
        one.append(chosen[-1])
    assert [token == end_id for token in chosen] == [False, False, False, True]


def test_log_probs_are_of_the_distribution_before_truncation() -> None:
    for sampling in ({}, {"top_k": 3}, {"top_p": 0.5, "seed": 4}):
        choice = sample(ROW[None], [sequence(log_probs=True, **sampling)])[0]
        assert choice.log_prob == pytest.approx(np.log(probabilities(ROW)[choice.token]), abs=1e-4)


def test_the_engines_logits_are_left_as_they_are() -> None:
    before = ROW.copy()
    one = sequence(repetition_penalty=2.0, temperature=0.3, top_p=0.5)
    one.append(4)
    sample(ROW[None], [one])
    np.testing.assert_array_equal(ROW, before)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", {"temperature": 0.0}),
        ("runtime_top_k", {"top_k": -1}),
        ("runtime_top_p", {"top_p": 1.5}),
        ("repetition_penalty", {"repetition_penalty": 0.0}),
        ("min_tokens", {"min_tokens": -1}),
        ("temperature", {"temperature": float("nan")}),
    ],
)
def test_impossible_values_are_refused_by_name(name: str, values: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=name):
        SamplingParams(**values)
