"""Promise: what goes wrong with one request goes wrong with that request alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executing import PROMPTS, Answer, all_free, ask, executor, slowed
from waiting import until

from builder.errors import RequestError
from triton_repo.executor.executor import Executor
from triton_repo.executor.request import BeamParams, FinishReason


class Faulty:
    """A guide that allows everything, until it raises at its `at`-th token in `where`."""

    finished = False

    def __init__(self, where: str, at: int) -> None:
        self.where, self.left = where, at

    def mask(self, logits: Any) -> None:
        self._maybe("mask")

    def accept(self, token: int) -> None:
        self.left -= 1
        self._maybe("accept")

    def fork(self) -> Faulty:
        return Faulty(self.where, self.left)

    def _maybe(self, where: str) -> None:
        if where == self.where and self.left <= 0:
            raise ValueError(f"no {where}")


@pytest.fixture
def one(tiny_engine_dir: Path) -> Iterator[Executor]:
    with executor(tiny_engine_dir, max_beam_width=3, max_draft_len=8) as each:
        yield each


@pytest.mark.parametrize("where", ["mask", "accept"])
@pytest.mark.parametrize("at", [0, 1, 5])
@pytest.mark.parametrize(
    "fields",
    [{}, {"num_return_sequences": 3}, {"beams": BeamParams(width=3)}, {"draft_ids": (5, 6)}],
    ids=["one", "several", "beams", "drafts"],
)
def test_a_guide_that_fails_fails_its_request(
    one: Executor, where: str, at: int, fields: dict[str, Any]
) -> None:
    beside = [ask(one, prompt) for prompt in PROMPTS[:3]]
    faulty = ask(one, PROMPTS[3], guide=Faulty(where, at), **fields).wait()
    assert faulty.error is not None
    assert f"no {where}" in faulty.error
    assert set(faulty.finishes.values()) == {FinishReason.ERROR}
    alone = [ask(one, prompt).wait().tokens for prompt in PROMPTS[:3]]
    assert [answer.wait().tokens for answer in beside] == alone
    assert all_free(one)


def test_logits_without_a_number_fail_their_request(one: Executor) -> None:
    bias = np.full(384, -np.inf, np.float32)
    for fields in ({}, {"beams": BeamParams(width=3)}):
        answer = ask(one, PROMPTS[0], embedding_bias=bias, **fields).wait()
        assert answer.finish is FinishReason.ERROR
        assert answer.error
    assert all_free(one)


def test_a_failed_step_fails_the_requests_that_were_in_it(
    one: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, failing = one._runner.run, [False]

    def sometimes(*args: Any) -> Any:
        if failing[0]:
            failing[0] = False
            raise RuntimeError("the engine has stumbled")
        return run(*args)

    monkeypatch.setattr(one._runner, "run", sometimes)
    fields = {"max_tokens": 300, "num_return_sequences": 2}
    with slowed(one):
        running = [ask(one, prompt, **fields) for prompt in PROMPTS[:2]]
        for answer in running:
            assert answer.started.wait(30)
        failing[0] = True
    for answer in running:
        assert "stumbled" in str(answer.wait().error)
        assert answer.finishes == dict.fromkeys(range(2), FinishReason.ERROR)
    assert all_free(one)
    assert len(ask(one, PROMPTS[0]).wait().tokens) == 24


def test_a_full_queue_is_said_at_once(tiny_engine_dir: Path) -> None:
    settings = {"max_batch_size": 1, "max_queue_size": 3}
    with executor(tiny_engine_dir, **settings) as one, slowed(one):
        running = ask(one, PROMPTS[0], max_tokens=400)
        assert running.started.wait(30)
        waiting: list[Answer] = [ask(one, PROMPTS[0], max_tokens=400) for _ in range(3)]
        with pytest.raises(RequestError, match="Maximum queue size of 3 has been reached"):
            ask(one, PROMPTS[1])
        assert one.stats().waiting_requests == 3
        for answer in (waiting[0], running):
            assert answer.handle is not None
            one.cancel(answer.handle)
            answer.wait()
        ask(one, PROMPTS[1])


def test_a_prompt_beyond_a_step_is_refused_without_chunked_context(
    tiny_engine_dir: Path,
) -> None:
    settings = {"max_num_tokens": 64, "enable_chunked_context": False}
    with executor(tiny_engine_dir, **settings) as one:
        with pytest.raises(RequestError, match="prompt length 90 exceeds max_num_tokens, 64"):
            ask(one, PROMPTS[5])
        expected = [ask(one, prompt).wait().tokens for prompt in PROMPTS[:5]]
        crowd = [ask(one, prompt) for prompt in PROMPTS[:5]]
        assert [answer.wait().tokens for answer in crowd] == expected


def test_stats_count_what_runs_waits_and_is_held(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_batch_size=2, kv_cache_tokens=640) as one:
        with slowed(one):
            answers = [ask(one, PROMPTS[5], max_tokens=200) for _ in range(3)]
            until(lambda: one.stats().generation_requests == 2)
            stats = one.stats()
        assert (stats.active_requests, stats.max_requests, stats.waiting_requests) == (3, 2, 1)
        assert (stats.scheduled_requests, stats.generation_requests) == (2, 2)
        assert (stats.max_blocks, stats.tokens_per_block) == (20, 32)
        assert 0 < stats.used_blocks == 20 - stats.free_blocks
        assert stats.used_fraction == stats.used_blocks / 20
        # 2 layers, keys and values of 2 heads of 32 numbers, 4 bytes
        assert stats.cpu_bytes == 640 * 2 * 2 * 2 * 32 * 4
        for answer in answers:
            answer.wait()
        stats = one.stats()
        assert stats.active_requests == stats.waiting_requests == stats.used_blocks == 0
        assert stats.reused_blocks >= 2  # of the third prompt


def test_perf_says_when_and_what_of_the_cache(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir) as one:
        first = ask(one, PROMPTS[5]).wait().perf
        again = ask(one, PROMPTS[5]).wait().perf
        assert first is not None
        assert again is not None
        for perf, counts in ((first, (3, 0, 3)), (again, (1, 2, 1))):
            times = (
                perf.arrival_time_ns,
                perf.first_scheduled_time_ns,
                perf.first_token_time_ns,
                perf.last_token_time_ns,
            )
            assert 0 < times[0] < times[1] < times[2] < times[3]
            assert counts == (
                perf.kv_cache_alloc_new_blocks,
                perf.kv_cache_reused_blocks,
                perf.kv_cache_alloc_total_blocks,
            )
