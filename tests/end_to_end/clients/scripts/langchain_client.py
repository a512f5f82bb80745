"""LangChain's client for OpenAI."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import APIError
from pydantic import BaseModel
from reporting import (
    CALLER,
    ENCODER,
    FRANCE,
    MODEL,
    STEPS,
    TWO_CITIES,
    WEATHER,
    Urls,
    failure,
    freed,
    report,
)


class City(BaseModel):
    """The city that answers the question."""

    name: Literal["Paris", "London", "Rome"]
    capital: bool


@tool
def get_weather(city: Literal["Paris", "London", "Rome"]) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def live(urls: Urls, **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, temperature=0, **urls.live_fields(), **fields)


def scripted(urls: Urls, model: str = CALLER, retries: int = 0, **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, **{**urls.scripted_fields(retries), **fields})


def chat(urls: Urls) -> object:
    answer = live(urls).invoke(FRANCE)
    return {
        "text": answer.text,
        "finish": answer.response_metadata["finish_reason"],
        "total": answer.usage_metadata and answer.usage_metadata["total_tokens"],
    }


def stream(urls: Urls) -> object:
    chunks = list(live(urls, stream_usage=True).stream(FRANCE))
    totals = [chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata]
    finishes = [chunk.response_metadata.get("finish_reason") for chunk in chunks]
    return {
        "text": "".join(chunk.text for chunk in chunks),
        "finish": next(filter(None, finishes), None),
        "total": sum(totals),
    }


def tool_auto(urls: Urls) -> object:
    answer = scripted(urls).bind_tools([get_weather]).invoke(TWO_CITIES)
    finish = answer.response_metadata["finish_reason"]
    return {"calls": _calls(answer.tool_calls), "finish": finish}


def tool_auto_stream(urls: Urls) -> object:
    chunks = list(scripted(urls).bind_tools([get_weather]).stream(TWO_CITIES))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    finish = whole.response_metadata["finish_reason"]
    return {"calls": _calls(whole.tool_calls), "finish": finish}


def tool_result(urls: Urls) -> object:
    model = scripted(urls).bind_tools([get_weather])
    asked = model.invoke(WEATHER)
    [call] = asked.tool_calls
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    return {"text": model.invoke([HumanMessage(WEATHER), asked, result]).text}


def tool_loop(urls: Urls) -> object:
    model = scripted(urls).bind_tools([get_weather])
    messages: list[AnyMessage] = [HumanMessage(STEPS)]
    cities = []
    for _ in range(3):
        answer = model.invoke(messages)
        messages.append(answer)
        for call in answer.tool_calls:
            cities.append(call["args"]["city"])
            messages.append(get_weather.invoke(call))
    return {"cities": cities, "text": answer.text}


def events(urls: Urls) -> object:
    async def read(model: Any, question: str) -> list[Any]:
        told = model.astream_events(question, version="v2")
        return [event async for event in told if event["event"].startswith("on_chat_model")]

    text = asyncio.run(read(live(urls), FRANCE))
    calls = asyncio.run(read(scripted(urls).bind_tools([get_weather]), TWO_CITIES))
    chunks = [event["data"]["chunk"] for event in text if event["event"].endswith("stream")]
    return {
        "text": "".join(chunk.text for chunk in chunks),
        "whole": text[-1]["data"]["output"].text,
        "calls": _calls(calls[-1]["data"]["output"].tool_calls),
    }


def tool_required(urls: Urls) -> object:
    model = live(urls).bind_tools([get_weather], tool_choice="required", parallel_tool_calls=False)
    return {"calls": _calls(model.invoke(FRANCE).tool_calls)}


def tool_named(urls: Urls) -> object:
    model = live(urls).bind_tools([get_weather], tool_choice="get_weather")
    return {"calls": _calls(model.invoke(FRANCE).tool_calls)}


def schema(urls: Urls) -> object:
    model = live(urls)
    by_schema = model.with_structured_output(City, method="json_schema")
    raw = model.with_structured_output(City, include_raw=True).invoke(FRANCE)
    by_function = model.with_structured_output(City, method="function_calling")
    made = [runnable.invoke(FRANCE) for runnable in (by_schema, by_function)]
    return [city.model_dump() for city in (*made, raw["parsed"])]


def log_probs(urls: Urls) -> object:
    tokens = (
        live(urls)
        .bind(logprobs=True, top_logprobs=3)
        .invoke(FRANCE)
        .response_metadata["logprobs"]["content"]
    )
    return {
        "text": "".join(token["token"] for token in tokens),
        "tops": sorted({len(token["top_logprobs"]) for token in tokens}),
        "greedy": all(t["logprob"] == t["top_logprobs"][0]["logprob"] <= 0 for t in tokens),
    }


def several(urls: Urls) -> object:
    model = ChatOpenAI(model=MODEL, n=3, max_tokens=4, **urls.live_fields())
    [answers] = model.generate([[HumanMessage(FRANCE)]]).generations
    return list(range(len(answers)))


def embeddings(urls: Urls) -> object:
    # else it sends the ids of OpenAI's own tokenizer
    encoder = OpenAIEmbeddings(
        model=ENCODER, check_embedding_ctx_length=False, **urls.live_fields()
    )
    return {"vectors": encoder.embed_documents(["a cat", "a kitten", "the stock market"])}


def responses(urls: Urls) -> object:
    return {"text": live(urls, use_responses_api=True).invoke(FRANCE).text}


def responses_stream(urls: Urls) -> object:
    chunks = live(urls, use_responses_api=True).stream(FRANCE)
    return {"text": "".join(chunk.text for chunk in chunks)}


def responses_schema(urls: Urls) -> object:
    model = live(urls, use_responses_api=True).with_structured_output(City, method="json_schema")
    return [model.invoke(FRANCE).model_dump()]


def responses_tools(urls: Urls) -> object:
    forced = live(urls, use_responses_api=True).bind_tools([get_weather], tool_choice="required")
    model = scripted(urls, use_responses_api=True).bind_tools([get_weather])
    asked = model.invoke(WEATHER)
    [call] = asked.tool_calls
    result = ToolMessage("sunny", tool_call_id=call["id"])
    return {
        "forced": [call["name"] for call in forced.invoke(WEATHER).tool_calls],
        "call": [call["name"], call["args"]],
        "text": model.invoke([HumanMessage(WEATHER), asked, result]).text,
    }


def errors(urls: Urls) -> object:
    return {
        "model": failure(lambda: ChatOpenAI(model="gpt-4", **urls.live_fields()).invoke(FRANCE)),
        "field": failure(lambda: live(urls).invoke(FRANCE, top_p=9)),
        "long": failure(lambda: live(urls).invoke("word " * 3000)),
        "key": failure(lambda: scripted(urls, api_key="sk-wrong").invoke(FRANCE)),
        "share": failure(lambda: scripted(urls, api_key=urls.narrow_key).invoke(FRANCE)),
    }


def faults(urls: Urls) -> object:
    return {
        "full": failure(lambda: scripted(urls, "always-overloaded").invoke(FRANCE)),
        "away": failure(lambda: scripted(urls, "always-unready").invoke(FRANCE)),
    }


def retries(urls: Urls) -> object:
    models = ("overloaded", "unready")
    return [scripted(urls, model, 2).invoke(WEATHER).text for model in models]


def raw(urls: Urls) -> object:
    asked: Any = {"include_response_headers": True, "default_headers": {"X-Request-Id": "ours-7"}}
    whole = scripted(urls, **asked).invoke(FRANCE)
    [headers, *_] = [
        chunk.response_metadata["headers"]
        for chunk in scripted(urls, **asked).stream(FRANCE)
        if "headers" in chunk.response_metadata
    ]
    own = whole.response_metadata["headers"]
    return {
        "ids": [own["x-request-id"], headers["x-request-id"]],
        "time": own["openai-processing-ms"],
        "text": whole.text,
    }


def timeout(urls: Urls) -> object:
    seen = failure(lambda: scripted(urls, "silent", timeout=0.5).invoke(FRANCE))
    return {**seen, "freed": freed(urls, "silent")}


def broken(urls: Urls) -> object:
    pieces: list[str] = []
    try:
        for chunk in scripted(urls, "broken").stream(FRANCE):
            pieces.append(chunk.text)
    except APIError as error:
        return {"pieces": pieces, "error": error.message, "code": error.code}
    return {"pieces": pieces}


def _calls(calls: Any) -> object:
    return [[call["name"], call["args"]] for call in calls]


report(
    [
        chat,
        stream,
        tool_auto,
        tool_auto_stream,
        tool_result,
        tool_loop,
        events,
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
        errors,
        faults,
        retries,
        raw,
        timeout,
        broken,
    ]
)
