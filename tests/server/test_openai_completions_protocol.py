from __future__ import annotations

import json
from typing import Any

import pytest

from server.errors import InvalidRequestError
from server.protocol.openai_completions import (
    DEFAULT_MAX_TOKENS,
    CompletionRequest,
    CompletionStream,
    parse,
    render,
)
from server.protocol.parameters import COMPLETIONS, Honoured, Refused
from server.protocol.request import (
    AnswerHead,
    TextEvent,
    TextPrompt,
    TokenLogProb,
    TokenPrompt,
    Usage,
)

HEAD = AnswerHead(id="cmpl-1", created=7, model="m")

# OpenAI's specification 2.3.0.
OPENAI_PARAMETERS = """
model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty
seed stop stream stream_options suffix temperature top_p user
"""


def body(**values: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": "hi", **values}).encode()


def param_refused(**values: Any) -> str | None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(body(**values))
    return caught.value.param


def test_every_openai_parameter_has_a_fate() -> None:
    assert set(OPENAI_PARAMETERS.split()) <= COMPLETIONS.keys()


def test_the_table_and_the_struct_agree_on_what_is_honoured() -> None:
    honoured = {name for name, fate in COMPLETIONS.items() if isinstance(fate, Honoured)}
    assert honoured == set(CompletionRequest.__struct_fields__)


@pytest.mark.parametrize("name", [n for n, f in COMPLETIONS.items() if isinstance(f, Refused)])
def test_what_cant_be_honoured_is_refused_by_name_unless_it_asks_for_nothing(name: str) -> None:
    fate = COMPLETIONS[name]
    assert isinstance(fate, Refused)
    for neutral in (None, *fate.neutral):
        parse(body(**{name: neutral}))
    assert param_refused(**{name: {"x": [1]}}) == name


def test_prompts_are_strings_or_token_ids_one_or_many() -> None:
    assert parse(body(prompt="a")).prompts == [TextPrompt(text="a")]
    assert parse(body(prompt=["a", "b"])).prompts == [TextPrompt(text="a"), TextPrompt(text="b")]
    assert parse(body(prompt=[1, 2])).prompts == [TokenPrompt(ids=[1, 2])]
    assert parse(body(prompt=[[1], [2]])).prompts == [TokenPrompt(ids=[1]), TokenPrompt(ids=[2])]


@pytest.mark.parametrize("prompt", [[], ["a", 1], [1, [1]], [1.5], {}, None, [["a"]]])
def test_other_prompts_are_refused(prompt: Any) -> None:
    assert (param_refused(prompt=prompt) or "").startswith("prompt")


def test_max_tokens_is_16_by_default() -> None:
    assert parse(body()).limits.max_tokens == DEFAULT_MAX_TOKENS == 16


def test_only_the_chosen_tokens_log_probability_can_be_had() -> None:
    assert parse(body(logprobs=0)).log_probs
    assert not parse(body()).log_probs
    assert param_refused(logprobs=1) == "logprobs"


def test_answers_have_openais_shape() -> None:
    log_probs = [
        TokenLogProb(content=b"He", log_prob=-0.5),
        TokenLogProb(content=b"llo", log_prob=-1),
    ]
    event = TextEvent(index=0, text="Hello", log_probs=log_probs, finish_reason="length")
    usage = Usage(prompt_tokens=1, completion_tokens=2)
    answer = json.loads(render(HEAD, parse(body(logprobs=0)), [event], usage))
    assert answer["object"] == "text_completion"
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"], choice["index"]) == ("Hello", "length", 0)
    assert choice["logprobs"] == {
        "tokens": ["He", "llo"],
        "token_logprobs": [-0.5, -1],
        "top_logprobs": [{"He": -0.5}, {"llo": -1}],
        "text_offset": [0, 2],
    }


def test_streamed_chunks_have_openais_shape() -> None:
    stream = CompletionStream(HEAD, parse(body(stream=True)))
    data = stream.start(0) + stream.delta(TextEvent(index=0, text="a", finish_reason="stop"))
    chunks = [json.loads(line[6:]) for line in data.decode().split("\n\n") if line]
    head = {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m"}
    choice = {"index": 0, "logprobs": None}
    assert chunks == [
        {**head, "choices": [{**choice, "text": "a", "finish_reason": None}]},
        {**head, "choices": [{**choice, "text": "", "finish_reason": "stop"}]},
    ]
