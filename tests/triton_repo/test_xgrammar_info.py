from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import byte_level, sentencepiece_like
from tiny_engine import byte_level_tokenizer, make_engine, sentencepiece_tokenizer, write_tokenizer
from tokenizers import AddedToken, Tokenizer

from builder.errors import LimitError
from triton_repo import layout, xgrammar_info
from triton_repo.lint import lint
from triton_repo.models.pbtxt import from_text
from triton_repo.settings.options import RepositoryOptions

MAKERS = (byte_level, sentencepiece_like, byte_level_tokenizer, sentencepiece_tokenizer)


@pytest.mark.parametrize("make", MAKERS)
def test_it_is_what_upstreams_script_makes_with_transformers(make: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = make()
    write(tmp_path, tokenizer)
    found = xgrammar_info.info(tmp_path, tokenizer.get_vocab_size())
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    by_id = sorted(theirs.get_vocab().items(), key=lambda pair: pair[1])
    assert found["encoded_vocab"] == [token for token, _ in by_id]
    assert json.loads(found["tokenizer_str"]) == json.loads(theirs.backend_tokenizer.to_str())
    assert found["stop_token_ids"][0] == theirs.eos_token_id


@pytest.mark.parametrize("make", MAKERS)
def test_xgrammar_makes_the_same_of_it_as_of_the_tokenizer(make: Any, tmp_path: Path) -> None:
    xgrammar = pytest.importorskip("xgrammar")
    transformers = pytest.importorskip("transformers")
    tokenizer = make()
    write(tmp_path, tokenizer)
    found = xgrammar_info.info(tmp_path, tokenizer.get_vocab_size())
    metadata = xgrammar.TokenizerInfo._detect_metadata_from_hf(found["tokenizer_str"])
    ours = xgrammar.TokenizerInfo(
        found["encoded_vocab"],
        vocab_type=metadata["vocab_type"],
        stop_token_ids=found["stop_token_ids"],
        add_prefix_space=metadata["add_prefix_space"],
    )
    theirs = xgrammar.TokenizerInfo.from_huggingface(
        transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path),
        stop_token_ids=found["stop_token_ids"],
    )
    assert ours.vocab_type == theirs.vocab_type
    assert ours.decoded_vocab == theirs.decoded_vocab
    assert ours.stop_token_ids == theirs.stop_token_ids


def write(folder: Path, tokenizer: Tokenizer) -> None:
    write_tokenizer(folder, tokenizer)
    # as transformers wants it
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))


def test_a_token_stands_at_its_id_where_ids_have_holes(tmp_path: Path) -> None:
    content = json.loads(byte_level_tokenizer().to_str())
    content["model"]["vocab"]["after a hole"] = 400
    write(tmp_path, Tokenizer.from_str(json.dumps(content)))
    vocab = xgrammar_info.info(tmp_path, 500)["encoded_vocab"]
    assert vocab[400] == "after a hole"
    assert vocab[399] == ""
    assert len(vocab) == 401


def test_tokens_that_the_engine_has_not_are_left_out(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([AddedToken("<image>", special=False)])
    write(tmp_path, tokenizer)
    size = tokenizer.get_vocab_size() - 1
    assert len(xgrammar_info.info(tmp_path, size)["encoded_vocab"]) == size


def test_every_end_of_sequence_may_end_an_answer(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    write(tmp_path, tokenizer)
    ends = [tokenizer.token_to_id("</s>"), tokenizer.token_to_id("<|end|>")]
    assert xgrammar_info.info(tmp_path, 500)["stop_token_ids"] == ends


def backend(repository: Path) -> tuple[str, str]:
    text = (repository / "tensorrt_llm" / "config.pbtxt").read_text()
    found = from_text(text).parameters
    return (
        found["guided_decoding_backend"].string_value,
        found["xgrammar_tokenizer_info_path"].string_value,
    )


def test_a_repository_has_it_and_names_it(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "engine", files=("rank0.engine",))
    layout.write_repository(engine, tmp_path / "repo")
    name, path = backend(tmp_path / "repo")
    assert name == "xgrammar"
    written = json.loads((tmp_path / "repo" / path).read_text())
    assert written == xgrammar_info.info(engine, 320)


def test_none_leaves_it_out(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "engine", files=("rank0.engine",))
    options = RepositoryOptions(guided_decoding_backend="none")
    layout.write_repository(engine, tmp_path / "repo", options=options)
    assert backend(tmp_path / "repo") == ("", "")
    assert not list((tmp_path / "repo").rglob("xgrammar*"))


def test_a_tokenizer_without_an_end_leaves_it_out_unless_it_was_asked_for(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "engine", files=("rank0.engine",))
    for name in ("generation_config.json", "tokenizer_config.json"):
        (engine / name).unlink()
        (engine / name).write_text("{}")
    layout.write_repository(engine, tmp_path / "repo")
    assert backend(tmp_path / "repo") == ("", "")
    assert lint(tmp_path / "repo", files=False) == ()
    options = RepositoryOptions(guided_decoding_backend="xgrammar")
    with pytest.raises(LimitError, match="names no end of sequence"):
        layout.write_repository(engine, tmp_path / "other", options=options)
