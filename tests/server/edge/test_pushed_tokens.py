"""Promise: tokens go from Triton's connection to the client's in order, without a task between."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fake_triton import Send, answer, failure, fake_triton
from live_proxy import MODEL, LiveProxy, config, live_proxy
from small_tokenizers import byte_level, write_folder

from server.backend.triton import TritonBackend
from server.edge.burst import Burst
from server.reply.sender import Sender

RAW = byte_level()
WORDS = [f"{number} " for number in range(60)]
LONG = 20.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pushed"), RAW)


async def say(send: Send) -> None:
    """The words, each in its own time."""
    for word in WORDS:
        await send(answer(RAW.encode(word, add_special_tokens=False).ids))
        await asyncio.sleep(0.002)


async def streamed(proxy: LiveProxy) -> list[Any]:
    """The events of one answer, read to the end of its last chunk; its connection serves on."""
    body = {"model": MODEL, "prompt": "x", "stream": True, "max_tokens": 1000}
    answer = await proxy.http.post("/v1/completions", json=body, timeout=LONG)
    lines = answer.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def text(events: list[Any]) -> str:
    return "".join(choice["text"] for event in events for choice in event.get("choices", ()))


async def test_only_an_answers_ends_are_sent_by_its_task(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def behave(_: Any, send: Send) -> None:
        await say(send)
        await send(answer([], final=True))

    sent: list[bytes] = []
    piece = Sender._piece

    async def noted(self: Sender, body: bytes, *, more: bool) -> None:
        sent.append(body)
        await piece(self, body, more=more)

    monkeypatch.setattr(Sender, "_piece", noted)
    async with fake_triton(behave) as triton:
        settings = config(folder, triton_addresses=(triton.address,), max_seq_len=10_000)
        async with live_proxy(settings, TritonBackend(settings)) as proxy:
            for _ in range(2):
                assert text(await streamed(proxy)) == "".join(WORDS)
    assert len(sent) == 4


async def test_an_error_stands_behind_all_that_came_before_it(folder: Path) -> None:
    async def behave(_: Any, send: Send) -> None:
        await say(send)
        await send(failure("it broke"))

    async with fake_triton(behave) as triton:
        settings = config(folder, triton_addresses=(triton.address,), max_seq_len=10_000)
        async with live_proxy(settings, TritonBackend(settings)) as proxy:
            for _ in range(2):
                events = await streamed(proxy)
                assert text(events[:-1]) == "".join(WORDS)
                assert events[-1]["error"]["type"] == "server_error"


def test_who_has_gone_takes_nothing_from_the_others() -> None:
    class Transport(asyncio.WriteTransport):
        def __init__(self, gone: bool) -> None:
            self.gone, self.written = gone, b""

        def is_closing(self) -> bool:
            return self.gone

        def write(self, data: Any) -> None:
            if self.gone:
                raise RuntimeError("the handle is closed")
            self.written += data

    gone, there = Transport(True), Transport(False)
    burst = Burst([(there, b"a"), (gone, b"b"), (there, b"c")])
    burst.send()
    assert (there.written, list(burst)) == (b"ac", [])


async def test_a_piece_that_is_pushed_is_progress() -> None:
    async def nobody(*_: Any) -> Any:
        raise AssertionError("nothing is awaited")

    pushed: list[bytes] = []

    def write(body: bytes) -> bool:
        pushed.append(body)
        return len(pushed) < 3

    sender = Sender({"trtbuild.write": write}, nobody, nobody)
    assert [sender.put(b"a"), sender.put(b"b"), sender.put(b"c")] == [True, True, False]
    assert (sender.progress, pushed) == (2, [b"a", b"b", b"c"])
    assert not sender.put(b"d"), "what waits goes first"
    assert len(pushed) == 3
