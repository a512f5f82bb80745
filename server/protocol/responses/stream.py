"""One streamed response: events of text to the bytes of OpenAI's events."""

from __future__ import annotations

from typing import Literal

from server.errors import RequestError
from server.protocol.openai_errors import error_message, shape
from server.protocol.request import TextEvent, Usage
from server.protocol.responses.events import Events
from server.protocol.responses.output import Output
from server.protocol.responses.response import ResponseObject
from server.protocol.sse import encode


class ResponseStream:
    """`final` is the last event's response, JSON, as soon as there is one."""

    def __init__(self, response: ResponseObject) -> None:
        self._response = response
        self._events = Events()
        self._output = Output(self._events, response.id)
        self._status: Literal["completed", "incomplete"] = "completed"
        self._is_begun = False
        self.final: bytes | None = None

    def start(self, index: int) -> bytes:
        """Nothing yet: the response, with nothing in it, comes before whatever is the first."""
        return b""

    def delta(self, event: TextEvent, usage: Usage | None = None) -> bytes:
        """What is new."""
        say = self._output.say
        is_more = event.finish_reason or event.reasoning or event.calls or event.log_probs
        if say is not None and not is_more and event.text:
            return say(event.text)
        written = self._begin() + self._output.feed(event)
        if event.finish_reason is None:
            return written
        if event.finish_reason == "length":
            self._status = "incomplete"
        return written + self._output.end(self._status)

    def end(self, usage: Usage) -> bytes:
        """The whole response; there is no `[DONE]` here."""
        response = self._response.at(self._status, self._output.items(), usage=usage)
        return self._begin() + self._finish(f"response.{self._status}", response)

    def fail(self, error: RequestError) -> bytes:
        """The error, and the response as far as it came."""
        told = {"code": shape(error).code, "message": error_message(error), "param": error.param}
        response = self._response.at("failed", self._output.items(), error=error)
        error_event = self._begin() + self._events.event("error", **told)
        return error_event + self._finish("response.failed", response)

    def give_up(self) -> None:
        """Nobody waits for more: what was written, if anything, is a cancelled response."""
        items = self._output.items()
        if items and self.final is None:
            self.final = encode(self._response.at("cancelled", items))

    def _begin(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        response = encode(self._response.at("in_progress"))
        return self._events.response("response.created", response) + self._events.response(
            "response.in_progress", response
        )

    def _finish(self, kind: str, response: dict[str, object]) -> bytes:
        self.final = encode(response)
        return self._events.response(kind, self.final)
