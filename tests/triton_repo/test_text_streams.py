"""Promise: a model that takes text has many answers at once, and none that nobody waits for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from plain_clients import generate
from repeating_engine import endings, repeating_triton
from running import client, stream, tensors, text
from tritonclient.utils import InferenceServerException
from waiting import until

from triton_repo.control import access
from triton_repo.control.client import Control
from triton_repo.launch import processes
from triton_repo.launch.triton import Triton

pytestmark = pytest.mark.triton

MODELS = ("ensemble", "tensorrt_llm_bls")
LONG = 50_000


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with repeating_triton(tmp_path_factory.mktemp("repeating")) as running:
        yield running


def asked(prompt: str, tokens: int, *stops: str, streaming: bool = True) -> dict[str, np.ndarray]:
    request = {
        "text_input": text([prompt]),
        "max_tokens": np.array([[tokens]], np.int32),
        "stream": np.array([[streaming]]),
    }
    return {**request, "stop_words": text(list(stops))} if stops else request


def told(results: list[Any]) -> tuple[str, str]:
    """A whole text of one request, and why it ended."""
    texts = [result.as_numpy("text_output")[0, 0].decode() for result in results]
    reasons = [result.as_numpy("finish_reason")[0, 0].decode() for result in results]
    assert not any(reasons[:-1])
    return "".join(texts), reasons[-1]


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_a_stop_string_ends_the_engines_work_too(
    triton: Triton, model: str, streaming: bool
) -> None:
    before = len(endings(triton))
    # the string begins and ends within what the tokenizer has as one token, " the"
    found = stream(triton, model, asked("see the end. ", LONG, "he en", streaming=streaming))
    assert told(found) == ("see t", "stop")
    until(lambda: len(endings(triton)) > before)
    how, tokens = endings(triton)[-1]
    assert how == "cancelled"
    assert tokens < LONG / 5


def test_a_limit_ends_an_answer_by_length(triton: Triton) -> None:
    (whole,) = stream(triton, "ensemble", asked("abc", 7, streaming=False))
    assert told([whole]) == ("abcabca"[: len(told([whole])[0])], "length")


@pytest.mark.parametrize("model", MODELS)
def test_a_client_that_goes_ends_the_engines_work(triton: Triton, model: str) -> None:
    before = len(endings(triton))
    arrived: list[Any] = []
    with client(triton) as connection:
        connection.start_stream(lambda result, error: arrived.append(result))
        connection.async_stream_infer(model, tensors(asked("abc ", LONG)))
        until(lambda: len(arrived) > 3)
        connection.stop_stream(cancel_requests=True)
    until(lambda: len(endings(triton)) > before)
    how, tokens = endings(triton)[-1]
    assert how == "cancelled"
    assert tokens < LONG


def test_a_refusal_of_the_engine_is_that_requests_error_alone(triton: Triton) -> None:
    def ask(prompt: str) -> str:
        return told(stream(triton, "ensemble", asked(prompt, 12)))[0]

    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(ask, prompt) for prompt in ("ab", "ab<|end|>", "cd")]
    assert answers[0].result().startswith("abab")
    with pytest.raises(InferenceServerException, match="no prompt ends so"):
        answers[1].result()
    assert answers[2].result().startswith("cdcd")


def test_what_is_wrong_with_a_request_is_told_in_its_own_names(triton: Triton) -> None:
    body = {"text_input": "a", "messages": "[]", "max_tokens": 3}
    with pytest.raises(AssertionError, match="text_input: not both"):
        generate(triton, "ensemble", body)
    with pytest.raises(AssertionError, match="messages: no JSON"):
        generate(triton, "tensorrt_llm_bls", {"messages": "{", "max_tokens": 3})
    body = {"text_input": "a", "max_tokens": 3, "num_draft_tokens": 2}
    with pytest.raises(AssertionError, match="num_draft_tokens: this model has no draft"):
        generate(triton, "tensorrt_llm_bls", body)


def test_counts_are_passed_on_and_those_of_parts_added(triton: Triton) -> None:
    body = {"text_input": "ab. ", "max_tokens": 50, "return_num_output_tokens": True}
    (whole,) = generate(triton, "ensemble", body)
    assert whole["num_output_tokens"] == 50
    # with a stop string the engine answers in parts: BOS, a, b, ., space, BOS, a, b, .
    (cut,) = generate(triton, "ensemble", {**body, "stop_words": ". ab."})
    assert (cut["text_output"], cut["num_output_tokens"]) == ("ab", 9)


def test_many_streams_at_once_are_whole_and_leave_nothing_behind(triton: Triton) -> None:
    assert triton.pid is not None
    stubs = {stub.pid for stub in processes.stubs(triton.pid)}
    dice = random.Random(7)
    for _ in range(10):
        kinds = [dice.choice((_limited, _stopped, _left)) for _ in range(50)]
        with ThreadPoolExecutor(50) as pool:
            found = [pool.submit(kind, triton, dice.choice(MODELS)) for kind in kinds]
        assert [each.exception() for each in found if each.exception()] == []
    assert {stub.pid for stub in processes.stubs(triton.pid)} == stubs
    control = Control(access.read(triton.config.log_path))
    for model in (*MODELS, "tensorrt_llm"):
        control.unload(model)
    # a request that Triton still held would keep its model
    until(lambda: _reasons(control) == {"unloaded"})


def _reasons(control: Control) -> set[str | None]:
    names = (*MODELS, "tensorrt_llm")
    return {each.reason for each in control.index() if each.name in names}


def _limited(triton: Triton, model: str) -> None:
    letters, reason = told(stream(triton, model, asked("日本語", 24)))
    assert (letters, reason) == ("日本語日本語日", "length")


def _stopped(triton: Triton, model: str) -> None:
    found = told(stream(triton, model, asked("日本語", LONG, "語日本語日")))
    assert found == ("日本", "stop")


def _left(triton: Triton, model: str) -> None:
    arrived: list[Any] = []
    with client(triton) as connection:
        connection.start_stream(lambda result, error: arrived.append(error))
        connection.async_stream_infer(model, tensors(asked("abc", LONG)))
        until(lambda: len(arrived) > 2)
        connection.stop_stream(cancel_requests=True)
