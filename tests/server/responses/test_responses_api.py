from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pydantic
import pytest
from live_proxy import MODEL, LiveProxy, config, live_proxy
from sdk_types import checked_response, stream_events
from small_tokenizers import IM_END, byte_level, write_folder
from waiting import eventually

from server.auth.key import ApiKey, digest
from server.backend.base import GenerateRequest
from server.backend.memory import MemoryBackend, Script
from server.edge.application import Application
from server.edge.route import Row
from server.errors import NotReadyError
from server.responses import Responses
from server.serving import Serving

TOKENIZER = byte_level()
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}"
    "{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LOOK: Any = {
    "type": "function",
    "name": "look",
    "description": "Look.",
    "parameters": {"type": "object", "properties": {"at": {"type": "integer"}}},
    "strict": False,
}

Serve = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tokenizer"), TOKENIZER, template=TEMPLATE)


@pytest.fixture
def serve(folder: Path) -> Serve:
    @asynccontextmanager
    async def serving(
        *said: Any, model: dict[str, Any] | None = None, **settings: Any
    ) -> AsyncIterator[tuple[LiveProxy, MemoryBackend]]:
        scripts = [one if isinstance(one, Script) else script(one) for one in said]
        backend = MemoryBackend(lambda _: scripts[min(len(backend.requests), len(scripts) - 1)])
        async with live_proxy(config(folder, model=model, **settings), backend) as proxy:
            yield proxy, backend

    return serving


def script(text: str, **values: Any) -> Script:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    return Script(messages=[[token] for token in (*ids, TOKENIZER.token_to_id(IM_END))], **values)


def prompt(request: GenerateRequest) -> str:
    return TOKENIZER.decode(request.input_ids, skip_special_tokens=False)


async def create(proxy: LiveProxy, **values: Any) -> Any:
    return await proxy.openai.responses.create(**{"model": MODEL, "input": "hello", **values})


async def test_an_answer_is_what_openais_client_expects_and_is_kept_unless_asked_not_to(
    serve: Serve,
) -> None:
    async with serve("Hi, fox 😀!") as (proxy, backend):
        answer = await proxy.http.post("/v1/responses", json={"input": "hello", "user": "u"})
        response = checked_response(answer.json())
        assert (response.output_text, response.status) == ("Hi, fox 😀!", "completed")
        assert (response.model, response.user) == (MODEL, "u"), "the first model is the default"
        assert response.usage is not None
        assert response.usage.input_tokens == len(backend.requests[0].input_ids)
        assert response.usage.output_tokens == sum(map(len, script("Hi, fox 😀!").messages))
        kept = await proxy.http.get(f"/v1/responses/{response.id}")
        assert kept.json() == answer.json()
        passing = await create(proxy, store=False)
        with pytest.raises(openai.NotFoundError, match=passing.id):
            await proxy.openai.responses.retrieve(passing.id)


async def test_a_deleted_response_is_gone(serve: Serve) -> None:
    async with serve("Hi") as (proxy, _):
        response = await create(proxy)
        await proxy.openai.responses.delete(response.id)
        with pytest.raises(openai.NotFoundError):
            await proxy.openai.responses.retrieve(response.id)
        with pytest.raises(openai.NotFoundError):
            await proxy.openai.responses.delete(response.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await create(proxy, previous_response_id=response.id)
    assert (caught.value.code, caught.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )


async def test_a_later_turn_goes_on_from_all_before_but_for_instructions(serve: Serve) -> None:
    async with serve("one", "two", "three") as (proxy, backend):
        first = await create(proxy, input="a", instructions="Be terse.")
        second = await create(proxy, input="b", previous_response_id=first.id)
        third = await create(
            proxy, input="c", previous_response_id=second.id, instructions="Be kind."
        )
        items = proxy.openai.responses.input_items
        newest = [item async for item in items.list(third.id, limit=2)]
        oldest = [item async for item in items.list(third.id, order="asc")]
    assert prompt(backend.requests[2]) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n"
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\none<|im_end|>\n"
        "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [item.content[0].text for item in oldest] == ["a", "one", "b", "two", "c"]
    assert oldest == newest[::-1], "in pages too"
    assert third.previous_response_id == second.id


async def test_a_stream_builds_the_response_that_is_kept_before_its_end(serve: Serve) -> None:
    async with serve("Hi, fox 😀!") as (proxy, _):
        async with proxy.openai.responses.stream(model=MODEL, input="hello") as stream:
            deltas = [event.delta async for event in stream if "text.delta" in event.type]
            final = await stream.get_final_response()
        raw = await proxy.http.post("/v1/responses", json={"input": "hello", "stream": True})
        kept = await proxy.openai.responses.retrieve(final.id)
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert "".join(deltas) == final.output_text == kept.output_text == "Hi, fox 😀!"
    assert len(deltas) > 3
    assert stream_events(raw.content)[-1]["response"]["usage"]["output_tokens"] > 3


async def test_a_structured_answer_is_held_to_the_clients_own_type(serve: Serve) -> None:
    class Place(pydantic.BaseModel):
        town: str
        people: int

    text = '{"town": "Köln", "people": 7}'
    async with serve(text, model={"guided": True}) as (proxy, backend):
        parsed = await proxy.openai.responses.parse(model=MODEL, input="where?", text_format=Place)
    assert parsed.output_parsed == Place(town="Köln", people=7)
    guide = backend.requests[0].guide
    assert guide is not None
    assert guide.kind == "json_schema"
    assert json.loads(guide.text)["properties"].keys() == {"town", "people"}
    async with serve(text) as (proxy, _):
        with pytest.raises(openai.BadRequestError) as caught:
            await proxy.openai.responses.parse(model=MODEL, input="where?", text_format=Place)
    assert caught.value.param == "text.format", "this engine can't be held to anything"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_function_is_called_and_its_output_answered(serve: Serve, streamed: bool) -> None:
    said = 'I look.\n<tool_call>\n{"name": "look", "arguments": {"at": 3}}\n</tool_call>'
    model = {"tool_parser": "hermes"}
    async with serve(said, "A wall.", model=model, max_seq_len=1024) as (proxy, backend):
        values = {"model": MODEL, "input": "What's there?", "tools": [LOOK]}
        if streamed:
            async with proxy.openai.responses.stream(**values) as stream:
                first = await stream.get_final_response()
        else:
            first = await proxy.openai.responses.create(**values)
        message, call = first.output
        assert (message.type, call.type, call.name) == ("message", "function_call", "look")
        assert json.loads(call.arguments) == {"at": 3}
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "bricks"}
        second = await create(proxy, input=[output], previous_response_id=first.id, tools=[LOOK])
        stateless = await create(
            proxy,
            input=[
                {"role": "user", "content": "What's there?"},
                *(item.model_dump(exclude_none=True) for item in first.output),
                output,
            ],
            store=False,
            tools=[LOOK],
        )
    assert second.output_text == stateless.output_text == "A wall."
    assert backend.requests[1].input_ids == backend.requests[2].input_ids
    assert "<|im_start|>tool\nbricks<|im_end|>" in prompt(backend.requests[1])
    assert '"name": "look"' in prompt(backend.requests[0])


async def test_reasoning_is_an_item_of_its_own_that_the_next_turn_is_told_of(
    serve: Serve,
) -> None:
    said = "<think>hm, a fox</think>A fox."
    async with serve(said, "x", model={"reasoning_parser": "deepseek_r1"}) as (proxy, backend):
        first = await create(proxy, input="Who?")
        reasoning, _ = first.output
        assert [part.text for part in reasoning.content] == ["hm, a fox"]
        assert first.output_text == "A fox."
        assert first.usage.output_tokens_details.reasoning_tokens > 0
        await create(proxy, input="Sure?", previous_response_id=first.id)
    assert "<think>hm, a fox</think>A fox." in prompt(backend.requests[1])


async def test_log_probs_are_told_of_the_text(serve: Serve) -> None:
    async with serve(script("Hi", log_prob=-0.25)) as (proxy, _):
        response = await create(proxy, include=["message.output_text.logprobs"])
    told = response.output[0].content[0].logprobs
    assert {token.logprob for token in told} == {-0.25}
    assert b"".join(bytes(token.bytes) for token in told) == b"Hi"


async def test_a_stored_item_can_be_referred_to(serve: Serve) -> None:
    async with serve("one", "two") as (proxy, backend):
        first = await create(proxy, input="a")
        reference = {"type": "item_reference", "id": first.output[0].id}
        await create(proxy, input=[reference, {"role": "user", "content": "b"}])
        with pytest.raises(openai.NotFoundError) as caught:
            await create(proxy, input=[{"type": "item_reference", "id": "msg_unknown_o0"}])
    assert caught.value.param == "input[0]"
    assert "assistant\none<|im_end|>\n<|im_start|>user\nb" in prompt(backend.requests[1])


async def test_what_a_client_that_left_had_got_of_a_stream_is_kept_as_cancelled(
    serve: Serve,
) -> None:
    ids = TOKENIZER.encode("one two three", add_special_tokens=False).ids
    hanging = Script(messages=[[token] for token in ids], hang=True)
    async with serve(hanging) as (proxy, backend):
        async with await create(proxy, stream=True) as stream:
            async for event in stream:
                if event.type == "response.created":
                    response_id = event.response.id
                elif event.type == "response.output_text.delta":
                    break
        path = f"/v1/responses/{response_id}"

        async def is_there() -> bool:
            return (await proxy.http.get(path)).status_code == 200

        await eventually(is_there)
        found = await proxy.http.get(path)
        response = checked_response(found.json())
        assert len(backend.cancelled) == 1
    assert response.status == "cancelled"
    assert response.output[0].status == "incomplete"
    assert "one two three".startswith(response.output_text)


async def test_a_fault_while_streaming_ends_in_a_failed_response_before_in_an_error(
    serve: Serve,
) -> None:
    ids = TOKENIZER.encode("half", add_special_tokens=False).ids
    broken = Script(messages=[ids], failure=NotReadyError("Triton is away"))
    async with serve(broken) as (proxy, _):
        raw = await proxy.http.post("/v1/responses", json={"input": "x", "stream": True})
        *_, error, failed = stream_events(raw.content)
        kept = await proxy.openai.responses.retrieve(failed["response"]["id"])
    assert (error["type"], error["code"]) == ("error", "service_unavailable")
    assert (kept.status, kept.output_text) == ("failed", "half")
    async with serve(Script(failure=NotReadyError("Triton is away"))) as (proxy, _):
        raw = await proxy.http.post("/v1/responses", json={"input": "x", "stream": True})
    assert raw.status_code == 503


async def test_one_keys_responses_are_nobody_elses(serve: Serve) -> None:
    keys = tuple(ApiKey(name=name, sha256=digest(f"sk-{name}")) for name in ("ann", "bob"))
    async with serve("Hi", api_keys=keys) as (proxy, _):
        ann, bob = (
            proxy.openai.with_options(api_key=f"sk-{name}").responses for name in ("ann", "bob")
        )
        response = await ann.create(model=MODEL, input="hello")
        assert (await ann.retrieve(response.id)).output_text == "Hi"
        for attempt in (
            bob.retrieve(response.id),
            bob.delete(response.id),
            bob.cancel(response.id),
            bob.create(
                model=MODEL, input=[{"type": "item_reference", "id": response.output[0].id}]
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                await attempt
        with pytest.raises(openai.BadRequestError):
            await bob.create(model=MODEL, input="x", previous_response_id=response.id)


async def test_what_belongs_to_the_background_is_refused_by_name(serve: Serve) -> None:
    async with serve("Hi") as (proxy, _):
        with pytest.raises(openai.BadRequestError) as caught:
            await create(proxy, background=True)
        assert caught.value.param == "background"
        response = await create(proxy)
        with pytest.raises(openai.BadRequestError, match="background"):
            await proxy.openai.responses.cancel(response.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await proxy.openai.responses.retrieve(response.id, stream=True)
        assert caught.value.param == "stream"
        for query, param in (("?limit=0", "limit"), ("?order=up", "order"), ("?after=x", "after")):
            refused = await proxy.http.get(f"/v1/responses/{response.id}/input_items{query}")
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_a_conversation_that_is_too_long_loses_its_beginning_only_where_it_may(
    serve: Serve,
) -> None:
    said = [{"role": "user", "content": f"turn {n}. " + "word " * 8} for n in range(20)]
    conversation = [{"role": "developer", "content": "Rules."}, *said]
    async with serve("Hi", max_seq_len=256) as (proxy, backend):
        with pytest.raises(openai.BadRequestError) as caught:
            await create(proxy, input=conversation)
        assert caught.value.code == "context_length_exceeded"
        response = await create(proxy, input=conversation, truncation="auto", max_output_tokens=20)
        items = [i async for i in proxy.openai.responses.input_items.list(response.id)]
    shown = prompt(backend.requests[0])
    assert "Rules." in shown
    assert "turn 19." in shown
    assert "turn 0." not in shown
    assert 256 - 100 < len(backend.requests[0].input_ids) <= 256 - 20, "no more than must go"
    assert len(items) == 21, "a later turn may have room for all"


async def test_workers_that_share_no_folder_say_that_they_keep_nothing(serve: Serve) -> None:
    async with serve("Hi", workers=2) as (proxy, _):
        answer = await proxy.http.post("/v1/responses", json={"input": "x"})
        assert answer.json()["store"] is False
        with pytest.raises(openai.BadRequestError) as caught:
            await create(proxy, store=True)
    assert caught.value.param == "store"


async def test_a_prompts_tokens_are_counted_without_an_answer(folder: Path) -> None:
    backend = MemoryBackend(script("Hi"))
    serving = Serving(config(folder), backend)
    responses = Responses(serving)
    path = "/v1/responses/input_tokens"
    app = Application(serving, [Row(method="POST", path=path, handler=responses.count)])
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.post(path, json={"input": "hello"})
    await responses.close()
    text = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    count = len(TOKENIZER.encode(text, add_special_tokens=False).ids)
    assert answer.json() == {"object": "response.input_tokens", "input_tokens": count}
    assert backend.requests == []


async def test_an_item_that_is_named_again_and_again_counts_each_time(serve: Serve) -> None:
    async with serve("Hi", max_body_bytes=20_000, max_seq_len=100_000) as (proxy, _):
        first = await create(proxy, input=[{"role": "user", "content": "word " * 1000}])
        (item,) = [i async for i in proxy.openai.responses.input_items.list(first.id)]
        reference: Any = {"type": "item_reference", "id": item.id}
        await create(proxy, input=[reference] * 3)
        with pytest.raises(openai.BadRequestError, match="more than 20000 bytes") as caught:
            await create(proxy, input=[reference] * 4)
    assert caught.value.param == "input"


async def test_a_chain_of_turns_is_bounded_and_goes_on_where_its_beginning_may_go(
    serve: Serve,
) -> None:
    said: Any = [{"role": "user", "content": "word " * 300}, {"role": "user", "content": "hi"}]
    bounds = {"max_body_bytes": 16_000, "max_seq_len": 3000}

    async def turns(proxy: LiveProxy, **values: Any) -> None:
        previous = None
        for _ in range(12):
            answer = await create(proxy, input=said, previous_response_id=previous, **values)
            previous = answer.id

    async with serve("Hi", **bounds) as (proxy, _):
        await turns(proxy, truncation="auto")
    async with serve("Hi", **{**bounds, "max_seq_len": 100_000}) as (proxy, _):
        with pytest.raises(openai.BadRequestError, match="more than 16000 bytes") as caught:
            await turns(proxy)
    assert caught.value.param == "previous_response_id"
