"""A backend in memory: scripted answers, delays and failures, for tests without a Triton."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from server.backend.base import GenerateRequest, Tokens


@dataclass(frozen=True, kw_only=True)
class Script:
    """How one request is answered.

    `messages` are the ids of each message; `delay_seconds` passes before each; `failure` is
    raised after the last one instead of an end; `hang` waits for cancellation there.
    """

    messages: Sequence[Sequence[int]]
    delay_seconds: float = 0.0
    failure: Exception | None = None
    hang: bool = False
    log_prob: float = -0.5


class MemoryBackend:
    """Answers each request by a script, as an engine would: cut at end ids and `max_tokens`.

    `requests` and `cancelled` record what was asked and what was given up early; `given` counts
    messages.
    """

    def __init__(self, answer: Script | Callable[[GenerateRequest], Script]) -> None:
        self._answer = answer
        self.is_ready = True
        self.running = self.given = 0
        self.requests: list[GenerateRequest] = []
        self.cancelled: list[str] = []

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Tokens]:
        """The scripted messages, until the request's own limits end it."""
        script = self._answer if isinstance(self._answer, Script) else self._answer(request)
        self.requests.append(request)
        self.running += 1
        try:
            async for tokens in _play(script, request):
                self.given += 1
                yield tokens
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.append(request.request_id)
            raise
        finally:
            self.running -= 1

    async def ready(self) -> bool:
        """What `is_ready` says."""
        return self.is_ready

    async def close(self) -> None:
        """Nothing to let go."""


async def _play(script: Script, request: GenerateRequest) -> AsyncIterator[Tokens]:
    left = request.max_tokens
    for message in script.messages:
        if script.delay_seconds:
            await asyncio.sleep(script.delay_seconds)
        ids, ended = _until_end(message[:left], request)
        left -= len(ids)
        final = ended or left == 0
        log_probs = [script.log_prob] * len(ids) if request.log_probs else []
        yield Tokens(ids=ids, log_probs=log_probs, final=final)
        if final:
            return
    if script.failure:
        raise script.failure
    if script.hang:
        await asyncio.Event().wait()
    yield Tokens(ids=(), final=True)


def _until_end(ids: Sequence[int], request: GenerateRequest) -> tuple[Sequence[int], bool]:
    for position, token in enumerate(ids):
        if token == request.end_id or token in request.stop_ids:
            return ids[: position + 1], True
    return ids, False
