"""Promise: text becomes the same full token sequences each time, or an error names the line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.errors import CorruptFileError, LimitError, MissingToolError
from quantize.calibration import TransformersTokenizer, batches, sequences
from quantize.calibration_text import Document, Part, documents

PARTS: tuple[Part, ...] = ("calibration", "held_out")


class Bytes:
    """A tokenizer of bytes. 256 ends a text; 257 begins one where that is asked for."""

    eos_id: int | None = 256

    def __init__(self, *, begins: bool = False, template: bool = False) -> None:
        self.bos_id = 257 if begins else None
        self._template = template

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        if not self._template:
            return None
        return "".join(f"<{each['role']}>{each['content']}</>" for each in messages)


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return str(path)


def text_of(tokens: np.ndarray[Any, Any]) -> str:
    return bytes(token for token in tokens.ravel() if token < 256).decode(errors="replace")


def test_every_form_of_a_line_is_read(tmp_path: Path) -> None:
    source = write(
        tmp_path / "calib.jsonl",
        {"text": "prose"},
        {"messages": [{"role": "user", "content": "hello"}]},
        {"prompt": "one?", "completion": "two."},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "part"}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
    )
    found = list(documents(source))
    assert found[0] == Document(text="prose")
    assert found[1].messages == ({"role": "user", "content": "hello"},)
    assert [each["role"] for each in found[2].messages] == ["user", "assistant"]
    assert [each["content"] for each in found[2].messages] == ["one?", "two."]
    assert found[3].messages[0]["content"] == "part"
    assert found[4].messages[0]["content"] == ""


def test_empty_lines_and_empty_texts_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "calib.jsonl"
    path.write_text('\n  \n{"text": "one"}\r\n\n{"text": "  "}\n{"text": "two"}')
    assert [each.text for each in documents(str(path))] == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"text": "cut', "line 3 is not JSON"),
        ("[" * 100_000, "line 3 is not JSON"),
        ("[1, 2]", "line 3 is not a JSON object"),
        ('{"title": "a"}', 'line 3: it has none of text, messages.*found \\["title"\\]'),
        ('{"text": 7}', "line 3: text is not a string; found 7"),
        ('{"messages": []}', "line 3: it needs a list of messages"),
        ('{"messages": [{"content": "a"}]}', "line 3: a message has no role"),
        ('{"messages": [{"role": "user"}]}', "line 3: a message's content is not text"),
        ('{"prompt": "a", "completion": 1}', "line 3: it needs a list of messages"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "calib.jsonl"
    path.write_text(f'{{"text": "one"}}\n\n{line}\n')
    with pytest.raises(CorruptFileError, match=what) as caught:
        list(documents(str(path)))
    assert len(str(caught.value)) < 400


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "calib.txt"
    path.write_bytes(b"fine\n" + "ä\n".encode("latin-1"))
    with pytest.raises(CorruptFileError, match="line 2 is not UTF-8"):
        list(documents(str(path)))


def test_a_text_file_has_a_document_between_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "calib.txt"
    path.write_text("\ufeffone\nmore of one\n\n\n  \ntwo\n", encoding="utf-8")
    assert [each.text for each in documents(str(path))] == ["one\nmore of one", "two"]


@pytest.mark.parametrize("name", ["calib.txt", "calib.jsonl"])
def test_one_enormous_document_is_cut_into_many_samples(tmp_path: Path, name: str) -> None:
    text = "".join(f"line {number}\n" for number in range(100_000))
    path = tmp_path / name
    path.write_text(text if name == "calib.txt" else json.dumps({"text": text}))
    assert max(len(each.text) for each in documents(str(path))) <= 1 << 16
    found = sequences(str(path), Bytes(), samples=32, max_length=500)
    assert found.shape == (32, 500)
    assert len({row.tobytes() for row in found}) == 32


def test_a_file_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        list(documents("nowhere/calib.jsonl"))


def test_a_data_set_without_the_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingToolError, match="pip install datasets"):
        list(documents("some/name:test"))


def test_sequences_are_full_and_without_padding(tmp_path: Path) -> None:
    source = write(tmp_path / "calib.jsonl", *({"text": "abcdefg"} for _ in range(10)))
    found = sequences(source, Bytes(), samples=4, max_length=16)
    assert found.dtype == np.int64
    stream = ([*b"abcdefg", 256] * 10)[: 4 * 16]
    assert found.ravel().tolist() == stream


def test_every_sequence_begins_as_the_tokenizer_begins_a_text(tmp_path: Path) -> None:
    source = write(tmp_path / "calib.jsonl", *({"text": "abcdefghij"} for _ in range(10)))
    found = sequences(source, Bytes(begins=True), samples=4, max_length=16)
    assert found.shape == (4, 16)
    assert (found[:, 0] == 257).all()
    assert (found[:, 1:] != 257).all()
    stream = ([*b"abcdefghij", 256] * 10)[: 4 * 15]
    assert found[:, 1:].ravel().tolist() == stream


def test_the_same_seed_gives_the_same_sequences() -> None:
    def draw(seed: int) -> list[list[int]]:
        found: list[list[int]] = sequences(None, Bytes(), samples=20, max_length=64, seed=seed)
        return found.tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_conversation_is_rendered_with_the_template_unless_that_is_off(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    source = write(tmp_path / "calib.jsonl", {"messages": messages})

    def show(tokenizer: Bytes, *, chat_template: bool = True) -> str:
        return text_of(
            sequences(source, tokenizer, samples=1, max_length=99, chat_template=chat_template)
        )

    assert show(Bytes(template=True)) == "<user>Why?</><assistant>Because.</>"
    assert show(Bytes(template=True), chat_template=False) == "Why?\n\nBecause."
    assert show(Bytes(template=False)) == "Why?\n\nBecause."


def test_too_few_samples_are_said_with_the_numbers(tmp_path: Path) -> None:
    said: list[str] = []
    source = write(tmp_path / "calib.jsonl", *({"text": "abcdefg"} for _ in range(5)))
    found = sequences(source, Bytes(), samples=64, max_length=16, say=said.append)
    assert found.shape == (2, 16)
    assert said == [f"{source} has only 2 samples of 16 tokens, not 64"]


def test_a_text_shorter_than_a_sample_is_one_shorter_sample(tmp_path: Path) -> None:
    said: list[str] = []
    source = write(tmp_path / "calib.jsonl", {"text": "abcdefg"})
    found = sequences(source, Bytes(), samples=64, max_length=16, say=said.append)
    assert found.tolist() == [[*b"abcdefg", 256]]
    assert said == [f"{source} has only 8 tokens: 1 sample, not 64 of 16"]


def test_enough_samples_are_not_talked_about() -> None:
    said: list[str] = []
    sequences(None, Bytes(), samples=8, max_length=64, say=said.append)
    assert said == []


def test_a_file_without_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calib.jsonl"
    path.write_text('\n{"text": " "}\n{"messages": [{"role": "user", "content": ""}]}\n')
    with pytest.raises(LimitError, match="has no text"):
        sequences(str(path), Bytes(), samples=1, max_length=16)


def test_batches_are_the_sequences_in_their_order() -> None:
    found = sequences(None, Bytes(), samples=10, max_length=32)
    parts = list(batches(found, 4))
    assert [part.shape for part in parts] == [(4, 32), (4, 32), (2, 32)]
    assert np.array_equal(np.concatenate(parts), found)


def rows(part: Part) -> list[dict[str, Any]]:
    path = Path(__file__).parents[2] / "quantize" / "texts" / f"{part}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("part", PARTS)
def test_every_document_of_the_built_in_set_is_whole(part: Part) -> None:
    found = list(documents(part=part))
    assert len(found) == len(rows(part))
    for document in found:
        contents = [message["content"] for message in document.messages] or [document.text]
        assert all(content.strip() for content in contents)
        roles = [message["role"] for message in document.messages if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert 150 <= sum(map(len, contents)) <= 2500


def test_the_built_in_set_is_varied_and_large_enough() -> None:
    calibration, other = rows("calibration"), rows("held_out")
    assert len(calibration) >= 128
    for found, least in ((calibration, 20), (other, 12)):
        assert len({row["language"] for row in found if row["kind"] in ("text", "chat")}) >= least
        assert {row["kind"] for row in found} == {"text", "chat", "code", "maths", "list"}
    code = {row["language"] for row in calibration if row["kind"] == "code"}
    assert code >= {"python", "cpp", "sql", "bash", "json", "yaml"}
    kinds = Counter(row["kind"] for row in calibration)
    assert kinds["chat"] >= 40
    assert kinds["code"] >= 24


def test_the_held_out_part_shares_no_sentence_with_the_calibration() -> None:
    def lines(part: Part) -> set[str]:
        texts = (
            content
            for row in rows(part)
            for content in [row.get("text", ""), *(m["content"] for m in row.get("messages", ()))]
        )
        split = (text.replace(". ", ".\n").splitlines() for text in texts)
        return {line.strip() for each in split for line in each if len(line.strip()) > 40}

    assert len(lines("held_out")) > 100
    assert not lines("calibration") & lines("held_out")


def test_the_held_out_part_is_another_text() -> None:
    held_out = text_of(sequences(None, Bytes(), samples=8, max_length=256, part="held_out"))
    assert held_out != text_of(sequences(None, Bytes(), samples=8, max_length=256))


@pytest.mark.reference
def test_a_transformers_tokenizer_gives_plain_ids_and_its_template(tiny_tokenizer: Path) -> None:
    tokenizer = open_tokenizer(tiny_tokenizer)
    adapted = TransformersTokenizer(tokenizer)
    assert adapted.bos_id is None
    assert adapted.eos_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.decode(adapted.encode("a word, ä")) == "a word, ä"
    rendered = adapted.render([{"role": "user", "content": "hi"}])
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n"
    found = sequences(None, adapted, samples=8, max_length=128)
    assert found.shape == (8, 128)
    assert found.max() < len(tokenizer)


@pytest.mark.reference
def test_a_template_without_a_system_role_gets_its_text_in_the_question(
    tiny_tokenizer: Path,
) -> None:
    tokenizer = open_tokenizer(tiny_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}"
        "{% endif %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    )
    adapted = TransformersTokenizer(tokenizer)
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert adapted.render(messages) == "[user]Be kind.\n\nHi"
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    assert adapted.render(messages) is None
    tokenizer.chat_template = None
    assert adapted.render(messages) is None


@pytest.mark.reference
def test_the_token_that_a_tokenizer_puts_first_is_found(tiny_tokenizer: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = open_tokenizer(tiny_tokenizer)
    first = tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", first)]
    )
    adapted = TransformersTokenizer(tokenizer)
    assert adapted.bos_id == first
    assert first not in adapted.encode("word")


def open_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
