"""OpenAI's agents framework: over chat completions and over responses."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    SQLiteSession,
    function_tool,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from reporting import CALLER, FRANCE, MODEL, STEPS, WEATHER, Urls, failure, report

QUIET = RunConfig(tracing_disabled=True)
GREEDY = ModelSettings(temperature=0)


class City(BaseModel):
    """What answers are held to."""

    name: Literal["Paris", "London", "Rome"]
    capital: bool


@function_tool
def get_weather(city: Literal["Paris", "London", "Rome"]) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def live(urls: Urls, kind: Any, name: str = MODEL) -> Any:
    return kind(model=name, openai_client=AsyncOpenAI(**urls.live_fields()))


def scripted(urls: Urls, kind: Any, name: str = CALLER, retries: int = 0, **fields: Any) -> Any:
    client = AsyncOpenAI(**{**urls.scripted_fields(retries), **fields})
    return kind(model=name, openai_client=client)


def run(agent: Agent, question: str) -> Any:
    return asyncio.run(Runner.run(agent, question, run_config=QUIET))


def plain(model: Any) -> Agent:
    return Agent(name="plain", model=model, model_settings=GREEDY)


def chat(urls: Urls) -> object:
    result = run(plain(live(urls, OpenAIChatCompletionsModel)), FRANCE)
    return {"text": result.final_output}


def responses(urls: Urls) -> object:
    return {"text": run(plain(live(urls, OpenAIResponsesModel)), FRANCE).final_output}


def stream(urls: Urls) -> object:
    return _streamed(plain(live(urls, OpenAIChatCompletionsModel)))


def responses_stream(urls: Urls) -> object:
    return _streamed(plain(live(urls, OpenAIResponsesModel)))


def schema(urls: Urls) -> object:
    return [
        run(
            Agent(name="city", model=live(urls, kind), model_settings=GREEDY, output_type=City),
            FRANCE,
        ).final_output.model_dump()
        for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel)
    ]


def tool_result(urls: Urls) -> object:
    return _with_tool(urls, OpenAIChatCompletionsModel)


def responses_tools(urls: Urls) -> object:
    return _with_tool(urls, OpenAIResponsesModel)


def tool_loop(urls: Urls) -> object:
    kinds = OpenAIChatCompletionsModel, OpenAIResponsesModel
    return [_items(run(_forecaster(urls, kind), STEPS)) for kind in kinds]


def tool_stream(urls: Urls) -> object:
    async def read(kind: Any) -> object:
        result = Runner.run_streamed(_forecaster(urls, kind), WEATHER, run_config=QUIET)
        events = [event async for event in result.stream_events()]
        names = [event.name for event in events if event.type == "run_item_stream_event"]
        return {"events": names, "text": result.final_output}

    kinds = OpenAIChatCompletionsModel, OpenAIResponsesModel
    return [asyncio.run(read(kind)) for kind in kinds]


def handoff(urls: Urls) -> object:
    kinds = OpenAIChatCompletionsModel, OpenAIResponsesModel
    seen = []
    for kind in kinds:
        desk = Agent(name="desk", model=scripted(urls, kind), handoffs=[_forecaster(urls, kind)])
        result = run(desk, WEATHER)
        seen.append({**_items(result), "last": result.last_agent.name})
    return seen


def conversation(urls: Urls) -> object:
    agent = plain(live(urls, OpenAIResponsesModel))

    async def ask(question: str, **context: Any) -> Any:
        return await Runner.run(agent, question, run_config=QUIET, **context)

    async def both() -> list[Any]:
        first, session = await ask(FRANCE), SQLiteSession("ours")
        stored = await ask("And of Italy?", previous_response_id=first.last_response_id)
        await ask(FRANCE, session=session)
        sent = await ask("And of Italy?", session=session)
        return [result.raw_responses[0].usage.input_tokens for result in (first, stored, sent)]

    return asyncio.run(both())


def errors(urls: Urls) -> object:
    kind = OpenAIChatCompletionsModel
    unknown, wrong = live(urls, kind, "gpt-4"), scripted(urls, kind, api_key="sk-wrong")
    return {
        "model": failure(lambda: run(plain(unknown), FRANCE)),
        "key": failure(lambda: run(plain(wrong), FRANCE)),
    }


def retries(urls: Urls) -> object:
    kind = OpenAIChatCompletionsModel
    return [
        run(plain(scripted(urls, kind, name, 2)), WEATHER).final_output
        for name in ("overloaded", "unready")
    ]


def _with_tool(urls: Urls, kind: Any) -> object:
    return _items(run(_forecaster(urls, kind), WEATHER))


def _forecaster(urls: Urls, kind: Any) -> Agent:
    return Agent(name="weather", model=scripted(urls, kind), tools=[get_weather])


def _items(result: Any) -> dict[str, Any]:
    return {"items": [item.type for item in result.new_items], "text": result.final_output}


def _streamed(agent: Agent) -> object:
    async def read() -> object:
        result = Runner.run_streamed(agent, FRANCE, run_config=QUIET)
        events = [event async for event in result.stream_events()]
        deltas = [
            event.data.delta
            for event in events
            if event.type == "raw_response_event" and event.data.type.endswith("text.delta")
        ]
        return {"text": "".join(deltas), "whole": result.final_output}

    return asyncio.run(read())


report(
    [
        chat,
        stream,
        tool_result,
        schema,
        responses,
        responses_stream,
        responses_tools,
        tool_loop,
        tool_stream,
        handoff,
        conversation,
        errors,
        retries,
    ]
)
