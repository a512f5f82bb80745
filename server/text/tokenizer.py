"""The served model's tokenizer for an event loop: long texts are encoded beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from server.errors import UnusableTokenizerError
from text.detokenizer import Detokenizer, TokenTable
from text.errors import UnusableFolderError
from text.tokenizer_folder import TokenizerFolder


class TextTokenizer:
    """The tokenizer of a folder with the ids, `eos_ids`, that end an answer.

    No token stands for more than `max_token_chars`. Raises UnusableTokenizerError when the folder
    can't be used.
    """

    def __init__(self, folder: Path, *, offload_chars: int) -> None:
        try:
            read = TokenizerFolder(folder)
            self.chat_template = read.chat_template()
        except UnusableFolderError as error:
            raise UnusableTokenizerError(error.what, found=error.found, do=error.do) from error
        self._tokenizer = read.tokenizer
        self._offload_chars = offload_chars
        self.eos_ids = read.eos_ids
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
