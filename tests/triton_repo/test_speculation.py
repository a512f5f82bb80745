"""Promise: draft tokens change how fast an answer comes, never which one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executing import ANSWER, PROMPTS, all_free, ask, executor

from builder.errors import RequestError
from triton_repo.executor.request import FinishReason, Request, SamplingParams
from triton_repo.executor.sequence import Sequence
from triton_repo.executor.speculation import verify

SAMPLED = SamplingParams(top_p=0.9, temperature=1.4, seed=3, repetition_penalty=1.2)


@pytest.mark.parametrize("sampling", [SamplingParams(), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("settings", [{}, {"max_num_tokens": 16}], ids=["whole", "chunked"])
def test_an_answer_is_the_same_with_drafts_of_any_worth(
    tiny_engine_dir: Path, sampling: SamplingParams, settings: dict[str, int]
) -> None:
    with executor(tiny_engine_dir, max_draft_len=16, **settings) as one:
        for prompt in (PROMPTS[0], PROMPTS[2], PROMPTS[3], PROMPTS[5]):
            plain = ask(one, prompt, sampling=sampling, log_probs=True).wait()
            for right in (0, 3, 8):
                wrong = [(token + 1) % 384 for token in plain.tokens[right:]]
                drafts = tuple([*plain.tokens[:right], *wrong][:8])
                answer = ask(
                    one, prompt, sampling=sampling, log_probs=True, draft_ids=drafts
                ).wait()
                assert answer.tokens == plain.tokens
                assert answer.log_probs == pytest.approx(plain.log_probs, abs=1e-4)
                assert answer.perf is not None
                counts = (
                    answer.perf.total_accepted_draft_tokens,
                    answer.perf.total_draft_tokens,
                )
                assert counts == (right, 8) or settings
        assert all_free(one)


def test_right_drafts_save_steps(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_draft_len=16) as one:
        plain = ask(one, PROMPTS[0]).wait().tokens
        before = one.stats().iteration
        ask(one, PROMPTS[0], draft_ids=tuple(plain[:16])).wait()
        assert one.stats().iteration - before == ANSWER - 16


def test_wrong_drafts_leave_nothing_in_the_prefix_index(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_draft_len=64) as one:
        plain = ask(one, PROMPTS[1], max_tokens=40).wait().tokens
    with executor(tiny_engine_dir, max_draft_len=64) as one:
        wrong = tuple((token + 1) % 384 for token in plain[:40])
        ask(one, PROMPTS[1], max_tokens=41, draft_ids=wrong).wait()
        # what the drafts would have filled is not found by a prompt that ends with them
        computed = one.computed_tokens
        ask(one, [*PROMPTS[1], *wrong], max_tokens=1).wait()
        assert one.computed_tokens - computed == len(PROMPTS[1]) + len(wrong)
        assert ask(one, PROMPTS[1], max_tokens=40).wait().tokens == plain


def test_each_of_several_answers_takes_the_drafts_that_it_can(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_draft_len=16) as one:
        fields: dict[str, Any] = {"sampling": SAMPLED, "num_return_sequences": 3}
        plain = ask(one, PROMPTS[5], **fields).wait()
        for index in range(3):
            drafts = tuple(plain.of[index][:9])
            answer = ask(one, PROMPTS[5], draft_ids=drafts, **fields).wait()
            assert answer.of == plain.of
            assert answer.perf is not None
            assert answer.perf.total_accepted_draft_tokens >= 9
        assert all_free(one)


def test_an_answer_that_ends_in_its_drafts_ends_there(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_draft_len=16) as one:
        plain = ask(one, PROMPTS[0], end_id=383).wait().tokens
        drafts, end = tuple(plain[:10]), plain[4]
        length = plain.index(end) + 1
        answer = ask(one, PROMPTS[0], draft_ids=drafts, end_id=end).wait()
        assert (answer.tokens, answer.finish) == (plain[:length], FinishReason.END_ID)
        answer = ask(one, PROMPTS[0], draft_ids=drafts, max_tokens=5).wait()
        assert (answer.tokens, answer.finish) == (plain[:5], FinishReason.LENGTH)
        assert all_free(one)


def test_drafts_with_logits_leave_a_greedy_answer_as_it_is(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_draft_len=8) as one:
        plain = ask(one, PROMPTS[0]).wait().tokens
        for drafts in (tuple(plain[:6]), (*plain[:3], 7, 8, 9)):
            logits = np.full((6, 384), -5, np.float32)
            logits[range(6), drafts] = 5
            for threshold in (None, 0.2):
                answer = ask(
                    one,
                    PROMPTS[0],
                    draft_ids=drafts,
                    draft_logits=logits,
                    draft_acceptance_threshold=threshold,
                ).wait()
                assert answer.tokens == plain


def test_tokens_by_random_acceptance_are_distributed_as_the_models_own() -> None:
    """arXiv 2302.01318, theorem 1: whatever the draft model thinks."""
    row = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    thought = np.array([0.1, 0.6, 0.1, 0.2])
    rng = np.random.default_rng(0)
    counts: Counter[int] = Counter()
    for seed in range(4000):
        request = Request(
            input_ids=[0],
            max_tokens=2,
            draft_ids=(int(rng.choice(4, p=thought)),),
            draft_logits=np.log(thought).astype(np.float32)[None],
            sampling=SamplingParams(top_p=1.0, seed=seed),
        )
        counts[verify(np.stack([row, row]), Sequence(request, 100)).tokens[0]] += 1
    shares = [counts[token] / 4000 for token in range(4)]
    assert shares == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_a_fixed_threshold_takes_what_is_likely_enough() -> None:
    def accepted(threshold: float) -> int:
        request = Request(
            input_ids=[0],
            max_tokens=3,
            draft_ids=(1,),
            draft_logits=np.log(np.array([[0.4, 0.6]], np.float32)),
            draft_acceptance_threshold=threshold,
            sampling=SamplingParams(top_p=1.0),
        )
        row = np.log(np.array([0.7, 0.3], np.float32))
        return verify(np.stack([row, row]), Sequence(request, 100)).accepted

    assert accepted(0.49) == 1  # 0.3 > 0.49 * 0.6
    assert accepted(0.51) == 0


def test_a_nucleus_that_has_decayed_refuses_what_lies_beyond_it() -> None:
    """The decay makes 0.9 to 0.45 after one token: only the likeliest is left."""
    request = Request(
        input_ids=[0],
        max_tokens=4,
        draft_ids=(0, 1),
        draft_logits=np.log(np.array([[0.6, 0.4], [0.6, 0.4]], np.float32)),
        draft_acceptance_threshold=0.5,
        sampling=SamplingParams(top_p=0.9, top_p_decay=0.5),
    )
    rows = np.stack([np.log(np.array([0.6, 0.4], np.float32))] * 3)
    assert verify(rows, Sequence(request, 100)).accepted == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"draft_ids": (1,) * 9}, "at most 8 draft tokens; found 9"),
        ({"draft_ids": (1, 384)}, r"\[0, 384\).*384"),
        ({"draft_ids": (1, 2), "draft_logits": np.zeros((1, 384), np.float32)}, "draft_logits"),
        ({"draft_ids": (1,), "draft_acceptance_threshold": 0.0}, "above 0 and not above 1"),
    ],
)
def test_drafts_that_cannot_be_verified_are_refused(
    tiny_engine_dir: Path, fields: dict[str, Any], says: str
) -> None:
    with (
        executor(tiny_engine_dir, max_draft_len=8) as one,
        pytest.raises(RequestError, match=says),
    ):
        ask(one, PROMPTS[0], **fields)
