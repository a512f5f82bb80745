"""The answers to one request: the engine's tokens as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from text.answer import AnswerText, Ends
from text.detokenizer import TokenTable
from triton_repo.runtime.text_model.request import Array, Asked, Tensors
from triton_repo.runtime.token_rows import token_rows

NEEDED = ("output_ids", "sequence_length", "batch_index", "sequence_index")
"""What is read of the engine's outputs; clients don't see the first two."""
OWN = ("text_output", "finish_reason")
"""Outputs that aren't the engine's."""
_JOINED = ("output_ids", "output_log_probs", "generation_logits")
_SUMMED = ("sequence_length", "num_output_tokens")

Key = tuple[int, int]


class Repeated(NamedTuple):
    """A prompt that its answers begin with."""

    ids: Sequence[int]
    text: str


def repeated(ids: list[int], table: TokenTable, *, skip_special_tokens: bool) -> Repeated:
    """A prompt as its answers show it. Takes a while for a long one."""
    detokenizer = table.detokenizer(skip_special_tokens=skip_special_tokens)
    return Repeated(ids, "".join(map(detokenizer.feed, ids)) + detokenizer.flush())


class Answers:
    """Every sequence of a request: (row, index among the sequences) → its beams' texts.

    `ends` are each row's, `repeated` the prompts that answers begin with (empty for none).
    With `accumulate`, a stream's text is all of it so far.
    """

    def __init__(
        self,
        asked: Asked,
        table: TokenTable,
        ends: list[Ends],
        repeated: Sequence[Repeated],
        *,
        skip_special_tokens: bool,
        accumulate: bool,
    ) -> None:
        self._asked, self._table, self._ends, self._repeated = asked, table, ends, repeated
        self._skip, self._accumulate = skip_special_tokens, accumulate and asked.streaming
        self._texts: dict[Key, list[AnswerText]] = {}
        self._pieces: dict[Key, list[str]] = {}
        self._held: dict[Key, list[Mapping[str, Array]]] = {}

    @property
    def finished(self) -> bool:
        """Whether every sequence has ended, whatever the engine has yet to say."""
        wanted = self._asked.rows * self._asked.sequences
        return len(self._texts) >= wanted and all(map(_ended, self._texts.values()))

    def take(self, come: Sequence[Mapping[str, Array]]) -> Iterator[Tensors]:
        """Responses of the engine as such for the client, those of a sequence as one.

        Raises ValueError for tensors that don't fit together.
        """
        keys = [_key(outputs) for outputs in come]
        for place, (key, outputs) in enumerate(zip(keys, come, strict=True), 1):
            if told := self._take(key, outputs, more=key in keys[place:]):
                yield told

    def _take(self, key: Key, outputs: Mapping[str, Array], *, more: bool) -> Tensors | None:
        """A response for the client; None where it has nothing to tell, or `more` is there."""
        rows = token_rows(outputs["output_ids"], outputs["sequence_length"])
        if not rows.fit:
            raise ValueError("the engine's output_ids and sequence_length don't fit together")
        texts = self._of(key, len(rows.ids))
        if _ended(texts):
            return None
        last = not self._asked.parts
        pieces = [text.feed(ids, last=last) for text, ids in zip(texts, rows.ids, strict=True)]
        if _ended(texts) or not (more or self._waits(rows.ids)):
            return self._response(key, pieces, outputs)
        self._held.setdefault(key, []).append(outputs)
        self._pieces[key] = _added(self._pieces[key], pieces)
        return None

    def rest(self) -> Iterator[Tensors]:
        """What was held back, once the engine has said all."""
        for key, texts in self._texts.items():
            if not _ended(texts):
                yield self._response(key, [text.feed([], last=True) for text in texts], {})

    def _waits(self, ids: list[list[int]]) -> bool:
        """Whether a part goes with what follows: one of no token is the last, or of no end yet."""
        return not any(ids) if self._asked.streaming else self._asked.parts

    def _of(self, key: Key, beams: int) -> list[AnswerText]:
        if key not in self._texts:
            row = key[0]
            before = self._repeated[row] if self._repeated else Repeated((), "")
            self._texts[key] = [
                AnswerText(
                    self._table,
                    self._ends[row],
                    skip_special_tokens=self._skip,
                    after=before.ids,
                    before=before.text,
                )
                for _ in range(beams)
            ]
            self._pieces[key] = [""] * beams
        return self._texts[key]

    def _response(self, key: Key, pieces: list[str], outputs: Mapping[str, Array]) -> Tensors:
        pieces = _added(self._pieces[key], pieces)
        self._pieces[key] = pieces if self._accumulate else [""] * len(pieces)
        parts = [*self._held.pop(key, []), *([outputs] if outputs else [])]
        outputs = _joined(parts) if parts else _indices(key)
        return {
            **outputs,
            "text_output": _strings(pieces),
            "finish_reason": _strings([text.finish for text in self._texts[key]]),
        }


def _added(before: list[str], after: list[str]) -> list[str]:
    return [one + other for one, other in zip(before, after, strict=True)]


def _joined(parts: list[Mapping[str, Array]]) -> Mapping[str, Array]:
    """Parts of an answer as one: their tokens joined, the rest as the last one has it."""
    made = {name: value for part in parts for name, value in part.items()}
    for name in made.keys() & {*_JOINED, *_SUMMED}:
        values = [part[name] for part in parts if name in part]
        made[name] = (
            np.concatenate(values, axis=2)
            if name in _JOINED
            else np.sum(values, axis=0, dtype=np.int32)
        )
    return made


def _ended(texts: list[AnswerText]) -> bool:
    return all(text.finish for text in texts)


def _key(outputs: Mapping[str, Array]) -> Key:
    return _index(outputs, "batch_index"), _index(outputs, "sequence_index")


def _index(outputs: Mapping[str, Any], name: str) -> int:
    """An index that the engine gives only where there are several."""
    return int(outputs[name].reshape(-1)[0]) if name in outputs else 0


def _indices(key: Key) -> Tensors:
    names = ("batch_index", "sequence_index")
    return {name: np.array([[i]], np.int32) for name, i in zip(names, key, strict=True)}


def _strings(values: list[str]) -> Array:
    return np.array([[value.encode() for value in values]], dtype=np.object_)
