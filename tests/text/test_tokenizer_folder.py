from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_tokenizers import BOS, EOS, IM_END, byte_level, write_folder

from text.errors import UnusableFolderError
from text.tokenizer_folder import TokenizerFolder

TOKENIZER = byte_level()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path, TOKENIZER)


@pytest.mark.parametrize("named", [lambda eos: eos, lambda eos: [eos], lambda eos: [eos, 7]])
def test_all_end_ids_are_known_each_once_the_models_own_first(folder: Path, named: object) -> None:
    eos, im_end = TOKENIZER.token_to_id(EOS), TOKENIZER.token_to_id(IM_END)
    value = named(eos)  # type: ignore[operator]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    expected = [eos, *([7] if value == [eos, 7] else []), im_end]
    assert list(TokenizerFolder(folder).eos_ids) == expected


def test_without_a_generation_config_the_tokenizers_end_token_counts(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    assert TokenizerFolder(folder).eos_ids == (TOKENIZER.token_to_id(IM_END),)


def test_a_folder_that_cant_be_used_says_why(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UnusableFolderError, match="not a JSON object"):
        TokenizerFolder(folder)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(UnusableFolderError, match=r"tokenizer_config\.json can't be read"):
        TokenizerFolder(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UnusableFolderError, match=r"tokenizer\.json can't be read"):
        TokenizerFolder(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UnusableFolderError, match=r"no tokenizer\.json"):
        TokenizerFolder(folder)


def test_the_pad_token_is_the_folders_own_else_an_end(folder: Path) -> None:
    assert TokenizerFolder(folder).pad_id == TOKENIZER.token_to_id(EOS)
    config = {"pad_token": {"content": BOS}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert TokenizerFolder(folder).pad_id == TOKENIZER.token_to_id(BOS)


def test_a_bos_is_known_where_the_tokenizer_puts_one_before_a_text(folder: Path) -> None:
    assert TokenizerFolder(folder).bos_id == TOKENIZER.token_to_id(BOS)
    document = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**document, "post_processor": None}))
    assert TokenizerFolder(folder).bos_id is None


def test_one_chat_template_can_be_chosen_by_its_name_or_as_a_file(folder: Path) -> None:
    file, user = folder / "own.jinja", [{"role": "user", "content": "hi"}]
    file.write_text("from a file")
    named = [{"name": name, "template": name} for name in ("default", "tool_use", "rag")]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    read, tool = TokenizerFolder(folder), {"type": "function", "function": {"name": "f"}}
    assert read.chat_template("rag").render(user, how_to_call="") == "rag"
    assert read.chat_template(str(file)).render(user, tools=[tool], how_to_call="") == "from a file"
    with pytest.raises(UnusableFolderError, match="'mine'; found default, tool_use, rag; name a"):
        read.chat_template("mine")


@pytest.mark.parametrize("templates", [3, [{"name": "default"}], {"default": "x"}])
def test_templates_of_an_unknown_form_are_refused(folder: Path, templates: object) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    with pytest.raises(UnusableFolderError, match="neither a text nor a list"):
        TokenizerFolder(folder).chat_template()
