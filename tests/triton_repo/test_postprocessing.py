from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import echo_triton, infer
from tiny_engine import (
    END_OF_TURN,
    byte_level_tokenizer,
    sentencepiece_tokenizer,
    write_tokenizer,
)
from tokenizers import Tokenizer
from tritonclient.utils import InferenceServerException

from triton_repo.launch.triton import Triton
from triton_repo.runtime.token_rows import token_rows
from triton_repo.settings.options import RepositoryOptions

KINDS = [byte_level_tokenizer, sentencepiece_tokenizer]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a Postprocessor; Triton's own module exists only inside Triton."""
    name = "triton_python_backend_utils"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    def make(tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> Any:
        from triton_repo.runtime.postprocessing import Postprocessor

        write_tokenizer(tmp_path, tokenizer)
        return Postprocessor(tmp_path, skip_special_tokens=skip_special_tokens)

    return make


def decode(postprocessor: Any, *rows: list[int]) -> list[str]:
    found: list[str] = postprocessor.decode(rows)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_keeps_its_spaces(make: Any, kind: Callable[[], Tokenizer]) -> None:
    tokenizer = kind()
    ids = tokenizer.encode("what  a two  word", add_special_tokens=False).ids
    postprocessor = make(tokenizer)
    whole = decode(postprocessor, ids)[0]
    parts = [decode(postprocessor, [token])[0] for token in ids]
    assert "".join(parts) == whole
    assert whole.lstrip() == "what  a two  word"


@pytest.mark.parametrize("kind", KINDS)
def test_a_character_of_several_tokens_is_whole_in_one_response(
    make: Any, kind: Callable[[], Tokenizer]
) -> None:
    tokenizer = kind()
    ids = tokenizer.encode("x é漢🙂", add_special_tokens=False).ids
    assert decode(make(tokenizer), ids)[0].strip() == "x é漢🙂"


def test_special_tokens_are_left_out_unless_wanted(make: Any) -> None:
    tokenizer = byte_level_tokenizer()
    ids = [*tokenizer.encode("a", add_special_tokens=False).ids, tokenizer.token_to_id(END_OF_TURN)]
    assert decode(make(tokenizer), ids) == ["a"]
    assert decode(make(tokenizer, skip_special_tokens=False), ids) == [f"a{END_OF_TURN}"]


def test_only_the_valid_part_of_each_row_counts() -> None:
    tokens = np.array([[[5, 6, 7], [8, -1, -1]]], np.int32)
    rows = token_rows(tokens, np.array([[2, 3]], np.int32))
    assert rows == ((1, 2), [[5, 6], [8]], True)
    assert not token_rows(tokens, np.zeros((1, 1), np.int32)).fit


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with echo_triton(
        tmp_path_factory.mktemp("postprocessing"),
        tokenizer=sentencepiece_tokenizer(),
        options=RepositoryOptions(skip_special_tokens=False),
    ) as running:
        yield running


@pytest.mark.triton
def test_on_a_real_triton_beams_become_texts(triton: Triton) -> None:
    tokenizer = sentencepiece_tokenizer()
    ids = tokenizer.encode("two", add_special_tokens=False).ids
    tokens = np.array([[ids, [*ids[:-1], tokenizer.token_to_id(END_OF_TURN)]]], np.int32)
    lengths = np.array([[len(ids), len(ids)]], np.int32)
    inputs = {"TOKENS_BATCH": tokens, "SEQUENCE_LENGTH": lengths}
    found = infer(triton, "postprocessing", inputs).as_numpy("OUTPUT")
    assert found.tolist() == [[b" two", f" tw{END_OF_TURN}".encode()]]


@pytest.mark.triton
def test_on_a_real_triton_a_bad_request_is_an_error(triton: Triton) -> None:
    inputs = {
        "TOKENS_BATCH": np.zeros((1, 2, 3), np.int32),
        "SEQUENCE_LENGTH": np.zeros((1, 1), np.int32),
    }
    with pytest.raises(InferenceServerException, match="SEQUENCE_LENGTH"):
        infer(triton, "postprocessing", inputs)
