from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from running import client, echo_triton, infer, tensors, text
from tiny_engine import (
    BOS,
    END_OF_TURN,
    EOS,
    VOCAB_SIZE,
    byte_level_tokenizer,
    make_engine,
    sentencepiece_tokenizer,
)
from tokenizers import Tokenizer

from triton_repo.launch.triton import Triton

if TYPE_CHECKING:
    from triton_repo.runtime.preprocessing_tensors import Preprocessor

LIMIT = {"REQUEST_OUTPUT_LEN": np.array([[16]], np.int32)}


@pytest.fixture
def tokenizer() -> Tokenizer:
    return byte_level_tokenizer()


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Makes a Preprocessor."""

    def make(tokenizer: Tokenizer, *, add_special_tokens: bool = True) -> Preprocessor:
        from triton_repo.runtime.preprocessing_tensors import Preprocessor

        engine = make_engine(tmp_path / "engine", tokenizer=tokenizer)
        return Preprocessor(engine, engine, add_special_tokens=add_special_tokens)

    return make


def run(preprocessor: Preprocessor, *prompts: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    limit = {"REQUEST_OUTPUT_LEN": np.full((len(prompts), 1), 16, np.int32)}
    given = {"QUERY": text(*([prompt] for prompt in prompts)), **limit, **inputs}
    (ids,) = preprocessor.encode([preprocessor.prompts(given)])
    return preprocessor.outputs(ids, given)


def words(table: np.ndarray, row: int = 0) -> list[list[int]]:
    """A word table read back as the engine reads it."""
    ids, ends = table[row].tolist()
    starts = [0, *ends]
    return [ids[start:end] for start, end in zip(starts, ends, strict=False) if end > 0]


def test_a_prompt_gets_one_bos_whether_it_brings_its_own_or_not(
    make: Any, tokenizer: Tokenizer
) -> None:
    bos = tokenizer.token_to_id(BOS)
    plain = run(make(tokenizer), "hi")["INPUT_ID"][0].tolist()
    assert plain.count(bos) == 1
    assert plain[0] == bos
    assert run(make(tokenizer), f"{BOS}hi")["INPUT_ID"][0].tolist() == plain


def test_without_special_tokens_the_text_is_all_there_is(make: Any, tokenizer: Tokenizer) -> None:
    preprocessor = make(tokenizer, add_special_tokens=False)
    bos = tokenizer.token_to_id(BOS)
    assert bos not in run(preprocessor, "hi")["INPUT_ID"]
    assert run(preprocessor, f"{BOS}{BOS}hi")["INPUT_ID"][0].tolist().count(bos) == 2


def test_rows_are_padded_and_their_lengths_said(make: Any, tokenizer: Tokenizer) -> None:
    out = run(make(tokenizer), "a", "a longer one", PAD_ID=np.array([[7], [7]], np.int32))
    short, long = out["REQUEST_INPUT_LEN"][:, 0].tolist()
    assert out["INPUT_ID"].shape == (2, long)
    assert (out["INPUT_ID"][0, short:] == 7).all()
    assert out["OUT_PAD_ID"].tolist() == [[7], [7]]


def test_every_end_of_sequence_ends_the_answer(make: Any, tokenizer: Tokenizer) -> None:
    out = run(make(tokenizer), "a", STOP_WORDS_DICT=text(["x", "the"]))
    assert out["OUT_END_ID"].tolist() == [[tokenizer.token_to_id(EOS)]]
    wanted = [tokenizer.encode(w, add_special_tokens=False).ids for w in ("x", "the")]
    assert words(out["STOP_WORDS_IDS"]) == [*wanted, [tokenizer.token_to_id(END_OF_TURN)]]


@pytest.mark.parametrize("end", [-1, 5])
def test_an_end_of_the_clients_own_is_the_only_one(
    make: Any, tokenizer: Tokenizer, end: int
) -> None:
    out = run(make(tokenizer), "a", END_ID=np.array([[end]], np.int32))
    assert out["OUT_END_ID"].tolist() == [[end]]
    assert words(out["STOP_WORDS_IDS"]) == []


def test_word_tables_have_ids_above_and_exclusive_ends_below(
    make: Any, tokenizer: Tokenizer
) -> None:
    out = run(make(tokenizer), "a", "b", BAD_WORDS_DICT=text(["abc", "d"], ["", "e"]))
    a, b, c, d, e = (tokenizer.token_to_id(letter) for letter in "abcde")
    assert out["BAD_WORDS_IDS"].tolist() == [
        [[a, b, c, d], [3, 4, -1, -1]],
        [[e, 0, 0, 0], [1, -1, -1, -1]],
    ]


def test_bias_is_empty_unless_words_are_given(make: Any, tokenizer: Tokenizer) -> None:
    assert run(make(tokenizer), "a")["EMBEDDING_BIAS"].shape == (1, 0)
    out = run(
        make(tokenizer),
        "a",
        EMBEDDING_BIAS_WORDS=text(["a", "bc"]),
        EMBEDDING_BIAS_WEIGHTS=np.array([[1.5, -2]], np.float32),
    )
    a, b, c = (tokenizer.token_to_id(letter) for letter in "abc")
    bias = out["EMBEDDING_BIAS"]
    assert bias.shape == (1, VOCAB_SIZE)
    assert bias[0, [a, b, c]].tolist() == [1.5, -2, -2]
    assert np.count_nonzero(bias) == 3


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"STOP_WORDS_DICT": text(["a"], ["b"])}, "STOP_WORDS_DICT: 2 rows for 1 prompts"),
        ({"EMBEDDING_BIAS_WORDS": text(["a"])}, "EMBEDDING_BIAS_WEIGHTS"),
        ({"BAD_WORDS_DICT": np.array([[b"\xff"]], np.object_)}, "BAD_WORDS_DICT: not UTF-8"),
    ],
)
def test_what_cannot_be_honoured_is_named(
    make: Any, tokenizer: Tokenizer, inputs: dict[str, np.ndarray], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        run(make(tokenizer), "a", **inputs)


def test_an_extra_id_is_given_to_every_token(make: Any, tokenizer: Tokenizer) -> None:
    out = run(make(tokenizer), "abc", PROMPT_TABLE_EXTRA_ID=np.array([[9]], np.uint64))
    assert out["OUT_PROMPT_TABLE_EXTRA_IDS"].tolist() == [[9] * out["INPUT_ID"].shape[1]]


def test_an_empty_prompt_is_refused(make: Any, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="QUERY"):
        run(make(tokenizer, add_special_tokens=False), "")


def test_a_sentencepiece_tokenizer_works_too(make: Any) -> None:
    tokenizer = sentencepiece_tokenizer()
    ids = run(make(tokenizer), "a wé")["INPUT_ID"][0].tolist()
    assert tokenizer.decode(ids) == "a wé"


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with echo_triton(tmp_path_factory.mktemp("preprocessing")) as running:
        yield running


@pytest.mark.triton
def test_on_a_real_triton_tensors_have_their_types_and_shapes(
    triton: Triton, tokenizer: Tokenizer
) -> None:
    result = infer(
        triton,
        "preprocessing",
        {
            "QUERY": text(["the one"], ["two"]),
            "REQUEST_OUTPUT_LEN": np.array([[3], [4]], np.int32),
            "STOP_WORDS_DICT": text(["x"], ["yz"]),
        },
    )
    ids = tokenizer.encode("the one").ids
    length = result.as_numpy("REQUEST_INPUT_LEN")
    assert result.as_numpy("INPUT_ID")[0].tolist() == ids
    assert length.tolist() == [[len(ids)], [len(tokenizer.encode("two").ids)]]
    assert length.dtype == np.int32
    assert result.as_numpy("REQUEST_OUTPUT_LEN").tolist() == [[3], [4]]
    assert words(result.as_numpy("STOP_WORDS_IDS"), 1) == [
        tokenizer.encode("yz", add_special_tokens=False).ids,
        [tokenizer.token_to_id(END_OF_TURN)],
    ]
    assert result.as_numpy("BAD_WORDS_IDS").shape == (2, 2, 0)
    assert result.as_numpy("EMBEDDING_BIAS").shape == (2, 0)
    assert result.as_numpy("DECODER_INPUT_ID").shape == (2, 0)
    assert result.as_numpy("OUT_PROMPT_TABLE_EXTRA_IDS").shape == (2, 0)


def test_half_a_surrogate_pair_is_refused_by_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    from triton_repo.runtime.preprocessing_tensors import Preprocessor

    engine = make_engine(tmp_path / "engine", tokenizer=tokenizer)
    (engine / "chat_template.jinja").write_text("{{ messages[0].content }}")
    preprocessor = Preprocessor(engine, engine, add_special_tokens=True)
    messages = text(['[{"role": "user", "content": "\\ud800"}]'])
    with pytest.raises(ValueError, match="MESSAGES: half of a surrogate pair"):
        preprocessor.prompts({"MESSAGES": messages})


def test_a_word_the_engine_has_no_logit_for_is_refused_by_name(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    from triton_repo.runtime.preprocessing_tensors import Preprocessor

    engine = make_engine(tmp_path / "engine", tokenizer=tokenizer)
    config = json.loads((engine / "config.json").read_text())
    config["pretrained_config"]["vocab_size"] = 3
    (engine / "config.json").write_text(json.dumps(config))
    bias = {
        "EMBEDDING_BIAS_WORDS": text(["a"]),
        "EMBEDDING_BIAS_WEIGHTS": np.array([[1]], np.float32),
    }
    with pytest.raises(ValueError, match="EMBEDDING_BIAS_WORDS: 'a'"):
        run(Preprocessor(engine, engine, add_special_tokens=True), "a", **bias)


@pytest.mark.triton
def test_on_a_real_triton_a_bad_request_fails_alone(triton: Triton) -> None:
    bad = {"QUERY": np.array([[b"\xff\xfe"]], np.object_), **LIMIT}
    image = {"QUERY": text(["a"]), "IMAGE_URL": text(["http://x"]), **LIMIT}
    good = {"QUERY": text(["a"]), **LIMIT}
    requests = [bad, good, image, good] * 4
    said: dict[int, Any] = {}
    done = threading.Semaphore(0)

    def note(i: int, result: Any, error: Any) -> None:
        said[i] = (
            error.message().partition(":")[0] if error else result.as_numpy("OUT_END_ID").shape
        )
        done.release()

    with client(triton) as connection:
        for i, request in enumerate(requests):
            connection.async_infer("preprocessing", tensors(request), functools.partial(note, i))
        assert all(done.acquire(timeout=20) for _ in requests)
    assert [said[i] for i in range(len(requests))] == ["QUERY", (1, 1), "IMAGE_URL", (1, 1)] * 4
