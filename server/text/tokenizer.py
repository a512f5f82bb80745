"""The served model's tokenizer for an event loop: long texts are encoded beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from server.errors import UnusableSettingError, UnusableTokenizerError
from text.detokenizer import Detokenizer, TokenTable
from text.errors import UnusableFolderError
from text.tokenizer_folder import TokenizerFolder


class TextTokenizer:
    """The tokenizer of a folder with the ids, `eos_ids`, that end an answer.

    Ids are below `vocab_size`. No token stands for more than `max_token_chars`. What is longer
    than `offload_chars` is work for another thread. `chat_template` is the name or the file of the
    only template. Raises UnusableTokenizerError when the folder can't be used, and
    UnusableSettingError when that template is empty.
    """

    def __init__(
        self, folder: Path, *, offload_chars: int, chat_template: str | None = None
    ) -> None:
        try:
            read = TokenizerFolder(folder)
            self.chat_template = read.chat_template(chat_template)
        except UnusableFolderError as error:
            raise UnusableTokenizerError(error.what, found=error.found, do=error.do) from error
        if chat_template is not None and not (self.chat_template.source or "").strip():
            raise UnusableSettingError(
                f"the chat template {chat_template!r} is empty",
                do="name another file, or one of the model's own templates",
            )
        self._tokenizer = read.tokenizer
        self.offload_chars = offload_chars
        self.eos_ids = read.eos_ids
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = 1 + max(vocabulary.values(), default=-1)
        self.max_token_chars = max(map(len, vocabulary), default=0)
        self._table = TokenTable(self._tokenizer)

    def __contains__(self, token: object) -> bool:
        """Whether the vocabulary has a token of that name."""
        return isinstance(token, str) and self._tokenizer.token_to_id(token) is not None

    def encode_here(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`, made in this thread."""
        if len(text) <= self.offload_chars:
            encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        else:
            # The library lets go of the interpreter's lock only for batches, which go through
            # threads of its own: a short text would wait longer for one than it takes.
            (encoding,) = self._tokenizer.encode_batch_fast(
                [text], add_special_tokens=add_special_tokens
            )
        ids: list[int] = encoding.ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of these ids, all at once."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """What the vocabulary calls these ids; "" for one that it doesn't have."""
        return [self._tokenizer.id_to_token(token) or "" for token in ids]

    def spans(self, text: str, *, add_special_tokens: bool) -> list[tuple[int, int, int]]:
        """Each token of `text` with the place of it, in characters: id, start, stop."""
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
        places = zip(encoding.ids, encoding.offsets, strict=True)
        return [(token, start, stop) for token, (start, stop) in places]

    def detokenizer(
        self,
        *,
        skip_special_tokens: bool,
        after: Sequence[int] = (),
        shown: frozenset[str] = frozenset(),
    ) -> Detokenizer:
        """A fresh detokenizer for one answer, which goes on from the tokens in `after`.

        Of the special tokens that are skipped, those in `shown` are not.
        """
        ids = frozenset(i for i in map(self._tokenizer.token_to_id, shown) if i is not None)
        return self._table.detokenizer(
            skip_special_tokens=skip_special_tokens, after=after, shown=ids
        )

    def token_bytes(self, token: int) -> bytes:
        """What one token adds to a text, special tokens shown, possibly part of a character."""
        return self._table.token_bytes(token)
