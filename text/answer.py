"""One answer's way from token ids to text: detokenized as it grows, stopped, and why it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from text.detokenizer import TokenTable
from text.stop import StopMatcher

STOP, LENGTH = "stop", "length"
"""Why an answer ended: by the model's own end or a stop string; by its limit."""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """What ends an answer: ids, strings and a number of tokens.

    Ids and strings count only after `min_tokens`. The ends themselves are no part of the text.
    """

    end_ids: frozenset[int] = frozenset()
    stops: tuple[str, ...] = ()
    max_tokens: int
    min_tokens: int = 0


class AnswerText:
    """The text of one growing sequence of tokens. `finish` is "" while it goes on.

    It begins with `before`, the text of the tokens `after`, which the answer goes on from: one that
    repeats its prompt.
    """

    def __init__(
        self,
        table: TokenTable,
        ends: Ends,
        *,
        skip_special_tokens: bool,
        after: Sequence[int] = (),
        before: str = "",
    ) -> None:
        self._detokenizer = table.detokenizer(skip_special_tokens=skip_special_tokens, after=after)
        self._ends = ends
        self._stops = StopMatcher(tuple(stop for stop in ends.stops if stop))
        self._before = before
        self.tokens = 0
        self.finish = ""

    def feed(self, tokens: Sequence[int], *, last: bool = False) -> str:
        """The text that can be shown now; what may yet belong to an end or a character waits.

        `last` says that no more tokens come. After an end the answer takes no more of them.
        """
        text, self._before = self._before, ""
        for token in tokens:
            if self.finish:
                break
            text += self._take(token)
        if last and not self.finish:
            # an engine that keeps its end token to itself ends early without showing one
            text += self._end(LENGTH if self.tokens >= self._ends.max_tokens else STOP)
        return text

    def _take(self, token: int) -> str:
        self.tokens += 1
        early = self.tokens <= self._ends.min_tokens
        if token in self._ends.end_ids and not early:
            return self._end(STOP)
        piece = self._detokenizer.feed(token)
        text = piece if early else self._match(piece)
        if self.tokens >= self._ends.max_tokens and not self.finish:
            text += self._end(LENGTH)
        return text

    def _match(self, piece: str) -> str:
        text = self._stops.feed(piece)
        if self._stops.matched is not None:
            self.finish = STOP
        return text

    def _end(self, reason: str) -> str:
        text = self._match(self._detokenizer.flush()) + self._stops.flush()
        self.finish = self.finish or reason
        return text
