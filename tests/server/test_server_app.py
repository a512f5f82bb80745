from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from live_proxy import MODEL, LiveProxy, config, live_proxy
from small_tokenizers import EOS, IM_END, byte_level, ids, write_folder
from waiting import eventually

from server.backend.base import GenerateRequest
from server.backend.memory import MemoryBackend, Script
from server.errors import NotReadyError, OverloadedError

TOKENIZER = byte_level()
USER: list[Any] = [{"role": "user", "content": "hello"}]


def singly(text: str, *more: int) -> list[list[int]]:
    return [[token] for token in (*ids(TOKENIZER, text), *more)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tokenizer"), TOKENIZER)


Serve = Callable[..., Any]


@pytest.fixture
def serve(folder: Path) -> Serve:
    @asynccontextmanager
    async def serving(
        answer: Any, **settings: Any
    ) -> AsyncIterator[tuple[LiveProxy, MemoryBackend]]:
        backend = MemoryBackend(answer)
        async with live_proxy(config(folder, **settings), backend) as proxy:
            yield proxy, backend

    return serving


async def chat(proxy: LiveProxy, **values: Any) -> Any:
    values = {"model": MODEL, "messages": USER, **values}
    return await proxy.openai.chat.completions.create(**values)


async def chunks_of(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


def script(text: str, *more: str, **values: Any) -> Script:
    return Script(messages=singly(text, *(TOKENIZER.token_to_id(t) for t in more)), **values)


async def test_a_chat_is_answered_with_true_usage_and_reason(serve: Serve) -> None:
    async with serve(script("Hi, fox 😀!", IM_END)) as (proxy, backend):
        answer = await chat(proxy)
    assert answer.choices[0].message.content == "Hi, fox 😀!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    (request,) = backend.requests
    prompt = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert request.input_ids == ids(TOKENIZER, prompt), "by the template, with no second BOS"
    assert answer.usage.prompt_tokens == len(request.input_ids)
    written = ids(TOKENIZER, "Hi, fox 😀!")
    assert answer.usage.completion_tokens == len(written) + 1, "the end token counts"


async def test_a_stream_gives_the_same_text_role_first_reason_last(serve: Serve) -> None:
    async with serve(script("Hi, fox 😀!", EOS)) as (proxy, backend):
        stream = await chat(proxy, stream=True, stream_options={"include_usage": True})
        chunks = await chunks_of(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == "Hi, fox 😀!"
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + [
        "stop"
    ]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(ids(TOKENIZER, "Hi, fox 😀!")) + 1
    assert chunks[-1].usage.prompt_tokens == len(backend.requests[0].input_ids)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_cuts_the_text_and_cancels_the_engine(
    serve: Serve, stream: bool
) -> None:
    answer = script("one two. Stop here, please", hang=True)
    async with serve(answer) as (proxy, backend):
        reply = await chat(proxy, stop=["here", "op he"], stream=stream)
        if stream:
            chunks = await chunks_of(reply)
            text = "".join(c.choices[0].delta.content or "" for c in chunks)
            reason = chunks[-1].choices[0].finish_reason
        else:
            text, reason = reply.choices[0].message.content, reply.choices[0].finish_reason
        await eventually(lambda: backend.running == 0)
    assert (text, reason) == ("one two. St", "stop")
    assert len(backend.cancelled) == 1


async def test_log_probs_of_the_chosen_tokens(serve: Serve) -> None:
    async with serve(script("fox 😀", IM_END, log_prob=-0.5)) as (proxy, backend):
        answer = await chat(proxy, logprobs=True)
        stream = await chunks_of(await chat(proxy, logprobs=True, stream=True))
        plain = await proxy.openai.completions.create(model=MODEL, prompt="a", logprobs=0)
    assert backend.requests[0].log_probs
    content = answer.choices[0].logprobs.content
    assert b"".join(bytes(t.bytes) for t in content) == "fox 😀".encode()
    assert {t.logprob for t in content} == {-0.5}
    streamed = [t for c in stream if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert streamed == content
    assert plain.choices[0].logprobs.token_logprobs == [-0.5] * len(ids(TOKENIZER, "fox 😀"))


async def test_completions_take_text_and_ids_one_or_many(serve: Serve) -> None:
    def answer(request: GenerateRequest) -> Script:
        return Script(messages=[[token] for token in request.input_ids[1:]])

    async with serve(answer) as (proxy, backend):
        create = proxy.openai.completions.create
        one = await create(model=MODEL, prompt="The fox")
        many = await create(model=MODEL, prompt=["The fox", "lazy dog"])
        by_ids = await create(model=MODEL, prompt=[[5, *ids(TOKENIZER, "dog")]])
        stream = await chunks_of(
            await create(model=MODEL, prompt=["The fox", "lazy dog"], stream=True)
        )
    assert one.choices[0].text == "The fox"
    assert backend.requests[0].input_ids == TOKENIZER.encode("The fox").ids, "BOS is added"
    assert [c.text for c in many.choices] == ["The fox", "lazy dog"]
    assert many.usage.prompt_tokens == sum(len(r.input_ids) for r in backend.requests[1:3])
    assert by_ids.choices[0].text == "dog"
    texts = ["", ""]
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == ["The fox", "lazy dog"]


async def test_a_prompt_that_is_too_long_is_refused_with_the_figures(serve: Serve) -> None:
    async with serve(script("x"), max_seq_len=16) as (proxy, backend):
        with pytest.raises(openai.BadRequestError, match="maximum context length is 16") as caught:
            await chat(proxy)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    assert backend.requests == []


async def test_a_prompt_that_must_be_too_long_is_not_even_tokenized(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.text.tokenizer.TextTokenizer.encode_here", None)
    async with serve(script("x"), max_seq_len=16) as (proxy, _):
        with pytest.raises(openai.BadRequestError, match="held 1000000 characters") as caught:
            await proxy.openai.completions.create(model=MODEL, prompt="x" * 1_000_000)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")


async def test_a_compressed_body_is_refused_by_name(serve: Serve) -> None:
    async with serve(script("x")) as (proxy, _):
        headers = {"content-encoding": "gzip"}
        answer = await proxy.http.post("/v1/completions", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert "Content-Encoding 'gzip'" in answer.json()["error"]["message"]


async def test_refusals_have_openais_shape_and_status(serve: Serve) -> None:
    async with serve(script("x"), max_body_bytes=1000) as (proxy, _):
        with pytest.raises(openai.NotFoundError) as missing:
            await chat(proxy, model="other")
        with pytest.raises(openai.BadRequestError) as wrong:
            await chat(proxy, temperature="hot")
        answers = {
            "unknown_url": await proxy.http.get("/v1/nothing"),
            "method_not_supported": await proxy.http.get("/v1/chat/completions"),
            "request_too_large": await proxy.http.post("/v1/completions", content=b"x" * 1001),
            "model_not_found": await proxy.http.get("/v1/models/other/one"),
        }
        slow_body = await proxy.http.post("/v1/completions", content=_chunked(b"x" * 100, 20))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert (wrong.value.type, wrong.value.param) == ("invalid_request_error", "temperature")
    assert slow_body.status_code == 413
    for code, answer in answers.items():
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == code
    statuses = [answer.status_code for answer in answers.values()]
    assert statuses == [404, 405, 413, 404]
    assert answers["method_not_supported"].headers["allow"] == "OPTIONS, POST"


async def test_what_the_engine_refuses_has_its_status_and_may_be_retried(serve: Serve) -> None:
    for failure, kind in (
        (NotReadyError("away"), openai.InternalServerError),
        (OverloadedError("full"), openai.RateLimitError),
    ):
        for stream in (False, True):
            async with serve(Script(messages=[], failure=failure)) as (proxy, _):
                with pytest.raises(kind) as caught:
                    await chat(proxy, stream=stream)
            assert caught.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_slot_at_once(serve: Serve, stream: bool) -> None:
    async with serve(Script(messages=[[5]], hang=True)) as (proxy, backend):
        body = {"model": MODEL, "messages": USER, "stream": stream}
        asking = asyncio.create_task(proxy.http.post("/v1/chat/completions", json=body))
        await eventually(lambda: backend.running == 1)
        asking.cancel()
        await eventually(lambda: backend.running == 0)
        await until_metric(
            proxy, f'endpoint="chat_completions",model="{MODEL}",outcome="cancelled"', 1.0
        )
    assert len(backend.cancelled) == 1


async def test_a_client_that_leaves_in_mid_body_harms_nothing(serve: Serve) -> None:
    async with serve(script("x")) as (proxy, _):
        port = int(proxy.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        await writer.drain()
        writer.close()
        await until_metric(proxy, 'endpoint="completions",model="",outcome="cancelled"', 1.0)
        assert (await chat(proxy)).choices[0].message.content == "x"


async def test_metrics_count_requests_and_tokens(serve: Serve) -> None:
    async with serve(script("one two", IM_END)) as (proxy, backend):
        await chat(proxy)
        with pytest.raises(openai.BadRequestError):
            await chat(proxy, temperature=9)
        await until_metric(proxy, f'endpoint="chat_completions",model="{MODEL}",outcome="ok"', 1.0)
        text = (await proxy.http.get("/metrics")).text
    generated, read = len(ids(TOKENIZER, "one two")) + 1, len(backend.requests[0].input_ids)
    label = f'{{model="{MODEL}"}}'
    assert f"trtbuild_generated_tokens_total{label} {float(generated)}" in text
    assert f"trtbuild_prompt_tokens_total{label} {float(read)}" in text
    assert f"trtbuild_time_to_first_token_seconds_count{label} 1.0" in text
    assert f"trtbuild_inter_token_latency_seconds_count{label} {generated - 1}.0" in text
    assert f"trtbuild_requests_in_flight{label} 0.0" in text
    assert 'endpoint="chat_completions",model="",outcome="400"' in text


async def test_many_clients_at_once_each_get_their_own_text(serve: Serve) -> None:
    def answer(request: GenerateRequest) -> Script:
        return Script(messages=[[t] for t in request.input_ids[1:]], delay_seconds=0.001)

    async def ask(proxy: LiveProxy, n: int) -> str:
        stream = await proxy.openai.completions.create(
            model=MODEL, prompt=f"fox {n}", stream=True, max_tokens=30
        )
        return "".join([c.choices[0].text async for c in stream])

    async with serve(answer) as (proxy, _):
        texts = await asyncio.gather(*(ask(proxy, n) for n in range(64)))
    assert texts == [f"fox {n}" for n in range(64)]


async def test_importing_the_proxy_imports_nothing_heavy() -> None:
    code = (
        "import sys, server.app, server.workers, server.backend.triton\n"
        "heavy = {'torch', 'transformers', 'openvino', 'modelopt', 'triton_repo', 'quantize',"
        " 'grpc', 'tritonclient', 'opentelemetry', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()


async def until_metric(proxy: LiveProxy, labels: str, value: float) -> None:
    line = f"trtbuild_requests_total{{{labels}}} {value}"

    async def told() -> bool:
        return line in (await proxy.http.get("/metrics")).text.split("\n")

    await eventually(told)


async def _chunked(piece: bytes, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield piece
