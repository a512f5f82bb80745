"""Promise: a beam search finds what transformers' finds, and all of a small space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executing import PROMPTS, Answer, all_free, ask, executor, slowed
from waiting import until

from builder.errors import RequestError
from triton_repo.executor.beams import BeamSearch
from triton_repo.executor.request import BeamParams, FinishReason, Request, SamplingParams
from triton_repo.executor.sequence import Sequence

Found = tuple[list[int], float]
NEVER = 2


@pytest.fixture(scope="module")
def generate(tiny_models: dict[str, Path]) -> Callable[..., list[Found]]:
    """Answers and scores of transformers' beam search, best first."""
    import torch
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(tiny_models["llama"], dtype=torch.float32)
    model.generation_config.eos_token_id = None

    def run(prompt: list[int], width: int, end_id: int, **options: Any) -> list[Found]:
        with torch.no_grad():
            out = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                num_beams=width,
                num_return_sequences=width,
                do_sample=False,
                eos_token_id=end_id if end_id >= 0 else None,
                return_dict_in_generate=True,
                output_scores=True,
                **options,
            )
        found = []
        for tokens, score in zip(out.sequences.tolist(), out.sequences_scores, strict=True):
            answer = tokens[len(prompt) :]
            if end_id in answer:
                answer = answer[: answer.index(end_id) + 1]
            found.append((answer, float(score)))
        return found

    return run


def search(one: Any, prompt: list[int], width: int, **fields: Any) -> Answer:
    params = {
        name: fields.pop(name)
        for name in ("length_penalty", "early_stopping", "diversity_rate")
        if name in fields
    }
    return ask(one, prompt, beams=BeamParams(width=width, **params), **fields)


@pytest.mark.reference
@pytest.mark.parametrize("early_stopping", [1, 0, NEVER])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5])
def test_the_beams_are_those_of_transformers(
    tiny_engine_dir: Path,
    generate: Callable[..., list[Found]],
    early_stopping: int,
    length_penalty: float,
) -> None:
    ended = 0
    with executor(tiny_engine_dir, max_beam_width=4) as one:
        for prompt, width in ((PROMPTS[0], 4), (PROMPTS[3], 2)):
            # an end that beams often come to: a token of the best answers
            plain = generate(prompt, width, -1, max_new_tokens=8)
            for end_id in (-1, plain[0][0][3], plain[-1][0][2]):
                expected = generate(
                    prompt,
                    width,
                    end_id,
                    max_new_tokens=12,
                    length_penalty=length_penalty,
                    early_stopping={1: True, 0: False, NEVER: "never"}[early_stopping],
                )
                beams = (
                    search(
                        one,
                        prompt,
                        width,
                        end_id=end_id,
                        max_tokens=12,
                        length_penalty=length_penalty,
                        early_stopping=early_stopping,
                        sampling=SamplingParams(min_tokens=0),
                    )
                    .wait()
                    .beams
                )
                assert [beam.token_ids for beam in beams] == [tokens for tokens, _ in expected]
                for beam, (tokens, score) in zip(beams, expected, strict=True):
                    normed = beam.cum_log_prob / len(tokens) ** length_penalty
                    assert normed == pytest.approx(score, abs=1e-3)
                    assert beam.cum_log_prob == pytest.approx(sum(beam.log_probs))
                    ends = beam.token_ids[-1] == end_id
                    assert beam.finish is (FinishReason.END_ID if ends else FinishReason.LENGTH)
                    ended += ends
        assert all_free(one)
    assert ended > 2 or length_penalty > 0


def table(tokens: list[int], vocab: int) -> Any:
    """Logits that depend on all tokens so far: the same for the same, with no model."""
    return np.random.default_rng(tokens).normal(0, 2, vocab).astype(np.float32)


def log_softmax(row: Any) -> Any:
    return row - math.log(np.exp(row.astype(np.float64)).sum())


def run_search(request: Request, vocab: int) -> BeamSearch:
    """Step a search as the executor does, on rows of `table`."""
    assert request.beams is not None
    one = BeamSearch(request, request.beams)
    beams = [Sequence(request, 1000)]
    while beams:
        for beam in beams:
            beam.row = table(beam.tokens, vocab)
        beams = one.advance(beams)
    return one


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_search_as_wide_as_the_space_finds_the_best_of_all(
    seed: int, length_penalty: float
) -> None:
    vocab, length, end = 4, 3, 3
    prompt = [0, seed]
    scored: list[tuple[float, list[int]]] = []
    for size in range(1, length + 1):
        for answer in itertools.product(range(vocab), repeat=size):
            if end in answer[:-1] or (size < length and answer[-1] != end):
                continue
            total = sum(
                log_softmax(table(prompt + list(answer[:i]), vocab))[token]
                for i, token in enumerate(answer)
            )
            scored.append((total / size**length_penalty, list(answer)))
    scored.sort(reverse=True)
    request = Request(
        input_ids=prompt,
        max_tokens=length,
        end_id=end,
        sampling=SamplingParams(min_tokens=0),
        beams=BeamParams(width=64, length_penalty=length_penalty, early_stopping=NEVER),
    )
    beams = run_search(request, vocab).answers()
    assert [beam.token_ids for beam in beams] == [answer for _, answer in scored]


def test_a_stop_word_ends_its_beam_as_the_end_id_does(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_beam_width=4) as one:
        plain = search(one, PROMPTS[0], 3, max_tokens=10).wait().beams
        word = tuple(plain[1].token_ids[2:4])
        beams = search(one, PROMPTS[0], 3, max_tokens=10, stop_words=(word,)).wait().beams
        stopped = [beam for beam in beams if beam.finish is FinishReason.STOP_WORDS]
        assert stopped
        assert all(tuple(beam.token_ids[-2:]) == word for beam in stopped)


def test_no_beam_ends_before_min_tokens(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_beam_width=4) as one:
        end = search(one, PROMPTS[0], 4, max_tokens=10).wait().beams[0].token_ids[1]
        early = search(
            one, PROMPTS[0], 4, max_tokens=10, end_id=end, sampling=SamplingParams(min_tokens=0)
        ).wait()
        late = search(
            one, PROMPTS[0], 4, max_tokens=10, end_id=end, sampling=SamplingParams(min_tokens=5)
        ).wait()
        assert min(len(beam.token_ids) for beam in early.beams) < 6
        assert min(len(beam.token_ids) for beam in late.beams) >= 6


def test_diversity_lifts_what_worse_beams_go_on_with() -> None:
    def kinship(rate: float) -> int:
        request = Request(
            input_ids=[1, 2],
            max_tokens=3,
            beams=BeamParams(width=3, diversity_rate=rate),
        )
        return len({beam.token_ids[0] for beam in run_search(request, 30).answers()})

    assert kinship(0.0) < 3
    assert kinship(50.0) == 1  # all from the last beam, as in TensorRT-LLM: the rate times its rank


def test_only_as_many_answers_as_asked_for_come_back(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_beam_width=4) as one:
        all_of = search(one, PROMPTS[1], 4).wait().beams
        best = search(one, PROMPTS[1], 4, num_return_sequences=2).wait().beams
        assert [b.token_ids for b in best] == [b.token_ids for b in all_of[:2]]
        assert len(all_of) == 4
        one_of = search(one, PROMPTS[1], 4, num_return_sequences=1).wait().beams
        assert [b.token_ids for b in one_of] == [all_of[0].token_ids]


def test_each_beam_has_the_models_own_rows(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_beam_width=3) as one:
        answer = search(
            one, PROMPTS[3], 3, max_tokens=6, generation_logits=True, context_logits=True
        ).wait()
        assert answer.context.shape == (len(PROMPTS[3]), 384)
        for beam in answer.beams:
            assert beam.generation_logits is not None
            assert beam.generation_logits.shape == (6, 384)
            for row, token, log_prob in zip(
                beam.generation_logits, beam.token_ids, beam.log_probs, strict=True
            ):
                assert log_softmax(row)[token] == pytest.approx(log_prob, abs=1e-4)


def found(answer: Answer) -> list[list[int]]:
    return [beam.token_ids for beam in answer.wait().beams]


@pytest.fixture(scope="module")
def quiet(tiny_engine_dir: Path) -> list[list[list[int]]]:
    """The beams of each prompt, searched for alone."""
    with executor(tiny_engine_dir, max_beam_width=4) as one:
        return [found(search(one, prompt, 4)) for prompt in PROMPTS]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_num_tokens": 16},
        {"enable_kv_cache_reuse": False},
        {"kv_cache_tokens": 320},
        {"kv_cache_tokens": 320, "enable_kv_cache_reuse": False},
        {"kv_cache_tokens": 320, "guaranteed_no_evict": True},
    ],
    ids=["chunked", "no reuse", "preempted", "preempted, no reuse", "no evict"],
)
def test_the_beams_are_the_same_in_a_crowd(
    tiny_engine_dir: Path, quiet: list[list[list[int]]], settings: dict[str, Any]
) -> None:
    with executor(tiny_engine_dir, max_beam_width=4, **settings) as one:
        crowd = [search(one, prompt, 4) for prompt in PROMPTS]
        assert [found(answer) for answer in crowd] == quiet
        assert (one.preemptions > 0) == (
            "kv_cache_tokens" in settings and "guaranteed_no_evict" not in settings
        )
        assert all_free(one)


def test_a_cancelled_search_frees_everything_at_once(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_beam_width=4) as one:
        with slowed(one):
            answer = search(one, PROMPTS[0], 4, max_tokens=400)
            until(lambda: one.stats().generation_requests)
            assert answer.handle is not None
            one.cancel(answer.handle)
        assert answer.wait().finishes == {0: FinishReason.CANCELLED}
        assert all_free(one)


@pytest.mark.parametrize(
    ("width", "fields", "says"),
    [
        (5, {}, "max_beam_width, 4; found 5"),
        (3, {"num_return_sequences": 4}, "between 1 and beam_width, 3; found 4"),
        (3, {"draft_ids": (1, 2)}, "takes no draft tokens"),
        (4, {"max_tokens": 200}, "KV cache can't hold"),
    ],
)
def test_a_search_that_cannot_run_is_refused(
    tiny_engine_dir: Path, width: int, fields: dict[str, Any], says: str
) -> None:
    with (
        executor(tiny_engine_dir, max_beam_width=4, max_draft_len=8, kv_cache_tokens=512) as one,
        pytest.raises(RequestError, match=says),
    ):
        search(one, PROMPTS[0], width, **fields)
