"""LiteLLM's client, by its provider "openai"."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import httpx2  # noqa: F401 - else two of LiteLLM's threads import it at once, and one fails
import litellm
from openai import APIError
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

litellm.suppress_debug_info = True


class City(BaseModel):
    """What answers are held to."""

    name: Literal["Paris", "London", "Rome"]
    capital: bool


def live(urls: Urls, model: str = MODEL) -> dict[str, Any]:
    at = {"base_url": urls.live, "api_key": "none", "max_retries": 0}
    return {"model": f"openai/{model}", "messages": user(FRANCE), "temperature": 0, **at}


def scripted(urls: Urls, question: str, model: str = CALLER) -> dict[str, Any]:
    at = {"base_url": urls.scripted, "api_key": urls.key, "max_retries": 0}
    return {"model": f"openai/{model}", "messages": user(question), **at}


def chat(urls: Urls) -> object:
    answer = litellm.completion(**live(urls))
    choice = answer.choices[0]
    return {
        "text": choice.message.content,
        "finish": choice.finish_reason,
        "total": answer.usage.total_tokens,
    }


def stream(urls: Urls) -> object:
    options = {"include_usage": True}
    chunks = list(litellm.completion(**live(urls), stream=True, stream_options=options))
    whole = litellm.stream_chunk_builder(chunks)
    return {
        "text": whole.choices[0].message.content,
        "finish": whole.choices[0].finish_reason,
        "total": whole.usage.total_tokens,
    }


def tool_auto(urls: Urls) -> object:
    return _called(litellm.completion(**scripted(urls, TWO_CITIES), tools=[TOOL]))


def tool_auto_stream(urls: Urls) -> object:
    chunks = litellm.completion(**scripted(urls, TWO_CITIES), tools=[TOOL], stream=True)
    return _called(litellm.stream_chunk_builder(list(chunks)))


def tool_result(urls: Urls) -> object:
    fields = scripted(urls, WEATHER)
    message = litellm.completion(**fields, tools=[TOOL]).choices[0].message
    [call] = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    fields["messages"] = [*fields["messages"], message, result]
    return {"text": litellm.completion(**fields, tools=[TOOL]).choices[0].message.content}


def tool_loop(urls: Urls) -> object:
    fields, cities = scripted(urls, STEPS), []
    for _ in range(3):
        message = litellm.completion(**fields, tools=[TOOL]).choices[0].message
        fields["messages"].append(message)
        for call in message.tool_calls or []:
            city = json.loads(call.function.arguments)["city"]
            cities.append(city)
            result = {"role": "tool", "tool_call_id": call.id, "content": f"sunny in {city}"}
            fields["messages"].append(result)
    return {"cities": cities, "text": message.content}


def tool_required(urls: Urls) -> object:
    forced: Any = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    return _called(litellm.completion(**live(urls), **forced))


def tool_named(urls: Urls) -> object:
    named = {"type": "function", "function": {"name": "get_weather"}}
    return _called(litellm.completion(**live(urls), tools=[TOOL], tool_choice=named))


def schema(urls: Urls) -> object:
    answer = litellm.completion(**live(urls), response_format=City)
    return [City.model_validate_json(answer.choices[0].message.content).model_dump()]


def log_probs(urls: Urls) -> object:
    answer = litellm.completion(**live(urls), logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    return {
        "text": "".join(token.token for token in tokens),
        "tops": sorted({len(token.top_logprobs) for token in tokens}),
        "greedy": all(t.logprob == t.top_logprobs[0].logprob <= 0 for t in tokens),
    }


def several(urls: Urls) -> object:
    fields = {**live(urls), "temperature": 1, "n": 3, "max_tokens": 4}
    return [choice.index for choice in litellm.completion(**fields).choices]


def embeddings(urls: Urls) -> object:
    answer = litellm.embedding(
        model=f"openai/{ENCODER}",
        input=["a cat", "a kitten", "the stock market"],
        api_base=urls.live,
        api_key="none",
    )
    return {"vectors": [item["embedding"] for item in answer.data]}


def responses(urls: Urls) -> object:
    return {"text": litellm.responses(**_responses(urls)).output_text}


def responses_stream(urls: Urls) -> object:
    events = list(litellm.responses(**_responses(urls), stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    return {"text": "".join(deltas)}


def responses_tools(urls: Urls) -> object:
    at = {"api_base": urls.scripted, "api_key": urls.key, "tools": [RESPONSES_TOOL]}
    forced = litellm.responses(
        **{**_responses(urls), "input": WEATHER}, tools=[RESPONSES_TOOL], tool_choice="required"
    )
    free = litellm.responses(model=f"openai/{CALLER}", input=WEATHER, **at)
    [call] = [item for item in free.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    answer = litellm.responses(
        model=f"openai/{CALLER}", input=[result], previous_response_id=free.id, **at
    )
    return {
        "forced": [item.name for item in forced.output if item.type == "function_call"],
        "call": [call.name, call.arguments],
        "text": answer.output_text,
    }


def errors(urls: Urls) -> object:
    ask = litellm.completion
    asked = scripted(urls, FRANCE)
    long = {**live(urls), "messages": user("word " * 3000)}
    return {
        "model": failure(lambda: ask(**live(urls, "gpt-nothing"))),
        "field": failure(lambda: ask(**{**live(urls), "temperature": 9})),
        "long": failure(lambda: ask(**long)),
        "key": failure(lambda: ask(**{**asked, "api_key": "sk-wrong"})),
        "share": failure(lambda: ask(**{**asked, "api_key": urls.narrow_key})),
    }


def faults(urls: Urls) -> object:
    ask = litellm.completion
    return {
        "full": failure(lambda: ask(**scripted(urls, FRANCE, "always-overloaded"))),
        "away": failure(lambda: ask(**scripted(urls, FRANCE, "always-unready"))),
    }


def retries(urls: Urls) -> object:
    return [
        litellm.completion(**{**scripted(urls, WEATHER, model), "max_retries": 2})
        .choices[0]
        .message.content
        for model in ("overloaded", "unready")
    ]


def router(urls: Urls) -> object:
    rows = {"away": "always-unready", "full": "always-overloaded", "well": CALLER}
    deployments = []
    for name, model in rows.items():
        asked = scripted(urls, FRANCE, model)
        del asked["messages"]
        deployments.append({"model_name": name, "litellm_params": asked})
    fallbacks = [{"away": ["well"]}, {"full": ["well"]}]
    routes = litellm.Router(deployments, fallbacks=fallbacks, num_retries=0)
    whole = routes.completion(model="away", messages=user(FRANCE))

    async def streamed() -> str:
        chunks = await routes.acompletion(model="full", messages=user(FRANCE), stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    return [whole.choices[0].message.content, asyncio.run(streamed())]


def timeout(urls: Urls) -> object:
    seen = failure(lambda: litellm.completion(**scripted(urls, FRANCE, "silent"), timeout=0.5))
    return {"error": seen["error"], "freed": freed(urls, "silent")}


def broken(urls: Urls) -> object:
    pieces: list[str] = []
    try:
        for chunk in litellm.completion(**scripted(urls, FRANCE, "broken"), stream=True):
            pieces.append(chunk.choices[0].delta.content or "")
    except APIError as error:
        return {"pieces": pieces, "error": str(error)}
    return {"pieces": pieces}


def _responses(urls: Urls) -> dict[str, Any]:
    at = {"api_base": urls.live, "api_key": "none"}
    return {"model": f"openai/{MODEL}", "input": FRANCE, "temperature": 0, **at}


def _called(answer: Any) -> object:
    choice = answer.choices[0]
    calls = [[call.function.name, call.function.arguments] for call in choice.message.tool_calls]
    return {"calls": calls, "finish": choice.finish_reason}


report(
    [
        chat,
        stream,
        tool_auto,
        tool_auto_stream,
        tool_result,
        tool_loop,
        tool_required,
        tool_named,
        schema,
        log_probs,
        several,
        embeddings,
        responses,
        responses_stream,
        responses_tools,
        errors,
        faults,
        retries,
        router,
        timeout,
        broken,
    ]
)
