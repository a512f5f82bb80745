from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from live_proxy import MODEL, LiveProxy, config, live_proxy
from small_tokenizers import EOS, byte_level, ids, write_folder
from starlette.types import Message
from waiting import eventually

from server.backend.base import Take, Tokens
from server.backend.memory import MemoryBackend, Script
from server.config import ServedModel, ServerConfig
from server.edge.call import Call, put_call
from server.errors import NotReadyError
from server.protocol.sse import DONE
from server.reply import CHAT, COMPLETIONS, Dialect, Reply
from server.reply.sender import Sender
from server.serving import Serving

RAW = byte_level()
END = RAW.token_to_id(EOS)
SOON = 0.05
LONG = 20.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("reply"), RAW)


def singly(text: str, *more: int) -> list[list[int]]:
    return [[token] for token in (*ids(RAW, text), *more)]


class Client:
    """What a server passes on between a client and the application."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.leaves, self.takes = asyncio.Event(), asyncio.Event()
        self.takes.set()

    async def receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.takes.wait()
        self.messages.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.leaves.set()  # servers say so after the answer, too

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.messages[1:]]

    @property
    def events(self) -> list[Any]:
        lines = b"".join(self.bodies).decode().split("\n\n")
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
        return [json.loads(each) for each in data]

    @property
    def text(self) -> str:
        choices = [choice for event in self.events for choice in event.get("choices", ())]
        return "".join(choice["text"] for choice in choices)


class Endpoint:
    """One worker that answers by a script."""

    def __init__(self, folder: Path, answer: Any, **config: Any) -> None:
        served = ServedModel(name="m", tokenizer_dir=folder, max_seq_len=10_000)
        settings = ServerConfig(triton_addresses=("127.0.0.1:1",), models=(served,), **config)
        self.backend = MemoryBackend(answer)
        self.serving = Serving(settings, self.backend)
        self.call = Call(request_id="r", arrived=0.0)

    def ask(
        self, client: Client, *, dialect: Dialect = COMPLETIONS, **body: Any
    ) -> asyncio.Task[None]:
        values = {"model": "m", "prompt": "x", "max_tokens": 1000, "stream": True, **body}
        if dialect is CHAT:
            values["messages"] = [{"role": "user", "content": values.pop("prompt")}]
        request = dialect.parse(json.dumps(values).encode())
        reply = Reply(dialect, request, found=self.serving.models.find("m"), serving=self.serving)
        scope: dict[str, Any] = {"type": "http", "headers": []}
        put_call(scope, self.call)
        return asyncio.ensure_future(reply(scope, client.receive, client.send))

    async def outcome(self) -> str:
        """The one request's, as the metrics have it."""
        text = (await self.serving.metrics.text()).decode()
        (line,) = [one for one in text.splitlines() if one.startswith("trtbuild_requests_total{")]
        assert line.endswith(" 1.0")
        return line.partition('outcome="')[2].partition('"')[0]


async def test_all_that_has_come_leaves_in_one_send_and_the_end_with_the_last(folder: Path) -> None:
    messages = singly("one two three four", END)
    endpoint, client = Endpoint(folder, Script(messages=messages, burst=5)), Client()
    await endpoint.ask(client)
    assert client.text == "one two three four"
    assert len(client.bodies) == -(-len(messages) // 5)
    assert client.bodies[-1].endswith(DONE)
    assert endpoint.call.spent_tokens == len(endpoint.backend.requests[0].input_ids) + len(messages)
    assert await endpoint.outcome() == "ok"


async def test_every_choices_beginning_comes_once_before_any_text(folder: Path) -> None:
    endpoint, client = Endpoint(folder, Script(messages=singly("fox", END))), Client()
    await endpoint.ask(client, dialect=CHAT, n=2)
    deltas = [choice for event in client.events for choice in event["choices"]]
    assert [(one["index"], one["delta"].get("role")) for one in deltas[:2]] == [
        (0, "assistant"),
        (1, "assistant"),
    ]
    assert not any("role" in one["delta"] for one in deltas[2:])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_first_token_has_its_status(folder: Path, stream: bool) -> None:
    endpoint, client = Endpoint(folder, Script(failure=NotReadyError("away"))), Client()
    await endpoint.ask(client, stream=stream)
    assert client.status == 503
    assert (b"retry-after", b"1") in client.messages[0]["headers"]
    assert await endpoint.outcome() == "503"


async def test_an_error_later_is_an_event_and_the_stream_is_done(folder: Path) -> None:
    script = Script(messages=singly("one"), failure=NotReadyError("away"))
    endpoint, client = Endpoint(folder, script), Client()
    await endpoint.ask(client)
    assert client.status == 200
    assert client.text == "one"
    assert client.events[-1]["error"]["code"] == "service_unavailable"
    assert client.bodies[-1].endswith(DONE)
    assert await endpoint.outcome() == "503"


async def test_a_fault_of_ours_tells_no_secrets(folder: Path) -> None:
    endpoint, client = Endpoint(folder, Script(failure=RuntimeError("secret"))), Client()
    await endpoint.ask(client)
    assert client.status == 500
    assert b"secret" not in client.bodies[0]


@pytest.mark.parametrize("stream", [False, True])
async def test_when_its_time_is_over_a_request_ends_with_that_error(
    folder: Path, stream: bool
) -> None:
    endpoint, client = Endpoint(folder, Script(messages=singly("one"), hang=True)), Client()
    endpoint.call.deadline = asyncio.get_running_loop().time() + (5.0 if stream else SOON)
    await asyncio.wait_for(endpoint.ask(client, stream=stream), LONG)
    error = client.events[-1]["error"] if stream else json.loads(client.bodies[0])["error"]
    assert error["code"] == "deadline_exceeded"
    assert client.status == (200 if stream else 504)
    assert endpoint.backend.running == 0
    assert await endpoint.outcome() == "504"


async def test_an_answer_that_is_on_its_way_when_its_time_is_over_arrives(folder: Path) -> None:
    endpoint, client = Endpoint(folder, Script(messages=singly("one"))), Client()
    client.takes.clear()
    endpoint.call.deadline = asyncio.get_running_loop().time() + 5.0
    asking = endpoint.ask(client, stream=False)
    await asyncio.sleep(5.0 + SOON)
    client.takes.set()
    await asyncio.wait_for(asking, LONG)
    assert client.status == 200
    assert json.loads(client.bodies[0])["choices"][0]["text"] == "one"
    assert await endpoint.outcome() == "ok"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_frees_its_slot(folder: Path, stream: bool) -> None:
    endpoint, client = Endpoint(folder, Script(messages=singly("one"), hang=True)), Client()
    answering = endpoint.ask(client, stream=stream)
    await eventually(lambda: endpoint.backend.given == len(ids(RAW, "one")))
    client.leaves.set()
    await asyncio.wait_for(answering, LONG)
    assert (endpoint.backend.running, len(endpoint.backend.cancelled)) == (0, 1)
    assert await endpoint.outcome() == "cancelled"
    assert endpoint.call.spent_tokens > 0


async def test_while_a_reader_is_slow_nothing_more_is_read_from_the_engine(folder: Path) -> None:
    endpoint = Endpoint(folder, Script(messages=singly("word " * 100, END)))
    client = Client()
    client.takes.clear()
    answering = endpoint.ask(client)
    await eventually(lambda: endpoint.backend.given)
    for _ in range(50):
        await asyncio.sleep(0)
    assert endpoint.backend.given == 1
    client.takes.set()
    await asyncio.wait_for(answering, LONG)
    assert client.text == "word " * 100


async def test_a_reader_that_takes_nothing_is_taken_to_be_gone(folder: Path) -> None:
    endpoint = Endpoint(folder, Script(messages=singly("word " * 100, END)), reader_seconds=SOON)
    client = Client()
    client.takes.clear()
    await asyncio.wait_for(endpoint.ask(client), LONG)
    assert (endpoint.backend.running, len(endpoint.backend.cancelled)) == (0, 1)
    assert await endpoint.outcome() == "cancelled"


async def test_a_reader_that_is_late_but_takes_something_is_not(folder: Path) -> None:
    script = Script(messages=singly("fox", END), delay_seconds=3 * SOON)
    endpoint, client = Endpoint(folder, script, reader_seconds=SOON), Client()
    await asyncio.wait_for(endpoint.ask(client), LONG)
    assert client.text == "fox"


async def test_a_silent_stream_has_comments_which_clients_skip(folder: Path) -> None:
    script = Script(messages=singly("fox", END), delay_seconds=4 * SOON)
    endpoint, client = Endpoint(folder, script, comment_seconds=SOON), Client()
    await asyncio.wait_for(endpoint.ask(client), LONG)
    comments = [body for body in client.bodies if body == b": keep-alive\n\n"]
    assert comments
    assert client.text == "fox"
    assert client.bodies[-1].endswith(DONE)


class Pushed:
    """Gives one answer from outside of the task that runs it, as a connection's reading does."""

    async def run(self, take: Take) -> bool:
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def push() -> None:
            take([Tokens(ids=ids(RAW, "fox")), Tokens(ids=[END], final=True)])
            if not over.done():
                over.set_result(False)

        loop.call_soon(push)
        goes_on: bool = await over
        return goes_on

    def cancel(self) -> None:
        pass


async def test_a_last_piece_that_was_made_leaves_though_the_server_stops(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, client = Endpoint(folder, Script()), Client()
    monkeypatch.setattr(endpoint.backend, "generate", lambda _: Pushed())
    put = Sender.put

    def stopped(self: Sender, body: bytes, *, last: bool = False) -> bool:
        if last:
            answering.cancel()
        return put(self, body, last=last)

    monkeypatch.setattr(Sender, "put", stopped)
    answering = endpoint.ask(client)
    await asyncio.wait_for(answering, LONG)
    assert client.text == "fox"
    assert client.bodies[-1].endswith(DONE)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_stops_tells_those_who_wait(folder: Path, stream: bool) -> None:
    endpoint, client = Endpoint(folder, Script(messages=singly("one"), hang=True)), Client()
    answering = endpoint.ask(client, stream=stream)
    await eventually(lambda: endpoint.backend.given == len(ids(RAW, "one")))
    await asyncio.sleep(0)
    answering.cancel()
    await asyncio.wait_for(answering, LONG)
    error = client.events[-1]["error"] if stream else json.loads(client.bodies[0])["error"]
    assert error["code"] == "service_unavailable"
    assert endpoint.backend.running == 0


async def test_a_second_cancel_ends_even_who_doesnt_read(folder: Path) -> None:
    endpoint, client = Endpoint(folder, Script(messages=singly("one"), hang=True)), Client()
    client.takes.clear()
    answering = endpoint.ask(client)
    await eventually(lambda: endpoint.backend.given)
    answering.cancel()
    await asyncio.sleep(SOON)
    assert not answering.done()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(answering, LONG)


async def test_who_takes_nothing_over_a_real_connection_is_cut_off(folder: Path) -> None:
    endless = Script(messages=[ids(RAW, "word ") * 2000] * 10_000)
    settings = config(folder, max_seq_len=10**8, reader_seconds=4 * SOON)
    async with live_proxy(settings, MemoryBackend(endless)) as proxy:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # soon full
            connection.connect(("127.0.0.1", proxy.port))
            body = json.dumps({"model": MODEL, "prompt": "x", "stream": True, "max_tokens": 10**7})
            head = (
                f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall((head + body).encode())
            await until_metric(
                proxy, 'endpoint="completions",model="tiny/model",outcome="cancelled"'
            )
            connection.setblocking(False)
            await eventually(lambda: _is_refused(connection))


async def test_a_slow_reader_over_a_real_connection_gets_all_of_it_in_order(folder: Path) -> None:
    said = [f"{number} " * 100 for number in range(800)]
    script = Script(messages=[ids(RAW, text) for text in said] + [[END]])
    settings = config(folder, max_seq_len=10**8)
    body = {"model": MODEL, "prompt": "x", "stream": True, "max_tokens": 10**7}
    async with live_proxy(settings, MemoryBackend(script)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        content = json.dumps(body)
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
        await asyncio.sleep(4 * SOON)
        answer = await asyncio.wait_for(reader.read(), LONG)
        writer.close()
    events = [line[6:] for line in answer.decode().split("\n") if line.startswith("data: {")]
    assert "".join(json.loads(event)["choices"][0]["text"] for event in events) == "".join(said)


def _is_refused(connection: socket.socket) -> bool:
    """Whether the other side has closed: an open one takes what is sent, or makes it wait."""
    try:
        connection.send(b" ")
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return False


async def until_metric(proxy: LiveProxy, labels: str) -> None:
    line = f"trtbuild_requests_total{{{labels}}} 1.0"

    async def told() -> bool:
        return line in (await proxy.http.get("/metrics")).text.split("\n")

    await eventually(told)
