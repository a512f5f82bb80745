"""Promise: an answer's text is its tokens' own, up to the first of its ends, however they come."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import EOS, byte_level, sentencepiece_like

from text.answer import LENGTH, STOP, AnswerText, Ends
from text.detokenizer import TokenTable

TOKENIZERS = {"byte level": byte_level(), "sentencepiece": sentencepiece_like()}
TABLES = {name: TokenTable(tokenizer) for name, tokenizer in TOKENIZERS.items()}
TEXT = "Grüße 日本 😀 x"


def ids_of(name: str, text: str = TEXT) -> list[int]:
    ids: list[int] = TOKENIZERS[name].encode(text, add_special_tokens=False).ids
    return ids


def answer_of(name: str, ends: Ends, **more: object) -> AnswerText:
    return AnswerText(TABLES[name], ends, skip_special_tokens=True, **more)  # type: ignore[arg-type]


def in_parts(answer: AnswerText, ids: list[int], cuts: list[int]) -> str:
    edges = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    parts = [answer.feed(ids[start:end]) for start, end in pairwise(edges)]
    return "".join(parts) + answer.feed([], last=True)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=50)
@given(cuts=st.lists(st.integers(0, 50), max_size=8))
def test_parts_joined_are_the_whole(name: str, cuts: list[int]) -> None:
    answer = answer_of(name, Ends(max_tokens=100))
    assert in_parts(answer, ids_of(name), cuts) == TEXT
    assert answer.finish == STOP  # its engine ended before the limit


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("stop", ["ße 日", "本", "üß", " x"])
@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 50), max_size=8))
def test_a_stop_string_ends_it_wherever_its_tokens_begin(
    name: str, stop: str, cuts: list[int]
) -> None:
    answer = answer_of(name, Ends(max_tokens=100, stops=("nowhere", "", stop)))
    assert in_parts(answer, ids_of(name), cuts) == TEXT[: TEXT.index(stop)]
    assert answer.finish == STOP


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_end_token_ends_it_and_is_no_part_of_it(name: str) -> None:
    end = TOKENIZERS[name].token_to_id(EOS)
    answer = answer_of(name, Ends(max_tokens=100, end_ids=frozenset({end})))
    assert answer.feed([*ids_of(name), end, *ids_of(name)]) == TEXT
    assert answer.finish == STOP
    assert answer.tokens == len(ids_of(name)) + 1
    assert answer.feed(ids_of(name), last=True) == ""


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_limit_ends_it_by_length(name: str) -> None:
    ids = ids_of(name)
    answer = answer_of(name, Ends(max_tokens=len(ids)))
    assert answer.feed([*ids, *ids]) == TEXT
    assert answer.finish == LENGTH


def test_an_end_at_the_limit_is_an_end() -> None:
    ids = ids_of("byte level")
    end = TOKENIZERS["byte level"].token_to_id(EOS)
    ends = Ends(max_tokens=len(ids) + 1, end_ids=frozenset({end}))
    answer = answer_of("byte level", ends)
    answer.feed([*ids, end])
    assert answer.finish == STOP


def test_a_letter_that_the_limit_cuts_is_shown_as_such() -> None:
    ids = ids_of("sentencepiece", "a日")
    answer = answer_of("sentencepiece", Ends(max_tokens=len(ids) - 1))
    assert answer.feed(ids).rstrip("\N{REPLACEMENT CHARACTER}") == "a"
    assert answer.finish == LENGTH


def test_text_that_only_began_a_stop_string_is_shown_at_the_end() -> None:
    answer = answer_of("byte level", Ends(max_tokens=100, stops=(" x and more",)))
    shown = answer.feed(ids_of("byte level"))
    assert shown == TEXT.removesuffix(" x")
    assert answer.feed([], last=True) == " x"


def test_ends_do_not_count_before_the_least_number_of_tokens() -> None:
    ids = ids_of("byte level", "ab" * 4)
    end = TOKENIZERS["byte level"].token_to_id(EOS)
    ends = Ends(max_tokens=100, stops=("b",), end_ids=frozenset({end}), min_tokens=3)
    assert TOKENIZERS["byte level"].decode(ids[:1]) == "a"
    answer = answer_of("byte level", ends)
    assert answer.feed([end, ids[0], ids[1], *ids]) == "aba"
    assert answer.finish == STOP


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_answer_may_begin_with_its_prompt(name: str) -> None:
    prompt = ids_of(name, "Grüße")
    whole = ids_of(name)
    assert whole[: len(prompt)] == prompt
    new = whole[len(prompt) :]
    answer = answer_of(name, Ends(max_tokens=100), after=prompt, before="Grüße")
    assert answer.feed(new, last=True) == TEXT
    assert answer.tokens == len(new)
