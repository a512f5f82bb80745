"""Promise: under any load every request gets what it gets alone, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from executing import Answer, all_free, executor
from hypothesis import given, settings
from hypothesis import strategies as st
from remembering_runner import RememberingRunner

from triton_repo.executor.executor import Executor
from triton_repo.executor.request import BeamParams, FinishReason, Request, SamplingParams

SMALL = {"max_beam_width": 4, "max_draft_len": 8, "max_batch_size": 10, "kv_cache_tokens": 12 * 32}
LOADS: list[dict[str, Any]] = [
    {"max_num_tokens": 16},
    {"max_num_tokens": 64, "enable_kv_cache_reuse": False},
    {"max_num_tokens": 64, "guaranteed_no_evict": True, "enable_chunked_context": False},
]


@dataclass(frozen=True)
class Wish:
    """A request in few numbers, so that the same ones come again; `right` drafts of `drafts`."""

    prompt: int
    size: int
    answer: int
    kind: str
    count: int
    seed: int
    drafts: int
    right: int
    ends: bool
    pause: bool
    cancel: bool

    def request(self, drafts: tuple[int, ...] = ()) -> Request:
        sampled = self.kind == "sampled"
        beams = BeamParams(width=1 + self.count, length_penalty=1.0, early_stopping=self.seed)
        return Request(
            input_ids=[(31 * self.prompt + 7 * i) % 381 + 3 for i in range(self.size)],
            max_tokens=self.answer,
            end_id=self.seed * 50 if self.ends else -1,
            sampling=SamplingParams(
                top_k=40 if sampled else 0, temperature=2.0, seed=self.seed, min_tokens=0
            ),
            beams=beams if self.kind == "beams" else None,
            num_return_sequences=self.count if sampled else 1,
            log_probs=self.seed == 1,
            context_logits=self.seed == 2,
            draft_ids=() if self.kind == "beams" else drafts,
        )


WISHES = st.builds(
    Wish,
    prompt=st.integers(0, 2),
    size=st.sampled_from([1, 5, 31, 32, 33, 60]),
    answer=st.integers(1, 35),
    kind=st.sampled_from(["greedy", "sampled", "beams"]),
    count=st.integers(1, 3),
    seed=st.integers(0, 2),
    drafts=st.integers(0, 8),
    right=st.integers(0, 8),
    ends=st.booleans(),
    pause=st.booleans(),
    cancel=st.booleans(),
)


def found(answer: Answer) -> list[list[int]]:
    if answer.beams:
        return [beam.token_ids for beam in answer.beams]
    return [answer.of[index] for index in sorted(answer.of)]


@pytest.fixture(scope="module", params=["engine", "stand-in"])
def engine(request: pytest.FixtureRequest, tiny_engine_dir: Path) -> Iterator[tuple[Path, int]]:
    """An engine's folder, and how many examples it has time for; a stand-in computes faster."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "stand-in":
            patch.setattr("triton_repo.executor.executor.Runner", RememberingRunner)
        yield tiny_engine_dir, 8 if request.param == "engine" else 60


@pytest.fixture(scope="module")
def quiet(engine: tuple[Path, int]) -> Iterator[Callable[[Request], list[list[int]]]]:
    """What a request gets alone, of an executor that reuses nothing."""
    known: dict[str, list[list[int]]] = {}
    with executor(engine[0], max_beam_width=4, enable_kv_cache_reuse=False) as one:

        def run(request: Request) -> list[list[int]]:
            if repr(request) not in known:
                answer = Answer()
                one.submit(request, answer)
                known[repr(request)] = found(answer.wait())
            return known[repr(request)]

        yield run


@pytest.fixture(scope="module", params=LOADS, ids=["preempted", "no reuse", "no evict"])
def small(request: pytest.FixtureRequest, engine: tuple[Path, int]) -> Iterator[Executor]:
    """An executor that the wishes don't fit into together."""
    with executor(engine[0], **{**SMALL, **request.param}) as one:
        yield one


def same_as_alone(
    small: Executor, quiet: Callable[[Request], list[list[int]]], wishes: list[Wish]
) -> None:
    expected = [quiet(wish.request()) for wish in wishes]
    answers = []
    for wish, tokens in zip(wishes, expected, strict=True):
        guesses = tokens[0][: wish.right] + [9] * wish.drafts
        answer = Answer()
        answer.handle = small.submit(wish.request(tuple(guesses[: wish.drafts])), answer)
        answers.append(answer)
        if wish.pause:
            answer.started.wait(0.02)
        if wish.cancel:
            small.cancel(answer.handle)
    for wish, answer, tokens in zip(wishes, answers, expected, strict=True):
        got = found(answer.wait())
        if FinishReason.CANCELLED in answer.finishes.values():
            assert wish.cancel
            for part, whole in zip(got, tokens, strict=False):
                assert part == whole[: len(part)] or answer.beams
        else:
            assert got == tokens, wish
        assert answer.error is None
    assert all_free(small)
    assert small.stats().waiting_requests == small.stats().paused_requests == 0


def test_requests_in_a_crowd_get_what_they_get_alone(
    engine: tuple[Path, int], small: Executor, quiet: Callable[[Request], list[list[int]]]
) -> None:
    @settings(max_examples=engine[1], deadline=None, derandomize=True, database=None)
    @given(st.lists(WISHES, min_size=1, max_size=20))
    def check(wishes: list[Wish]) -> None:
        same_as_alone(small, quiet, wishes)

    check()
    assert small.preemptions == 0 or not small.config.guaranteed_no_evict
