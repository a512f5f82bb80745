"""Text into the token sequences that a model is calibrated or evaluated on.

Documents are shuffled, tokenized one after the other and cut into sequences of one length, so
that none needs padding or a mask: every position is text, as it is when a model is pretrained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from random import Random
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from builder.errors import LimitError
from quantize.calibration_text import Document, Message, Part, documents

Tokens = npt.NDArray[np.int64]

Say = Callable[[str], None]
"""Called with a line that the user should read."""

_CHARACTERS_PER_TOKEN = 16
"""How much of a source is looked at for each token asked for: enough to choose from."""


class TextTokenizer(Protocol):
    """What is asked of a tokenizer."""

    @property
    def bos_id(self) -> int | None:
        """What the tokenizer puts before every text, if anything."""

    @property
    def eos_id(self) -> int | None:
        """What ends a text."""

    def encode(self, text: str) -> list[int]:
        """Token ids, with nothing put before or after."""

    def render(self, messages: Sequence[Message]) -> str | None:
        """A conversation in the model's chat template; None if it has none that takes it."""


class TransformersTokenizer:
    """A tokenizer of the `transformers` package as TextTokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        empty: list[int] = tokenizer("")["input_ids"]
        self.bos_id: int | None = empty[0] if empty[:1] == [tokenizer.bos_token_id] else None
        self.eos_id: int | None = tokenizer.eos_token_id

    def encode(self, text: str) -> list[int]:
        """Token ids, without those that the tokenizer adds around a text."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def render(self, messages: Sequence[Message]) -> str | None:
        """The conversation in the tokenizer's template; None without one that takes it.

        For a template without a system role, its text goes before the first question.
        """
        from jinja2 import TemplateError

        if self._tokenizer.chat_template is None:
            return None
        for attempt in (list(messages), _without_system(messages)):
            try:
                text: str = self._tokenizer.apply_chat_template(attempt, tokenize=False)
            except TemplateError:
                continue
            return text
        return None


def sequences(
    source: str | None,
    tokenizer: TextTokenizer,
    *,
    samples: int,
    max_length: int,
    seed: int = 0,
    part: Part = "calibration",
    chat_template: bool = True,
    say: Say | None = None,
) -> Tokens:
    """Sequences int64[samples, max_length] of `source`, the built-in set's `part` if that is None.

    The same arguments give the same sequences; of a source much larger than that, its beginning.
    With `chat_template` off, or where the model has none, a conversation is its messages with
    blank lines between. If the source has fewer sequences there are fewer, which is said; if it
    hasn't one, that one is shorter. Raises LimitError if there is no text at all, and what
    `documents` raises, which says what a source may be.
    """
    if samples < 1 or max_length < 2:
        raise LimitError(
            "at least one sample of two tokens is needed",
            found=f"{samples} of {max_length} tokens",
        )
    name = source or f"the built-in {part.replace('_', '-')} text"
    read = _first(documents(source, part=part), _CHARACTERS_PER_TOKEN * samples * max_length)
    Random(seed).shuffle(read)
    token_ids = (_encode(each, tokenizer, chat_template) for each in read)
    found = list(islice(_cut(token_ids, max_length, tokenizer.bos_id), samples))
    if len(found) > 1 and len(found[-1]) < max_length:
        found.pop()
    if not found or len(found[0]) < 2:
        raise LimitError(f"{name} has no text", found=f"{len(read)} documents")
    if say is not None and len(found[0]) < max_length:
        say(f"{name} has only {len(found[0])} tokens: 1 sample, not {samples} of {max_length}")
    elif say is not None and len(found) < samples:
        say(f"{name} has only {len(found)} samples of {max_length} tokens, not {samples}")
    return np.array(found, np.int64)


def batches(sequences: Tokens, batch_size: int) -> Iterator[Tokens]:
    """The sequences in their order, int64[batch_size, length]; the last may have fewer."""
    for start in range(0, len(sequences), batch_size):
        yield sequences[start : start + batch_size]


def _first(source: Iterable[Document], characters: int) -> list[Document]:
    """The documents that the source begins with, up to so many characters."""
    found = []
    for each in source:
        found.append(each)
        characters -= len(each.text) + sum(len(message["content"]) for message in each.messages)
        if characters <= 0:
            break
    return found


def _encode(document: Document, tokenizer: TextTokenizer, chat_template: bool) -> list[int]:
    """A document's tokens with what ends it; a template ends a conversation itself."""
    text = tokenizer.render(document.messages) if document.messages and chat_template else None
    if text is not None:
        return tokenizer.encode(text)
    text = document.text or "\n\n".join(message["content"] for message in document.messages)
    if not text.strip():
        return []
    ids = tokenizer.encode(text)
    return ids if tokenizer.eos_id is None else [*ids, tokenizer.eos_id]


def _cut(token_ids: Iterable[list[int]], length: int, bos_id: int | None) -> Iterator[list[int]]:
    """Sequences of `length`, each with the token that begins a text, and what is left at the end.

    A model that was always shown that token computes outliers without it.
    """
    held: list[int] = []
    for ids in token_ids:
        held += ids
        start = 0
        while True:
            begin = [] if bos_id is None or held[start : start + 1] == [bos_id] else [bos_id]
            stop = start + length - len(begin)
            if stop > len(held):
                break
            yield begin + held[start:stop]
            start = stop
        held = held[start:]
    if held:
        yield held if bos_id is None or held[0] == bos_id else [bos_id, *held]


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The conversation with its system message put before the first question."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return list(messages)
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
