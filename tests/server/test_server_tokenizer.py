from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from small_tokenizers import BOS, EOS, IM_END, byte_level, write_folder

from server.errors import UnusableTokenizerError
from server.text.tokenizer import TextTokenizer

TOKENIZER = byte_level()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path, TOKENIZER)


def load(folder: Path, offload_chars: int = 1000) -> TextTokenizer:
    return TextTokenizer(folder, offload_chars=offload_chars)


async def test_special_tokens_are_added_only_when_asked(folder: Path) -> None:
    tokenizer = load(folder)
    bos = TOKENIZER.token_to_id(BOS)
    plain = await tokenizer.encode("fox", add_special_tokens=False)
    assert await tokenizer.encode("fox", add_special_tokens=True) == [bos, *plain]
    assert plain == TOKENIZER.encode("fox", add_special_tokens=False).ids


async def test_special_tokens_in_rendered_text_are_single_ids(folder: Path) -> None:
    ids = await load(folder).encode(f"{BOS}a{IM_END}", add_special_tokens=False)
    assert ids[0] == TOKENIZER.token_to_id(BOS)
    assert ids[-1] == TOKENIZER.token_to_id(IM_END)


@pytest.mark.parametrize("named", [lambda eos: eos, lambda eos: [eos], lambda eos: [eos, 7]])
def test_all_end_ids_are_known_each_once_the_models_own_first(folder: Path, named: object) -> None:
    eos, im_end = TOKENIZER.token_to_id(EOS), TOKENIZER.token_to_id(IM_END)
    value = named(eos)  # type: ignore[operator]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    expected = [eos, *([7] if value == [eos, 7] else []), im_end]
    assert list(load(folder).eos_ids) == expected


def test_without_a_generation_config_the_tokenizers_end_token_counts(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    assert load(folder).eos_ids == (TOKENIZER.token_to_id(IM_END),)


def test_a_folder_that_cant_be_used_says_why(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UnusableTokenizerError, match="not a JSON object"):
        load(folder)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(UnusableTokenizerError, match=r"tokenizer_config\.json can't be read"):
        load(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UnusableTokenizerError, match=r"tokenizer\.json can't be read"):
        load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UnusableTokenizerError, match=r"no tokenizer\.json"):
        load(folder)


async def test_a_long_prompt_leaves_the_event_loop_free(folder: Path) -> None:
    tokenizer = load(folder)
    text = "The quick brown fox jumps over. " * 4000
    start = time.perf_counter()
    expected = await tokenizer.encode(text[:900], add_special_tokens=False)
    encoding = asyncio.create_task(tokenizer.encode(text, add_special_tokens=False))
    turns = 0
    while not encoding.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 5, f"the loop turned {turns} times in {time.perf_counter() - start:.2f} s"
    assert (await encoding)[: len(expected) - 5] == expected[:-5]
