"""Several sequences that think, each a stream of its own, as the one stream of their request."""

from __future__ import annotations

from collections.abc import Sequence

from server.backend.base import Perf, Take, Tokens, TokenStream
from server.backend.merge import Merge


class Together:
    """The streams' tokens, numbered as sequences; the last one's end is the end of all."""

    def __init__(self, streams: Sequence[TokenStream]) -> None:
        self._merge = Merge(streams)
        self._running = len(streams)
        self._perfs: list[Perf] = []

    async def run(self, take: Take) -> bool:
        """As TokenStream."""
        while batch := await self._merge.next_batch():
            if not take([self._numbered(sequence, tokens) for sequence, tokens in batch]):
                return True
        return False

    def cancel(self) -> None:
        """As TokenStream."""
        self._merge.close()

    def _numbered(self, sequence: int, tokens: Tokens) -> Tokens:
        if not tokens.final:
            return tokens._replace(sequence=sequence, perf=None if sequence else tokens.perf)
        self._running -= 1
        if tokens.perf:
            self._perfs.append(tokens.perf)
        if self._running:
            return tokens._replace(sequence=sequence, perf=None, final=False)
        return tokens._replace(sequence=sequence, perf=self._least_cached())

    def _least_cached(self) -> Perf | None:
        """What was in the cache before the request: the others find what the first has read."""
        return min(self._perfs, key=lambda perf: perf.cached_tokens, default=None)
