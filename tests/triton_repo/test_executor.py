"""Promise: each request gets the tokens of its model, whatever runs beside it."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from executing import ANSWER, PROMPTS, all_free, ask, executor, slowed

from builder.errors import ArtifactError, LimitError, RequestError
from triton_repo.executor.executor import ExecutorConfig
from triton_repo.executor.request import FinishReason, SamplingParams


@pytest.fixture(scope="module")
def reference(tiny_models: dict[str, Path]) -> Any:
    """Greedy tokens and their log probabilities by transformers, for a prompt."""
    import torch
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(
        tiny_models["llama"], torch_dtype=torch.float32
    )

    @cache
    def greedy(prompt: tuple[int, ...]) -> tuple[list[int], list[float]]:
        tokens, log_probs = list(prompt), []
        with torch.no_grad():
            for _ in range(ANSWER):
                scores = model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
                tokens.append(int(scores.argmax()))
                log_probs.append(float(scores.max()))
        return tokens[len(prompt) :], log_probs

    return lambda prompt: greedy(tuple(prompt))


def test_greedy_tokens_and_log_probs_are_those_of_transformers(
    tiny_engine_dir: Path, reference: Any
) -> None:
    with executor(tiny_engine_dir) as one:
        for prompt in PROMPTS:
            answer = ask(one, prompt, log_probs=True, normalize_log_probs=False).wait()
            tokens, log_probs = reference(prompt)
            assert answer.tokens == tokens
            assert answer.log_probs == pytest.approx(log_probs, abs=1e-3)
            assert answer.finish is FinishReason.LENGTH


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_num_tokens": 16},
        {"max_batch_size": 3},
        {"kv_cache_tokens": 192},
        {"kv_cache_tokens": 192, "guaranteed_no_evict": True},
        {"enable_kv_cache_reuse": False},
    ],
    ids=["together", "chunked", "small batch", "preempted", "no evict", "no reuse"],
)
def test_tokens_are_the_same_in_a_crowd(
    tiny_engine_dir: Path, reference: Any, settings: dict[str, Any]
) -> None:
    with executor(tiny_engine_dir, **settings) as one:
        answers = [ask(one, prompt) for prompt in PROMPTS for _ in range(3)]
        asked = [prompt for prompt in PROMPTS for _ in range(3)]
        for answer, prompt in zip(answers, asked, strict=True):
            assert answer.wait().tokens == reference(prompt)[0]
        preempted = one.preemptions > 0
        assert preempted == (
            "kv_cache_tokens" in settings and "guaranteed_no_evict" not in settings
        )
        assert all_free(one)


def test_a_late_request_joins_and_may_finish_first(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir) as one:
        with slowed(one):
            long = ask(one, PROMPTS[0], max_tokens=400)
            assert long.started.wait(60)
            late = ask(one, PROMPTS[1], max_tokens=2).wait()
        assert len(long.wait().tokens) == 400
        assert late.perf is not None
        assert long.perf is not None
        assert late.perf.last_token_time_ns < long.perf.last_token_time_ns


def test_a_seed_gives_the_same_tokens_alone_and_in_a_crowd(tiny_engine_dir: Path) -> None:
    sampling = SamplingParams(top_p=0.9, temperature=1.5, seed=11)
    with executor(tiny_engine_dir) as one:
        alone = ask(one, PROMPTS[0], sampling=sampling).wait()
        crowd = [
            ask(one, PROMPTS[0], sampling=SamplingParams(top_p=0.9, temperature=1.5, seed=seed))
            for seed in (10, 11, 12)
        ]
        tokens = [answer.wait().tokens for answer in crowd]
    assert tokens[1] == alone.tokens
    assert tokens[0] != tokens[1] != tokens[2]


def test_an_answer_ends_with_its_end_id_or_stop_words(
    tiny_engine_dir: Path, reference: Any
) -> None:
    expected = reference(PROMPTS[0])[0]
    fourth = expected.index(expected[4])
    with executor(tiny_engine_dir) as one:
        answer = ask(one, PROMPTS[0], end_id=expected[4]).wait()
        assert (answer.tokens, answer.finish) == (expected[: fourth + 1], FinishReason.END_ID)
        words = ((9999,), tuple(expected[5:7]))
        answer = ask(one, PROMPTS[0], stop_words=words).wait()
        assert (answer.tokens, answer.finish) == (expected[:7], FinishReason.STOP_WORDS)


def test_a_stop_word_in_the_prompt_ends_nothing(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir) as one:
        answer = ask(one, PROMPTS[0], stop_words=(tuple(PROMPTS[0][-2:]),)).wait()
        assert len(answer.tokens) == ANSWER


def test_a_cancelled_request_frees_its_slot_and_blocks_in_the_next_step(
    tiny_engine_dir: Path,
) -> None:
    with executor(tiny_engine_dir, max_batch_size=1) as one:
        with slowed(one):
            running, waiting = ask(one, PROMPTS[0], max_tokens=450), ask(one, PROMPTS[1])
            assert running.started.wait(60)
            assert running.handle is not None
            one.cancel(running.handle)
        assert running.wait().finish is FinishReason.CANCELLED
        assert len(running.tokens) < 450
        assert len(waiting.wait().tokens) == ANSWER
        assert all_free(one)
        one.cancel(running.handle)
        assert len(ask(one, PROMPTS[0]).wait().tokens) == ANSWER


def test_a_repeated_prompt_is_not_computed_again(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir) as one:
        first = ask(one, PROMPTS[5]).wait()
        computed = one.computed_tokens
        again = ask(one, PROMPTS[5]).wait()
        assert again.tokens == first.tokens
        assert one.computed_tokens - computed == computed - 64


def test_generation_stops_at_the_engines_sequence_length(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir) as one:
        answer = ask(one, PROMPTS[1], max_tokens=100_000).wait()
        assert len(answer.tokens) == 512 - len(PROMPTS[1])
        assert answer.finish is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("prompt", "fields", "says"),
    [
        ([], {}, "empty"),
        ([5] * 512, {}, "exceeds the engine's limit"),
        ([5, 384], {}, r"\[0, 384\).*384"),
        ([5, -1], {}, r"\[0, 384\).*-1"),
        ([5], {"max_tokens": 0}, "at least one token"),
        ([5], {"end_id": 384}, "end_id must lie below 384"),
    ],
)
def test_what_cannot_run_is_refused_at_once(
    tiny_engine_dir: Path, prompt: list[int], fields: dict[str, Any], says: str
) -> None:
    with executor(tiny_engine_dir) as one:
        with pytest.raises(RequestError, match=says):
            ask(one, prompt, **fields)
        assert one.active == 0


def test_closing_ends_what_runs_and_what_waits(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir, max_batch_size=1) as one, slowed(one):
        answers = [ask(one, PROMPTS[0], max_tokens=450) for _ in range(3)]
        assert answers[0].started.wait(60)
    assert [answer.wait().finish for answer in answers] == [FinishReason.CANCELLED] * 3
    with pytest.raises(RequestError, match="closing"):
        ask(one, PROMPTS[0])


def test_an_idle_executor_costs_no_cpu(tiny_engine_dir: Path) -> None:
    with executor(tiny_engine_dir) as one:
        ask(one, PROMPTS[0]).wait()
        time.sleep(0.2)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.1


def test_another_folder_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not an engine for this machine"):
        ExecutorConfig.of(tmp_path)


def test_logits_beyond_the_limit_are_refused_with_their_size(tiny_engine_dir: Path) -> None:
    row = 384 * 4
    with executor(tiny_engine_dir, max_logits_bytes=10 * row) as one:
        ask(one, [5] * 6, max_tokens=4, context_logits=True, generation_logits=True).wait()
        with pytest.raises(RequestError, match=r"return_context_logits.*11 rows of 384"):
            ask(one, [5] * 6, max_tokens=5, context_logits=True, generation_logits=True)
        with pytest.raises(RequestError, match=r"return_generation_logits.*11 rows of 384"):
            ask(one, [5] * 6, max_tokens=11, generation_logits=True)
        # a streamed answer's rows are gone when the next comes
        ask(one, [5] * 6, max_tokens=11, generation_logits=True, streaming=True).wait()


def test_a_cache_beyond_the_machines_memory_is_refused(tiny_engine_dir: Path) -> None:
    with (
        pytest.raises(LimitError, match="doesn't fit this machine's memory"),
        executor(tiny_engine_dir, kv_cache_tokens=1 << 40),
    ):
        pass


def test_a_damaged_model_file_is_one_clear_error(tiny_engine_dir: Path, tmp_path: Path) -> None:
    for file in tiny_engine_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "openvino_model.xml").write_text("<net")
    with pytest.raises(ArtifactError, match="can't be loaded"), executor(tmp_path):
        pass
