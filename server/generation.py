"""Where text and tokens meet: one request of any dialect to its choices' text events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType

from server.answer import Answer, joined
from server.backend.base import Backend, Perf, PromptLogProb, Tokens, TokenStream
from server.backend.merge import Merge
from server.errors import InternalError
from server.protocol.request import TextEvent, TextRequest, Usage
from server.telemetry.metrics import RequestMeter
from server.text_model import Prepared, TextModel
from server.thinking import generate

Show = Callable[[list[TextEvent]], bool]
"""Is given what is new, at most one event an answer, and says whether it wants more."""


class Generation:
    """One request under way, within this context: leaving it cancels what still runs.

    Its answers are those of the first prompt, then those of the next. Raises errors of
    server.errors wherever it waits.
    """

    def __init__(
        self,
        model: TextModel,
        backend: Backend,
        request: TextRequest,
        prepared: Sequence[Prepared],
        meter: RequestMeter,
    ) -> None:
        self._backend, self._request, self._prepared = backend, request, prepared
        self._meter = meter
        self._width = request.best_of or request.n
        parsing = model.parsing(request)
        self._answers = [
            [
                Answer(index * self._width + n, model.tokenizer, request, one, parsing)
                for n in range(self._width)
            ]
            for index, one in enumerate(prepared)
        ]
        self.running = self._width * len(prepared)
        """Answers that haven't ended."""
        self._prompt_tokens = sum(len(one.request.input_ids) for one in prepared)
        self._cached_tokens = [0] * len(prepared)
        self._stream: TokenStream | None = None
        self._merge: Merge | None = None
        self._cancel: Callable[[], None]
        self._of_prompt: list[Sequence[PromptLogProb]] = [() for _ in prepared]
        self._asks_of_prompt = prepared[0].request.prompt_log_probs is not None
        meter.prompt(self._prompt_tokens)

    def __enter__(self) -> Generation:
        streams = [self._begun(one) for one in self._prepared]
        if len(streams) == 1:
            self._stream = streams[0]
            self._cancel = streams[0].cancel
        else:
            self._merge = merge = Merge(streams)
            self._cancel = merge.close
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cancel()

    @property
    def choices(self) -> int:
        """How many choices are answered."""
        return self._request.n * len(self._prepared)

    @property
    def usage(self) -> Usage:
        """Tokens so far, those of answers that aren't chosen too."""
        answers = [answer for own in self._answers for answer in own]
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=sum(answer.completion_tokens for answer in answers),
            cached_tokens=sum(self._cached_tokens),
            reasoning_tokens=sum(answer.reasoning_tokens for answer in answers),
        )

    async def run(self, show: Show) -> None:
        """Give what is new to `show`, as soon as something is, until that says no, or the end.

        `show` may be called without a task between the engine's connection and it.
        """

        def take(batch: list[Tokens]) -> bool:
            events = self._feed(0, batch)
            return (show(events) if events else True) and self.running > 0

        if not self.running:
            return
        if self._stream:
            goes_on = await self._stream.run(take)
        elif self._merge:
            goes_on = await self._run(self._merge, show)
        if self.running and not goes_on:
            raise InternalError("the engine's answer broke off", do="ask again")

    async def whole(self) -> list[TextEvent]:
        """Every choice as one event: the likeliest answers of each prompt, if more were written."""
        events: list[list[TextEvent]] = [[] for own in self._answers for _ in own]

        def show(new: list[TextEvent]) -> bool:
            for event in new:
                events[event.index].append(event)
            return True

        await self.run(show)
        chosen = [answer for own in self._answers for answer in self._likeliest(own)]
        return [
            replace(joined(events[answer.index]), index=index)
            for index, answer in enumerate(chosen)
        ]

    def _begun(self, one: Prepared) -> TokenStream:
        if one.thinking:
            return generate(self._backend, one.request, one.thinking)
        return self._backend.generate(one.request)

    async def _run(self, merge: Merge, show: Show) -> bool:
        """The same for several streams; False when they are over."""
        while self.running:
            batch = await merge.next_batch()
            if not batch:
                return False
            own: dict[int, list[Tokens]] = {}
            for index, tokens in batch:
                own.setdefault(index, []).append(tokens)
            events = []
            for index, new in own.items():
                events += self._feed(index, new)
                if not new[-1].final and all(answer.ended for answer in self._answers[index]):
                    merge.stop(index)
            if events and not show(events):
                break
        return True

    def _feed(self, index: int, batch: list[Tokens]) -> list[TextEvent]:
        """The events of one prompt's answers."""
        last = batch[-1].final
        if perf := batch[-1].perf or batch[0].perf:
            self._told(index, perf, last=last)
        if self._asks_of_prompt:
            self._of_prompt[index] = self._of_prompt[index] or next(
                (tokens.prompt for tokens in batch if tokens.prompt), ()
            )
        answers = self._answers[index]
        if len(answers) == 1:
            event = self._fed(answers[0], batch, last, self._of_prompt[index])
            return [event] if event else []
        own: dict[int, list[Tokens]] = {n: [] for n in range(len(answers))} if last else {}
        for tokens in batch:
            own.setdefault(tokens.sequence, []).append(tokens)
        fed = (self._fed(answers[n], new, last, self._of_prompt[index]) for n, new in own.items())
        return [event for event in fed if event]

    def _fed(
        self, answer: Answer, batch: list[Tokens], last: bool, prompt: Sequence[PromptLogProb]
    ) -> TextEvent | None:
        if answer.finish_reason is not None:
            return None
        before = answer.completion_tokens
        event = answer.feed(batch, last=last, prompt=prompt)
        self._meter.tokens(answer.completion_tokens - before, answer.index)
        if answer.finish_reason is not None:
            self.running -= 1
            self._meter.finish(answer.finish_reason)
        return event

    def _told(self, index: int, perf: Perf, *, last: bool) -> None:
        self._cached_tokens[index] = perf.cached_tokens
        if last:
            self._meter.perf(perf)

    def _likeliest(self, answers: Sequence[Answer]) -> Sequence[Answer]:
        """So many as are wanted, in the order in which they are; beams come sorted."""
        if self._request.sampling.beams or len(answers) == self._request.n:
            return answers[: self._request.n]
        best = sorted(answers, key=lambda answer: answer.mean_log_prob, reverse=True)
        return best[: self._request.n]
