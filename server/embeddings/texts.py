"""An encoder's text side: inputs to token ids, no longer than the model reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from server.errors import ContextLengthError, InvalidRequestError
from server.protocol.openai_embeddings import WHOLE_LENGTH, EmbeddingRequest, Input, place
from server.text.offload import offload
from server.text.tokenizer import TextTokenizer
from server.text_model import TextModel

_TOKEN_CHARS = 128
"""At most, with the space around a token; encoders' tokenizers drop that."""


class EncoderText:
    """The inputs of requests to one model."""

    def __init__(self, model: TextModel) -> None:
        self._tokenizer: TextTokenizer = model.tokenizer
        self._max_tokens = model.served.max_seq_len

    async def ids(self, asked: EmbeddingRequest) -> list[list[int]]:
        """Each input's token ids.

        Raises InvalidRequestError for ids that the model hasn't, ContextLengthError for an input
        that is too long and not to be cut.
        """
        chars = sum(map(len, asked.inputs))
        if chars <= self._tokenizer.offload_chars:
            return self._all(asked)
        return await offload(self._all, asked)

    def _all(self, asked: EmbeddingRequest) -> list[list[int]]:
        count = len(asked.inputs)
        return [
            self._one(each, asked, place("input", index, count))
            for index, each in enumerate(asked.inputs)
        ]

    def _one(self, given: Input, asked: EmbeddingRequest, param: str) -> list[int]:
        if isinstance(given, str):
            given = self._readable(given, asked, param)
            ids = self._tokenizer.encode_here(given, add_special_tokens=asked.add_special_tokens)
        else:
            ids = given
            self._check_ids(given, param)
        most = self._most(asked.truncate_tokens)
        if most is not None and len(ids) > most:
            special = isinstance(given, str) and asked.add_special_tokens
            ids = self._cut(ids, most, special=special)
        if len(ids) > self._max_tokens:
            raise self._too_long(f"resulted in {len(ids)} tokens", param)
        if not ids:
            raise InvalidRequestError(f"'{param}' has no tokens", param=param)
        return ids

    def _readable(self, text: str, asked: EmbeddingRequest, param: str) -> str:
        """As much of a text as the model could read, which has a token more than it takes."""
        most = (self._max_tokens + 1) * max(self._tokenizer.max_token_chars, _TOKEN_CHARS)
        if len(text) > most and asked.truncate_tokens is None:
            raise self._too_long(f"held {len(text)} characters", param)
        return text[:most]

    def _too_long(self, what: str, param: str) -> ContextLengthError:
        return ContextLengthError(
            f"This model's maximum context length is {self._max_tokens} tokens. However, your"
            f" {param} {what}. Please reduce the length of the {param}",
            param=param,
            do="or let it be cut: truncate_prompt_tokens -1",
        )

    def _check_ids(self, ids: Sequence[int], param: str) -> None:
        size = self._tokenizer.vocab_size
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidRequestError(f"token id {wrong} is not the model's", param=param)

    def _most(self, truncate_tokens: int | None) -> int | None:
        return self._max_tokens if truncate_tokens == WHOLE_LENGTH else truncate_tokens

    def _cut(self, ids: list[int], most: int, *, special: bool) -> list[int]:
        """The first tokens; what the tokenizer puts behind every text stays behind."""
        behind = self._behind if special else []
        return [*ids[: max(0, most - len(behind))], *behind][:most]

    @cached_property
    def _behind(self) -> list[int]:
        """The special tokens after a text."""
        text = self._tokenizer.encode_here("a", add_special_tokens=False)
        whole = self._tokenizer.encode_here("a", add_special_tokens=True)
        for start in range(len(whole) - len(text) + 1):
            if whole[start : start + len(text)] == text:
                return whole[start + len(text) :]
        return []
