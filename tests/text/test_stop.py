from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from text.stop import StopMatcher

texts = st.text(alphabet="abc", max_size=40)
stop_lists = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), max_size=4)


def run(text: str, stops: list[str], cuts: list[int], *, include: bool = False) -> list[str]:
    matcher = StopMatcher(stops, include_stop=include)
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = []
    for start, end in pairwise(edges):
        pieces.append(matcher.feed(text[start:end]))
        if matcher.matched is not None:
            return pieces
    return [*pieces, matcher.flush()]


def cut_where_halted(text: str, stops: list[str], *, include: bool = False) -> str:
    """The text as a model halted at the first complete stop string would leave it."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[:end] if include else text[: end - max(map(len, found))]
    return text


@settings(max_examples=200, deadline=None)
@given(text=texts, stops=stop_lists, cuts=st.lists(st.integers(0, 100)), include=st.booleans())
@example(text="abcd", stops=["abcd", "bc"], cuts=[], include=False)
def test_streamed_text_is_the_whole_text_cut_at_the_first_stop(
    text: str, stops: list[str], cuts: list[int], include: bool
) -> None:
    shown = "".join(run(text, stops, cuts, include=include))
    assert shown == cut_where_halted(text, stops, include=include)


@settings(max_examples=200, deadline=None)
@given(text=texts, stops=stop_lists.filter(bool))
def test_nothing_that_could_begin_a_stop_is_sent_early_and_nothing_else_waits(
    text: str, stops: list[str]
) -> None:
    matcher, seen, shown = StopMatcher(stops), "", ""
    for character in text:
        seen += character
        shown += matcher.feed(character)
        if matcher.matched is not None:
            return
        beginnings = {stop[:n] for stop in stops for n in range(1, len(stop))}
        held = max((len(b) for b in beginnings if seen.endswith(b)), default=0)
        assert shown == seen[: len(seen) - held]


def test_the_matched_stop_is_told_and_nothing_follows_it() -> None:
    matcher = StopMatcher(["END", "ND"])
    assert matcher.feed("the E") == "the "
    assert matcher.feed("ND. More") == ""
    assert matcher.matched == "END"
    assert matcher.feed("more") == ""
    assert matcher.flush() == ""
