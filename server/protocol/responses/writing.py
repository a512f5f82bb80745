"""The items of a response while they are written: each is opened, grows, and is closed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from server.protocol.request import TokenLogProb
from server.protocol.responses.events import Deltas, Events
from server.protocol.responses.items import (
    Status,
    call_item,
    item_id,
    message_item,
    reasoning_item,
    reasoning_part,
    text_part,
)
from server.protocol.responses.log_probs import event_log_probs, whole_log_probs
from server.protocol.validation import is_json


class Part(Protocol):
    """An item being written."""

    def open(self) -> bytes:
        """What begins it."""
        ...

    def close(self, status: Status) -> bytes:
        """What ends it."""
        ...

    def item(self, status: Status) -> dict[str, Any]:
        """The item so far."""
        ...


class _Written:
    """What all have in common: an id, a place in the output, and text that grows by `add`, which
    gives the event of it."""

    kind: str
    grows: str
    more: Mapping[str, Any] = {}

    def __init__(self, events: Events, response_id: str, index: int) -> None:
        self.id = item_id(self.kind, response_id, f"o{index}")
        self._events, self._index = events, index
        at = {"item_id": self.id, "output_index": index}
        self._at = at if self.kind == "function_call" else {**at, "content_index": 0}
        self._deltas = Deltas(events, self.grows, **self._at, **self.more)
        self.add = self._deltas.add

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._deltas.texts)

    def _added(self, item: dict[str, Any]) -> bytes:
        return self._events.event("response.output_item.added", output_index=self._index, item=item)

    def _done(self, item: dict[str, Any]) -> bytes:
        return self._events.event("response.output_item.done", output_index=self._index, item=item)


class Reasoning(_Written):
    """What the model thinks."""

    kind = "reasoning"
    grows = "response.reasoning_text.delta"

    def open(self) -> bytes:
        """The item, and its only content."""
        part = reasoning_part("")
        return self._added(reasoning_item([], "in_progress", id=self.id)) + self._events.event(
            "response.content_part.added", **self._at, part=part
        )

    def close(self, status: Status) -> bytes:
        """The whole text, content and item."""
        text = self.text
        return (
            self._events.event("response.reasoning_text.done", **self._at, text=text)
            + self._events.event(
                "response.content_part.done", **self._at, part=reasoning_part(text)
            )
            + self._done(self.item(status))
        )

    def item(self, status: Status) -> dict[str, Any]:
        """The item so far."""
        return reasoning_item([reasoning_part(self.text)], status, id=self.id)


class Message(_Written):
    """What the model says."""

    kind = "message"
    grows = "response.output_text.delta"
    more = {"logprobs": []}  # noqa: RUF012 - never written

    def __init__(self, events: Events, response_id: str, index: int) -> None:
        super().__init__(events, response_id, index)
        self._tokens: list[TokenLogProb] = []

    def open(self) -> bytes:
        """The item, and its only content."""
        item = message_item("assistant", [], "in_progress", id=self.id)
        return self._added(item) + self._events.event(
            "response.content_part.added", **self._at, part=text_part("")
        )

    def add_tokens(self, text: str, log_probs: Collection[TokenLogProb]) -> bytes:
        """More, with how likely its tokens were."""
        self._deltas.texts.append(text)
        self._tokens += log_probs
        told = event_log_probs(log_probs)
        return self._events.event(self.grows, **self._at, logprobs=told, delta=text)

    def close(self, status: Status) -> bytes:
        """The whole text, content and item."""
        text, told = self.text, event_log_probs(self._tokens)
        part = text_part(text, whole_log_probs(self._tokens))
        return (
            self._events.event("response.output_text.done", **self._at, text=text, logprobs=told)
            + self._events.event("response.content_part.done", **self._at, part=part)
            + self._done(self.item(status))
        )

    def item(self, status: Status) -> dict[str, Any]:
        """The item so far."""
        content = [text_part(self.text, whole_log_probs(self._tokens))]
        return message_item("assistant", content, status, id=self.id)


class Call(_Written):
    """A function that the model calls."""

    kind = "function_call"
    grows = "response.function_call_arguments.delta"

    def __init__(
        self, events: Events, response_id: str, index: int, *, call_id: str, name: str
    ) -> None:
        super().__init__(events, response_id, index)
        self._call_id, self._name = call_id, name

    def open(self) -> bytes:
        """The item, without arguments."""
        return self._added(self.item("in_progress"))

    def close(self, status: Status) -> bytes:
        """The whole arguments and item."""
        kind = "response.function_call_arguments.done"
        told = {**self._at, "name": self._name, "arguments": self.text}
        return self._events.event(kind, **told) + self._done(self.item(status))

    def item(self, status: Status) -> dict[str, Any]:
        """The item so far; what a stop string cut off isn't complete."""
        if status == "completed" and not is_json(self.text):
            status = "incomplete"
        return call_item(self._call_id, self._name, self.text, status, id=self.id)
