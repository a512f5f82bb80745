"""A backend in memory: scripted answers, delays and failures, for tests without a Triton."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from server.backend.base import GenerateRequest, Perf, PromptLogProb, Take, Tokens, TopLogProbs

Message = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Script:
    """How one request is answered.

    `messages` are the ids of each message; `delay_seconds` passes before each; `failure` is
    raised after the last one instead of an end; `hang` waits for cancellation there. A request
    for several sequences gets `messages` for each, or one of `sequences` each. `burst` messages
    come at once. `top`, `prompt` and `perf` are told to who asks for them.
    """

    messages: Sequence[Message] = ()
    delay_seconds: float = 0.0
    failure: Exception | None = None
    hang: bool = False
    log_prob: float = -0.5
    sequences: Sequence[Sequence[Message]] = ()
    burst: int = 1
    top: TopLogProbs = ()
    prompt: Sequence[PromptLogProb] = ()
    perf: Perf | None = None


class MemoryBackend:
    """Answers each request by a script, as an engine would: cut at end ids and `max_tokens`.

    `requests` and `cancelled` record what was asked and what was given up early; `given` counts
    messages. `embedding` makes an encoder's answer.
    """

    def __init__(
        self,
        answer: Script | Callable[[GenerateRequest], Script],
        *,
        embedding: Callable[[Sequence[int]], Sequence[float]] | None = None,
    ) -> None:
        self._answer = answer
        self._embedding = embedding
        self.is_ready = True
        self.running = self.given = 0
        self.requests: list[GenerateRequest] = []
        self.cancelled: list[str] = []
        self.embedded: list[Sequence[int]] = []
        self.embedded_by: Mapping[str, str] = {}

    def generate(self, request: GenerateRequest) -> MemoryStream:
        """The scripted messages, until the request's own limits end it."""
        script = self._answer if isinstance(self._answer, Script) else self._answer(request)
        self.requests.append(request)
        return MemoryStream(self, script, request)

    async def embed(
        self, model: str, input_ids: Sequence[int], *, trace: Mapping[str, str]
    ) -> Sequence[float]:
        """What `embedding` makes of the ids; without one, their count and zeros."""
        self.embedded.append(input_ids)
        self.embedded_by = trace
        return self._embedding(input_ids) if self._embedding else [float(len(input_ids)), 0.0, 0.0]

    async def ready(self, model: str) -> bool:
        """What `is_ready` says."""
        return self.is_ready

    async def close(self) -> None:
        """Nothing to let go."""


class MemoryStream:
    """A script being played."""

    def __init__(self, backend: MemoryBackend, script: Script, request: GenerateRequest) -> None:
        self._backend, self._script, self._request = backend, script, request
        self._messages = _play(script, request)
        self._cancelled = asyncio.Event()
        self._over = False
        backend.running += 1

    async def run(self, take: Take) -> bool:
        """As TokenStream: `burst` messages at once, each after the script's delay."""
        while batch := await self._next():
            if not take(batch):
                return True
        return False

    async def _next(self) -> list[Tokens]:
        batch: list[Tokens] = []
        while not self._over and len(batch) < self._script.burst:
            if self._script.delay_seconds and await self._cancelled_within():
                return []
            tokens = next(self._messages, None)
            if tokens is None:
                if batch:
                    return batch
                return await self._end()
            self._backend.given += 1
            batch.append(tokens)
            if tokens.final:
                self._finish()
        return batch

    def cancel(self) -> None:
        """Recorded in the backend's `cancelled` if the script wasn't over."""
        if not self._over:
            self._backend.cancelled.append(self._request.request_id)
            self._finish()
            self._cancelled.set()

    async def _end(self) -> list[Tokens]:
        if self._script.failure:
            self._finish()
            raise self._script.failure
        await self._cancelled.wait()
        return []

    async def _cancelled_within(self) -> bool:
        try:
            await asyncio.wait_for(self._cancelled.wait(), self._script.delay_seconds)
        except (asyncio.TimeoutError, TimeoutError):
            return False
        return True

    def _finish(self) -> None:
        self._over = True
        self._backend.running -= 1


def _play(script: Script, request: GenerateRequest) -> Iterator[Tokens]:
    """Messages of every sequence in turn; the last of them is final, unless the script breaks."""
    count = request.beams.width if request.beams else request.sequences
    scripts = [
        list(_sequence(script.sequences[i] if script.sequences else script.messages, request))
        for i in range(count)
    ]
    turns = max(map(len, scripts))
    messages = [
        _tokens(script, request, sequence, ids)
        for turn in range(turns)
        for sequence, own in enumerate(scripts)
        for ids in own[turn : turn + 1]
    ]
    if messages and script.prompt and request.prompt_log_probs is not None:
        messages[0] = messages[0]._replace(prompt=script.prompt)
    whole = all(own and _is_over(own, request) for own in scripts)
    if not whole and (script.failure or script.hang):
        yield from messages
        return
    if not whole:
        messages.append(Tokens(ids=()))
    yield from messages[:-1]
    yield messages[-1]._replace(perf=script.perf, final=True)


def _sequence(messages: Sequence[Message], request: GenerateRequest) -> Iterator[Message]:
    left = request.max_tokens
    for message in messages:
        ids, ended = _until_end(message[:left], request)
        left -= len(ids)
        yield ids
        if ended or left == 0:
            return


def _is_over(messages: Sequence[Message], request: GenerateRequest) -> bool:
    if sum(map(len, messages)) == request.max_tokens:
        return True
    return any(_until_end(ids, request)[1] for ids in messages)


def _tokens(script: Script, request: GenerateRequest, sequence: int, ids: Message) -> Tokens:
    top = script.top[: request.top_log_probs]
    return Tokens(
        ids=ids,
        sequence=sequence,
        log_probs=[script.log_prob] * len(ids) if request.log_probs else (),
        top=[top] * len(ids) if top else (),
    )


def _until_end(ids: Message, request: GenerateRequest) -> tuple[Message, bool]:
    for position, token in enumerate(ids):
        if token == request.end_id or token in request.stop_ids:
            return ids[: position + 1], True
    return ids, False
