"""One choice's way from token ids to text events: detokenized, stopped, counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from server.backend.base import Tokens
from server.protocol.request import Limits, TextEvent, TokenLogProb
from server.text.tokenizer import TextTokenizer
from text.detokenizer import Detokenizer
from text.stop import StopMatcher


class Answer:
    """Turns one sequence's tokens into events, and knows when and why it ended.

    `max_tokens` is what the engine was asked for; `after` are the tokens that the answer's text
    goes on from. `completion_tokens` counts every token that the engine emitted up to the
    answer's end, an end token included.
    """

    def __init__(
        self,
        index: int,
        tokenizer: TextTokenizer,
        limits: Limits,
        *,
        max_tokens: int,
        skip_special_tokens: bool,
        after: Sequence[int] = (),
    ) -> None:
        self.index, self._limits, self._max_tokens = index, limits, max_tokens
        self._tokenizer = tokenizer
        self._detokenizer: Detokenizer = tokenizer.detokenizer(
            skip_special_tokens=skip_special_tokens, after=after
        )
        self._stops = StopMatcher(limits.stop, include_stop=limits.include_stop)
        self._eos_ids = frozenset(() if limits.ignore_eos else tokenizer.eos_ids)
        self._end_ids = self._eos_ids | frozenset(limits.stop_token_ids)
        self._log_probs = _LogProbs()
        self._stopped_by: str | int | None = None
        self.completion_tokens = 0
        self.ended = False

    def feed(self, tokens: Tokens) -> TextEvent:
        """The event for these tokens; with a finish reason when they are the last."""
        text = ""
        log_probs = tokens.log_probs or (None,) * len(tokens.ids)
        for token, log_prob in zip(tokens.ids, log_probs, strict=True):
            text += self._feed_token(token, log_prob)
            if self.ended:
                return self._last(text, "stop")
            if self.completion_tokens >= self._max_tokens:
                return self._last(text + self._flush(), "length")
        if tokens.final:
            # An engine that drops the end token ends early without showing one.
            return self._last(text + self._flush(), "stop")
        return TextEvent(index=self.index, text=text, log_probs=self._log_probs.shown(text))

    def _feed_token(self, token: int, log_prob: float | None) -> str:
        self.completion_tokens += 1
        if token in self._end_ids and self.completion_tokens > self._limits.min_tokens:
            return self._end_at(token, log_prob)
        piece = self._detokenizer.feed(token)
        if log_prob is not None:
            content = self._tokenizer.token_bytes(token)
            self._log_probs.add(TokenLogProb(content=content, log_prob=log_prob), len(piece))
        if self.completion_tokens <= self._limits.min_tokens:
            return piece
        return self._match(piece)

    def _end_at(self, token: int, log_prob: float | None) -> str:
        """The text that an end token leaves: its own only for a stop id, when asked for."""
        self.ended = True
        if token not in self._eos_ids:
            self._stopped_by = token
        text = ""
        if self._limits.include_stop and token not in self._eos_ids:
            piece = self._detokenizer.feed(token)
            text = self._match(piece)
        return text + self._flush()

    def _match(self, piece: str) -> str:
        text = self._stops.feed(piece)
        if self._stops.matched is not None:
            self.ended = True
            self._stopped_by = self._stops.matched
        return text

    def _flush(self) -> str:
        return self._match(self._detokenizer.flush()) + self._stops.flush()

    def _last(self, text: str, finish_reason: str) -> TextEvent:
        self.ended = True
        reason = "stop" if self._stops.matched is not None else finish_reason
        return TextEvent(
            index=self.index,
            text=text,
            log_probs=self._log_probs.last(text),
            finish_reason=reason,
            stopped_by=self._stopped_by,
        )


class _LogProbs:
    """Tokens wait for their text: nothing of a token is told while its text is held back."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, TokenLogProb]] = deque()
        self._decoded_chars = 0
        self._shown_chars = 0

    def add(self, token: TokenLogProb, chars: int) -> None:
        start = self._decoded_chars
        self._decoded_chars += chars
        self._waiting.append((start, self._decoded_chars, token))

    def shown(self, text: str) -> Sequence[TokenLogProb]:
        """The tokens whose text is all shown, now that `text` is."""
        if not self._waiting:
            return ()
        self._shown_chars += len(text)
        tokens = []
        while self._waiting and self._waiting[0][1] <= self._shown_chars:
            tokens.append(self._waiting.popleft()[2])
        return tokens

    def last(self, text: str) -> Sequence[TokenLogProb]:
        """The tokens of which anything is shown, when nothing comes after `text`."""
        tokens = list(self.shown(text))
        tokens += [token for start, _, token in self._waiting if start < self._shown_chars]
        return tokens
