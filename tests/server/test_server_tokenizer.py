from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from small_tokenizers import BOS, IM_END, byte_level, write_folder

from server.errors import UnusableSettingError, UnusableTokenizerError
from server.text.offload import offload
from server.text.tokenizer import TextTokenizer

TOKENIZER = byte_level()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path, TOKENIZER)


def load(folder: Path, offload_chars: int = 1000) -> TextTokenizer:
    return TextTokenizer(folder, offload_chars=offload_chars)


def test_special_tokens_are_added_only_when_asked(folder: Path) -> None:
    tokenizer = load(folder)
    bos = TOKENIZER.token_to_id(BOS)
    plain = tokenizer.encode_here("fox", add_special_tokens=False)
    assert tokenizer.encode_here("fox", add_special_tokens=True) == [bos, *plain]
    assert plain == TOKENIZER.encode("fox", add_special_tokens=False).ids


def test_special_tokens_in_rendered_text_are_single_ids(folder: Path) -> None:
    ids = load(folder).encode_here(f"{BOS}a{IM_END}", add_special_tokens=False)
    assert ids[0] == TOKENIZER.token_to_id(BOS)
    assert ids[-1] == TOKENIZER.token_to_id(IM_END)


def test_a_folder_that_cant_be_used_stops_the_start(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UnusableTokenizerError, match="not a JSON object"):
        load(folder)


async def test_a_long_prompt_leaves_the_event_loop_free(folder: Path) -> None:
    tokenizer = load(folder)
    text = "The quick brown fox jumps over. " * 4000
    start = time.perf_counter()
    expected = tokenizer.encode_here(text[:900], add_special_tokens=False)
    encoding = asyncio.create_task(offload(tokenizer.encode_here, text, add_special_tokens=False))
    turns = 0
    while not encoding.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 5, f"the loop turned {turns} times in {time.perf_counter() - start:.2f} s"
    assert (await encoding)[: len(expected) - 5] == expected[:-5]


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_template_in_place_of_the_models_stops_the_start(
    folder: Path, tmp_path: Path, text: str
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(text)
    with pytest.raises(UnusableSettingError, match=r"template\.jinja' is empty"):
        TextTokenizer(folder, offload_chars=9, chat_template=str(template))
