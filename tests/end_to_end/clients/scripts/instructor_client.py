"""Instructor, which makes objects of answers, in the modes that it has for OpenAI's API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import instructor
from instructor.core.exceptions import InstructorRetryException
from openai import APIStatusError, OpenAI
from pydantic import BaseModel, ConfigDict, Field, model_validator
from reporting import CALLER, FRANCE, MODEL, Urls, failure, report, user

MODES = (
    instructor.Mode.TOOLS,
    instructor.Mode.TOOLS_STRICT,
    instructor.Mode.JSON_SCHEMA,
    instructor.Mode.RESPONSES_TOOLS,
)
ASKED: dict[str, Any] = {"model": MODEL, "messages": user(FRANCE), "temperature": 0}


class Closed(BaseModel):
    """An object of its own fields alone: a small model goes on to invent others."""

    model_config = ConfigDict(extra="forbid")


class City(Closed):
    """The city that answers the question."""

    name: Literal["Paris", "London", "Rome"]
    capital: bool


class Trip(Closed):
    """The cities that answer the question."""

    cities: list[City] = Field(min_length=1, max_length=2)


def live(urls: Urls, mode: instructor.Mode = instructor.Mode.TOOLS) -> Any:
    return instructor.from_openai(OpenAI(**urls.live_fields()), mode=mode)


def scripted(urls: Urls, retries: int = 0, **fields: Any) -> Any:
    client = OpenAI(**{**urls.scripted_fields(retries), **fields})
    return instructor.from_openai(client).chat.completions


def schema(urls: Urls) -> object:
    made = [
        live(urls, mode).chat.completions.create(**ASKED, response_model=City, max_retries=1)
        for mode in MODES
    ]
    return [city.model_dump() for city in made]


def stream(urls: Urls) -> object:
    parts = list(live(urls).chat.completions.create_partial(**ASKED, response_model=City))
    return [parts[-1].model_dump()]


def nested(urls: Urls) -> object:
    ask = live(urls).chat.completions.create
    trip = ask(**ASKED, response_model=Trip, max_retries=1)
    return [city.model_dump() for city in trip.cities]


def reasked(urls: Urls) -> object:
    seen = []

    class Doubted(City):
        """The city that answers the question."""

        @model_validator(mode="after")
        def doubt(self) -> Doubted:
            seen.append(self.name)
            if len(seen) == 1:
                raise ValueError("say it again")
            return self

    ask = live(urls).chat.completions.create
    city = ask(**ASKED, response_model=Doubted, max_retries=2)
    return {"times": len(seen), "city": city.model_dump()}


def errors(urls: Urls) -> object:
    ask = live(urls).chat.completions.create
    fields: Any = {"response_model": City, "max_retries": 1, "messages": user(FRANCE)}
    wrong = scripted(urls, api_key="sk-wrong")
    return {
        "model": _inner(lambda: ask(model="gpt-4", **fields)),
        "field": _inner(lambda: ask(model=MODEL, temperature=9, **fields)),
        "key": _inner(lambda: wrong.create(model=CALLER, **fields)),
    }


def _inner(call: Callable[[], object]) -> object:
    """The error that Instructor gave up for."""

    def bare() -> None:
        try:
            call()
        except InstructorRetryException as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, APIStatusError):
                cause = cause.__cause__
            raise cause or error from error

    return failure(bare)


report([schema, nested, stream, reasked, errors])
