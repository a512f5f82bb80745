"""The connections to one gRPC server: kept, replaced when they end, and as many as calls need.

A server that is away is told at once: a call waits for a connection that is being made, never for
the next try. Names are resolved anew for each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import ssl
from collections import deque
from collections.abc import Mapping
from functools import cache
from typing import Final

from server.backend.http2.address import Address
from server.backend.http2.call import Call
from server.backend.http2.connection import Connection
from server.backend.http2.dial import dial
from server.backend.http2.header_blocks import encoded
from server.backend.http2.limits import Limits
from server.backend.http2.status import CallError, Status

_log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 0.3
_MOST_CONNECTIONS: Final = 16


class Channel:
    """Connections to one address, made from its first use on, within a running event loop."""

    def __init__(
        self, address: Address, *, tls: ssl.SSLContext | None = None, limits: Limits | None = None
    ) -> None:
        self.address = address
        self._tls = tls
        self._limits = limits or Limits()
        self._connections: list[Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._failure: str | None = None
        self._closed = False
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        scheme = "https" if tls else "http"
        self._head = encoded(
            (
                (":method", "POST"),
                (":scheme", scheme),
                (":authority", str(address)),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", "trtbuild"),
            )
        )

    @property
    def connected(self) -> bool:
        """Whether calls can begin now, or as soon as others end."""
        return any(connection.usable for connection in self._connections)

    def connect(self) -> None:
        """Begin to connect, where that isn't done yet."""
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    def begin(self, path: str, message: bytes, metadata: Mapping[str, str]) -> Call | None:
        """Begin a call now; None where `call` must be awaited."""
        if self._waiting:
            return None
        connection = self._free()
        return None if connection is None else self._open(connection, path, message, metadata)

    async def call(self, path: str, message: bytes, metadata: Mapping[str, str]) -> Call:
        """Begin a call as soon as a connection has room.

        Raises CallError, always `untaken`, when the server is away.
        """
        self.connect()
        call = self.begin(path, message, metadata)
        while call is None:
            await self._change()
            connection = self._free()
            if connection is not None:
                call = self._open(connection, path, message, metadata)
        if self._waiting and self._free() is not None:
            self._tell(1)  # one change may have made room for several
        return call

    async def unary(
        self,
        path: str,
        message: bytes,
        *,
        timeout_seconds: float,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """One message for another. Raises CallError."""
        deadline = {"grpc-timeout": f"{max(1, int(timeout_seconds * 1000))}m", **(metadata or {})}
        try:
            return await asyncio.wait_for(self._one(path, message, deadline), timeout_seconds)
        except asyncio.TimeoutError:
            found = f"no answer within {timeout_seconds:g} s"
            raise CallError(Status.DEADLINE_EXCEEDED, found) from None

    async def _one(self, path: str, message: bytes, metadata: Mapping[str, str]) -> bytes:
        call = await self.call(path, message, metadata)
        messages: list[bytes] = []
        try:
            while not call.ended and len(messages) < 2:
                await call.wait()
                messages += call.take()
        finally:
            call.cancel()
        if call.error is not None:
            raise call.error
        if len(messages) != 1:
            raise CallError(Status.INTERNAL, f"{len(messages)} messages, not one")
        return messages[0]

    def ask_for_sign(self) -> None:
        """Find out which connections are dead, though nobody said so."""
        for connection in self._connections:
            connection.ask_for_sign()

    async def close(self) -> None:
        """End all calls and connections."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self._failure = "the connection was closed by us"
        for connection in list(self._connections):
            connection.close()
        self._tell(len(self._waiting))

    def _open(
        self, connection: Connection, path: str, message: bytes, metadata: Mapping[str, str]
    ) -> Call:
        block = _path_block(path) + self._head
        if metadata:
            block += encoded(metadata.items())
        return connection.open(block, message)

    def _free(self) -> Connection | None:
        """The connection with room and the fewest calls."""
        free = [connection for connection in self._connections if connection.has_room]
        return min(free, key=lambda connection: len(connection.calls)) if free else None

    async def _change(self) -> None:
        """Wait in line for a connection with room. Raises CallError."""
        if self._failure is not None and not self.connected:
            raise CallError(Status.UNAVAILABLE, self._failure, untaken=True)
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._wake.set()
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self._tell(1)  # its turn is another's now
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiting)
        if self._failure is not None and not self.connected:
            raise CallError(Status.UNAVAILABLE, self._failure, untaken=True)

    def _tell(self, count: int) -> None:
        while self._waiting and count > 0:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                count -= 1

    def _changed(self) -> None:
        """A connection became usable, has room again, or ended."""
        self._connections = [each for each in self._connections if not each.closed]
        self._wake.set()
        if self._waiting and self._free() is not None:
            self._tell(1)

    async def _keep(self) -> None:
        """Connect whenever there are too few connections; to a peer that leaves at once, not
        without a pause."""
        loop = asyncio.get_running_loop()
        made = -math.inf
        while not self._closed:
            if not self._wants_another():
                self._wake.clear()
                await self._wake.wait()
                continue
            if not self.connected:
                await asyncio.sleep(made + _RETRY_SECONDS - loop.time())
            try:
                connection = await self._connect()
            except (OSError, ValueError, CallError, asyncio.TimeoutError) as error:
                self._failed(f"{self.address}: {self._words(error)}")
                if not self.connected:
                    self._tell(len(self._waiting))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                if self._closed:  # Python 3.11's wait_for can swallow a cancel
                    connection.close()
                    return
                made = loop.time()
                self._failure = None
                self._connections.append(connection)
                self._tell(len(self._waiting))

    def _failed(self, why: str) -> None:
        if self.connected:  # not when those are gone, either
            _log.debug("no further connection to Triton: %s", why)
            return
        if why != self._failure:
            _log.warning("no connection to Triton: %s", why)
        self._failure = why

    def _wants_another(self) -> bool:
        if not self.connected:
            return True
        usable = sum(connection.usable for connection in self._connections)
        return bool(self._waiting) and self._free() is None and usable < _MOST_CONNECTIONS

    def _words(self, error: BaseException) -> str:
        if isinstance(error, (asyncio.TimeoutError, TimeoutError)) and not str(error):
            return f"no connection within {self._limits.connect_seconds:g} s"
        return str(error) or type(error).__name__

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        settled = asyncio.Event()

        def changed() -> None:
            settled.set()
            self._changed()

        async def greet() -> Connection:
            transport, made = await loop.create_connection(
                lambda: Connection(self._limits, changed),
                sock=await dial(self.address.host, self.address.port),
                ssl=self._tls,
                server_hostname=self.address.host if self._tls else None,
            )
            secured = transport.get_extra_info("ssl_object")
            if secured is not None and secured.selected_alpn_protocol() != "h2":
                made.lose("it doesn't speak HTTP/2 over TLS")
            try:
                await settled.wait()
            except asyncio.CancelledError:
                made.lose("no answer to the connection's beginning")
                raise
            if not made.usable:
                raise CallError(Status.UNAVAILABLE, made.why, untaken=True)
            return made

        return await asyncio.wait_for(greet(), self._limits.connect_seconds)


@cache
def _path_block(path: str) -> bytes:
    return encoded([(":path", path)])
