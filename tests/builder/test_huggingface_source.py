"""A folder is opened whole or refused with the file that is wrong and the way out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from model_files import FIELDS, write_safetensors

from builder.dtypes import Array
from builder.errors import CorruptFileError, ModelError, UnknownFamilyError
from builder.source import open_source
from text.tokenizer_folder import TokenizerFolder


def shard(folder: Path, weights: dict[str, Array]) -> Path:
    """Divide the folder's weights over two files with an index; returns the index."""
    names = list(weights)
    (folder / "model.safetensors").unlink()
    places = {}
    for number, part in enumerate((names[:5], names[5:]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        write_safetensors(folder / file, {name: weights[name] for name in part})
        places |= dict.fromkeys(part, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def test_shards_give_the_tensors_of_one_file(
    tiny_folder: Path, tiny_weights: dict[str, Array]
) -> None:
    shard(tiny_folder, tiny_weights)
    tensors = open_source(tiny_folder).tensors
    assert set(tensors) == set(tiny_weights)
    for name, array in tiny_weights.items():
        assert np.concatenate(list(tensors[name].blocks())).tobytes() == array.tobytes()


def test_a_missing_shard_is_named(tiny_folder: Path, tiny_weights: dict[str, Array]) -> None:
    shard(tiny_folder, tiny_weights)
    (tiny_folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"a shard that isn't there.*model-00002-of-00002"):
        open_source(tiny_folder)


def test_an_index_that_points_nowhere_is_refused(
    tiny_folder: Path, tiny_weights: dict[str, Array]
) -> None:
    index = shard(tiny_folder, tiny_weights)
    places = json.loads(index.read_text())
    places["weight_map"]["model.extra"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(places))
    with pytest.raises(ModelError, match=r"the tensor model\.extra in model-00001"):
        open_source(tiny_folder)
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(ModelError, match="isn't there"):
        open_source(tiny_folder)
    index.write_text("{}")
    with pytest.raises(ModelError, match="weight_map"):
        open_source(tiny_folder)


def test_a_truncated_file_is_named(tiny_folder: Path) -> None:
    file = tiny_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CorruptFileError, match=r"model\.safetensors is truncated"):
        open_source(tiny_folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_refused_with_the_reason_and_the_way_out(tiny_folder: Path, name: str) -> None:
    (tiny_folder / "model.safetensors").rename(tiny_folder / name)
    for path in (tiny_folder, tiny_folder / name):
        with pytest.raises(ModelError, match=f"can run code.*{name}.*save_pretrained"):
            open_source(path)


def test_broken_json_is_named(tiny_folder: Path) -> None:
    (tiny_folder / "config.json").write_text('{"architectures": [')
    with pytest.raises(ModelError, match=r"config\.json is not valid JSON"):
        open_source(tiny_folder)
    (tiny_folder / "config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"config\.json is not a JSON object"):
        open_source(tiny_folder)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "has no weights"),
        ("tokenizer.json", "no tokenizer.json; save one there"),
    ],
)
def test_a_missing_file_is_named(tiny_folder: Path, file: str, said: str) -> None:
    (tiny_folder / file).unlink()
    with pytest.raises(ModelError, match=said):
        open_source(tiny_folder)


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for name in ("absent", "notes.txt"):
        with pytest.raises(ModelError, match=r"give a Hugging Face folder or a \.gguf file"):
            open_source(tmp_path / name)


def test_a_generation_config_is_made_from_the_config_where_there_is_none(
    tiny_folder: Path,
) -> None:
    assert json.loads(open_source(tiny_folder).files["generation_config.json"]()) == {
        "eos_token_id": 2
    }
    (tiny_folder / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    content = open_source(tiny_folder).files["generation_config.json"]()
    assert content == b'{"eos_token_id": [2, 5]}'


@pytest.mark.parametrize("files", [True, False])
def test_all_chat_templates_come_along_and_are_chosen_as_transformers_chooses(
    tiny_folder: Path, tiny_tokenizer: Path, tmp_path: Path, files: bool
) -> None:
    transformers = pytest.importorskip("transformers")
    config = json.loads((tiny_tokenizer / "tokenizer_config.json").read_text())
    texts = {name: name + ":{{ tools | length if tools }}" for name in ("default", "tool_use", "é")}
    if files:
        (tiny_folder / "chat_template.jinja").write_text(texts["default"])
        (tiny_folder / "additional_chat_templates").mkdir()
        for name in ("tool_use", "é"):
            path = tiny_folder / "additional_chat_templates" / f"{name}.jinja"
            path.write_text(texts[name], encoding="utf-8")
    else:
        config["chat_template"] = [{"name": n, "template": text} for n, text in texts.items()]
    (tiny_folder / "tokenizer_config.json").write_text(json.dumps(config))
    out = tmp_path / "out"
    out.mkdir()
    for name, read in open_source(tiny_folder).files.items():
        (out / name).write_bytes(read())
    folder, messages = TokenizerFolder(out), [{"role": "user", "content": "hi"}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    for path in (tiny_folder, out):
        theirs = transformers.PreTrainedTokenizerFast.from_pretrained(path)
        for tools in ([], [tool]):
            text = theirs.apply_chat_template(messages, tools=tools or None, tokenize=False)
            assert folder.chat_template().render(messages, tools=tools) == text
        text = theirs.apply_chat_template(messages, chat_template="é", tools=[tool], tokenize=False)
        assert folder.chat_template("é").render(messages, tools=[tool]) == text == "é:1"


def test_an_architecture_without_an_engine_is_told_before_its_weights(tiny_folder: Path) -> None:
    fields = {**FIELDS, "architectures": ["GptOssForCausalLM"]}
    quantized = {**fields, "quantization_config": {"quant_method": "mxfp4"}}
    for content in (fields, quantized):
        (tiny_folder / "config.json").write_text(json.dumps(content))
        with pytest.raises(UnknownFamilyError, match=r"GptOssForCausalLM; .*--target llmapi"):
            open_source(tiny_folder)
