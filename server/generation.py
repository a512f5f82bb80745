"""Where text and tokens meet: one request of any dialect to a stream of text events."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from server.answer import Answer
from server.backend.base import Backend, GenerateRequest, Tokens
from server.backend.merge import Merge
from server.errors import InternalError
from server.protocol.request import TextEvent, TextRequest, Usage
from server.telemetry.metrics import RequestMeter
from server.text_model import TextModel


class Generation:
    """One request under way. `events` yields what is ready; closing it cancels all of it."""

    def __init__(
        self,
        model: TextModel,
        backend: Backend,
        request: TextRequest,
        requests: list[GenerateRequest],
        meter: RequestMeter,
    ) -> None:
        self._backend, self._requests, self._meter = backend, requests, meter
        self._answers = [
            Answer(
                index,
                model.tokenizer,
                request.limits,
                max_tokens=made.max_tokens,
                skip_special_tokens=request.skip_special_tokens,
                after=made.input_ids if prompt.continues else (),
            )
            for index, (prompt, made) in enumerate(zip(request.prompts, requests, strict=True))
        ]
        self.prompt_tokens = sum(len(made.input_ids) for made in requests)
        meter.prompt(self.prompt_tokens)

    @property
    def choices(self) -> int:
        """How many choices are answered."""
        return len(self._answers)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        written = sum(answer.completion_tokens for answer in self._answers)
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=written)

    async def events(self) -> AsyncGenerator[list[TextEvent], None]:
        """Batches of events that were ready together, until every choice has ended.

        Raises errors of server.errors.
        """
        sources = [self._backend.generate(request) for request in self._requests]
        async with Merge(sources) as merge:
            while batch := await merge.next_batch():
                if events := self._feed(batch, merge):
                    yield events
                if all(answer.ended for answer in self._answers):
                    return
        if not all(answer.ended for answer in self._answers):
            raise InternalError("the engine's answer broke off", do="ask again")

    def _feed(self, batch: list[tuple[int, Tokens]], merge: Merge) -> list[TextEvent]:
        events = []
        for index, tokens in batch:
            answer = self._answers[index]
            if answer.ended:
                continue
            before = answer.completion_tokens
            event = answer.feed(tokens)
            self._meter.tokens(answer.completion_tokens - before)
            if answer.ended and not tokens.final:
                merge.stop(index)
            if event.text or event.log_probs or event.finish_reason:
                events.append(event)
        return events
