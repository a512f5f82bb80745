"""Promise: n answers to a prompt are those of n requests, for the price of one prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from executing import ANSWER, PROMPTS, all_free, ask, executor, slowed

from builder.errors import RequestError
from triton_repo.executor.request import FinishReason, SamplingParams


def sampling(seed: int) -> SamplingParams:
    return SamplingParams(top_p=0.95, temperature=1.5, seed=seed, min_tokens=0)


@pytest.fixture(scope="module")
def alone(tiny_engine_dir: Path) -> dict[tuple[int, int], list[int]]:
    """Number of a prompt, and what is added to the seed → the tokens of one request."""
    with executor(tiny_engine_dir) as one:
        return {
            (index, seed): ask(one, prompt, sampling=sampling(5 + seed)).wait().tokens
            for index, prompt in enumerate(PROMPTS)
            for seed in range(3)
        }


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_num_tokens": 16},
        {"enable_kv_cache_reuse": False},
        {"kv_cache_tokens": 320},
        {"kv_cache_tokens": 320, "enable_kv_cache_reuse": False},
        {"kv_cache_tokens": 320, "guaranteed_no_evict": True},
    ],
    ids=["together", "chunked", "no reuse", "preempted", "preempted, no reuse", "no evict"],
)
def test_each_answer_is_that_of_a_request_with_its_seed(
    tiny_engine_dir: Path, alone: dict[tuple[int, int], list[int]], settings: dict[str, int]
) -> None:
    with executor(tiny_engine_dir, **settings) as one:
        answers = [
            ask(one, prompt, sampling=sampling(5), num_return_sequences=3) for prompt in PROMPTS
        ]
        for index, answer in enumerate(answers):
            got = answer.wait().of
            assert [got[seed] for seed in range(3)] == [alone[index, seed] for seed in range(3)]
            assert answer.finishes == dict.fromkeys(range(3), FinishReason.LENGTH)
        assert (one.preemptions > 0) == (
            "kv_cache_tokens" in settings and "guaranteed_no_evict" not in settings
        )
        assert all_free(one)


def test_the_prompt_is_computed_once(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, enable_kv_cache_reuse=False) as one:
        ask(one, PROMPTS[5], sampling=sampling(1), num_return_sequences=4).wait()
        assert one.computed_tokens == len(PROMPTS[5]) + 4 * (ANSWER - 1)


def test_full_blocks_of_the_prompt_are_shared_and_the_last_is_each_ones_own(
    tiny_engine_dir: Path,
) -> None:
    with executor(tiny_engine_dir) as one:
        answer = ask(one, PROMPTS[5], num_return_sequences=4, max_tokens=6)
        assert answer.wait().perf is not None
        assert answer.perf is not None
        assert answer.perf.kv_cache_alloc_total_blocks == 3
        assert one.stats().preemptions == 0
    with executor(tiny_engine_dir, kv_cache_tokens=6 * 32) as one:
        # 2 full blocks, and 4 times the third
        answer = ask(one, PROMPTS[5], num_return_sequences=4, max_tokens=6).wait()
        assert answer.of == dict.fromkeys(range(4), answer.tokens)
        assert one.preemptions == 0


def test_answers_end_one_by_one_and_free_their_places(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_batch_size=3) as one:
        plain = ask(one, PROMPTS[0], sampling=sampling(5), num_return_sequences=3).wait()
        ends = plain.of[1][3]
        answer = ask(
            one, PROMPTS[0], sampling=sampling(5), num_return_sequences=3, end_id=ends, max_tokens=9
        ).wait()
        for index in range(3):
            expected = plain.of[index][:9]
            if ends in expected:
                expected = expected[: expected.index(ends) + 1]
            assert answer.of[index] == expected
        assert FinishReason.END_ID in answer.finishes.values()
        assert all_free(one)


def test_answers_of_one_token_each(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir) as one:
        answer = ask(
            one, PROMPTS[5], sampling=sampling(0), num_return_sequences=5, max_tokens=1
        ).wait()
        assert [len(answer.of[index]) for index in range(5)] == [1] * 5
        assert all_free(one)


def test_a_cancel_ends_all_answers_at_once(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir) as one:
        with slowed(one):
            answer = ask(one, PROMPTS[0], num_return_sequences=4, max_tokens=400)
            assert answer.started.wait(30)
            assert answer.handle is not None
            one.cancel(answer.handle)
        answer.wait()
        assert answer.finishes == dict.fromkeys(range(4), FinishReason.CANCELLED)
        assert all_free(one)


def test_more_answers_than_places_or_than_the_cache_holds_are_refused(
    tiny_engine_dir: Path,
) -> None:
    with executor(tiny_engine_dir, max_batch_size=4, kv_cache_tokens=160) as one:
        with pytest.raises(RequestError, match=r"between 1 and the engine's max_batch_size, 4.*5"):
            ask(one, PROMPTS[0], num_return_sequences=5)
        with pytest.raises(RequestError, match=r"KV cache can't hold.*5 blocks of 32.*up to 16"):
            ask(one, PROMPTS[0], num_return_sequences=4, max_tokens=100)
        ask(one, PROMPTS[0], num_return_sequences=4, max_tokens=27).wait()
        assert all_free(one)
