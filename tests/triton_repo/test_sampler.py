"""Promise: tokens are chosen as the parameters say, in TensorRT-LLM's order of operations."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from builder.errors import RequestError
from triton_repo.executor.request import Request, SamplingParams
from triton_repo.executor.sampler import Floats, choose, nucleus_share, process, sample
from triton_repo.executor.sequence import Sequence

VOCAB = 3000
ROW = np.random.default_rng(1).normal(size=VOCAB).astype(np.float32) * 3


def sequence(
    prompt: list[int] | None = None, answer: tuple[int, ...] = (), **asked: Any
) -> Sequence:
    own = {field.name for field in fields(Request)}
    sampling = SamplingParams(**{name: asked[name] for name in asked if name not in own})
    request = Request(
        input_ids=prompt or [0],
        max_tokens=10_000,
        sampling=sampling,
        **{name: asked[name] for name in asked if name in own},
    )
    one = Sequence(request, 100_000)
    one.tokens += answer
    return one


def probabilities(logits: Floats) -> Any:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def next_token(one: Sequence, row: Floats = ROW) -> int:
    """The next token of a sequence that stays where it is, but for its random numbers."""
    token = choose(row, one).token
    one.random.advance()
    return token


def draws(count: int, **asked: Any) -> list[int]:
    one = sequence(**asked)
    return [next_token(one) for _ in range(count)]


def likely(found: list[int], expected: Any) -> bool:
    """Whether counts of the ten likeliest tokens are within five deviations of what they should."""
    counts = np.bincount(found, minlength=len(expected))
    best = np.argsort(-expected)[:10]
    deviation = np.sqrt(expected * (1 - expected) * len(found))
    close = np.abs(counts - expected * len(found)) <= 5 * deviation + 1e-9
    return bool(close[best].all()) and not counts[expected == 0].any()


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
    together = []
    for _ in range(20):
        together.append(sample(np.stack([ROW] * 6), batch)[3].token)
        batch[3].random.advance()
    assert together == alone


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_plain_sampling_follows_the_softmax(temperature: float) -> None:
    found = draws(10_000, top_p=1.0, temperature=temperature, seed=1)
    assert likely(found, probabilities(ROW / temperature))


def test_top_k_keeps_the_k_likeliest() -> None:
    assert set(draws(2000, top_k=5, temperature=3.0)) == set(np.argsort(-ROW)[:5].tolist())


def nucleus(expected: Any, top_p: float) -> Any:
    """The distribution of a number below top_p on the cumulative one, likeliest tokens first."""
    order = np.argsort(-expected, kind="stable")
    before = expected[order].cumsum() - expected[order]
    kept = np.zeros_like(expected)
    kept[order] = np.clip(top_p - before, 0, expected[order])
    return kept / kept.sum()


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.9, 0.99999])
def test_top_p_draws_from_the_first_part_of_the_cumulative_distribution(top_p: float) -> None:
    found = draws(5000, top_p=top_p, seed=2)
    assert likely(found, nucleus(probabilities(ROW), top_p))


@pytest.mark.parametrize("top_k", [2, 7, 50])
def test_top_k_and_top_p_together_draw_as_a_brute_force_peer(top_k: int) -> None:
    best = probabilities(ROW)
    best[np.argsort(-ROW)[top_k:]] = 0
    found = draws(4000, top_k=top_k, top_p=0.7, seed=4)
    assert likely(found, nucleus(best / best.sum(), 0.7))


def test_a_flat_distribution_needs_more_than_the_first_candidates() -> None:
    flat = np.zeros(VOCAB, np.float32)
    one = sequence(top_p=0.9, seed=0)
    found = {next_token(one, flat) for _ in range(5000)}
    assert len(found) > 2000
    assert max(found) < 0.9 * VOCAB


def test_bias_temperature_and_penalties_come_in_upstreams_order() -> None:
    bias = np.zeros(10, np.float32)
    bias[5] = 1.0
    one = sequence(
        [5, 6, 6],
        (6, 7, 7),
        embedding_bias=bias,
        temperature=2.0,
        repetition_penalty=1.5,
        presence_penalty=0.25,
        frequency_penalty=0.125,
        top_p=1.0,
    )
    row = np.zeros(10, np.float32)
    row[[5, 6, 7, 8]] = [4.0, -4.0, 6.0, 8.0]
    logits = process(row, one)
    assert logits[5] == pytest.approx((4 + 1) / 2.0 / 1.5 - 0.25 - 0.125), "in the prompt"
    assert logits[6] == pytest.approx(-2.0 * 1.5 - 0.25 - 3 * 0.125), "in prompt and answer"
    assert logits[7] == pytest.approx(3.0 / 1.5 - 0.25 - 2 * 0.125), "twice in the answer"
    assert logits[8] == pytest.approx(4.0), "nowhere"


def peer(row: Floats, one: Sequence) -> Floats:
    """TensorRT-LLM's penalty and bad-word kernels token by token."""
    request, sampling = one.request, one.request.sampling
    out = []
    for token, value in enumerate(row):
        logit = float(value)
        if request.embedding_bias is not None:
            logit += float(request.embedding_bias[token])
        logit /= sampling.temperature
        seen = one.tokens.count(token)
        if seen:
            factor = sampling.repetition_penalty
            logit = logit * factor if logit < 0 else logit / factor
            logit -= sampling.presence_penalty + sampling.frequency_penalty * seen
        if token == request.end_id and len(one.tokens) - one.prompt_len < sampling.min_tokens:
            logit = -np.inf
        for word in request.bad_words:
            if word[-1] == token and one.tokens[len(one.tokens) - len(word) + 1 :] == list(
                word[:-1]
            ):
                logit = -np.inf
        out.append(logit)
    return np.array(out, np.float32)


def test_fifty_random_requests_change_logits_as_the_peer_does() -> None:
    random = np.random.default_rng(8)
    for _ in range(50):
        words = tuple(
            tuple(random.integers(0, 4, size=random.integers(1, 4)).tolist()) for _ in range(4)
        )
        one = sequence(
            random.integers(0, 12, size=5).tolist(),
            tuple(random.integers(0, 4, size=random.integers(0, 6)).tolist()),
            end_id=int(random.integers(-1, 12)),
            bad_words=words,
            embedding_bias=random.normal(size=12).astype(np.float32),
            temperature=float(random.uniform(0.2, 3)),
            repetition_penalty=float(random.uniform(0.5, 2)),
            presence_penalty=float(random.uniform(-1, 1)),
            frequency_penalty=float(random.uniform(-1, 1)),
            min_tokens=int(random.integers(0, 5)),
        )
        row = random.normal(size=12).astype(np.float32)
        np.testing.assert_allclose(process(row, one), peer(row, one), rtol=1e-4, atol=1e-5)


def test_a_bad_word_loses_its_last_token_only_after_its_beginning() -> None:
    best, second = np.argsort(-ROW)[:2].tolist()
    word = (7, 8, best)
    assert next_token(sequence([7], (8,), bad_words=(word,))) == second, "across the prompt's end"
    assert next_token(sequence([1], (7, 8), bad_words=(word,))) == second
    assert next_token(sequence([1], (8,), bad_words=(word,))) == best
    assert next_token(sequence([1], bad_words=((best,),))) == second


def test_the_nucleus_decays_with_each_token_to_its_floor_and_is_reset() -> None:
    row = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))

    def reachable(*answer: int) -> set[int]:
        asked = {"top_p": 1.0, "top_p_decay": 0.8, "top_p_min": 0.35, "top_p_reset_id": 9}
        one = sequence([0], answer, seed=1, **asked)
        return {next_token(one, row) for _ in range(300)}

    assert reachable() == {0, 1, 2, 3}, "1"
    assert reachable(5) == {0, 1, 2}, "0.8"
    assert reachable(5, 5) == {0, 1}, "0.64"
    assert reachable(*[5] * 30) == {0}, "the floor, 0.35"
    assert reachable(*[5] * 30, 9) == {0, 1, 2, 3}, "reset"
    assert reachable(*[5] * 30, 9, 5) == {0, 1, 2}, "0.8 again"


def test_the_decay_is_the_layers_recurrence() -> None:
    expected, top_p = [], 0.9
    for _ in range(12):
        expected.append(top_p)
        top_p = max(top_p * 0.85, 0.3)
    found = [
        nucleus_share(sequence([0], (5,) * n, top_p=0.9, top_p_decay=0.85, top_p_min=0.3))
        for n in range(12)
    ]
    assert found == pytest.approx(expected)


def test_a_request_that_forbids_every_token_ends_with_an_error_and_no_nonsense() -> None:
    row = np.zeros(4, np.float32)
    one = sequence([0], end_id=3, min_tokens=5, bad_words=((0,), (1,), (2,)))
    assert "leaves no token" in str(choose(row, one).error)
    assert "nan" in str(choose(np.full(4, np.nan, np.float32), sequence(top_p=1.0)).error)


def test_the_end_is_held_back_until_min_tokens() -> None:
    end_id = int(ROW.argmax())
    one = sequence(end_id=end_id, min_tokens=3)
    chosen = []
    for _ in range(4):
        chosen.append(next_token(one))
        one.append(chosen[-1])
    assert [token == end_id for token in chosen] == [False, False, False, True]


def test_log_probs_are_of_the_distribution_before_truncation() -> None:
    for sampling in ({}, {"top_k": 3}, {"top_p": 0.5, "seed": 4}):
        one = sequence(log_probs=True, normalize_log_probs=False, **sampling)
        choice = sample(ROW[None], [one])[0]
        assert choice.log_prob == pytest.approx(np.log(probabilities(ROW)[choice.token]), abs=1e-4)


def test_normalized_log_probs_are_of_the_top_k_as_upstream() -> None:
    best = np.sort(probabilities(ROW))[::-1][:3]
    for seed in range(5):
        choice = choose(ROW, sequence(log_probs=True, top_k=3, top_p=0.9, seed=seed))
        expected = probabilities(ROW)[choice.token] / best.sum()
        assert choice.log_prob == pytest.approx(np.log(expected), abs=1e-4)
    assert choose(ROW, sequence(log_probs=True)).log_prob == 0
    free = choose(ROW, sequence(log_probs=True, top_p=0.9))
    assert free.log_prob == pytest.approx(np.log(probabilities(ROW)[free.token]), abs=1e-4)


def test_the_engines_logits_are_left_as_they_are() -> None:
    before = ROW.copy()
    one = sequence([4], (4,), repetition_penalty=2.0, temperature=0.3, top_p=0.5, bad_words=((4,),))
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


def test_a_branch_counts_its_own_tokens_for_the_penalties() -> None:
    first = sequence([5, 6], (7,), frequency_penalty=0.5)
    process(ROW, first)
    second = first.branch()
    first.append(8)
    second.append(9)
    for one, own, other in ((first, 8, 9), (second, 9, 8)):
        changed = ROW - process(ROW, one)
        assert changed[[5, 6, 7, own]] == pytest.approx([0.5] * 4, abs=1e-5)
        assert changed[other] == 0
