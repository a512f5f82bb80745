"""The official Python client, in every way that it has to ask."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

from openai import APIError, AsyncOpenAI, OpenAI
from pydantic import BaseModel
from reporting import (
    CALLER,
    ENCODER,
    FRANCE,
    MODEL,
    RESPONSES_TOOL,
    STEPS,
    TOOL,
    TWO_CITIES,
    WEATHER,
    Urls,
    failure,
    freed,
    report,
    user,
)

ASKED: dict[str, Any] = {"model": MODEL, "messages": user(FRANCE), "temperature": 0}


class City(BaseModel):
    """What answers are held to."""

    name: Literal["Paris", "London", "Rome"]
    capital: bool


def chat(urls: Urls) -> object:
    answer = OpenAI(**urls.live_fields()).chat.completions.create(**ASKED)
    choice = answer.choices[0]
    return {
        "text": choice.message.content,
        "finish": choice.finish_reason,
        "total": answer.usage and answer.usage.total_tokens,
    }


def stream(urls: Urls) -> object:
    with OpenAI(**urls.live_fields()) as client:
        chunks = list(
            client.chat.completions.create(
                **ASKED, stream=True, stream_options={"include_usage": True}
            )
        )
    pieces = [
        c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content
    ]
    return {
        "text": "".join(pieces),
        "finish": next(c.choices[0].finish_reason for c in reversed(chunks) if c.choices),
        "total": chunks[-1].usage and chunks[-1].usage.total_tokens,
    }


def completions(urls: Urls) -> object:
    answer = OpenAI(**urls.live_fields()).completions.create(
        model=MODEL, prompt=["One", "Two"], n=2, max_tokens=4, logprobs=2, echo=True
    )
    return [
        {
            "index": choice.index,
            "begins": choice.text[:3],
            "offset": choice.logprobs and (choice.logprobs.text_offset or [None])[0],
        }
        for choice in answer.choices
    ]


def tool_auto(urls: Urls) -> object:
    answer = OpenAI(**urls.scripted_fields()).chat.completions.create(
        model=CALLER, messages=user(TWO_CITIES), tools=[TOOL]
    )
    choice = answer.choices[0]
    return {"calls": _calls(choice.message.tool_calls), "finish": choice.finish_reason}


def tool_auto_stream(urls: Urls) -> object:
    client = OpenAI(**urls.scripted_fields())
    with client.chat.completions.stream(
        model=CALLER, messages=user(TWO_CITIES), tools=[TOOL]
    ) as events:
        choice = events.get_final_completion().choices[0]
    return {"calls": _calls(choice.message.tool_calls), "finish": choice.finish_reason}


def tool_result(urls: Urls) -> object:
    client = OpenAI(**urls.scripted_fields())
    messages = user(WEATHER)
    strict: Any = {**TOOL, "function": {**TOOL["function"], "strict": True}}
    message = client.chat.completions.parse(model=CALLER, messages=messages, tools=[strict])
    asked = message.choices[0].message
    [call] = asked.tool_calls or []
    messages += [asked, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    answer = client.chat.completions.create(model=CALLER, messages=messages, tools=[TOOL])
    # its objects as dicts have all its own fields
    messages[1] = asked.model_dump()
    client.chat.completions.create(model=CALLER, messages=messages, tools=[TOOL])
    return {"text": answer.choices[0].message.content}


def tool_loop(urls: Urls) -> object:
    client = OpenAI(**urls.scripted_fields())
    messages, cities = user(STEPS), []
    for _ in range(3):
        answer = client.chat.completions.create(model=CALLER, messages=messages, tools=[TOOL])
        message = answer.choices[0].message
        messages.append(message)
        for call in message.tool_calls or []:
            city = json.loads(call.function.arguments)["city"]
            cities.append(city)
            result = {"role": "tool", "tool_call_id": call.id, "content": f"sunny in {city}"}
            messages.append(result)
    return {"cities": cities, "text": message.content}


def responses_tool_loop(urls: Urls) -> object:
    client = OpenAI(**urls.scripted_fields())
    asked: Any = {"model": CALLER, "tools": [RESPONSES_TOOL]}
    cities: list[str] = []
    answer = client.responses.create(input=STEPS, **asked)
    for _ in range(2):
        results: Any = []
        for call in answer.output:
            if call.type == "function_call":
                city = json.loads(call.arguments)["city"]
                cities.append(city)
                result = {"call_id": call.call_id, "output": f"sunny in {city}"}
                results.append({"type": "function_call_output", **result})
        answer = client.responses.create(input=results, previous_response_id=answer.id, **asked)
    return {"cities": cities, "text": answer.output_text}


def tool_required(urls: Urls) -> object:
    answer = OpenAI(**urls.live_fields()).chat.completions.create(
        **ASKED, tools=[TOOL], tool_choice="required", parallel_tool_calls=False
    )
    return {"calls": _calls(answer.choices[0].message.tool_calls)}


def tool_named(urls: Urls) -> object:
    client = OpenAI(**urls.live_fields())
    with client.chat.completions.stream(
        **ASKED,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    ) as events:
        choice = events.get_final_completion().choices[0]
    return {"calls": _calls(choice.message.tool_calls)}


def schema(urls: Urls) -> object:
    client = OpenAI(**urls.live_fields())
    whole = client.chat.completions.parse(**ASKED, response_format=City)
    beta = client.beta.chat.completions.parse(**ASKED, response_format=City)
    with client.chat.completions.stream(**ASKED, response_format=City) as events:
        streamed = events.get_final_completion()
    parsed = [answer.choices[0].message.parsed for answer in (whole, beta, streamed)]
    return [city.model_dump() if city else None for city in parsed]


def log_probs(urls: Urls) -> object:
    answer = OpenAI(**urls.live_fields()).chat.completions.create(
        **ASKED, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    tokens = logprobs.content if logprobs else None
    return {
        "text": "".join(token.token for token in tokens or ()),
        "tops": sorted({len(token.top_logprobs) for token in tokens or ()}),
        "greedy": all(t.logprob == t.top_logprobs[0].logprob <= 0 for t in tokens or ()),
    }


def several(urls: Urls) -> object:
    answer = OpenAI(**urls.live_fields()).chat.completions.create(
        model=MODEL, messages=user(FRANCE), n=3, max_tokens=4
    )
    return [choice.index for choice in answer.choices]


def embeddings(urls: Urls) -> object:
    client = OpenAI(**urls.live_fields())
    texts = ["a cat", "a kitten", "the stock market"]
    packed = client.embeddings.create(model=ENCODER, input=texts)
    plain = client.embeddings.create(model=ENCODER, input=texts, encoding_format="float")
    return {
        "vectors": [item.embedding for item in packed.data],
        "alike": all(
            abs(a - b) < 1e-6
            for one, other in zip(packed.data, plain.data, strict=True)
            for a, b in zip(one.embedding, other.embedding, strict=True)
        ),
    }


def responses(urls: Urls) -> object:
    client = OpenAI(**urls.live_fields())
    first = client.responses.create(model=MODEL, input=FRANCE, temperature=0)
    second = client.responses.create(
        model=MODEL, input="And of Italy?", previous_response_id=first.id, max_output_tokens=16
    )
    kept = client.responses.retrieve(second.id)
    items = client.responses.input_items.list(second.id, order="asc").data
    client.responses.delete(first.id)
    return {
        "text": first.output_text,
        "kept": kept.output_text == second.output_text,
        "roles": [getattr(item, "role", None) for item in items],
        "deleted": failure(lambda: client.responses.retrieve(first.id)),
    }


def responses_stream(urls: Urls) -> object:
    client = OpenAI(**urls.live_fields())
    with client.responses.stream(model=MODEL, input=FRANCE, temperature=0) as events:
        kinds = [event.type for event in events]
        answer = events.get_final_response()
    return {"text": answer.output_text, "first": kinds[0], "last": kinds[-1]}


def responses_schema(urls: Urls) -> object:
    client = OpenAI(**urls.live_fields())
    fields: Any = {"model": MODEL, "input": FRANCE, "temperature": 0, "text_format": City}
    whole = client.responses.parse(**fields)
    with client.responses.stream(**fields) as events:
        streamed = events.get_final_response()
    parsed = [answer.output_parsed for answer in (whole, streamed)]
    return [city.model_dump() if city else None for city in parsed]


def responses_tools(urls: Urls) -> object:
    live, scripted = OpenAI(**urls.live_fields()), OpenAI(**urls.scripted_fields())
    asked: Any = {"tools": [RESPONSES_TOOL], "temperature": 0}
    forced = live.responses.create(model=MODEL, input=WEATHER, tool_choice="required", **asked)
    free = scripted.responses.create(model=CALLER, input=WEATHER, **asked)
    [call] = [item for item in free.output if item.type == "function_call"]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    answer = scripted.responses.create(
        model=CALLER, input=[result], previous_response_id=free.id, **asked
    )
    return {
        "forced": [item.name for item in forced.output if item.type == "function_call"],
        "call": [call.name, call.arguments],
        "text": answer.output_text,
    }


def listing(urls: Urls) -> object:
    client = OpenAI(**urls.live_fields())
    named = client.models.retrieve(MODEL)
    return {"names": [model.id for model in client.models.list()], "one": named.id}


def errors(urls: Urls) -> object:
    live, scripted = OpenAI(**urls.live_fields()), OpenAI(**urls.scripted_fields())
    wrong = scripted.with_options(api_key="sk-wrong").chat.completions
    narrow = scripted.with_options(api_key=urls.narrow_key).chat.completions
    free = live.chat.completions
    return {
        "model": failure(lambda: free.create(model="gpt-4", messages=user(FRANCE))),
        "field": failure(lambda: free.create(**{**ASKED, "temperature": 9})),
        "long": failure(lambda: free.create(model=MODEL, messages=user("word " * 3000))),
        "route": failure(lambda: live.images.generate(model=MODEL, prompt="a cat")),
        "key": failure(lambda: wrong.create(model=CALLER, messages=user(FRANCE))),
        "share": failure(lambda: narrow.create(model=CALLER, messages=user(FRANCE))),
    }


def faults(urls: Urls) -> object:
    client = OpenAI(**urls.scripted_fields()).chat.completions
    asked: Any = {"messages": user(FRANCE)}
    return {
        "full": failure(lambda: client.create(model="always-overloaded", **asked)),
        "away": failure(lambda: client.create(model="always-unready", **asked)),
    }


def retries(urls: Urls) -> object:
    client = OpenAI(**urls.scripted_fields(retries=2)).chat.completions
    return [
        client.create(model=model, messages=user(WEATHER)).choices[0].message.content
        for model in ("overloaded", "unready")
    ]


def raw(urls: Urls) -> object:
    client = OpenAI(**urls.scripted_fields())
    headers = {"X-Request-Id": "ours-7"}
    asked: Any = {"model": CALLER, "messages": user(FRANCE), "extra_headers": headers}
    response = client.chat.completions.with_raw_response.create(**asked)
    with client.chat.completions.with_streaming_response.create(**asked, stream=True) as streamed:
        lines = [line for line in streamed.iter_lines() if line]
    return {
        "ids": [response.headers["x-request-id"], streamed.headers["x-request-id"]],
        "time": response.headers["openai-processing-ms"],
        "text": response.parse().choices[0].message.content,
        "last": lines[-1],
    }


def timeout(urls: Urls) -> object:
    client = OpenAI(**{**urls.scripted_fields(), "timeout": 0.5}).chat.completions
    seen = failure(lambda: client.create(model="silent", messages=user(FRANCE)))
    return {**seen, "freed": freed(urls, "silent")}


def left(urls: Urls) -> object:
    async def read() -> str | None:
        async with (
            AsyncOpenAI(**urls.scripted_fields()) as client,
            await client.chat.completions.create(
                model="silent", messages=user(FRANCE), stream=True
            ) as chunks,
        ):
            async for chunk in chunks:
                if text := chunk.choices[0].delta.content:
                    return text
        return None

    return {"text": asyncio.run(read()), "freed": freed(urls, "silent")}


def broken(urls: Urls) -> object:
    pieces: list[str] = []
    chunks = OpenAI(**urls.scripted_fields()).chat.completions.create(
        model="broken", messages=user(FRANCE), stream=True
    )
    try:
        for chunk in chunks:
            pieces.append(chunk.choices[0].delta.content or "")
    except APIError as error:
        return {"pieces": pieces, "error": error.message, "code": error.code}
    return {"pieces": pieces}


def _calls(calls: Any) -> object:
    return [[call.function.name, call.function.arguments] for call in calls or ()]


report(
    [
        chat,
        stream,
        completions,
        tool_auto,
        tool_auto_stream,
        tool_result,
        tool_loop,
        responses_tool_loop,
        tool_required,
        tool_named,
        schema,
        log_probs,
        several,
        embeddings,
        responses,
        responses_stream,
        responses_schema,
        responses_tools,
        listing,
        errors,
        faults,
        retries,
        raw,
        timeout,
        left,
        broken,
    ]
)
