"""Promise: /v1/embeddings answers OpenAI's clients in order and to the bit, or names the fault."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
from array import array
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from live_proxy import LiveProxy, config, live_proxy, served
from tiny_encoder import MAX_SEQ_LEN, VOCABULARY, write_tokenizer

from server.backend.memory import MemoryBackend, Script
from server.config import ServedEmbedding
from server.errors import NotReadyError

WHOLE = ServedEmbedding(dimensions=4)
CUT = ServedEmbedding(dimensions=4, matryoshka_dimensions=(2, 3))
CLS, SEP = 2, 3

Serve = Callable[..., AbstractAsyncContextManager[tuple[LiveProxy, MemoryBackend]]]


def told(ids: Sequence[int]) -> list[float]:
    """An embedding that tells the ids: in float32, as Triton's are."""
    return array("f", [sum(ids) / 7, len(ids) / 3, ids[0] - 1.1, 0.25]).tolist()


def ids(*words: str) -> list[int]:
    return [CLS, *(VOCABULARY.index(word) for word in words), SEP]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """A proxy with a writer and an embedder."""
    write_tokenizer(tmp_path)

    @asynccontextmanager
    async def make(
        *, embedding: ServedEmbedding = WHOLE, backend: MemoryBackend | None = None, **values: Any
    ) -> AsyncIterator[tuple[LiveProxy, MemoryBackend]]:
        models = (
            served(tmp_path, name="writer"),
            served(
                tmp_path,
                name="embedder",
                max_seq_len=MAX_SEQ_LEN,
                task="embed",
                triton_model="embedding",
                embedding=embedding,
            ),
        )
        backend = backend or MemoryBackend(Script(), embedding=told)
        async with live_proxy(config(tmp_path, models=models, **values), backend) as proxy:
            yield proxy, backend

    return make


async def post(proxy: LiveProxy, **body: Any) -> Any:
    return await proxy.http.post("/v1/embeddings", json={"model": "embedder", **body})


async def test_a_text_is_embedded_with_its_special_tokens(serve: Serve) -> None:
    async with serve() as (proxy, backend):
        answer = await proxy.openai.embeddings.create(model="embedder", input="The cat")
    assert backend.embedded == [ids("the", "cat")]
    assert (answer.object, answer.model) == ("list", "embedder")
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4
    (entry,) = answer.data
    assert (entry.object, entry.index) == ("embedding", 0)
    assert entry.embedding == told(ids("the", "cat")), "the client asks for base64"


async def test_the_clients_trace_goes_on_to_the_encoder(serve: Serve) -> None:
    trace = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "vendor=1"}
    async with serve() as (proxy, backend):
        body = {"model": "embedder", "input": ["the", "cat"]}
        await proxy.http.post("/v1/embeddings", json=body, headers=trace)
    assert backend.embedded_by == trace


async def test_numbers_are_the_same_as_base64(serve: Serve) -> None:
    async with serve() as (proxy, _):
        numbers = (await post(proxy, input="the dog ran")).json()
        assert numbers["data"][0]["embedding"] == told(ids("the", "dog", "ran"))
        coded = (await post(proxy, input="the dog ran", encoding_format="base64")).json()
    packed = struct.pack("<4f", *told(ids("the", "dog", "ran")))
    assert coded["data"][0]["embedding"] == base64.b64encode(packed).decode()


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (["the", "cat"], [ids("the"), ids("cat")]),
        ([5, 6, 7], [[5, 6, 7]]),
        ([[5], [6, 7]], [[5], [6, 7]]),
    ],
)
async def test_every_form_of_input_is_taken(
    serve: Serve, given: Any, asked: list[list[int]]
) -> None:
    async with serve() as (proxy, backend):
        answer = await proxy.openai.embeddings.create(model="embedder", input=given)
    assert sorted(backend.embedded) == sorted(asked)
    assert [entry.index for entry in answer.data] == list(range(len(asked)))
    assert [entry.embedding for entry in answer.data] == [told(each) for each in asked]
    assert answer.usage.prompt_tokens == sum(map(len, asked))


class Slow(MemoryBackend):
    """Answers late, the longest first, and counts who waits."""

    def __init__(self) -> None:
        super().__init__(Script())
        self.waiting = self.most = self.given_up = 0
        self.failure: Exception | None = None

    async def embed(
        self, model: str, input_ids: Sequence[int], *, trace: Mapping[str, str]
    ) -> Sequence[float]:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            if self.failure and len(input_ids) == 5:
                raise self.failure
            await asyncio.sleep(30 if self.failure else 0.02 / len(input_ids))
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        finally:
            self.waiting -= 1
        return told(input_ids)


async def test_many_inputs_go_together_but_not_all_at_once_and_come_in_order(serve: Serve) -> None:
    inputs = [[4 + n % 30] * (1 + n % 20) for n in range(500)]
    backend = Slow()
    async with serve(backend=backend) as (proxy, _):
        answer = await proxy.openai.embeddings.create(model="embedder", input=inputs)
    assert [entry.embedding for entry in answer.data] == [told(each) for each in inputs]
    assert 8 <= backend.most <= 64


async def test_when_one_input_fails_the_others_are_given_up(serve: Serve) -> None:
    backend = Slow()
    backend.failure = NotReadyError("the model is away")
    async with serve(backend=backend) as (proxy, _):
        answer = await post(proxy, input=[[9] * n for n in (8, 7, 5, 6)])
        assert answer.status_code == 503
        assert "the model is away" in answer.json()["error"]["message"]
        assert backend.waiting == 0
        assert backend.given_up == 3


async def test_a_request_ends_at_its_deadline(serve: Serve) -> None:
    backend = Slow()
    backend.failure = NotReadyError("not for these")
    async with serve(backend=backend) as (proxy, _):
        headers = {"x-request-timeout": "1"}
        body = {"model": "embedder", "input": "the cat"}
        answer = await proxy.http.post("/v1/embeddings", json=body, headers=headers)
        assert answer.status_code == 504
        assert backend.given_up == 1


async def test_without_a_name_the_model_that_embeds_is_meant(serve: Serve) -> None:
    async with serve() as (proxy, _):
        answer = await proxy.http.post("/v1/embeddings", json={"input": "a"})
    assert answer.json()["model"] == "embedder"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": ""}, "input"),
    ({"input": ["a", ""]}, "input[1]"),
    ({"input": [[5], []]}, "input[1]"),
    ({"input": ["a", 5]}, "input"),
    ({"input": [5, [5]]}, "input"),
    ({"input": [True]}, "input[0]"),
    ({"input": [5, -1]}, "input"),
    ({"input": [[5], [10**6]]}, "input[1]"),
    ({"input": "a " * 40}, "input"),
    ({"input": ["a"] * 9}, "input"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ({"input": "a", "dimensions": 0}, "dimensions"),
    ({"input": "a", "dimensions": 2}, "dimensions"),
    ({"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ({"input": "a", "messages": [{"role": "user", "content": "a"}]}, "messages"),
    ({"input": "a", "embed_dtype": "float16"}, "embed_dtype"),
    ({"input": "a", "temperature": 1}, "temperature"),
    ({"input": "a", "model": "writer"}, "model"),
]
"""A body without its model → the parameter that is at fault."""


async def test_what_cant_be_done_is_refused_by_name(serve: Serve) -> None:
    async with serve(max_inputs=8) as (proxy, backend):
        for body, param in WRONG:
            answer = await post(proxy, **body)
            error = answer.json()["error"]
            assert (answer.status_code, error["param"]) == (400, param), (body, error)
    assert backend.embedded == []


async def test_an_encoder_writes_no_text(serve: Serve) -> None:
    async with serve() as (proxy, _):
        message: Any = {"role": "user", "content": "hello"}
        with pytest.raises(openai.BadRequestError, match="/v1/embeddings") as chat:
            await proxy.openai.chat.completions.create(model="embedder", messages=[message])
        assert chat.value.param == "model"
        with pytest.raises(openai.BadRequestError, match="/v1/embeddings"):
            await proxy.openai.completions.create(model="embedder", prompt="hello")


async def test_a_text_that_is_too_long_is_cut_where_that_is_asked_for(serve: Serve) -> None:
    text = "the cat sat on a mat " * 9
    async with serve() as (proxy, backend):
        refused = await post(proxy, input=text)
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        assert (await post(proxy, input=text, truncate_prompt_tokens=-1)).status_code == 200
        await post(proxy, input=text, truncate_prompt_tokens=4)
        await post(proxy, input=text, truncate_prompt_tokens=4, add_special_tokens=False)
        await post(proxy, input=[5] * 60, truncate_prompt_tokens=3)
        too_many = await post(proxy, input=text, truncate_prompt_tokens=MAX_SEQ_LEN + 1)
    assert too_many.status_code == 400
    whole, short, plain, given = backend.embedded
    assert (len(whole), whole[0], whole[-1]) == (MAX_SEQ_LEN, CLS, SEP)
    assert short == ids("the", "cat")
    assert plain == ids("the", "cat", "sat", "on")[1:-1]
    assert given == [5, 5, 5]


async def test_an_embedding_is_cut_to_dimensions_that_the_model_has(serve: Serve) -> None:
    async with serve(embedding=CUT) as (proxy, _):
        cut = (await post(proxy, input="the cat", dimensions=2)).json()["data"][0]["embedding"]
        refused = await post(proxy, input="the cat", dimensions=1)
        whole = await post(proxy, input="the cat", dimensions=4)
    first, second, *_ = told(ids("the", "cat"))
    assert cut == pytest.approx([each / math.hypot(first, second) for each in (first, second)])
    assert refused.json()["error"]["param"] == "dimensions"
    assert "2, 3" in refused.json()["error"]["message"]
    assert len(whole.json()["data"][0]["embedding"]) == 4


async def test_no_more_of_a_text_is_tokenized_than_could_fit(serve: Serve) -> None:
    text = "the cat " * 1_000_000
    async with serve() as (proxy, backend):
        refused = await post(proxy, input=text)
        await post(proxy, input=text, truncate_prompt_tokens=4)
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert "characters" in refused.json()["error"]["message"]
    assert backend.embedded == [ids("the", "cat")]
