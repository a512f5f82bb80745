"""One request on its way: its tokens, its blocks, how much of it is in the KV cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from triton_repo.executor.request import FinishReason, Output, Request


class Sequence:
    """The state of one request between its arrival and its last token.

    `tokens` is prompt and answer; the first `computed` of them have keys and values in `blocks`.
    """

    def __init__(
        self, request: Request, max_total_tokens: int, sink: Callable[[Output], None]
    ) -> None:
        self.request = request
        self.sink = sink
        self.tokens = list(request.input_ids)
        self.prompt_len = len(request.input_ids)
        self.max_total_tokens = min(max_total_tokens, self.prompt_len + request.max_tokens)
        self.computed = 0
        self.blocks: list[int] = []
        self.block_keys: list[int] = []
        self.cancelled = False
        self.random = np.random.Generator(np.random.PCG64(request.sampling.seed))
        self.prompt_tokens = np.unique(np.asarray(request.input_ids))
        self.counts: Counter[int] = Counter()

    @property
    def generated(self) -> int:
        """How many tokens the answer has so far."""
        return len(self.tokens) - self.prompt_len

    @property
    def decoded(self) -> bool:
        """Whether all its tokens are in the cache, so that the next one can be chosen."""
        return self.computed == len(self.tokens)

    def append(self, token: int) -> FinishReason | None:
        """Add the chosen token; say whether it was the last, and why."""
        self.tokens.append(token)
        if self.request.sampling.penalised:
            self.counts[token] += 1
        if token == self.request.end_id:
            return FinishReason.END_ID
        if any(self._ends_with(word) for word in self.request.stop_words):
            return FinishReason.STOP_WORDS
        if len(self.tokens) >= self.max_total_tokens:
            return FinishReason.LENGTH
        return None

    def _ends_with(self, word: tuple[int, ...]) -> bool:
        size = len(word)
        return size <= self.generated and tuple(self.tokens[-size:]) == word
