"""Calls of the engine's model, over the gRPC endpoint of the Triton that this runs in.

Not through the Python backend's own calls (BLS): those break down, server and all, where several
responses of decoupled models are under way, and a cancelled one goes on. A stream of gRPC has
neither fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from triton_repo.runtime.text_model import wire
from triton_repo.runtime.text_model.request import PASSED, PREPROCESSED, Array, CallError, Tensors

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_UNAVAILABLE = re.compile(
    r"maximum queue size|no available versions|is not ready|not healthy|unavailable", re.IGNORECASE
)
_CLIENTS_FAULT = re.compile(r"prompt length|cannot process new request", re.IGNORECASE)
"""How an engine begins to say that a client's request is at fault, where it names no input."""
_INPUTS = frozenset((*PREPROCESSED.values(), *PASSED.values()))
"""The engine's inputs: a refusal of ours begins with the one at fault."""
_NEXT_S = 0.1
"""How long the engine may take to show whether it ends by itself."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """PEM files of the endpoint that is called: this is the same machine, so they are at hand.

    Its certificate is the one to trust, and the one to show where clients need one (which works
    where the endpoint's authority for clients has signed it).
    """

    certificate: Path
    key: Path

    def channel(self, address: str) -> Any:
        """A connection to `address`, whatever name the certificate is for. Raises OSError."""
        certificate = self.certificate.read_bytes()
        credentials = grpc.ssl_channel_credentials(certificate, self.key.read_bytes(), certificate)
        name = ("grpc.ssl_target_name_override", self._name(address))
        return grpc.aio.secure_channel(address, credentials, options=(*_OPTIONS, name))

    def _name(self, address: str) -> str:
        host, _, port = address.rpartition(":")
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.check_hostname = False
        # a certificate of somebody else's authority is trusted too, for it is this one
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout=5) as connection,
            context.wrap_socket(connection) as wrapped,
        ):
            names = (wrapped.getpeercert() or {}).get("subjectAltName", ())
        return str(names[0][1]) if names else host


class Calls:
    """All calls over one connection, which the first of them makes: while models load, there is no
    endpoint yet. For one event loop."""

    def __init__(self, address: str, tls: Tls | None = None) -> None:
        self._address, self._tls = address, tls
        self._channel: Any = None
        self._stub: Any = None
        self._ending: set[asyncio.Task[None]] = set()

    async def generate(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> AsyncGenerator[list[Tensors], None]:
        """The responses of `model`, all that have come at a time. To close the iterator ends the
        request there.

        Raises CallError.
        """
        call = self._connected().ModelStreamInfer()
        over = False
        messages: _Messages | None = None
        try:
            await call.write(wire.encode(model, inputs, outputs))
            await call.done_writing()
            messages = _Messages(call)
            while come := await messages.next():
                responses = [each.infer_response for each in come if not each.error_message]
                over = over or any(map(wire.final, responses))
                if found := [tensors for each in responses if (tensors := wire.decode(each))]:
                    yield found
                if errors := [each.error_message for each in come if each.error_message]:
                    raise _refusal(errors[0])
            if not over:
                raise CallError(f"{model} ended its stream early: {await call.details()}")
        except grpc.aio.AioRpcError as error:
            raise CallError(error.details() or error.code().name, error.code().name) from error
        except asyncio.InvalidStateError as error:  # written to a call that has ended already
            details = await call.details()
            raise CallError(details or str(error), (await call.code()).name) from error
        finally:
            if not call.done():
                self._later(_end(call, messages or _Messages(call), over=over))

    async def close(self) -> None:
        """Close the connection, and all that is under way on it."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=10 * _NEXT_S)
        if self._channel is not None:
            await self._channel.close()

    def _connected(self) -> Any:
        if self._stub is None:
            if self._tls is None:
                self._channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
            else:
                self._channel = self._tls.channel(self._address)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._stub

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _refusal(message: str) -> CallError:
    """An error of the model's, by its words: Triton 2.51 crashes where streams ask for codes."""
    if _UNAVAILABLE.search(message):
        return CallError(message, "UNAVAILABLE")
    first = re.match(r"\w*", message)
    theirs = (first is not None and first[0] in _INPUTS) or _CLIENTS_FAULT.match(message)
    return CallError(message, "INVALID_ARGUMENT" if theirs else "INTERNAL")


class _Messages:
    """What comes over a call, read ahead: to wait for it is no read, which cancels its call when it
    is cancelled, and takes all that is there."""

    def __init__(self, call: Any) -> None:
        self._come: list[Any] = []
        self._some = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._read(call))
        # nobody may wait for the end of a call that is given up
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def next(self) -> list[Any]:
        """What has come since, at least one; none at the end. Raises as a read does."""
        await self._some.wait()
        if not (come := self.take()) and self._task.done():
            self._task.result()
        return come

    def take(self) -> list[Any]:
        """What has come since, if anything."""
        come, self._come = self._come, []
        if not self._task.done():
            self._some.clear()
        return come

    async def _read(self, call: Any) -> None:
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                self._come.append(message)
                self._some.set()
        finally:
            self._some.set()


def _final(come: Sequence[Any]) -> bool:
    return any(wire.final(message.infer_response) for message in come)


async def _end(call: Any, messages: _Messages, *, over: bool) -> None:
    """End a call that nobody reads any more but for `messages`.

    A cancel that meets a stream's own end leaves Triton holding the request for ever, and its model
    can't unload. So what ends by itself is left to, and else the cancel comes behind a token.
    """
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.TimeoutError):
        if not over:
            over = _final(messages.take())
        if not over:
            come = await asyncio.wait_for(messages.next(), _NEXT_S)
            over = not come or _final(come)
        while over:
            over = bool(await messages.next())
    call.cancel()
