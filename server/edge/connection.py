"""A client's connection: uvicorn's, with the bounds that it lacks on slow and large requests."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum
from functools import partial

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from server.config import ServerConfig
from server.edge.burst import Burst
from server.edge.call import ABORT, WRITE
from server.protocol.sse import encode

_MAX_PIPELINED = 32
"""Requests that a client may have in line on one connection; hardly any has one."""
_OF_UPGRADES = frozenset({b"upgrade", b"http2-settings"})
_FRAMING_SHARE = 16
"""Bytes around a body's chunks for each byte of it; one at a time, they are five."""


class _UntilClose(int):
    """What is left of an answer that only its connection's end ends: HTTP/1.0 knows no chunks."""

    def __lt__(self, sent: int) -> bool:
        return False

    def __sub__(self, sent: int) -> _UntilClose:
        return self

    def __ne__(self, nothing: object) -> bool:
        return False

    __hash__ = int.__hash__


class Reading(Enum):
    """What the client owes us."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


def connections(limits: ServerConfig) -> type[HttpToolsProtocol]:
    """The class of the connections of a server with these limits."""
    return type("BoundedConnection", (Connection,), {"limits": limits, "burst": Burst()})


class Connection(HttpToolsProtocol):
    """One client. What is too slow or too large is told so, and the connection closed.

    A timer runs only while a request has come in part.
    """

    limits: ServerConfig
    burst: Burst

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come: it must send something, unless there are too many."""
        super().connection_made(transport)
        self._reading = self._watched = Reading.HEAD
        self._head_bytes = self._framing_bytes = self._body_bytes = 0
        self._is_upgrade = self._begun = False
        self._cycles: deque[RequestResponseCycle] = deque()
        self._unread_bytes = 0
        self._reader_timer: asyncio.TimerHandle | None = None
        self._timer = self._watch()
        if len(self.connections) > self.limits.max_connections:
            self._refuse(503, "server_error", "service_unavailable", "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        for timer in (self._timer, self._reader_timer):
            if timer:
                timer.cancel()
        self._tell_cycles()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """It reads more slowly than it is answered; that must not stop, also while we close."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """It has read."""
        if self._reader_timer:
            self._reader_timer.cancel()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """It has been silent for long; what it hasn't read by now, it won't."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def on_response_complete(self) -> None:
        """The oldest request has been answered."""
        cycle = self._cycles.popleft()
        cycle.scope.pop(WRITE, None)  # type: ignore[misc]  # it holds the cycle, which holds it
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """A piece of a request, of several, or more than one."""
        if self.transport.is_closing():
            return
        if self._reading is Reading.NOTHING:
            self._reading = Reading.HEAD  # though empty lines may come before it
        if self._reading is Reading.HEAD:
            self._head_bytes += len(data)
        else:
            self._framing_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._is_too_large():
            self._refuse_head()
        if self._reading is not self._watched:
            self._watched = self._reading
            if self._timer:
                self._timer.cancel()
            self._timer = self._watch()

    def _feed(self, data: bytes) -> None:
        """Have `data` parsed. For who would speak another protocol (h2c, which some clients try
        first) it is HTTP/1.1 all the same; the parser alone would take the body for the other
        protocol's, or for a request."""
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._is_upgrade:
                    raise httptools.HttpParserError("not an upgrade of HTTP/1.1") from None
                data = self._plain_head() + data[upgrade.args[0] :]
                self._is_upgrade = False
                self.parser = httptools.HttpRequestParser(self)

    def _plain_head(self) -> bytes:
        """The head that was read last, without the wish for another protocol."""
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                words = (word.strip() for word in value.split(b","))
                value = b", ".join(word for word in words if word.lower() not in _OF_UPGRADES)
            if name not in _OF_UPGRADES:
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._reading = Reading.HEAD
        self._begun = True
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of a request's headers. Trailers, which come after the body, are none."""
        if self._reading is Reading.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request's head is whole."""
        if self.transport.is_closing():
            return
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._refuse(429, "rate_limit_error", None, "too many requests in line")
            return
        if self._head_bytes > self.limits.max_header_bytes and self._size_bytes() > (
            self.limits.max_header_bytes
        ):
            self._refuse_head()
            return
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._is_upgrade = True
            return
        self._reading = Reading.BODY
        self._framing_bytes = self._body_bytes = 0
        super().on_headers_complete()
        if self.parser.get_http_version() == "1.0":
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = _UntilClose()
        self._cycles.append(self.cycle)
        self.scope[WRITE] = partial(self._write, self.cycle)  # type: ignore[literal-required]

    def on_body(self, body: bytes) -> None:
        """A piece of a request's body."""
        self._framing_bytes -= len(body)
        self._body_bytes += len(body)
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        if self._is_upgrade:
            return
        self._reading, self._head_bytes, self._begun = Reading.NOTHING, 0, False
        if not self.transport.is_closing():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(400, "invalid_request_error", None, msg)

    def _is_too_large(self) -> bool:
        """Whether what is no body is, so far."""
        most = self.limits.max_header_bytes
        if self._reading is Reading.HEAD:
            return self._head_bytes > most
        return self._framing_bytes > most + _FRAMING_SHARE * self._body_bytes

    def _size_bytes(self) -> int:
        # pieces of a body may have come with the head
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _watch(self) -> asyncio.TimerHandle | None:
        if self._watched is Reading.NOTHING:
            return None
        head = self._watched is Reading.HEAD
        seconds = self.limits.header_seconds if head else self.limits.body_seconds
        return self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        answered = self.cycle is not None and self.cycle.response_complete
        if self._is_owed():
            self._timer = self._watch()  # the client has an answer to read first
        elif (self._reading is Reading.BODY and answered) or not self._begun:
            self.transport.close()
        else:
            self._refuse(408, "invalid_request_error", "request_timeout", "too slow a request")

    def _watch_reader(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._reader_timer = self.loop.call_later(self.limits.reader_seconds, self._look_at_reader)

    def _look_at_reader(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread_bytes:
            self._watch_reader()
        else:
            self.transport.abort()

    def _tell_cycles(self) -> None:
        """The client is gone, for all whose requests aren't answered; uvicorn tells the last."""
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()

    def _is_owed(self) -> bool:
        """Whether an answer has begun, or one to an earlier request is to come."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        return cycle.response_started or self._reading is not Reading.BODY or bool(self.pipeline)

    def _write(self, cycle: RequestResponseCycle, body: bytes) -> bool:
        """A chunk of an answer under way, unless its client is slow, or gone."""
        if not cycle.chunked_encoding or cycle.flow.write_paused or cycle.disconnected:
            return False
        chunk = b"%x\r\n%b\r\n" % (len(body), body)
        if asyncio.current_task() is not None:  # it may send the next piece at once
            self.transport.write(chunk)
            return True
        if not self.burst:
            self.loop.call_soon(self.burst.send)
        self.burst.append((self.transport, chunk))
        return True

    def _refuse_head(self) -> None:
        what = f"headers larger than {self.limits.max_header_bytes} bytes"
        self._refuse(431, "invalid_request_error", "headers_too_large", what)

    def _refuse(self, status: int, kind: str, code: str | None, message: str) -> None:
        """Answer from here, unless an answer to an earlier request would come first, and close."""
        owed = self._is_owed()
        self._tell_cycles()
        if owed:
            self.transport.close()
            return
        error = {"message": message, "type": kind, "param": None, "code": code}
        body = encode({"error": error})
        head = (
            b"content-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        if not self.transport.is_closing():
            self.transport.write(STATUS_LINE[status] + head + body)
            self.transport.close()
