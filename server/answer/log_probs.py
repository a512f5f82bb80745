"""Log probabilities, told together with the text that they belong to."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from server.backend.base import PromptLogProb, TopLogProbs
from server.protocol.request import TokenLogProb
from server.text.tokenizer import TextTokenizer


class LogProbs:
    """Tokens wait for their text: nothing of a token is told while its text is held back.

    `before` characters of the answer's text come before the first token's.
    """

    def __init__(self, tokenizer: TextTokenizer, *, before: int) -> None:
        self._tokenizer, self._before = tokenizer, before
        self._waiting: deque[tuple[int, int, TokenLogProb]] = deque()
        self._decoded_chars = 0
        self._shown_chars = 0

    def add(self, token: int, log_prob: float, top: TopLogProbs, chars: int) -> None:
        """A token that completed `chars` characters of text."""
        start = self._decoded_chars
        self._decoded_chars += chars
        told = token_log_prob(self._tokenizer, token, log_prob, top, self._before + start)
        self._waiting.append((start, self._decoded_chars, told))

    def shown(
        self, text: str, *, held: int = 0, said: int | None = None, last: bool = False
    ) -> list[TokenLogProb]:
        """The tokens whose text is all shown, now that `text` is; of the `last`, part of it.

        A parser holds back `held` characters at its end; of those before it took `said` for the
        answer's content (None: all is).
        """
        self._shown_chars += len(text)
        end = self._shown_chars - held
        begin = end - (said or 0)
        tokens = []
        while self._waiting:
            start, stop, token = self._waiting[0]
            if stop > end and not (last and start < end):
                break
            self._waiting.popleft()
            # a part of a character stands where that begins, and may be the first of what is said
            is_said = said is None or stop > begin or (said > 0 and start >= begin)
            tokens.append(token if is_said else replace(token, said=False))
        return tokens


def token_log_prob(
    tokenizer: TextTokenizer,
    token: int,
    log_prob: float | None,
    top: TopLogProbs,
    offset: int,
) -> TokenLogProb:
    """A token of any text, with its alternatives."""
    return TokenLogProb(
        content=tokenizer.token_bytes(token),
        log_prob=log_prob,
        token_id=token,
        top=[
            TokenLogProb(content=tokenizer.token_bytes(other), log_prob=value, token_id=other)
            for other, value in top
        ],
        offset=offset,
    )


def of_prompt(
    tokenizer: TextTokenizer, ids: Sequence[int], told: Sequence[PromptLogProb], text: str
) -> list[TokenLogProb]:
    """A prompt's tokens; of the first the engine tells nothing, as nothing comes before it.

    `text` is the prompt's; what a tokenizer puts before it is no part of it.
    """
    pieces = tokenizer.detokenizer(skip_special_tokens=False)
    ends = list(accumulate((len(pieces.feed(token)) for token in ids), initial=0))
    before = ends[-1] - len(text)
    values: list[tuple[float | None, TopLogProbs]] = [(None, ())]
    values += [(one.log_prob, one.top) for one in told]
    return [
        token_log_prob(tokenizer, token, *value, max(start - before, 0))
        for token, value, start in zip(ids, values, ends, strict=False)
    ]
