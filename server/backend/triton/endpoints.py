"""Several Tritons alike: which are well, and which gets the next request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from typing import Final

from server.backend.http2.address import Address
from server.backend.http2.channel import Channel
from server.backend.http2.status import CallError, Status
from server.backend.triton import messages
from server.backend.triton.protobuf import MalformedError
from server.config import ServerConfig
from server.errors import NotReadyError

_LOOK_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 2.0
"""How long a Triton may take to say whether it serves a model."""
_PATIENCE_SECONDS: Final = 1.0
"""How long it may, before its connections are asked for a sign of life: a Triton that loads a model
answers nothing else, but its gRPC threads answer a PING."""


class Endpoint:
    """One Triton. `in_flight` counts requests; `unready` are models that it doesn't serve now."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.in_flight = 0
        self.answers = True
        self.unready: set[str] = set()

    def rank(self, model: str) -> tuple[bool, bool, bool, int]:
        """The least is the best to ask."""
        connected = self.channel.connected
        return not connected, not self.answers, model in self.unready, self.in_flight

    async def ready(self, model: str) -> bool:
        """Ask Triton whether it serves a model."""
        loop = asyncio.get_running_loop()
        patience = loop.call_later(_PATIENCE_SECONDS, self.channel.ask_for_sign)
        try:
            answer = await self.channel.unary(
                messages.READY_PATH, messages.ready_request(model), timeout_seconds=_ANSWER_SECONDS
            )
            ready = messages.is_ready(answer)
        except (CallError, MalformedError) as error:
            ready = False
            self.answers = getattr(error, "status", None) != Status.DEADLINE_EXCEEDED
        else:
            self.answers = True
        finally:
            patience.cancel()
        (self.unready.discard if ready else self.unready.add)(model)
        return ready


class Endpoints:
    """All of the configuration's addresses, looked at every second from the first use on."""

    def __init__(self, config: ServerConfig, channels: Sequence[Channel]) -> None:
        self.all = [Endpoint(channel) for channel in channels]
        self._models = sorted({model.triton_model for model in config.models})
        self._watches: list[asyncio.Task[None]] = []
        self._turn = 0
        self._closed = False

    def start(self) -> None:
        """Begin to connect and to look, where that isn't done yet."""
        if not self._watches:
            self._watches = [asyncio.create_task(self._watch(endpoint)) for endpoint in self.all]

    def choose(self, model: str, tried: Collection[Endpoint] = ()) -> Endpoint:
        """The healthy one with the fewest requests; of equals, each in its turn.

        Raises NotReadyError when all were tried.
        """
        left = [endpoint for endpoint in self.all if endpoint not in tried]
        if not left:
            raise NotReadyError("Triton is not available", do="try again")
        if len(left) == 1:
            return left[0]
        self._turn += 1
        start = self._turn % len(left)
        return min(left[start:] + left[:start], key=lambda endpoint: endpoint.rank(model))

    async def ready(self, model: str) -> bool:
        """Whether any of them serves a model now."""
        self.start()
        asked = [endpoint.ready(model) for endpoint in self.all]
        return any(await asyncio.gather(*asked))

    async def close(self) -> None:
        """Stop looking, and close the connections."""
        self._closed = True
        for watch in self._watches:
            watch.cancel()
        for watch in self._watches:
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        for endpoint in self.all:
            await endpoint.channel.close()

    async def _watch(self, endpoint: Endpoint) -> None:
        endpoint.channel.connect()
        while not self._closed:
            await asyncio.sleep(_LOOK_SECONDS)
            if endpoint.channel.connected:
                for model in self._models:
                    await endpoint.ready(model)


def addresses(config: ServerConfig) -> list[Address]:
    """Where the Tritons are. Raises UnusableSettingError for an address that can't be read."""
    return [Address.parse(text) for text in config.triton_addresses]
