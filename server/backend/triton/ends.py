"""When an answer is over, told by its tokens before Triton says so.

A cancel that meets the end of a stream harms Triton: who leaves must know whether that end is near.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.backend.base import GenerateRequest, Tokens


class Ends:
    """Whether the answer to `request` has all its tokens.

    Who reads them writes `count`, which is of all sequences, and `last_id`. Where it `looks`, it
    must also `see` the tokens.
    """

    def __init__(self, request: GenerateRequest) -> None:
        self.count = 0
        self.last_id = -1
        self._max_tokens = request.max_tokens
        self._at_once = request.beams is not None
        """Beams come in one response."""
        self._ids = frozenset(id_ for id_ in (request.end_id, *request.stop_ids) if id_ >= 0)
        self._left = [request.max_tokens] * request.sequences if request.sequences > 1 else []
        """Tokens that each of several sequences may still have; none after an end id."""
        self._words = frozenset(request.stop_words)
        self._lengths = frozenset(map(len, self._words))
        self._tails: dict[int, tuple[int, ...]] = {}
        """Of each sequence, so many of its last ids as the longest word has."""
        self._by_word = False
        self.looks = bool(self._left or self._words)
        """Whether count and last id don't tell all."""

    @property
    def reached(self) -> bool:
        """Whether all tokens have come, so that nothing but the final response can follow."""
        if self._by_word:
            return True
        if self._at_once:
            return self.count > 0
        if self._left:
            return not any(self._left)
        return self.count >= self._max_tokens or self.last_id in self._ids

    def see(self, read: Sequence[Tokens]) -> None:
        """Look at new tokens, each once and in order."""
        if self._left:
            self._count(read)
        if self._words:
            self._look_for_words(read)

    def _count(self, read: Sequence[Tokens]) -> None:
        left = self._left
        for ids, sequence, *_ in read:
            if ids and sequence < len(left):
                over = ids[-1] in self._ids
                left[sequence] = 0 if over else max(0, left[sequence] - len(ids))

    def _look_for_words(self, read: Sequence[Tokens]) -> None:
        longest = max(self._lengths)
        for ids, sequence, *_ in read:
            tail = (*self._tails.get(sequence, ()), *ids)[-longest:]
            self._tails[sequence] = tail
            if any(tail[-length:] in self._words for length in self._lengths):
                self._end_by_word(sequence)

    def _end_by_word(self, sequence: int) -> None:
        if not self._left:
            self._by_word = True
        elif sequence < len(self._left):
            self._left[sequence] = 0
