from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import EOS, IM_END, byte_level, sentencepiece_like, write_folder

from server.answer import Answer
from server.backend.base import Tokens
from server.protocol.request import Limits, TextEvent
from server.text.tokenizer import TextTokenizer

RAW = byte_level()
LIMIT = 1000


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = write_folder(tmp_path_factory.mktemp("answer"), RAW)
    return TextTokenizer(folder, offload_chars=1000)


def ids(text: str) -> list[int]:
    encoded: list[int] = RAW.encode(text, add_special_tokens=False).ids
    return encoded


def run(
    tokenizer: TextTokenizer,
    tokens: list[int],
    *,
    max_tokens: int = LIMIT,
    group: int = 1,
    log_probs: bool = False,
    **limits: Any,
) -> tuple[list[TextEvent], Answer]:
    answer = Answer(0, tokenizer, Limits(**limits), max_tokens=max_tokens, skip_special_tokens=True)
    events = []
    for start in range(0, len(tokens), group):
        part = tokens[start : start + group]
        values = [-float(start + n) for n in range(len(part))] if log_probs else []
        events.append(answer.feed(Tokens(ids=part, log_probs=values)))
        if answer.ended:
            return events, answer
    events.append(answer.feed(Tokens(ids=(), final=True)))
    return events, answer


def text_of(events: list[TextEvent]) -> str:
    return "".join(event.text for event in events)


@pytest.mark.parametrize("end", [EOS, IM_END])
def test_an_end_token_ends_the_answer_unseen_and_counted(
    tokenizer: TextTokenizer, end: str
) -> None:
    events, answer = run(tokenizer, [*ids("one fox"), RAW.token_to_id(end), *ids("more")])
    assert text_of(events) == "one fox"
    assert events[-1].finish_reason == "stop"
    assert events[-1].stopped_by is None
    assert answer.completion_tokens == len(ids("one fox")) + 1


def test_an_engine_that_drops_the_end_token_stopped_too(tokenizer: TextTokenizer) -> None:
    events, _ = run(tokenizer, ids("one"))
    assert events[-1].finish_reason == "stop"


def test_the_limit_is_a_length(tokenizer: TextTokenizer) -> None:
    tokens = ids("one two three")
    events, answer = run(tokenizer, tokens, max_tokens=len(tokens))
    assert (text_of(events), events[-1].finish_reason) == ("one two three", "length")
    assert answer.completion_tokens == len(tokens)


def test_an_end_token_that_is_the_last_allowed_one_is_a_stop(tokenizer: TextTokenizer) -> None:
    tokens = [*ids("one"), RAW.token_to_id(EOS)]
    events, _ = run(tokenizer, tokens, max_tokens=len(tokens))
    assert events[-1].finish_reason == "stop"


def test_ignored_end_tokens_are_neither_ends_nor_shown(tokenizer: TextTokenizer) -> None:
    tokens = [*ids("a"), RAW.token_to_id(EOS), *ids("b")]
    events, _ = run(tokenizer, tokens, ignore_eos=True, max_tokens=len(tokens))
    assert (text_of(events), events[-1].finish_reason) == ("ab", "length")


def test_a_stop_id_ends_and_is_told(tokenizer: TextTokenizer) -> None:
    stop = ids("b")[0]
    events, _ = run(tokenizer, ids("abc"), stop_token_ids=(stop,))
    assert (text_of(events), events[-1].stopped_by) == ("a", stop)
    events, _ = run(tokenizer, ids("abc"), stop_token_ids=(stop,), include_stop=True)
    assert text_of(events) == "ab"


def test_a_character_cut_by_the_limit_is_flushed(tokenizer: TextTokenizer) -> None:
    tokens = ids("\U0010ffff")
    assert len(tokens) > 1
    events, _ = run(tokenizer, tokens[:1], max_tokens=1)
    assert text_of(events) == "\N{REPLACEMENT CHARACTER}"


def test_text_held_for_a_stop_string_is_given_at_the_end(tokenizer: TextTokenizer) -> None:
    events, _ = run(tokenizer, ids("wait ST"), stop=("STOP",))
    assert text_of(events) == "wait ST"
    assert events[-1].stopped_by is None


def test_log_probs_wait_for_their_text_and_end_with_it(tokenizer: TextTokenizer) -> None:
    events, _ = run(tokenizer, ids("aSTb"), stop=("STOP",), log_probs=True)
    counted = [(event.text, len(event.log_probs)) for event in events]
    assert counted[:3] == [("a", 1), ("", 0), ("", 0)]
    events, _ = run(tokenizer, ids("aSTOPb"), stop=("STOP",), log_probs=True)
    assert [token.text for event in events for token in event.log_probs] == ["a"]


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(), group=st.integers(1, 7), stops=st.lists(st.sampled_from("abcdo "), max_size=2)
)
def test_grouping_of_tokens_never_changes_the_answer(
    tokenizer: TextTokenizer, data: st.DataObject, group: int, stops: list[str]
) -> None:
    tokens = data.draw(st.lists(st.integers(0, RAW.get_vocab_size() - 1), max_size=30))
    values: dict[str, Any] = {"stop": tuple(stops), "max_tokens": 20, "log_probs": True}
    one, answer = run(tokenizer, tokens, **values)
    many, grouped = run(tokenizer, tokens, group=group, **values)
    assert text_of(one) == text_of(many)
    assert one[-1].finish_reason == many[-1].finish_reason
    assert answer.completion_tokens == grouped.completion_tokens
    flat = [[t.content for e in events for t in e.log_probs] for events in (one, many)]
    assert flat[0] == flat[1]


def test_a_sentencepiece_answer_keeps_the_space_after_its_prompt(tmp_path: Path) -> None:
    raw = sentencepiece_like()
    tokenizer = TextTokenizer(write_folder(tmp_path, raw), offload_chars=1000)
    whole = raw.encode("The quick brown fox").ids
    prompt = raw.encode("The quick").ids
    for after, text in ((prompt, " brown fox"), ([], "brown fox")):
        answer = Answer(
            0, tokenizer, Limits(), max_tokens=99, skip_special_tokens=True, after=after
        )
        tokens = Tokens(ids=whole[len(prompt) :], final=True)
        assert answer.feed(tokens).text == text
