"""The documents that a model is calibrated or evaluated on, from wherever they are.

Every source is read lazily, in its own order, so that an enormous one costs only what is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from builder.errors import CorruptFileError, MissingToolError, ModelError

Message = Mapping[str, Any]
"""OpenAI's form: `role` and `content`, a string, and what else the source has (`tool_calls`)."""

Part = Literal["calibration", "held_out"]
"""Of the built-in set; no document of one is in the other."""

_LONGEST_CHARACTERS = 1 << 16
"""A longer text is cut into several documents."""

_TEXT_FIELDS = ("text", "article")
_FIELDS = "text, messages, or prompt and completion"


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text, or else a conversation."""

    text: str = ""
    messages: tuple[Message, ...] = ()


def documents(source: str | None = None, *, part: Part = "calibration") -> Iterator[Document]:
    """The documents of `source`; of the built-in set's `part` if that is None.

    A `.jsonl` file has a document on each line: `text`, OpenAI's `messages`, or `prompt` and
    `completion`. Any other file is text, with blank lines between documents. What is no file is a
    data set of Hugging Face, NAME, NAME:SPLIT or NAME:CONFIG:SPLIT, with the fields of a `.jsonl`.

    Raises CorruptFileError for a line that is neither empty nor a document, OSError for a file
    that can't be read, MissingToolError and ModelError for a data set that can't be had.
    """
    if source is None:
        return _json_lines(str(files("quantize") / "texts" / f"{part}.jsonl"))
    if Path(source).suffix == ".jsonl":
        return _json_lines(source)
    if Path(source).exists() or Path(source).suffix == ".txt":
        return _paragraphs(source)
    return _data_set(source)


class _NoDocumentError(ValueError):
    """A row is no document: why, and what it has instead."""

    def __init__(self, what: str, found: object) -> None:
        self.what, self.found = what, found
        super().__init__(what)


def _json_lines(path: str) -> Iterator[Document]:
    """A document for each line that isn't empty."""
    for number, line in _lines(path):
        if line.strip():
            yield from _documents(_object(line, f"{path}, line {number}"), f"{path}, line {number}")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(
            f"{where} is not JSON: {error}", found=_excerpt(line), do="mend or delete the line"
        ) from error
    if not isinstance(row, dict):
        raise CorruptFileError(
            f"{where} is not a JSON object", found=_excerpt(line), do=f"give it {_FIELDS}"
        )
    return row


def _paragraphs(path: str) -> Iterator[Document]:
    """Documents between blank lines; a part of one as soon as it is long."""
    held: list[str] = []
    size = 0
    for _, line in _lines(path):
        if line.strip():
            held.append(line)
            size += len(line)
        if not line.strip() or size > _LONGEST_CHARACTERS:
            yield from _cut("".join(held))
            held, size = [], 0
    yield from _cut("".join(held))


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of UTF-8, with their ends."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise CorruptFileError(
                    f"{path}, line {number} is not UTF-8", found=str(error), do="save it as UTF-8"
                ) from error
            yield number, text


def _data_set(source: str) -> Iterator[Document]:
    """The rows of a data set, streamed."""
    try:
        import datasets
    except ImportError as error:
        raise MissingToolError(
            f"{source} is no file, and to read it as a data set of Hugging Face needs datasets",
            do="pip install datasets, or give a .jsonl or text file",
        ) from error
    name, *rest = source.split(":")
    config, split = (rest[0], rest[1]) if len(rest) == 2 else (None, (rest or ["train"])[0])
    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=True)
        for number, row in enumerate(rows, start=1):
            yield from _documents(row, f"{source}, row {number}")
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{source} is no file, and can't be read as a data set of Hugging Face",
            found=f"{type(error).__name__}: {_excerpt(str(error))}",
            do="give a .jsonl or text file where the hub can't be reached",
        ) from error


def _documents(row: Mapping[str, Any], where: str) -> Iterator[Document]:
    """The document of a line or row, in parts if it is long; none if its text is empty."""
    try:
        if "messages" in row:
            yield Document(messages=_messages(row["messages"]))
        elif "prompt" in row and "completion" in row:
            yield Document(messages=_answered(row["prompt"], row["completion"]))
        else:
            yield from _cut(_text(row))
    except _NoDocumentError as error:
        found = json.dumps(error.found, default=str, ensure_ascii=False)
        raise CorruptFileError(f"{where}: {error.what}", found=_excerpt(found)) from error


def _text(row: Mapping[str, Any]) -> str:
    for field in _TEXT_FIELDS:
        if isinstance(text := row.get(field), str):
            return text
        if field in row:
            raise _NoDocumentError(f"{field} is not a string", text)
    raise _NoDocumentError(f"it has none of {_FIELDS}", list(row))


def _answered(prompt: object, completion: object) -> tuple[Message, ...]:
    """A question and its answer, as strings or as messages."""
    if isinstance(prompt, str) and isinstance(completion, str):
        return ({"role": "user", "content": prompt}, {"role": "assistant", "content": completion})
    return _messages(prompt) + _messages(completion)


def _messages(messages: object) -> tuple[Message, ...]:
    if not isinstance(messages, list) or not messages:
        raise _NoDocumentError("it needs a list of messages", messages)
    return tuple(_message(each) for each in messages)


def _message(message: object) -> Message:
    """One with its content as a string: of parts, their text; of a tool call, nothing."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise _NoDocumentError("a message has no role", message)
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        content = ""
    if isinstance(content, list):
        content = "".join(map(_part, content))
    if not isinstance(content, str):
        raise _NoDocumentError("a message's content is not text", message)
    return {**message, "content": content}


def _part(part: object) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str):
        raise _NoDocumentError("a part of a message is not text", part)
    return text


def _cut(text: str) -> Iterable[Document]:
    """The text without the space around it, in parts if it is long."""
    text = text.strip()
    starts = range(0, len(text), _LONGEST_CHARACTERS)
    return (Document(text=text[start : start + _LONGEST_CHARACTERS]) for start in starts)


def _excerpt(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 80 else f"{text[:79]}…"
