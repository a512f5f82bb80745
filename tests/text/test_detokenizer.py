from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import BOS, EOS, byte_level, metaspace, sentencepiece_like, word_piece
from tokenizers import Tokenizer

from text.detokenizer import BytesDetokenizer, TokenTable, WindowDetokenizer

TOKENIZERS = {
    "byte_level": byte_level(),
    "sentencepiece_like": sentencepiece_like(),
    "metaspace": metaspace(),
    "word_piece": word_piece(),
}
TABLES = {name: TokenTable(tokenizer) for name, tokenizer in TOKENIZERS.items()}
BYTE_TOKEN = re.compile(r"<0x(..)>")
SENTENCES = [
    "Hello   world",
    " leading space",
    "日本語 and 😀👩‍👩‍👧 family",
    "Köln\nnaïve café\t!",
    "x" * 50,
    "\U0010ffff é",
]


def streamed(name: str, ids: list[int], *, skip: bool = True) -> list[str]:
    detokenizer = TABLES[name].detokenizer(skip_special_tokens=skip)
    return [*(detokenizer.feed(token) for token in ids), detokenizer.flush()]


def ids_of(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=40)


def has_broken_bytes(tokenizer: Tokenizer, ids: list[int]) -> bool:
    """Whether a run of byte tokens is not UTF-8: the library then replaces the whole run."""
    special = {i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
    run, runs = bytearray(), []
    for token in [i for i in ids if i not in special] + [-1]:
        match = BYTE_TOKEN.fullmatch(tokenizer.id_to_token(token) or "") if token >= 0 else None
        if match:
            run.append(int(match[1], 16))
        elif run:
            runs.append(bytes(run))
            run = bytearray()
    return any("�" in piece.decode(errors="replace") for piece in runs)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_streamed_text_is_the_whole_text(name: str, sentence: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(sentence).ids
    assert "".join(streamed(name, ids)) == tokenizer.decode(ids)


def test_metaspaces_random_tokens_stream_to_the_whole_text() -> None:
    name = "metaspace"
    tokenizer = TOKENIZERS[name]
    byte_ids = {i for i in range(tokenizer.get_vocab_size()) if "<0x" in tokenizer.id_to_token(i)}
    characters = [tokenizer.encode(c, add_special_tokens=False).ids for c in "日😀éñ\U0010ffff"]
    others = [[i] for i in range(tokenizer.get_vocab_size()) if i not in byte_ids]
    groups = st.lists(st.sampled_from(characters + others), max_size=30)

    @settings(max_examples=150, deadline=None)
    @given(groups=groups, skip=st.booleans())
    def check(groups: list[list[int]], skip: bool) -> None:
        ids = [token for group in groups for token in group]
        if has_broken_bytes(tokenizer, ids):
            return
        whole = tokenizer.decode(ids, skip_special_tokens=skip)
        assert "".join(streamed(name, ids, skip=skip)) == whole

    check()


@settings(max_examples=200, deadline=None)
@given(run=st.binary(max_size=20))
def test_broken_byte_runs_become_replacement_characters_and_nothing_else(run: bytes) -> None:
    tokenizer = TOKENIZERS["sentencepiece_like"]
    a = tokenizer.token_to_id("a")
    ids = [a, *(tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in run), a]
    text = "".join(streamed("sentencepiece_like", ids))
    assert text == f"a{run.decode(errors='replace')}a"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_other_decoders_stream_to_the_whole_text(data: st.DataObject) -> None:
    tokenizer = TOKENIZERS["word_piece"]
    ids = data.draw(ids_of(tokenizer))
    assert "".join(streamed("word_piece", ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece_like"])
def test_an_unfinished_character_is_held_back_then_flushed(name: str) -> None:
    ids = TOKENIZERS[name].encode("a😀", add_special_tokens=False).ids
    pieces = streamed(name, ids[:-1])
    assert all("�" not in piece for piece in pieces[:-1])
    assert pieces[-1] == "�"
    assert "".join(pieces[:-1]).strip() == "a"


def test_special_tokens_are_shown_only_when_asked() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    ids = [tokenizer.token_to_id("a"), tokenizer.token_to_id(BOS)]
    assert "".join(streamed("byte_level", ids)) == "a"
    assert "".join(streamed("byte_level", ids, skip=False)) == f"a{BOS}"


@pytest.mark.parametrize("name", ["byte_level", "word_piece"])
def test_of_the_special_tokens_that_are_skipped_some_may_be_shown(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    bos, a, eos = (tokenizer.token_to_id(token) for token in (BOS, "a", EOS))
    detokenizer = TABLES[name].detokenizer(skip_special_tokens=True, shown=frozenset({eos}))
    text = detokenizer.feed_all([bos, a, eos]) + detokenizer.flush()
    assert text.replace(" ", "") == f"a{EOS}"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_fed_together_are_the_text_that_they_are_one_by_one(name: str) -> None:
    ids = TOKENIZERS[name].encode("日本語 and 😀 family").ids
    for cut in range(len(ids)):
        detokenizer = TABLES[name].detokenizer(skip_special_tokens=True)
        text = detokenizer.feed_all(ids[:cut]) + detokenizer.feed_all(ids[cut:])
        assert text + detokenizer.flush() == "".join(streamed(name, ids))


def test_each_kind_of_decoder_gets_the_cheapest_way_that_is_right() -> None:
    kinds = {n: type(t.detokenizer(skip_special_tokens=True)) for n, t in TABLES.items()}
    assert kinds == {
        "byte_level": BytesDetokenizer,
        "sentencepiece_like": BytesDetokenizer,
        "metaspace": BytesDetokenizer,
        "word_piece": WindowDetokenizer,
    }


def test_token_bytes_may_be_part_of_a_character() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    ids = tokenizer.encode("é日", add_special_tokens=False).ids
    assert b"".join(TABLES["byte_level"].token_bytes(i) for i in ids) == "é日".encode()


def test_ids_beyond_the_vocabulary_are_silent() -> None:
    for name in TOKENIZERS:
        assert "".join(streamed(name, [10**6])) == ""


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_answer_that_goes_on_from_a_prompt_keeps_its_first_space(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    before = tokenizer.encode("The quick brown").ids
    after = tokenizer.encode("The quick brown fox").ids[len(before) :]
    detokenizer = TABLES[name].detokenizer(skip_special_tokens=True, after=before)
    text = "".join(detokenizer.feed(token) for token in after) + detokenizer.flush()
    assert text == " fox"
