"""Streamed text against the whole text, which the tokenizers library decodes at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

import pytest
from small_tokenizers import byte_level, sentencepiece_like, tiktoken_like, write_folder
from text_answers import answer_of
from tokenizers import Tokenizer

from server.backend.base import Tokens
from server.text.tokenizer import TextTokenizer

SEQUENCES = 5000
CHARACTERS = "aé日😀ñ\U0010ffff"


@pytest.mark.parametrize("build", [byte_level, sentencepiece_like, tiktoken_like])
def test_streamed_text_is_the_whole_cut_at_its_first_stop_and_no_byte_leaves_early(
    build: Callable[[], Tokenizer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = build()
    folder = write_folder(tmp_path_factory.mktemp(build.__name__), raw)
    tokenizer = TextTokenizer(folder, offload_chars=1000)
    dice = random.Random(build.__name__)
    draw = _pieces(raw)
    stopped = 0
    for _ in range(-(-SEQUENCES // 3)):
        ids = [token for _ in range(dice.randint(1, 20)) for token in dice.choice(draw)]
        whole = raw.decode(ids)
        stops = _stops(dice, whole)
        include = dice.random() < 0.2
        expected, matched = _cut(whole, stops, include)
        answer = answer_of(tokenizer, stop=stops, include_stop=include, ignore_eos=True)
        shown, read = "", 0
        told_late = dice.random() < 0.5
        for message in _messages(dice, ids):
            last = not told_late and read + len(message) == len(ids)
            event = answer.feed([Tokens(ids=message)], last=last)
            shown += event.text if event else ""
            read += len(message)
            if answer.ended:
                break
            known = _common(raw.decode(ids[:read]), whole)
            assert len(shown) <= len(known) - _could_begin(known, stops), (ids, stops, read)
        if not answer.ended:
            event = answer.feed([], last=True)
            shown += event.text if event else ""
        assert (shown, event.stopped_by if event else None) == (expected, matched), (ids, stops)
        assert event
        assert event.finish_reason == "stop"
        stopped += matched is not None
    assert SEQUENCES / 10 < stopped < SEQUENCES / 3.5, "both ends are met"


def _pieces(raw: Tokenizer) -> list[list[int]]:
    """Runs of ids to draw from. The library decodes a run of SentencePiece's byte tokens that
    isn't UTF-8 otherwise than one by one, so those come as whole characters."""
    singles = [[i] for i in range(raw.get_vocab_size()) if "<0x" not in (raw.id_to_token(i) or "")]
    whole = [raw.encode(character, add_special_tokens=False).ids for character in CHARACTERS]
    return singles + whole * (len(singles) // 20)


def _stops(dice: random.Random, whole: str) -> tuple[str, ...]:
    """Mostly parts of the text; also what begins like one of them and goes on otherwise."""
    stops = []
    for _ in range(dice.randint(0, 4)):
        at, length = dice.randrange(len(whole) + 1), dice.randint(1, 6)
        part = whole[at : at + length] + dice.choice(["", "", "#", "e"])
        stops.append(part or "x")
    return tuple(stops)


def _cut(text: str, stops: Sequence[str], include: bool) -> tuple[str, str | None]:
    """The text as a model that is halted at the first complete stop string leaves it."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text.endswith(stop, 0, end)]
        if found:
            longest = max(found, key=len)
            return text[: end if include else end - len(longest)], longest
    return text, None


def _could_begin(text: str, stops: Sequence[str]) -> int:
    """How much of the text's end may yet become a stop string."""
    beginnings = (stop[:n] for stop in stops for n in range(1, len(stop)))
    return max((len(begin) for begin in beginnings if text.endswith(begin)), default=0)


def _common(one: str, other: str) -> str:
    """What both begin with; a character that isn't complete yet looks otherwise in the whole."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return one[: sum(1 for _ in same)]


def _messages(dice: random.Random, ids: Sequence[int]) -> Iterator[Sequence[int]]:
    at = 0
    while at < len(ids):
        size = dice.choice([0, 1, 1, 1, 2, 3, 7])
        yield ids[at : at + size]
        at += size
