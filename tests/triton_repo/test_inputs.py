"""Promise: every input of `tensorrt_llm` is read, or said to have no effect, or refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from builder.errors import RequestError
from triton_repo.contract import contract
from triton_repo.executor.request import BeamParams, Retention
from triton_repo.runtime.inputs import Accepts, Asked, read_request
from triton_repo.runtime.inputs_names import READ, REFUSED, WITHOUT_EFFECT
from triton_repo.runtime.inputs_row import MOST_WORDS, Row, rows

VOCAB = 50
ACCEPTS = Accepts(
    vocab_size=VOCAB, gather_context_logits=True, gather_generation_logits=True, guides=True
)


def tensors(**changes: Any) -> dict[str, np.ndarray]:
    """A request of three tokens; None leaves an input out."""
    given = {
        "input_ids": np.array([[5, 6, 7]], np.int32),
        "input_lengths": np.array([3], np.int32),
        "request_output_len": np.array([4], np.int32),
        **changes,
    }
    return {name: np.asarray(value) for name, value in given.items() if value is not None}


def read(accepts: Accepts = ACCEPTS, **changes: Any) -> Asked:
    return read_request(Row(tensors(**changes)), accepts)


def test_the_tables_hold_every_input_of_the_contract_once() -> None:
    named = [tensor.name for tensor in contract("tensorrt_llm").inputs]
    assert sorted(named) == sorted([*READ, *WITHOUT_EFFECT, *REFUSED])
    assert all([*WITHOUT_EFFECT.values(), *REFUSED.values()])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_the_engine_cannot_do_is_refused_by_name_and_zeros_ask_for_nothing(name: str) -> None:
    with pytest.raises(RequestError, match=name) as refused:
        read(**{name: [[1, 1]]})
    assert refused.value.param == name
    assert read(**{name: [[0, 0]]}) == read(**{name: np.zeros((1, 0))}) == read()


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_what_has_no_effect_has_none(name: str) -> None:
    assert read(**{name: [3]}) == read()


def test_an_input_that_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match="colour is not an input"):
        read(colour=[1])


def test_every_value_lands_in_its_field() -> None:
    bias = np.linspace(-1, 1, VOCAB, dtype=np.float32)
    asked = read(
        end_id=[2],
        stop_words_list=[[[7, 8, 9], [2, 3, -1]]],
        bad_words_list=[[[4, 0], [1, -1]]],
        embedding_bias=bias[None],
        temperature=[0.5],
        runtime_top_k=[3],
        runtime_top_p=[0.9],
        runtime_top_p_min=[0.2],
        runtime_top_p_decay=[0.7],
        runtime_top_p_reset_ids=[6],
        repetition_penalty=[1.5],
        presence_penalty=[0.25],
        frequency_penalty=[-0.25],
        min_tokens=[2],
        seed=np.array([2**64 - 1], np.uint64),
        num_return_sequences=[4],
        draft_input_ids=[[1, 2]],
        draft_logits=np.zeros((1, 2, VOCAB)),
        draft_acceptance_threshold=[0.5],
        return_log_probs=[True],
        return_context_logits=[True],
        return_generation_logits=[True],
        return_num_input_tokens=[True],
        return_num_output_tokens=[True],
        return_perf_metrics=[True],
        exclude_input_in_output=[True],
        streaming=[True],
    )
    request, sampling = asked.request, asked.request.sampling
    assert request.input_ids == [5, 6, 7]
    assert (request.max_tokens, request.end_id, request.num_return_sequences) == (4, 2, 4)
    assert request.stop_words == ((7, 8), (9,))
    assert request.bad_words == ((4,),)
    np.testing.assert_array_equal(request.embedding_bias, bias)
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.5, 3, 0.9)
    assert (sampling.top_p_min, sampling.top_p_decay, sampling.top_p_reset_id) == (0.2, 0.7, 6)
    assert sampling.repetition_penalty == 1.5
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.25, -0.25)
    assert (sampling.min_tokens, sampling.seed) == (2, 2**64 - 1)
    assert request.draft_ids == (1, 2)
    assert request.draft_logits is not None
    assert request.draft_logits.shape == (2, VOCAB)
    assert request.draft_acceptance_threshold == 0.5
    assert all((request.log_probs, request.context_logits, request.generation_logits))
    assert all((asked.num_input_tokens, asked.num_output_tokens, asked.perf_metrics))
    assert all((asked.exclude_input, asked.streaming))


def test_beams_and_their_settings_are_read() -> None:
    asked = read(
        beam_width=[3],
        len_penalty=[0.5],
        early_stopping=[False],
        beam_search_diversity_rate=[0.25],
    )
    expected = BeamParams(width=3, length_penalty=0.5, early_stopping=0, diversity_rate=0.25)
    assert asked.request.beams == expected
    assert read(beam_width=[1], len_penalty=[0.5]).request.beams is None


def test_one_beam_asked_for_is_one_and_unset_is_all() -> None:
    assert read(beam_width=[3], num_return_sequences=[1]).request.answer_count == 1
    assert read(beam_width=[3]).request.answer_count == 3
    assert read().request.answer_count == 1


def test_retention_is_read_sorted_and_for_ever_is_minus_one() -> None:
    asked = read(
        retention_token_range_starts=[[64, 0]],
        retention_token_range_ends=[[-1, 32]],
        retention_token_range_priorities=[[10, 90]],
        retention_token_range_durations_ms=[[500, -1]],
        retention_decode_priority=[[20]],
        retention_decode_duration_ms=[[70]],
    )
    assert asked.request.retention == Retention(
        ranges=((0, 32, 90, None), (64, None, 10, 500)), decode_priority=20, decode_duration_ms=70
    )
    assert read(retention_decode_priority=[[20]]).request.retention == Retention(decode_priority=20)


def test_a_guide_is_read_as_text() -> None:
    kind, text = np.array([[b"regex"]], object), np.array([["[a-z]é".encode()]], object)
    assert read(guided_decoding_guide_type=kind, guided_decoding_guide=text).guide == (
        "regex",
        "[a-z]é",
    )
    assert read(guided_decoding_guide_type=np.array([[b""]], object)).guide is None


def test_an_adapter_is_read() -> None:
    weights, config = np.ones((1, 2, 6), np.float16), np.ones((1, 2, 3), np.int32)
    adapter = read(lora_task_id=[7], lora_weights=weights, lora_config=config).adapter
    assert adapter is not None
    assert adapter[0] == 7
    np.testing.assert_array_equal(adapter[1], weights[0])
    np.testing.assert_array_equal(adapter[2], config[0])
    assert read(lora_task_id=[7]).adapter == (7, None, None)


WRONG = [
    ("input_ids", None),
    ("input_ids", np.zeros((1, 0), np.int32)),
    ("input_lengths", None),
    ("input_lengths", [0]),
    ("input_lengths", [4]),
    ("input_lengths", [-(2**31)]),
    ("request_output_len", None),
    ("end_id", [1, 2]),
    ("temperature", [np.nan]),
    ("temperature", [np.inf]),
    ("temperature", [0.0]),
    ("runtime_top_k", [-1]),
    ("runtime_top_p", [1.5]),
    ("runtime_top_p_min", [-0.1]),
    ("runtime_top_p_decay", [0.0]),
    ("runtime_top_p_reset_ids", [-2]),
    ("repetition_penalty", [0.0]),
    ("presence_penalty", [np.nan]),
    ("frequency_penalty", [np.inf]),
    ("min_tokens", [-1]),
    ("beam_width", [0]),
    ("beam_width", [5000]),
    ("len_penalty", [-1.0]),
    ("beam_search_diversity_rate", [np.nan]),
    ("stop_words_list", [[[1, 2], [2, 1]]]),
    ("stop_words_list", [[[1, 2], [5, -1]]]),
    ("stop_words_list", [[[1, 2], [1, 1]]]),
    ("stop_words_list", [[[1, 2], [-1, 2]]]),
    ("stop_words_list", [[[1, 2], [-2, -1]]]),
    ("stop_words_list", [[1, 2]]),
    ("stop_words_list", [[[VOCAB], [1]]]),
    ("bad_words_list", [[[-1], [1]]]),
    ("bad_words_list", [[[1] * (MOST_WORDS + 1), [*range(1, MOST_WORDS + 2)]]]),
    ("embedding_bias", np.zeros((1, VOCAB - 1))),
    ("embedding_bias", np.full((1, VOCAB), np.nan)),
    ("embedding_bias", np.full((1, VOCAB), np.inf)),
    ("draft_logits", np.zeros((1, 2, VOCAB))),
    ("draft_acceptance_threshold", [0.5]),
    ("retention_token_range_ends", [[4]]),
    ("retention_decode_priority", [[101]]),
    ("retention_decode_duration_ms", [[-2]]),
    ("guided_decoding_guide_type", np.array([[b"\xff"]], object)),
    ("guided_decoding_guide", np.array([[b"[a-z]"]], object)),
    ("lora_weights", np.ones((1, 2, 6), np.float16)),
    ("lora_config", np.ones((1, 2, 3), np.int32)),
]


@pytest.mark.parametrize(
    ("name", "value"), WRONG, ids=[f"{n}-{i}" for i, (n, _) in enumerate(WRONG)]
)
def test_what_is_malformed_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=name):
        read(**{name: value})


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("draft_logits", {"draft_input_ids": [[1, 2]], "draft_logits": np.zeros((1, 1, VOCAB))}),
        ("streaming", {"beam_width": [2], "streaming": [True]}),
        (
            "guided_decoding_guide_type",
            {"beam_width": [2], "guided_decoding_guide_type": np.array([[b"json"]], object)},
        ),
        (
            "retention_token_range_priorities",
            {"retention_token_range_starts": [[0]], "retention_token_range_ends": [[4]]},
        ),
        (
            "retention_token_range_starts",
            {
                "retention_token_range_starts": [[0, 30]],
                "retention_token_range_ends": [[64, 80]],
                "retention_token_range_priorities": [[1, 2]],
            },
        ),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=name):
        read(**changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("return_context_logits", [True]),
        ("return_generation_logits", [True]),
        ("guided_decoding_guide_type", np.array([[b"json"]], object)),
        ("streaming", [True]),
        ("num_return_sequences", [2]),
    ],
)
def test_what_the_engine_or_model_was_not_made_for_says_what_to_do(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=name) as refused:
        read(Accepts(vocab_size=VOCAB, decoupled=False), **{name: value})
    assert refused.value.param == name


def test_a_batch_is_one_request_for_each_of_its_rows() -> None:
    batch = tensors(
        input_ids=[[5, 6, 7], [8, 9, 0]],
        input_lengths=[3, 2],
        request_output_len=[4, 5],
        seed=[1, 2],
    )
    found = [read_request(row, ACCEPTS).request for row in rows(batch)]
    assert [request.input_ids for request in found] == [[5, 6, 7], [8, 9]]
    assert [request.max_tokens for request in found] == [4, 5]
    assert [request.sampling.seed for request in found] == [1, 2]


def test_tensors_that_disagree_about_the_batch_are_refused_by_name() -> None:
    with pytest.raises(RequestError, match="seed must have a row for each of the 1 rows"):
        rows(tensors(seed=[1, 2]))
