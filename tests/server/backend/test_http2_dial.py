"""Promise: of a name's addresses one that answers is found, whatever the others do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop

from server.backend.http2.dial import dial

LISTENING, SILENT, REFUSING = "127.0.0.1", "127.0.0.2", "127.0.0.3"
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@pytest.fixture
def port() -> Iterator[int]:
    """Where one address listens, one has no room in its line and answers nothing, and one has
    nobody."""
    with ExitStack() as opened:
        listening, silent, first = (opened.enter_context(socket.socket()) for _ in range(3))
        listening.bind((LISTENING, 0))
        listening.listen()
        port: int = listening.getsockname()[1]
        silent.bind((SILENT, port))
        silent.listen(0)
        first.connect((SILENT, port))
        yield port


def named(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have the name "triton" stand for the addresses."""

    async def found(_: Any, host: str, port: int, **__: Any) -> list[Any]:
        those = addresses if host == "triton" else [host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in those]

    monkeypatch.setattr("asyncio.BaseEventLoop.getaddrinfo", found)
    monkeypatch.setattr("uvloop.Loop.getaddrinfo", found)


@LOOPS
@pytest.mark.parametrize(
    "addresses", [[SILENT, LISTENING], [REFUSING, SILENT, REFUSING, LISTENING], [LISTENING, SILENT]]
)
def test_an_address_that_answers_is_found_behind_those_that_dont(
    port: int, addresses: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch, *addresses)
    with run(dial("triton", port)) as connected:
        assert connected.getpeername() == (LISTENING, port)


@LOOPS
def test_without_one_the_fault_is_told_and_a_wait_can_be_given_up(
    port: int, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch, REFUSING, REFUSING)
    with pytest.raises(ConnectionRefusedError):
        run(dial("triton", port))
    named(monkeypatch, SILENT, SILENT)
    waited: Coroutine[Any, Any, Any] = asyncio.wait_for(dial("triton", port), 0.3)
    with pytest.raises(asyncio.TimeoutError):
        run(waited)
    named(monkeypatch)
    with pytest.raises(OSError, match="no address"):
        run(dial("triton", port))
