"""A tokenizer folder as what text is tokenized with for an evaluation, without transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from builder.source import open_source
from server.errors import UnusableTokenizerError
from text.errors import MessagesError, UnusableFolderError
from text.tokenizer_folder import TokenizerFolder


class FolderTokenizer:
    """The tokenizer and chat template of a folder, a `quantize.calibration.TextTokenizer`.

    Raises UnusableTokenizerError when the folder can't be used.
    """

    def __init__(self, folder: Path) -> None:
        try:
            read = TokenizerFolder(folder)
            self._template = read.chat_template()
        except UnusableFolderError as error:
            raise UnusableTokenizerError(error.what, found=error.found, do=error.do) from error
        self.tokenizer = read.tokenizer
        tokens = read.special_tokens
        bos, eos = (self._id_of(tokens.get(name)) for name in ("bos_token", "eos_token"))
        # what a tokenizer that puts a BOS before a text puts before an empty one
        self.bos_id = bos if bos in self.tokenizer.encode("").ids[:1] else None
        self.eos_id = eos

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token → id."""
        found: dict[str, int] = self.tokenizer.get_vocab(with_added_tokens=True)
        return found

    def encode(self, text: str) -> list[int]:
        """Token ids, with nothing put before or after."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """A conversation in the model's chat template; None if it has none that takes it."""
        for attempt in (messages, _without_system(messages)):
            try:
                return self._template.render(attempt, add_generation_prompt=False)
            except MessagesError:
                continue
        return None

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self.tokenizer.token_to_id(token)


def open_tokenizer(path: Path) -> FolderTokenizer:
    """The tokenizer of a model folder, a checkpoint or a .gguf file. Raises as its parts do."""
    if path.is_dir():
        return FolderTokenizer(path)
    with TemporaryDirectory(prefix="trtbuild-") as folder:
        for name, read in open_source(path).files.items():
            (Path(folder) / name).write_bytes(read())
        return FolderTokenizer(Path(folder))


def _without_system(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The system's message put before the first question, for templates that know no such role."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
