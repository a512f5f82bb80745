"""One request under way in a Triton, as a TokenStream."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from server.backend.base import GenerateRequest, Take, Tokens
from server.backend.http2.call import Call
from server.backend.http2.status import CallError
from server.backend.triton import messages
from server.backend.triton.answer import Answer
from server.backend.triton.endpoints import Endpoint
from server.backend.triton.words import error_of_call, says_untaken
from server.config import ServedModel
from server.errors import InternalError, NotReadyError, RequestError

_OFFLOAD_BYTES: Final = 1 << 16
"""Messages of more than this together, which are logits, are read on another thread."""
_MOST_TRIES: Final = 8
_END_SECONDS: Final = 5.0
"""How long Triton may take to end a stream that has nothing more to say."""


class Home(Protocol):
    """What a stream needs of its backend."""

    def choose(self, model: str, tried: set[Endpoint]) -> Endpoint:
        """Who is asked."""
        ...

    def left(self, stream: TritonStream) -> None:
        """The stream is over."""
        ...


class TritonStream:
    """A request. It is sent at once where there is a connection, else by the first `run`."""

    def __init__(self, home: Home, request: GenerateRequest, model: ServedModel) -> None:
        self._home, self._request = home, request
        self._answer = Answer(request, model)
        self._metadata = trace_metadata(request.trace)
        self._tried: set[Endpoint] = set()
        self._endpoint: Endpoint | None = None
        self._call: Call | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._failure: RequestError | None = None
        self._heard = self._over = self._reading = False
        self._wanted = True
        self._silent_looks = self._tries = 0
        try:
            self._message = messages.generate_request(request, model)
            self._begin()
        except RequestError as error:
            self._fail(error)

    @property
    def over(self) -> bool:
        """Whether nothing comes any more."""
        return self._over

    async def run(self, take: Take) -> bool:
        """As TokenStream."""
        self._wanted = True
        while self._wanted:
            if self._failure is not None:
                raise self._failure
            if self._over:
                return False
            call = self._call
            if call is None:
                await self._connect()
            elif call.messages:
                self._read_now(call, take)
                if call.messages:
                    await self._read_aside(call.take(), take)
            elif call.ended:
                self._ended(call.error)
            else:
                await call.wait(partial(self._read_now, call, take))
        return True

    def _read_now(self, call: Call, take: Take) -> bool:
        """Read what has come, unless that takes long; whether `run` has nothing to do but wait."""
        if _is_large(call.messages):
            return False
        tokens: list[Tokens] = []
        self._told(tokens, self._answer.read(call.take(), tokens), take)
        return self._wanted and not self._over and self._call is call

    def cancel(self) -> None:
        """As TokenStream."""
        if self._over:
            return
        call, self._call = self._call, None
        self._leave()
        if self._connecting is not None:
            self._connecting.cancel()
        if call is not None:
            if self._ends_by_itself(call):
                _let_end(call)
            else:
                call.cancel()

    def look(self, looks: int) -> None:
        """Give the request up if nothing has come since so many looks, which are periodic."""
        call = self._call
        if call is None or call.fresh or call.messages or call.ended:
            self._silent_looks = 0
            if call is not None:
                call.fresh = False
            return
        self._silent_looks += 1
        if self._silent_looks >= looks:
            self._fail(NotReadyError("Triton stopped answering", do="try again"))
            call.cancel()

    def _begin(self) -> None:
        """Choose whom to ask, and ask, where that needs no waiting."""
        endpoint = self._home.choose(self._request.model, self._tried)
        self._endpoint = endpoint
        endpoint.in_flight += 1
        self._call = endpoint.channel.begin(messages.STREAM_PATH, self._message, self._metadata)

    async def _connect(self) -> None:
        """Ask as soon as there is a connection; who gives up before has sent nothing."""
        endpoint = self._endpoint
        if endpoint is None:  # it was given up
            return
        connecting = self._connecting = asyncio.create_task(self._ask(endpoint))
        try:
            await asyncio.wait((connecting,))
            if not connecting.cancelled():
                connecting.result()
        finally:
            connecting.cancel()

    async def _ask(self, endpoint: Endpoint) -> None:
        channel = endpoint.channel
        try:
            self._call = await channel.call(messages.STREAM_PATH, self._message, self._metadata)
        except CallError as error:
            self._ended(error, elsewhere=True)

    async def _read_aside(self, found: list[bytes], take: Take) -> None:
        tokens: list[Tokens] = []
        self._reading = True  # and the thread goes on if this is cancelled
        error = await asyncio.to_thread(self._answer.read, found, tokens)
        self._reading = False
        if not self._over:
            self._told(tokens, error, take)

    def _told(self, tokens: list[Tokens], error: RequestError | None, take: Take) -> None:
        """What the messages told: the end, or an error, are after their tokens."""
        if tokens:
            self._heard = True
        if error is not None:
            self._refused(error)
        elif self._answer.final:
            self._finish()
        if tokens:
            self._wanted = take(tokens)

    def _refused(self, error: RequestError) -> None:
        """Triton answered with an error, after which nothing comes: its stream ends by itself."""
        call, self._call = self._call, None
        if call is not None:
            _let_end(call)
        untaken = isinstance(error, NotReadyError) and says_untaken(str(error))
        if not (untaken and self._again(elsewhere=True)):
            self._fail(error)

    def _finish(self) -> None:
        """All has come. A cancel that meets the stream's own end leaves Triton 2.51 holding the
        request, and the model can't be unloaded: the stream ends by itself."""
        call, self._call = self._call, None
        self._leave()
        if call is not None:
            _let_end(call)

    def _ended(self, error: CallError | None, *, elsewhere: bool = False) -> None:
        """The call is over, too early."""
        self._call = None
        if error is None:
            self._fail(InternalError("Triton ended the stream without a final response"))
        elif not (error.untaken and self._again(elsewhere=elsewhere)):
            self._fail(error_of_call(error))

    def _again(self, *, elsewhere: bool) -> bool:
        """Ask once more, not the same if `elsewhere`: what nobody took may be sent twice."""
        endpoint = self._endpoint
        self._tries += 1
        if self._heard or endpoint is None or self._tries >= _MOST_TRIES:
            return False
        endpoint.in_flight -= 1
        self._endpoint = None
        if elsewhere:
            self._tried.add(endpoint)
        try:
            self._begin()
        except RequestError:
            return False
        return True

    def _fail(self, error: RequestError) -> None:
        self._failure = error
        self._leave()

    def _leave(self) -> None:
        if not self._over:
            self._over = True
            if self._endpoint is not None:
                self._endpoint.in_flight -= 1
            self._home.left(self)

    def _ends_by_itself(self, call: Call) -> bool:
        """Whether what has come, or must come next, is the final response; where that would take
        long to find out, no."""
        found = call.take()
        if self._reading or _is_large(found):
            return False
        return self._answer.read(found, []) is not None or self._answer.ends


def _is_large(messages: Sequence[bytes]) -> bool:
    if len(messages) == 1:
        return len(messages[0]) > _OFFLOAD_BYTES
    return sum(map(len, messages)) > _OFFLOAD_BYTES


def _let_end(call: Call) -> None:
    """Drop what comes until the call ends, but not for ever."""
    if not call.ended:
        call.ignore()
        asyncio.get_running_loop().call_later(_END_SECONDS, call.cancel)


_TRACE_HEADERS: Final = ("traceparent", "tracestate", "baggage")


def trace_metadata(trace: Mapping[str, str]) -> dict[str, str]:
    """W3C trace headers; no others, as some make Triton do things, and one makes it abort."""
    found = {name.lower(): value for name, value in trace.items()}
    return {
        name: found[name]
        for name in _TRACE_HEADERS
        if name in found and found[name].isascii() and found[name].isprintable()
    }
