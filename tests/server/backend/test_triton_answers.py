"""Promise: Triton's responses become exactly the tokens and probabilities that they hold."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_triton import answer, empty_final, failure, of_sequence
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from server.backend.base import BeamSearch, GenerateRequest, Tokens
from server.backend.triton import messages
from server.backend.triton.answer import Answer
from server.config import ServedModel
from server.errors import InternalError, OverloadedError

ENGINE = ServedModel(name="m", tokenizer_dir=Path(), max_seq_len=100, tokens_per_block=4)
PROMPT = [3, 1, 2]


def request(**values: Any) -> GenerateRequest:
    defaults = {"model": "m", "request_id": "r", "input_ids": PROMPT, "max_tokens": 99}
    return GenerateRequest(**{**defaults, "end_id": -1, "seed": 0, **values})


def read(
    *responses: Any, model: ServedModel = ENGINE, at_once: bool = False, **asked: Any
) -> list[Tokens]:
    reader, out = Answer(request(**asked), model), list[Tokens]()
    found = [response.SerializeToString() for response in responses]
    for part in [found] if at_once else [[each] for each in found]:
        if error := reader.read(part, out):
            raise error
    return out


def response(final: bool = False, **tensors: Any) -> Any:
    """A response with tensors given as numpy arrays, or as (datatype, array)."""
    made = service_pb2.ModelInferResponse(model_name="m", model_version="1", id="r")
    made.parameters["triton_final_response"].bool_param = final
    types = {"int32": "INT32", "int64": "INT64", "float32": "FP32", "float16": "FP16"}
    for name, value in tensors.items():
        datatype, array = value if isinstance(value, tuple) else (types[value.dtype.name], value)
        made.outputs.add(name=name, datatype=datatype, shape=array.shape)
        made.raw_output_contents.append(array.tobytes())
    return service_pb2.ModelStreamInferResponse(infer_response=made)


def ids_of(found: Sequence[Tokens]) -> list[list[int]]:
    return [list(tokens.ids) for tokens in found]


def test_padding_beyond_sequence_length_is_dropped() -> None:
    assert ids_of(read(answer([4, 5, 0, 0], length=2))) == [[4, 5]]


@pytest.mark.parametrize("at_once", [True, False])
def test_like_messages_give_each_its_own_token_and_log_probability(at_once: bool) -> None:
    tokens = [7, 7, 0, -1, 2**31 - 1, 300, 9]
    sent = [answer([token], log_probs=[-0.25 * n]) for n, token in enumerate(tokens)]
    found = read(*sent, answer([4, 4], log_probs=[-1, -2]), *sent, at_once=at_once, log_probs=True)
    assert ids_of(found) == [[token] for token in tokens] + [[4, 4]] + [[t] for t in tokens]
    values = [list(each.log_probs) for each in found]
    assert values == [[-0.25 * n] for n in range(7)] + [[-1, -2]] + [[-0.25 * n] for n in range(7)]


def test_a_stop_word_ends_a_sequence_though_its_ids_come_one_by_one() -> None:
    def ends(*sent: Any, **asked: Any) -> bool:
        reader = Answer(request(stop_words=((7, 8), (9,)), **asked), ENGINE)
        for one in sent:
            assert reader.read([one.SerializeToString()], []) is None
        return reader.ends

    assert ends(answer([5]), answer([7]), answer([8]))
    assert ends(answer([5, 9]))
    assert not ends(answer([7]), answer([5]), answer([8]))
    assert not ends(answer([8]), answer([7]))
    others = [of_sequence(answer([token]), number) for number, token in [(0, 7), (1, 8), (0, 8)]]
    assert not ends(*others, sequences=2)
    assert ends(*others, of_sequence(answer([9]), 1), sequences=2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_streams_are_read_as_protobuf_reads_them(data: st.DataObject) -> None:
    """Tokens, sequences and finals of messages that differ in anything."""
    numbers = st.integers(-(2**31), 2**31 - 1)
    sent, expected = [], []
    for _ in range(data.draw(st.integers(1, 12))):
        ids = data.draw(st.lists(numbers, min_size=0, max_size=3))
        length = data.draw(st.integers(0, len(ids)))
        sequence = data.draw(st.integers(0, 2))
        made = answer(ids, length=length, log_probs=[-1.0] * len(ids)).infer_response
        made.model_name = data.draw(st.sampled_from(["", "m", "m" * 200]))
        made.model_version = data.draw(st.sampled_from(["", "1"]))
        made.id = data.draw(st.sampled_from(["", "r"]))
        made.parameters["other"].int64_param = data.draw(st.sampled_from([0, -1]))
        made.outputs.add(name="sequence_index", datatype="INT32", shape=[1, 1])
        made.raw_output_contents.append(struct.pack("<i", sequence))
        sent.append(service_pb2.ModelStreamInferResponse(infer_response=made))
        if ids[:length]:
            expected.append((sequence, ids[:length]))
    found = read(*sent, at_once=data.draw(st.booleans()), sequences=3)
    assert [(tokens.sequence, list(tokens.ids)) for tokens in found] == expected


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_bytes_that_are_no_response_are_an_error_of_ours(data: st.DataObject) -> None:
    whole = bytearray(answer([5], log_probs=[-1.0], final=True).SerializeToString())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
        whole[place] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    error = Answer(request(log_probs=True), ENGINE).read([cut], [])
    assert error is None or isinstance(error, InternalError)


def test_what_came_before_an_error_is_kept() -> None:
    out: list[Tokens] = []
    found = [answer([5]), failure("Exceeds maximum queue size")]
    error = Answer(request(), ENGINE).read([each.SerializeToString() for each in found], out)
    assert isinstance(error, OverloadedError)
    assert ids_of(out) == [[5]]


def test_log_probs_that_are_too_few_are_an_error() -> None:
    with pytest.raises(InternalError, match="1 for 2"):
        read(answer([4, 5], log_probs=[-0.5]), log_probs=True)


def test_all_beams_come_in_one_response_the_last_of_them_final() -> None:
    ids = np.array([[[4, 5, 6], [7, 8, -1]]], np.int32)
    found = read(
        response(
            final=True,
            output_ids=ids,
            sequence_length=np.array([[3, 2]], np.int32),
            output_log_probs=np.array([[[-1, -2, -3], [-4, -5, 0]]], np.float32),
        ),
        beams=BeamSearch(width=2),
        log_probs=True,
    )
    assert [(t.sequence, list(t.ids), list(t.log_probs), t.final) for t in found] == [
        (0, [4, 5, 6], [-1, -2, -3], False),
        (1, [7, 8], [-4, -5], True),
    ]


def test_beams_that_have_come_are_the_answers_end_though_their_response_is_not_final() -> None:
    reader = Answer(request(beams=BeamSearch(width=2)), ENGINE)
    assert not reader.ends
    both = response(output_ids=np.array([[[4], [7]]], np.int32))
    assert reader.read([both.SerializeToString()], []) is None
    assert reader.ends
    assert not reader.final


def with_perf(message: Any, last_ns: int) -> Any:
    """As TensorRT-LLM's backend tells of every response, after its other tensors."""
    made = message.infer_response
    counts = ("kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks")
    drafts = ("total_accepted_draft_tokens", "total_draft_tokens")
    times = [f"{name}_time_ns" for name in ("arrival", "first_scheduled", "first_token")]
    values = [
        *((name, "INT32", struct.pack("<i", 2)) for name in counts),
        *((name, "INT64", struct.pack("<q", 2**40)) for name in times),
        ("last_token_time_ns", "INT64", struct.pack("<q", last_ns)),
        ("acceptance_rate", "FP32", struct.pack("<f", 0.0)),
        *((name, "INT32", struct.pack("<i", 0)) for name in drafts),
    ]
    for name, datatype, raw in values:
        made.outputs.add(name=name, datatype=datatype, shape=[1, 1])
        made.raw_output_contents.append(raw)
    return message


@pytest.mark.parametrize("log_probs", [False, True])
def test_figures_that_differ_in_every_response_cost_no_reading_of_it(
    log_probs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cached tokens are known with the first, though the client may leave before the last."""
    whole: list[bytes] = []
    read_whole = Answer._whole

    def noted(self: Answer, message: bytes, out: list[Tokens]) -> None:
        whole.append(message)
        read_whole(self, message, out)

    monkeypatch.setattr(Answer, "_whole", noted)
    sent = [
        with_perf(answer([n], log_probs=[-0.5] if log_probs else (), final=n == 9), 2**41 + n)
        for n in range(10)
    ]
    found = read(*sent, at_once=False, input_ids=list(range(30)), log_probs=log_probs)
    assert ids_of(found) == [[n] for n in range(10)]
    assert len(whole) == 2
    first, last = found[0].perf, found[9].perf
    assert first is not None
    assert last is not None
    assert (first.cached_tokens, last.last_token_ns) == (8, 2**41 + 9)
    assert not any(tokens.perf for tokens in found[1:9])


def test_perf_comes_with_the_final_and_reused_blocks_are_cached_prompt_tokens() -> None:
    def perf(first: int, last: int, blocks: int) -> dict[str, Any]:
        times = {"arrival_time_ns": 5, "first_scheduled_time_ns": 6, "first_token_time_ns": first}
        made = {name: np.array([[value]], np.int64) for name, value in times.items()}
        made["last_token_time_ns"] = np.array([[last]], np.int64)
        return {**made, "kv_cache_reused_blocks": np.array([[blocks]], np.int32)}

    prompt = list(range(30))
    found = read(
        response(**perf(2**40, 2**41, 2)),
        response(**perf(2**40 - 1, 2**41 + 1, 2)),
        empty_final(),
        input_ids=prompt,
    )
    assert len(found) == 1
    told = found[0].perf
    assert told is not None
    assert (told.arrival_ns, told.first_scheduled_ns) == (5, 6)
    assert (told.first_token_ns, told.last_token_ns) == (2**40 - 1, 2**41 + 1)
    assert told.cached_tokens == 8
    whole = read(response(final=True, **perf(1, 2, 9)), input_ids=prompt)[0].perf
    assert whole is not None
    assert whole.cached_tokens == 29, "the last token of a prompt is always computed"


def log_softmax(row: Sequence[float], token: int) -> float:
    """By the definition, in double precision."""
    most = max(row)
    return row[token] - most - math.log(sum(math.exp(value - most) for value in row))


ROWS = [[0.0, 3.0, -1.5, 3.0, 0.5], [9.0, -2.0, 8.0, 0.25, -30.0], [1.0, 1.0, 1.0, 1.0, 1.0]]


def as_bfloat16(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "BF16"])
def test_alternatives_are_the_likeliest_of_the_logits_and_the_chosen_beside_them(
    datatype: str,
) -> None:
    rows = np.array(ROWS[:2], np.float16 if datatype == "FP16" else np.float32)
    stored = as_bfloat16(rows) if datatype == "BF16" else rows
    found = read(
        response(
            output_ids=np.array([[[2, 0]]], np.int32),
            sequence_length=np.array([[2]], np.int32),
            # a stream's rows are [tokens, 1, vocab], a whole answer's [1, tokens, vocab]
            generation_logits=(datatype, stored[None, :, None, :]),
        ),
        top_log_probs=2,
    )
    assert [token for token, _ in found[0].top[0]] == [1, 3]
    assert [token for token, _ in found[0].top[1]] == [0, 2]
    for row, token, own, top in zip(ROWS, [2, 0], found[0].log_probs, found[0].top, strict=False):
        assert own == pytest.approx(log_softmax(row, token), abs=1e-5)
        for likely, value in top:
            assert value == pytest.approx(log_softmax(row, likely), abs=1e-5)


def test_columns_beyond_the_vocabulary_count_for_nothing() -> None:
    model = ServedModel(name="m", tokenizer_dir=Path(), max_seq_len=100, vocab_size=2)
    found = read(
        response(
            output_ids=np.array([[[0]]], np.int32),
            generation_logits=np.array([[[[1.0, 1.0, 99.0]]]], np.float32),
        ),
        model=model,
        top_log_probs=5,
    )
    assert found[0].top[0] == ((0, pytest.approx(math.log(0.5))), (1, pytest.approx(math.log(0.5))))


def test_each_beam_has_its_own_logits() -> None:
    found = read(
        response(
            final=True,
            output_ids=np.array([[[1, 1], [0, -1]]], np.int32),
            sequence_length=np.array([[2, 1]], np.int32),
            generation_logits=np.array([[ROWS[:2], ROWS[1:]]], np.float32),
        ),
        beams=BeamSearch(width=2),
        top_log_probs=1,
    )
    assert [[token for token, _ in top] for top in found[0].top] == [[1], [0]]
    assert [[token for token, _ in top] for top in found[1].top] == [[0]]
    assert found[1].log_probs == [pytest.approx(log_softmax(ROWS[1], 0))]


def test_the_prompts_probabilities_come_once_for_all_its_tokens_but_the_first() -> None:
    context = np.array([ROWS], np.float32)
    first = response(output_ids=np.array([[[4]]], np.int32), context_logits=context)
    found = read(first, first, answer([5], final=True), prompt_log_probs=1)
    assert [bool(tokens.prompt) for tokens in found] == [True, False, False]
    told = found[0].prompt
    assert [each.log_prob for each in told] == [
        pytest.approx(log_softmax(ROWS[0], 1)),
        pytest.approx(log_softmax(ROWS[1], 2)),
    ]
    assert [each.top[0][0] for each in told] == [1, 0]


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"top_log_probs": 1}, answer([4])),
        ({"prompt_log_probs": 0}, answer([4], final=True)),
        (
            {"top_log_probs": 1},
            response(
                output_ids=np.array([[[4, 3]]], np.int32),
                generation_logits=np.array([[ROWS[:1]]], np.float32),
            ),
        ),
        (
            {"top_log_probs": 1},
            response(
                output_ids=np.array([[[9]]], np.int32),
                generation_logits=np.array([[ROWS[:1]]], np.float32),
            ),
        ),
    ],
    ids=["none", "none of the prompt", "too few", "of another vocabulary"],
)
def test_logits_that_are_not_there_are_an_error(asked: dict[str, Any], sent: Any) -> None:
    with pytest.raises(InternalError):
        read(sent, **asked)


def test_readiness_is_read_as_protobuf_wrote_it() -> None:
    for ready in (True, False):
        made = service_pb2.ModelReadyResponse(ready=ready).SerializeToString()
        assert messages.is_ready(made) is ready
