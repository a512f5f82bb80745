"""What a dialect is to an answer: pure functions between its bytes and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.errors import RequestError
from server.protocol import openai_chat, openai_completions
from server.protocol.request import AnswerHead, TextEvent, TextRequest, Usage


class Stream(Protocol):
    """A dialect's events of one streamed answer, as bytes that are sent as they are."""

    def start(self, index: int) -> bytes:
        """What a choice begins with; sent with the first text of any."""
        ...

    def delta(self, event: TextEvent, usage: Usage | None) -> bytes:
        """New text of a choice, and its end; `usage` so far where it was asked for with each."""
        ...

    def end(self, usage: Usage) -> bytes:
        """All that comes after the last choice's end, the stream's own end too."""
        ...

    def fail(self, error: RequestError) -> bytes:
        """The same in the place of an answer that broke off."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """One way of asking: its pure functions, and the name that metrics call it by."""

    endpoint: str
    id_prefix: str
    parse: Callable[[bytes], TextRequest]
    stream: Callable[[AnswerHead, TextRequest], Stream]
    render: Callable[[AnswerHead, TextRequest, Sequence[TextEvent], Usage], bytes]


CHAT = Dialect(
    endpoint="chat_completions",
    id_prefix=openai_chat.ID_PREFIX,
    parse=openai_chat.parse,
    stream=openai_chat.ChatStream,
    render=openai_chat.render,
)
COMPLETIONS = Dialect(
    endpoint="completions",
    id_prefix=openai_completions.ID_PREFIX,
    parse=openai_completions.parse,
    stream=openai_completions.CompletionStream,
    render=openai_completions.render,
)
