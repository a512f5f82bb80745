"""Completions: what arrives of a body, and the answers in OpenAI's shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion

from server.errors import InvalidRequestError, NotReadyError
from server.protocol.openai_completions import (
    DEFAULT_MAX_TOKENS,
    ID_PREFIX,
    CompletionStream,
    parse,
    render,
)
from server.protocol.request import (
    AnswerHead,
    TextEvent,
    TextPrompt,
    TextRequest,
    TokenLogProb,
    TokenPrompt,
    Usage,
)

HEAD = AnswerHead(id="cmpl-1", created=7, model="m")
USAGE = Usage(prompt_tokens=1, completion_tokens=2)


def asked(**values: Any) -> TextRequest:
    return parse(json.dumps({"model": "m", "prompt": "hi", **values}).encode())


def param_refused(**values: Any) -> str | None:
    with pytest.raises(InvalidRequestError) as caught:
        asked(**values)
    return caught.value.param


def whole(request: TextRequest, event: TextEvent) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(render(HEAD, request, [event], USAGE))
    return answer


def events(data: bytes) -> list[Any]:
    lines = data.decode().removesuffix("data: [DONE]\n\n").split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


def token(
    text: str | bytes, log_prob: float | None, token_id: int = 0, **more: Any
) -> TokenLogProb:
    content = text.encode() if isinstance(text, str) else text
    return TokenLogProb(content=content, log_prob=log_prob, token_id=token_id, **more)


def test_prompts_are_strings_or_token_ids_one_or_many() -> None:
    assert asked(prompt="a").prompts == [TextPrompt(text="a")]
    assert asked(prompt=["a", "b"]).prompts == [TextPrompt(text="a"), TextPrompt(text="b")]
    assert asked(prompt=[1, 2]).prompts == [TokenPrompt(ids=[1, 2])]
    assert asked(prompt=[[1], [2]]).prompts == [TokenPrompt(ids=[1]), TokenPrompt(ids=[2])]


@pytest.mark.parametrize("prompt", [[], ["a", 1], [1, [1]], [1.5], {}, None, [["a"]]])
def test_other_prompts_are_refused(prompt: Any) -> None:
    assert (param_refused(prompt=prompt) or "").startswith("prompt")


def test_max_tokens_is_16_by_default_and_may_be_0_where_only_the_prompt_is_of_interest() -> None:
    assert asked().limits.max_tokens == DEFAULT_MAX_TOKENS == 16
    assert asked(max_tokens=0, echo=True).limits.max_tokens == 0
    assert param_refused(max_tokens=-1) == "max_tokens"


def test_what_only_completions_know_arrives() -> None:
    request = asked(logprobs=5, echo=True, n=2, best_of=4)
    assert (request.log_probs, request.echo, request.n, request.best_of) == (5, True, 2, 4)
    assert asked(logprobs=0).log_probs == 0
    assert asked().log_probs is None
    assert param_refused(logprobs=21) == "logprobs"
    assert param_refused(logprobs=-1) == "logprobs"
    assert param_refused(best_of=2, stream=True) == "best_of"
    assert param_refused(suffix="x") == "suffix"


def test_answers_have_openais_shape() -> None:
    top = [token("Ho", -0.25, 8), token("He", -0.5, 7), token("Ha", -4.0, 9)]
    log_probs = [
        token("He", -0.5, 7, top=top, offset=0),
        token("llo", float("-inf"), 6, offset=2),
    ]
    event = TextEvent(index=0, text="Hello", log_probs=log_probs, finish_reason="length")
    answer = whole(asked(logprobs=2), event)
    Completion.model_validate(answer, strict=True)
    assert answer["object"] == "text_completion"
    assert answer["usage"]["total_tokens"] == 3
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"], choice["index"]) == ("Hello", "length", 0)
    assert choice["logprobs"] == {
        "tokens": ["He", "llo"],
        "token_logprobs": [-0.5, -9999.0],
        "top_logprobs": [{"Ho": -0.25, "He": -0.5}, {"llo": -9999.0}],
        "text_offset": [0, 2],
    }


def test_the_chosen_token_is_among_its_alternatives_wherever_it_stands() -> None:
    chosen = token("x", -9.0, 3, top=[token("a", -0.5, 1), token("b", -1.0, 2)])
    event = TextEvent(index=0, text="x", log_probs=[chosen], finish_reason="stop")
    (choice,) = whole(asked(logprobs=1), event)["choices"]
    assert choice["logprobs"]["top_logprobs"] == [{"a": -0.5, "x": -9.0}]


def test_an_echoed_prompts_first_token_has_no_log_prob() -> None:
    log_probs = [
        token("Say", None, 1, offset=0),
        token(" it", -1.5, 2, offset=3),
        token("!", -0.5, 3, offset=6),
    ]
    event = TextEvent(index=0, text="Say it!", log_probs=log_probs, finish_reason="length")
    (choice,) = whole(asked(logprobs=0, echo=True), event)["choices"]
    assert choice["logprobs"] == {
        "tokens": ["Say", " it", "!"],
        "token_logprobs": [None, -1.5, -0.5],
        "top_logprobs": [None, {" it": -1.5}, {"!": -0.5}],
        "text_offset": [0, 3, 6],
    }


def test_tokens_that_are_parts_of_characters_are_named_by_their_bytes() -> None:
    parts = [token("é", -1), token(b" \xf0\x9f", -1), token(b"\x98\x80", -1), token("!", -1)]
    event = TextEvent(index=0, text="é 😀!", log_probs=parts, finish_reason="length")
    log_probs = whole(asked(logprobs=0), event)["choices"][0]["logprobs"]
    assert log_probs["tokens"] == ["é", "bytes: \\xf0\\x9f", "bytes:\\x98\\x80", "!"]


def test_the_prompts_log_probs_and_token_ids_are_told_in_vllms_shape() -> None:
    event = TextEvent(
        index=0,
        text="x",
        prompt_log_probs=[token("a", None, 1), token("b", -1.0, 2)],
        prompt_token_ids=[1, 2],
        token_ids=[3],
        finish_reason="stop",
    )
    (choice,) = whole(asked(prompt_logprobs=0, return_token_ids=True), event)["choices"]
    entry = {"logprob": -1.0, "rank": None, "decoded_token": "b"}
    assert choice["prompt_logprobs"] == [None, {"2": entry}]
    assert (choice["prompt_token_ids"], choice["token_ids"]) == ([1, 2], [3])


def test_streamed_chunks_have_openais_shape() -> None:
    stream = CompletionStream(HEAD, asked(stream=True))
    data = stream.start(0) + stream.delta(TextEvent(index=0, text="a", finish_reason="stop"), None)
    chunks = events(data + stream.end(USAGE))
    fingerprint = chunks[0]["system_fingerprint"]
    head = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 7,
        "model": "m",
        "system_fingerprint": fingerprint,
    }
    choice = {"index": 0, "logprobs": None}
    last = {"text": "", "finish_reason": "stop", "stop_reason": None}
    assert chunks == [
        {**head, "choices": [{**choice, "text": "a", "finish_reason": None}]},
        {**head, "choices": [{**choice, **last}]},
    ]


def test_a_streams_log_probs_come_with_their_text_and_its_usage_where_it_was_asked_for() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    request = asked(stream=True, logprobs=0, stream_options=options)
    stream = CompletionStream(HEAD, request)
    stream.start(0)
    told = [token("ab", -1, offset=0)], [token("c", -2, offset=2)]
    data = stream.delta(TextEvent(index=0, text="ab", log_probs=told[0]), USAGE)
    last = TextEvent(index=0, text="c", log_probs=told[1], finish_reason="length")
    chunks = events(data + stream.delta(last, USAGE) + stream.end(USAGE))
    offsets = [c["choices"][0]["logprobs"] for c in chunks[:2]]
    assert [one["text_offset"] for one in offsets] == [[0], [2]]
    assert [chunk["usage"]["total_tokens"] for chunk in chunks] == [3, 3, 3, 3]
    assert chunks[2]["choices"][0]["finish_reason"] == "length"
    assert chunks[3]["choices"] == []


def test_a_failure_after_the_beginning_is_an_error_event_and_the_streams_end() -> None:
    data = CompletionStream(HEAD, asked(stream=True)).fail(NotReadyError("gone"))
    assert events(data)[0]["error"]["type"] == "server_error"
    assert data.endswith(b"data: [DONE]\n\n")


def test_ids_are_completions() -> None:
    assert ID_PREFIX == "cmpl-"
