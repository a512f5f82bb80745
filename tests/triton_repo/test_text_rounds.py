"""Promise: a drafted answer ends where, and is drawn as, the target's own would be.

Engines that only play back a script stand in for the target and its drafter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from tiny_engine import byte_level_tokenizer

from text.answer import Ends
from text.detokenizer import TokenTable
from triton_repo.runtime.text_model.answers import Answers
from triton_repo.runtime.text_model.calls import _refusal
from triton_repo.runtime.text_model.request import Array, CallError, Tensors, read
from triton_repo.runtime.text_model.speculation import Speculation

END = 9
LIMIT = 8


def request(rows: int = 1, /, **more: Any) -> dict[str, Array]:
    return {
        "max_tokens": np.full((rows, 1), LIMIT, np.int32),
        **{name: np.array([[value] for value in values]) for name, values in more.items()},
    }


class Scripted:
    """The target says `answer` from wherever it is; the drafter the same, or refuses."""

    def __init__(self, answer: list[int], *, drafts: bool = True) -> None:
        self.answer, self.drafts = answer, drafts
        self.rounds: list[Mapping[str, Array]] = []

    async def generate(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> AsyncGenerator[list[Tensors], None]:
        if model == "draft" and not self.drafts:
            raise CallError("prompt length 9 exceeds the engine's limit", "INVALID_ARGUMENT")
        if model == "target":
            self.rounds.append(inputs)
        done = inputs["input_ids"].shape[1] - 2
        said = self.answer[done:][: int(inputs["request_output_len"][0, 0])]
        yield [
            {
                "output_ids": np.array([[said]], np.int32),
                "sequence_length": np.array([[len(said)]], np.int32),
            }
        ]


def tokens(engines: Scripted, **more: Any) -> list[int]:
    asked = read(
        request(num_draft_tokens=[2], **more), drafting=True, exclude_input=True, parts=True
    )
    inputs = {
        "input_ids": np.array([[4, 5]], np.int32),
        "request_output_len": np.array([[LIMIT]], np.int32),
        **{name: asked.inputs[name] for name in more},
    }
    speculation = Speculation(
        engines.generate, "target", "draft", asked, inputs, [], end_ids=frozenset([END])
    )

    async def run() -> list[int]:
        return [
            int(token)
            async for come in speculation.rounds()
            for each in come
            for token in each["output_ids"].flat
        ]

    return asyncio.run(run())


def test_the_first_token_of_a_later_round_may_be_the_end() -> None:
    engines = Scripted([1, 2, 3, END])
    assert tokens(engines) == [1, 2, 3, END]
    assert [int(each["min_tokens"][0, 0]) for each in engines.rounds] == [1, 0]


def test_rounds_share_no_seed_whether_the_client_gives_one_or_not() -> None:
    plain, seeded = Scripted([1] * LIMIT), Scripted([1] * LIMIT)
    tokens(plain)
    tokens(seeded, seed=[np.uint64(7)])
    assert [int(each["seed"][0, 0]) for each in plain.rounds] == [0, 3, 6]
    assert [int(each["seed"][0, 0]) for each in seeded.rounds] == [7, 10, 13]
    assert {each["seed"].dtype for each in plain.rounds + seeded.rounds} == {np.dtype(np.uint64)}


@pytest.mark.parametrize("answer", [[1] * LIMIT, [1, 2, 3, 4, END], [1, 2, 3, 4]])
def test_where_the_drafter_refuses_the_target_answers_alone(answer: list[int]) -> None:
    assert tokens(Scripted(answer, drafts=False)) == answer


def test_an_end_before_min_tokens_ends_nothing() -> None:
    answer = [1, END, 2, END, 3, END, 4, 5]
    assert tokens(Scripted(answer), min_tokens=[5]) == answer[:6]


@pytest.mark.parametrize(
    "name", ["stream", "min_tokens", "exclude_input_in_output", "num_return_sequences"]
)
def test_rows_that_differ_where_they_must_not_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: must be the same"):
        read(request(2, **{name: [0, 1]}), drafting=False, exclude_input=True, parts=True)


def test_with_min_tokens_we_end_the_engine_which_is_told_of_one_end_only() -> None:
    def parts(**more: Any) -> bool:
        return read(request(**more), drafting=False, exclude_input=True, parts=True).parts

    assert parts(min_tokens=[2])
    assert not parts()
    assert not parts(min_tokens=[2], beam_width=[2])


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("temperature must lie between 0 and 100: found -1", "INVALID_ARGUMENT"),
        ("temperature: must be positive", "INVALID_ARGUMENT"),
        ("prompt length 600 exceeds the engine's limit", "INVALID_ARGUMENT"),
        ("Cannot process new request: LoRA task 3 not found in cache", "INVALID_ARGUMENT"),
        ("Maximum queue size of 3 has been reached", "UNAVAILABLE"),
        ("the worker has died", "INTERNAL"),
    ],
)
def test_a_clients_own_fault_is_told_as_such(said: str, code: str) -> None:
    assert _refusal(said).code == code


@pytest.mark.parametrize(("stop", "text", "count"), [((), "abcdefgh", 8), (("ef",), "abcd", 6)])
def test_tokens_that_have_piled_up_leave_as_one_and_count_up_to_the_end(
    stop: tuple[str, ...], text: str, count: int
) -> None:
    tokenizer = byte_level_tokenizer()
    one = np.array([[1]], np.int32)
    come = [
        {
            "output_ids": np.array([[[token]]], np.int32),
            "sequence_length": one,
            "num_output_tokens": one,
        }
        for token in tokenizer.encode("abcdefgh", add_special_tokens=False).ids
    ]
    asked = read(request(stream=[True]), drafting=False, exclude_input=True, parts=True)
    ends = Ends(stops=stop, max_tokens=LIMIT)
    answers = Answers(
        asked, TokenTable(tokenizer), [ends], [], skip_special_tokens=True, accumulate=False
    )
    (told,) = answers.take(come)
    assert told["text_output"][0, 0].decode() == text
    assert told["num_output_tokens"].tolist() == [[count]]
    assert answers.finished
