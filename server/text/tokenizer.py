"""The model's tokenizer, from the folder that travels with it: no transformers, no remote code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from server.errors import UnusableTokenizerError
from server.text.detokenizer import Detokenizer, TokenTable


class TextTokenizer:
    """tokenizer.json with the end ids that the model's own files name.

    `eos_ids` are the ids that end an answer: those of generation_config.json first, then
    tokenizer_config.json's eos_token, each once. `special_tokens` maps bos_token, eos_token and
    the like to their text; no token stands for more than `max_token_chars`. Raises
    UnusableTokenizerError when the folder can't be used.
    """

    def __init__(self, folder: Path, *, offload_chars: int) -> None:
        self._tokenizer = _load(folder)
        self._offload_chars = offload_chars
        self.config = read_json(folder / "tokenizer_config.json")
        self.special_tokens = _special_tokens(self.config)
        self.eos_ids = self._eos_ids(read_json(folder / "generation_config.json"))
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = len(vocabulary)
        self.max_token_chars = max(map(len, vocabulary), default=0)
        self._table = TokenTable(self._tokenizer)

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`; a long text is encoded in a thread, others' streams go on."""
        if len(text) <= self._offload_chars:
            return self._encode(text, add_special_tokens)
        return await asyncio.to_thread(self._encode, text, add_special_tokens)

    def detokenizer(self, *, skip_special_tokens: bool, after: Sequence[int] = ()) -> Detokenizer:
        """A fresh detokenizer for one answer, which goes on from the tokens in `after`."""
        return self._table.detokenizer(skip_special_tokens=skip_special_tokens, after=after)

    def token_bytes(self, token: int) -> bytes:
        """What one token adds to a text, special tokens shown, possibly part of a character."""
        return self._table.token_bytes(token)

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        # The library lets go of the interpreter's lock only for batches.
        (encoding,) = self._tokenizer.encode_batch_fast(
            [text], add_special_tokens=add_special_tokens
        )
        ids: list[int] = encoding.ids
        return ids

    def _eos_ids(self, generation_config: dict[str, Any]) -> tuple[int, ...]:
        named = generation_config.get("eos_token_id")
        ids = [named] if isinstance(named, int) else list(named or [])
        token = self.special_tokens.get("eos_token")
        if token is not None:
            ids.append(self._tokenizer.token_to_id(token))
        return tuple(dict.fromkeys(i for i in ids if i is not None))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, {} where there is none.

    Raises UnusableTokenizerError when the file isn't a JSON object.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableTokenizerError(f"{path} can't be read", found=str(error)) from error
    if not isinstance(content, dict):
        raise UnusableTokenizerError(f"{path} is not a JSON object")
    return content


def _load(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.exists():
        raise UnusableTokenizerError(
            f"{folder} has no tokenizer.json", do="make one with a fast tokenizer's save_pretrained"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise UnusableTokenizerError(f"{path} can't be read", found=str(error)) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """bos_token and the like; each is a string or an object with `content`."""
    tokens = {}
    for name, value in config.items():
        if name.endswith("_token"):
            content = value.get("content") if isinstance(value, dict) else value
            if isinstance(content, str):
                tokens[name] = content
    return tokens
