"""Promise: the logits that a request asks for are the model's own, a row for every token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executing import PROMPTS, all_free, ask, executor

from triton_repo.executor.request import SamplingParams


@pytest.fixture(scope="module")
def logits_of(tiny_models: dict[str, Path]) -> Any:
    """Logits of transformers for tokens, float32[n, vocab]."""
    import torch
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(tiny_models["llama"], dtype=torch.float32)

    def run(tokens: list[int]) -> Any:
        with torch.no_grad():
            return model(torch.tensor([tokens])).logits[0].numpy()

    return run


@pytest.mark.reference
@pytest.mark.parametrize(
    "settings",
    [{}, {"max_num_tokens": 16}, {"kv_cache_tokens": 224}],
    ids=["whole", "chunked", "preempted"],
)
def test_all_rows_are_those_of_transformers_also_of_a_known_prompt(
    tiny_engine_dir: Path, logits_of: Any, settings: dict[str, int]
) -> None:
    bias = np.zeros(384, np.float32)
    bias[7] = 100
    with executor(tiny_engine_dir, **settings) as one:
        ask(one, PROMPTS[5]).wait()
        answers = [
            ask(
                one,
                prompt,
                context_logits=True,
                generation_logits=True,
                embedding_bias=bias,
                max_tokens=70,
                sampling=SamplingParams(temperature=0.5),
            )
            for prompt in (PROMPTS[5], PROMPTS[0], PROMPTS[4])
        ]
        for answer, prompt in zip(answers, (PROMPTS[5], PROMPTS[0], PROMPTS[4]), strict=True):
            assert answer.wait().tokens == [7] * 70
            expected = logits_of([*prompt, *answer.tokens])
            np.testing.assert_allclose(answer.context, expected[: len(prompt)], atol=2e-3)
            np.testing.assert_allclose(
                np.stack(answer.rows[0]), expected[len(prompt) - 1 : -1], atol=2e-3
            )
        assert (one.preemptions > 0) == ("kv_cache_tokens" in settings)
        assert all_free(one)


def test_rows_come_with_drafts_and_with_several_answers(
    tiny_engine_dir: Path, logits_of: Any
) -> None:
    with executor(tiny_engine_dir, max_draft_len=8) as one:
        plain = ask(one, PROMPTS[3]).wait().tokens
        answer = ask(
            one,
            PROMPTS[3],
            num_return_sequences=2,
            draft_ids=(*plain[:5], 0),
            context_logits=True,
            generation_logits=True,
        ).wait()
        expected = logits_of([*PROMPTS[3], *plain])
        np.testing.assert_allclose(answer.context, expected[: len(PROMPTS[3])], atol=2e-3)
        for index in range(2):
            assert answer.of[index] == plain
            np.testing.assert_allclose(
                np.stack(answer.rows[index]), expected[len(PROMPTS[3]) - 1 : -1], atol=2e-3
            )


def test_only_wanted_rows_are_computed(
    tiny_engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    with executor(tiny_engine_dir, max_num_tokens=16) as one:
        run = one._runner.run

        def spy(*args: Any) -> Any:
            logits = run(*args)
            seen.append(len(logits))
            return logits

        monkeypatch.setattr(one._runner, "run", spy)
        ask(one, PROMPTS[5], max_tokens=3).wait()
        assert seen == [0] * 5 + [1] * 3
