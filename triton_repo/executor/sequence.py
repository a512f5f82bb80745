"""One answer on its way: its tokens, its blocks, how much of it is in the KV cache."""

from __future__ import annotations

from collections import Counter
from copy import copy
from dataclasses import dataclass

import numpy as np

from triton_repo.executor.output import FinishReason, Logits
from triton_repo.executor.request import Request


@dataclass(slots=True)
class CacheUse:
    """How many blocks a request's prompt had: found `reused`, taken in `total`, `new` of them."""

    new: int = 0
    reused: int = 0
    total: int = 0


class Draws:
    """A stream of uniform numbers in [0, 1): one for each token, however often it is asked for."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generator: np.random.Generator | None = None
        self._number: float | None = None

    def random(self) -> float:
        """The number of the token that is chosen now."""
        if self._generator is None:
            self._generator = np.random.Generator(np.random.PCG64(self._seed))
        if self._number is None:
            self._number = self._generator.random()
        return self._number

    def advance(self) -> None:
        """Go on to the next token."""
        self._number = None


class Sequence:
    """The state of one answer between its request's arrival and its last token.

    `tokens` is prompt and answer; the first `computed` of them have keys and values in `blocks`.
    `drafts` are guesses of the tokens after them, to be verified with the next step. The seed of
    the i-th sequence of a request is the request's plus i, as in TensorRT-LLM's child requests.
    In a beam search `log_probs`, `cum_log_prob` and `rows` (the logits that were asked for) are
    those of the answer so far, and `row` the logits after the newest token, until all beams have
    theirs.
    """

    def __init__(self, request: Request, max_total_tokens: int, index: int = 0) -> None:
        self.request = request
        self.index = index
        self.tokens = list(request.input_ids)
        self.prompt_len = len(request.input_ids)
        self.max_total_tokens = min(max_total_tokens, self.prompt_len + request.max_tokens)
        self.drafts = request.draft_ids[: self.max_total_tokens - self.prompt_len - 1]
        self.computed = 0
        self.blocks: list[int] = []
        self.block_keys: list[int] = []
        self.usage = CacheUse()
        self.random = Draws((request.sampling.seed + index) % 2**64)
        self.guide = request.guide.fork() if request.guide is not None else None
        self.log_probs: list[float] = []
        self.cum_log_prob = 0.0
        self.rows: list[Logits] = []
        self.row: Logits | None = None
        self._seen: Counter[int] = Counter()
        self._seen_len = 0

    @property
    def generated(self) -> int:
        """How many tokens the answer has so far."""
        return len(self.tokens) - self.prompt_len

    @property
    def decoded(self) -> bool:
        """Whether all its tokens are in the cache, so that the next one can be chosen."""
        return self.computed == len(self.tokens)

    def ids(self, start: int, end: int) -> list[int]:
        """The token ids at the positions [start, end), drafts included."""
        ids = self.tokens[start:end]
        if end > len(self.tokens):
            ids.extend(self.drafts[: end - len(self.tokens)])
        return ids

    def seen(self) -> Counter[int]:
        """How often each token is there; only those since the last call are counted anew."""
        self._seen.update(self.tokens[self._seen_len :])
        self._seen_len = len(self.tokens)
        return self._seen

    def append(self, token: int) -> FinishReason | None:
        """Add the chosen token; say whether it was the last, and why."""
        request = self.request
        self.tokens.append(token)
        self.random.advance()
        if token == request.end_id:
            return FinishReason.END_ID
        if self.guide is not None:
            self.guide.accept(token)
            if self.guide.finished:
                return FinishReason.END_ID
        if request.stop_words and any(self._ends_with(word) for word in request.stop_words):
            return FinishReason.STOP_WORDS
        if len(self.tokens) >= self.max_total_tokens:
            return FinishReason.LENGTH
        return None

    def branch(self) -> Sequence:
        """A copy that goes on by itself, without blocks of its own yet."""
        other = copy(self)
        other.tokens, other.log_probs, other.rows = [*self.tokens], [*self.log_probs], [*self.rows]
        other.blocks, other.block_keys, other.row = [], [], None
        other._seen = Counter(self._seen)
        other.guide = self.guide.fork() if self.guide is not None else None
        return other

    def _ends_with(self, word: tuple[int, ...]) -> bool:
        size = len(word)
        return size <= self.generated and tuple(self.tokens[-size:]) == word
