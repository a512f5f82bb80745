from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import EOS, IM_END, byte_level, ids, sentencepiece_like, write_folder
from text_answers import answer_of, prepared
from tokenizers import AddedToken

from server.answer import Answer, joined
from server.backend.base import PromptLogProb, Tokens
from server.protocol.request import ChatPrompt, TextEvent, TextRequest, TokenLogProb, ToolUse
from server.text.parser import ParserChoice, parsing_for
from server.text.tokenizer import TextTokenizer

RAW = byte_level()
THINK, END_THINK = "<think>", "</think>"
RAW.add_special_tokens([AddedToken(THINK, special=True), AddedToken(END_THINK, special=True)])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = write_folder(tmp_path_factory.mktemp("answer"), RAW)
    return TextTokenizer(folder, offload_chars=1000)


def run(
    tokenizer: TextTokenizer,
    tokens: Sequence[int],
    *,
    max_tokens: int = 1000,
    group: int = 1,
    answer: Answer | None = None,
    **values: Any,
) -> tuple[list[TextEvent], Answer]:
    answer = answer or answer_of(tokenizer, prompt=prepared(max_tokens=max_tokens), **values)
    events = []
    for start in range(0, len(tokens), group):
        part = tokens[start : start + group]
        told = [-float(start + n) for n in range(len(part))] if "log_probs" in values else []
        events.append(answer.feed([Tokens(ids=part, log_probs=told)]))
        if answer.ended:
            break
    if not answer.ended:
        events.append(answer.feed([], last=True))
    return [event for event in events if event], answer


def text_of(events: Sequence[TextEvent]) -> str:
    return "".join(event.text for event in events)


def shown(tokens: Sequence[TokenLogProb]) -> list[str]:
    return [token.text for token in tokens]


def test_of_several_answers_tokens_that_were_written_for_one_make_it_no_likelier(
    tokenizer: TextTokenizer,
) -> None:
    answer = answer_of(tokenizer, prompt=prepared(max_tokens=100), log_probs=0)
    answer.feed([Tokens(ids(RAW, "one fox"), log_probs=[-1.0] * len(ids(RAW, "one fox")))])
    answer.feed([Tokens(ids(RAW, " more"))])
    assert answer.mean_log_prob == -1


@pytest.mark.parametrize("end", [EOS, IM_END])
def test_an_end_token_ends_the_answer_unseen_and_counted(
    tokenizer: TextTokenizer, end: str
) -> None:
    events, answer = run(tokenizer, [*ids(RAW, "one fox"), RAW.token_to_id(end), *ids(RAW, "more")])
    assert text_of(events) == "one fox"
    assert events[-1].finish_reason == "stop"
    assert events[-1].stopped_by is None
    assert answer.completion_tokens == len(ids(RAW, "one fox")) + 1


def test_an_engine_that_drops_the_end_token_stopped_too(tokenizer: TextTokenizer) -> None:
    events, _ = run(tokenizer, ids(RAW, "one"))
    assert events[-1].finish_reason == "stop"


def test_the_limit_is_a_length(tokenizer: TextTokenizer) -> None:
    tokens = ids(RAW, "one two three")
    events, answer = run(tokenizer, tokens, max_tokens=len(tokens))
    assert (text_of(events), events[-1].finish_reason) == ("one two three", "length")
    assert answer.completion_tokens == len(tokens)


def test_an_end_token_that_is_the_last_allowed_one_is_a_stop(tokenizer: TextTokenizer) -> None:
    tokens = [*ids(RAW, "one"), RAW.token_to_id(EOS)]
    events, _ = run(tokenizer, tokens, max_tokens=len(tokens))
    assert events[-1].finish_reason == "stop"


def test_ignored_end_tokens_are_neither_ends_nor_shown(tokenizer: TextTokenizer) -> None:
    tokens = [*ids(RAW, "a"), RAW.token_to_id(EOS), *ids(RAW, "b")]
    events, _ = run(tokenizer, tokens, ignore_eos=True, max_tokens=len(tokens))
    assert (text_of(events), events[-1].finish_reason) == ("ab", "length")


def test_a_stop_id_ends_and_is_told(tokenizer: TextTokenizer) -> None:
    stop = ids(RAW, "b")[0]
    events, _ = run(tokenizer, ids(RAW, "abc"), stop_token_ids=(stop,))
    assert (text_of(events), events[-1].stopped_by) == ("a", stop)
    events, _ = run(tokenizer, ids(RAW, "abc"), stop_token_ids=(stop,), include_stop=True)
    assert text_of(events) == "ab"


def test_nothing_ends_an_answer_before_its_min_tokens(tokenizer: TextTokenizer) -> None:
    tokens = [*ids(RAW, "ab"), RAW.token_to_id(EOS), *ids(RAW, "ab")]
    assert len(tokens) == 5
    events, _ = run(tokenizer, tokens, min_tokens=3, stop=("b",))
    assert (text_of(events), events[-1].stopped_by) == ("aba", "b")


def test_a_character_cut_by_the_limit_is_flushed(tokenizer: TextTokenizer) -> None:
    tokens = ids(RAW, "\U0010ffff")
    assert len(tokens) > 1
    events, _ = run(tokenizer, tokens[:1], max_tokens=1)
    assert text_of(events) == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("group", [1, 9])
def test_tokens_after_the_stop_string_in_one_message_arent_counted(
    tokenizer: TextTokenizer, group: int
) -> None:
    events, answer = run(tokenizer, ids(RAW, "one STOP two"), stop=("STOP",), group=group)
    assert (text_of(events), events[-1].stopped_by) == ("one ", "STOP")
    assert answer.completion_tokens == len(ids(RAW, "one STOP"))


def test_log_probs_wait_for_their_text_and_end_with_it(tokenizer: TextTokenizer) -> None:
    events, _ = run(tokenizer, ids(RAW, "aSTb"), stop=("STOP",), log_probs=0)
    assert (events[0].text, shown(events[0].log_probs)) == ("a", ["a"])
    assert (events[1].text, shown(events[1].log_probs)) == ("STb", ["S", "T", "b"])
    events, _ = run(tokenizer, ids(RAW, "aSTOPb"), stop=("STOP",), log_probs=0)
    assert [token.text for event in events for token in event.log_probs] == ["a"]


def test_alternatives_are_told_with_their_bytes(tokenizer: TextTokenizer) -> None:
    answer = answer_of(tokenizer, log_probs=2)
    a, b = ids(RAW, "a")[0], ids(RAW, "b")[0]
    event = answer.feed([Tokens(ids=[a], log_probs=[-0.2], top=[[(a, -0.2), (b, -1.9)]])])
    assert event
    (token,) = event.log_probs
    assert (token.text, token.log_prob, token.token_id) == ("a", -0.2, a)
    assert [(top.content, top.log_prob) for top in token.top] == [(b"a", -0.2), (b"b", -1.9)]


def test_an_echoed_prompt_comes_first_with_its_log_probs(tokenizer: TextTokenizer) -> None:
    prompt = ids(RAW, "fox")
    answer = answer_of(tokenizer, prompt=prepared(prompt, echo="fox"), echo=True, log_probs=1)
    told = [
        PromptLogProb(log_prob=-1.0 - n, top=[(prompt[0], -0.1)]) for n in range(len(prompt) - 1)
    ]
    first = answer.feed([Tokens(ids=ids(RAW, "a"), log_probs=[-0.5])], prompt=told)
    assert first
    assert first.text == "foxa"
    assert shown(first.log_probs) == [*(RAW.decode([i]) for i in prompt), "a"]
    values = [token.log_prob for token in first.log_probs]
    assert values == [None, *(one.log_prob for one in told), -0.5]
    assert [len(token.top) for token in first.log_probs] == [0, *(1 for _ in told), 0]
    second = answer.feed([Tokens(ids=ids(RAW, "b"), log_probs=[-0.5])])
    assert second
    assert (second.text, shown(second.log_probs)) == ("b", ["b"])
    told_of = [*first.log_probs, *second.log_probs]
    assert ["foxab".index(token.text) for token in told_of] == [token.offset for token in told_of]


def test_where_only_the_prompt_is_wanted_the_engines_token_is_not_told(
    tokenizer: TextTokenizer,
) -> None:
    prompt = prepared(ids(RAW, "fox"), max_tokens=0, echo="fox")
    answer = answer_of(tokenizer, prompt=prompt, echo=True)
    event = answer.feed([Tokens(ids=ids(RAW, "a"))], last=True)
    assert event
    assert (event.text, event.finish_reason, answer.completion_tokens) == ("fox", "length", 0)


def test_ids_are_told_of_prompt_and_answer_where_asked_for(tokenizer: TextTokenizer) -> None:
    tokens = [*ids(RAW, "a b"), RAW.token_to_id(EOS)]
    answer = answer_of(tokenizer, prompt=prepared([5, 6]), return_token_ids=True)
    events, _ = run(tokenizer, tokens, answer=answer)
    assert [i for event in events for i in event.token_ids] == tokens
    assert [list(event.prompt_token_ids) for event in events] == [[5, 6]] + [[]] * (len(events) - 1)


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(), group=st.integers(2, 7), stops=st.lists(st.sampled_from("abcdo "), max_size=2)
)
def test_grouping_of_tokens_never_changes_the_answer(
    tokenizer: TextTokenizer, data: st.DataObject, group: int, stops: list[str]
) -> None:
    tokens = data.draw(st.lists(st.integers(0, RAW.get_vocab_size() - 1), max_size=30))
    for more in ({}, {"log_probs": 0, "return_token_ids": True}):
        values: dict[str, Any] = {"stop": tuple(stops), "max_tokens": 20, **more}
        one, answer = run(tokenizer, tokens, **values)
        many, grouped = run(tokenizer, tokens, group=group, **values)
        assert joined(one) == joined(many)
        assert answer.completion_tokens == grouped.completion_tokens


def test_a_sentencepiece_answer_keeps_the_space_after_its_prompt(tmp_path: Path) -> None:
    raw = sentencepiece_like()
    tokenizer = TextTokenizer(write_folder(tmp_path, raw), offload_chars=1000)
    whole = raw.encode("The quick brown fox").ids
    prompt = raw.encode("The quick").ids
    for continues, text in ((True, " brown fox"), (False, "brown fox")):
        answer = answer_of(tokenizer, prompt=prepared(prompt, continues=continues))
        event = answer.feed([Tokens(ids=whole[len(prompt) :])], last=True)
        assert event
        assert event.text == text


def reasoning_answer(tokenizer: TextTokenizer, **values: Any) -> Answer:
    request = TextRequest(
        model="m",
        prompts=[ChatPrompt(messages=[{"role": "user", "content": "x"}])],
        prompt_param="messages",
    )
    parsers = ParserChoice.of("", tokenizer, reasoning_parser="deepseek_r1")
    parsing = parsing_for(parsers, request)
    assert parsing
    return answer_of(tokenizer, parsing=parsing, **values)


@pytest.mark.parametrize("group", [1, 4])
def test_reasoning_is_told_apart_and_its_tokens_are_counted(
    tokenizer: TextTokenizer, group: int
) -> None:
    thought = [RAW.token_to_id(THINK), *ids(RAW, "quick fox"), RAW.token_to_id(END_THINK)]
    answer = reasoning_answer(tokenizer)
    events, _ = run(tokenizer, [*thought, *ids(RAW, "dog")], group=group, answer=answer)
    whole = joined(events)
    assert (whole.reasoning, whole.text, whole.finish_reason) == ("quick fox", "dog", "stop")
    assert answer.reasoning_tokens == len(ids(RAW, "quick fox"))
    assert answer.completion_tokens == len(thought) + len(ids(RAW, "dog"))


def test_reasoning_is_left_out_where_it_isnt_wanted(tokenizer: TextTokenizer) -> None:
    thought = [RAW.token_to_id(THINK), *ids(RAW, "quick fox"), RAW.token_to_id(END_THINK)]
    answer = reasoning_answer(tokenizer, include_reasoning=False)
    events, _ = run(tokenizer, [*thought, *ids(RAW, "dog")], answer=answer)
    assert (joined(events).reasoning, joined(events).text) == ("", "dog")
    assert answer.reasoning_tokens == len(ids(RAW, "quick fox"))


def test_a_stop_tokens_text_has_its_log_probability(tokenizer: TextTokenizer) -> None:
    (stop,) = ids(RAW, "!")
    values = {"log_probs": 0, "stop_token_ids": (stop,), "include_stop": True}
    events, _ = run(tokenizer, [*ids(RAW, "dog"), stop], **values)
    whole = joined(events)
    assert whole.text == "dog!"
    assert b"".join(token.content for token in whole.log_probs) == b"dog!"


@pytest.mark.parametrize("group", [1, 3, 50])
def test_tokens_that_are_no_content_say_so_and_none_is_lost(
    tokenizer: TextTokenizer, group: int
) -> None:
    text = 'A <b> c <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call> then <d'
    prompt = ChatPrompt(messages=[{"role": "user", "content": "x"}])
    use = ToolUse(tools=[{"type": "function", "function": {"name": "f"}}])
    request = TextRequest(model="m", prompts=[prompt], prompt_param="messages", tools=use)
    parsing = parsing_for(ParserChoice.of(None, (), tool_parser="hermes"), request)
    answer = answer_of(tokenizer, parsing=parsing, log_probs=0)
    events, _ = run(tokenizer, ids(RAW, text), group=group, answer=answer, log_probs=0)
    whole = joined(events)
    told = [token.content.decode() for token in whole.log_probs]
    assert "".join(told) == text
    said = "".join(token.content.decode() for token in whole.log_probs if token.said)
    assert whole.text.replace(" ", "") == said.replace(" ", "")
    assert whole.finish_reason == "tool_calls"
