"""What a model wrote as the items of a response: whole, or as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from server.protocol.request import CallDelta, TextEvent, TokenLogProb
from server.protocol.responses.events import Events
from server.protocol.responses.items import (
    Item,
    Status,
)
from server.protocol.responses.writing import Call, Message, Reasoning


class Output:
    """A response's output as it streams: at most one item is open, the last."""

    def __init__(self, events: Events, response_id: str) -> None:
        self._events, self._response_id = events, response_id
        self._closed: list[Item] = []
        self._open: Reasoning | Message | Call | None = None
        self._call_index = -1
        self._is_answered = False
        self.say: Callable[[str], bytes] | None = None
        """Text alone, quickly, while a message is open."""

    def feed(self, new: TextEvent) -> bytes:
        """What `new` adds to the items."""
        parts = []
        if new.reasoning:
            parts.append(self._reason(new.reasoning))
        said, tokens = 0, deque(token for token in new.log_probs if token.said)
        for call in new.calls:
            if call.at > said:
                text = new.text[said : call.at]
                parts.append(self._say(text, _tokens_of(text, tokens)))
                said = call.at
            parts.append(self._call(call))
        if said < len(new.text):
            parts.append(self._say(new.text[said:], tokens))
        return b"".join(parts)

    def end(self, status: Status) -> bytes:
        """The end of all; a whole answer that says and calls nothing is an empty message."""
        opened = b""
        if status == "completed" and not self._is_answered:
            opened = self._message()[1]
        return opened + self._close(status)

    def items(self) -> list[Item]:
        """The items so far, the one being written incomplete."""
        return (
            self._closed if self._open is None else [*self._closed, self._open.item("incomplete")]
        )

    def _reason(self, text: str) -> bytes:
        part, opened = self._open, b""
        if not isinstance(part, Reasoning):
            opened = self._close("completed")
            part = Reasoning(self._events, self._response_id, len(self._closed))
            self._open = part
            opened += part.open()
        return opened + part.add(text)

    def _say(self, text: str, tokens: Collection[TokenLogProb]) -> bytes:
        if self._closed and not isinstance(self._open, Message):
            text = text.lstrip()  # it stood between this item's text and another's
        part, opened = self._message()
        if tokens:
            return opened + part.add_tokens(text, tokens)
        return opened + part.add(text)

    def _message(self) -> tuple[Message, bytes]:
        if isinstance(self._open, Message):
            return self._open, b""
        closed = self._close("completed")
        self._open = part = Message(self._events, self._response_id, len(self._closed))
        self._is_answered, self.say = True, part.add
        return part, closed + part.open()

    def _call(self, delta: CallDelta) -> bytes:
        part, opened = self._open, b""
        if not isinstance(part, Call) or delta.index != self._call_index:
            opened = self._close("completed")
            self._call_index, self._is_answered = delta.index, True
            index = len(self._closed)
            names = {"call_id": delta.id or "", "name": delta.name or ""}
            self._open = part = Call(self._events, self._response_id, index, **names)
            opened += part.open()
        return opened + part.add(delta.arguments) if delta.arguments else opened

    def _close(self, status: Status) -> bytes:
        part = self._open
        if part is None:
            return b""
        self._open = self.say = None
        closed = part.close(status)
        self._closed.append(part.item(status))
        return closed


def _tokens_of(text: str, tokens: deque[TokenLogProb]) -> list[TokenLogProb]:
    """Take the first tokens, those of `text`."""
    taken, chars = [], 0
    while tokens and chars < len(text):
        taken.append(tokens.popleft())
        chars += len(taken[-1].text)
    return taken
