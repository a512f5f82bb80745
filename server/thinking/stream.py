"""Thoughts and the answer behind them as one TokenStream, whatever the engine is asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from server.backend.base import Backend, GenerateRequest, Perf, Take, Tokens, TokenStream
from server.thinking.plan import Thinking
from server.thinking.together import Together
from server.thinking.watch import MOST_BLANKS, State, Watch

_SEEDS: Final = 1 << 64


def generate(backend: Backend, request: GenerateRequest, thinking: Thinking) -> TokenStream:
    """As `backend.generate`, with thoughts first.

    Each of several sequences thinks by itself: they are requests of their own, with seeds that
    follow the request's. What is written for the model counts as its tokens, as the answer has it;
    what it wrote in vain does not.
    """
    if request.sequences == 1:
        return ThinkingStream(backend, request, thinking)
    each = [
        replace(
            request,
            request_id=f"{request.request_id}.{n}",
            seed=(request.seed + n) % _SEEDS,
            sequences=1,
        )
        for n in range(request.sequences)
    ]
    return Together([ThinkingStream(backend, one, thinking) for one in each])


class ThinkingStream:
    """One sequence. Without a guide the engine is asked once more only if it must be stopped."""

    def __init__(self, backend: Backend, request: GenerateRequest, thinking: Thinking) -> None:
        self._backend, self._request, self._thinking = backend, request, thinking
        self._watch: Watch | None = Watch(thinking)
        self._holds = request.guide is not None
        self._asked = _thoughts_alone(request, thinking) if self._holds else request
        self._stream = backend.generate(self._asked)
        self._next: GenerateRequest | None = None
        self._held: list[Tokens] = []
        """Tokens of which it isn't known yet whether they open thoughts."""
        self._given: list[int] = []
        self._seen = 0
        self._perf: Perf | None = None
        self._is_second = self._wanted = self._over = False

    async def run(self, take: Take) -> bool:
        """As TokenStream."""
        while not self._over:
            if self._next is not None:
                self._stream.cancel()
                self._stream, self._next = self._backend.generate(self._next), None
            self._wanted = True
            goes_on = await self._stream.run(partial(self._relay, take))
            if not self._wanted:
                return True
            if not goes_on and self._next is None:
                break
        return False

    def cancel(self) -> None:
        """As TokenStream."""
        self._over = True
        self._stream.cancel()

    def _relay(self, take: Take, batch: list[Tokens]) -> bool:
        told = self._thought(batch, self._watch) if self._watch else self._answered(batch)
        if told:
            self._wanted = take(told)
            if told[-1].final:
                self.cancel()
        return self._wanted and self._next is None and not self._over

    def _answered(self, batch: list[Tokens]) -> list[Tokens]:
        if not (self._is_second and (batch[0].perf or batch[-1].perf)):
            return batch
        return [
            tokens._replace(perf=_both(self._perf, tokens.perf)) if tokens.perf else tokens
            for tokens in batch
        ]

    def _thought(self, batch: list[Tokens], watch: Watch) -> list[Tokens]:
        self._perf = batch[-1].perf or batch[0].perf or self._perf
        kept = [watch.kept(tokens.ids) for tokens in batch]
        self._seen += sum(len(tokens.ids) for tokens in batch)
        if not self._holds and watch.state is not State.SPENT:
            self._given += [token for tokens in batch for token in tokens.ids]
            self._watch = None if watch.over else watch
            return batch
        self._held += [_cut(tokens, n) for tokens, n in zip(batch, kept, strict=True)]
        final = batch[-1].final
        if watch.state is State.NONE or (watch.state is State.BEFORE and final):
            return self._anew()
        if watch.state is State.BEFORE:
            return []
        told, self._held = self._held, []
        self._given += [token for tokens in told for token in tokens.ids]
        if final:
            if self._is_end(watch):
                return [*told, Tokens((), perf=self._perf, final=True)]
            watch.state = watch.state if watch.over else State.SPENT
        if final or (watch.over and not self._ends_here(watch, batch, kept)):
            told += self._then(watch)
        return told

    def _is_end(self, watch: Watch) -> bool:
        """Whether the engine's end is the answer's: nothing is left, or the client wants it."""
        ended_by_id = bool(self._given) and self._given[-1] in self._request.stop_ids
        return not watch.over and (self._left <= 0 or ended_by_id)

    def _ends_here(self, watch: Watch, batch: Sequence[Tokens], kept: Sequence[int]) -> bool:
        """Whether the engine ends by itself where the thoughts do, so that its end is worth
        waiting for: it tells what the prompt took."""
        all_kept = all(len(tokens.ids) == n for tokens, n in zip(batch, kept, strict=True))
        knows = watch.state is State.ENDED or self._seen >= self._asked.max_tokens
        return all_kept and knows and any(tokens.ids for tokens in batch)

    def _then(self, watch: Watch) -> list[Tokens]:
        """What leads to the answer, and the request for that, if there is room for any."""
        end = self._thinking.end
        written = end[1:] if watch.state is State.ENDED else end
        self._given += written
        if self._left <= 0:
            return [Tokens(written, perf=self._perf, final=True)]
        self._ask(
            input_ids=[*self._request.input_ids, *self._given],
            max_tokens=self._left,
            min_tokens=max(0, self._request.min_tokens - len(self._given)),
            prompt_log_probs=None,
        )
        return [Tokens(written)] if written else []

    def _anew(self) -> list[Tokens]:
        """The model answers without thoughts: it shall do so in the form."""
        self._held.clear()
        self._ask()
        return []

    def _ask(self, **changes: Any) -> None:
        again = f"{self._request.request_id}-answer"
        self._next = replace(self._request, request_id=again, **changes)
        self._watch, self._is_second = None, True

    @property
    def _left(self) -> int:
        return self._request.max_tokens - len(self._given)


def _thoughts_alone(request: GenerateRequest, thinking: Thinking) -> GenerateRequest:
    """The request for thoughts, which end at their mark as an answer does at an end id."""
    most = request.max_tokens
    if thinking.budget is not None:
        before = len(thinking.start) + MOST_BLANKS if thinking.start else 0
        most = min(most, max(before + thinking.budget, 1))
    return replace(
        request,
        guide=None,
        max_tokens=most,
        min_tokens=min(request.min_tokens, most),
        stop_ids=(*request.stop_ids, thinking.end[0]),
    )


def _cut(tokens: Tokens, kept: int) -> Tokens:
    return tokens._replace(
        ids=tokens.ids[:kept],
        log_probs=tokens.log_probs[:kept],
        top=tokens.top[:kept],
        final=False,
    )


def _both(first: Perf | None, second: Perf) -> Perf:
    """Both requests as one: what the second finds in the cache is mostly the first's work. Where
    that was broken off, nothing is known of what it found."""
    if first is None:
        return replace(second, cached_tokens=0)
    return replace(first, last_token_ns=second.last_token_ns)
