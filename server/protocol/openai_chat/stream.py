"""The chunks of one streamed chat answer, as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.protocol.openai_chat.choices import finish_reason, log_probs_json
from server.protocol.openai_shared import Chunks
from server.protocol.request import AnswerHead, CallDelta, TextEvent, TextRequest, Usage
from server.protocol.sse import Frame, event


class ChatStream(Chunks):
    """One answer's chunks. Text, reasoning and pieces of arguments fill prebuilt frames, unless
    something else is told with each chunk."""

    kind = "chat.completion.chunk"
    says = "delta"

    def __init__(self, head: AnswerHead, request: TextRequest) -> None:
        super().__init__(head, request)
        self._contents: dict[int, Frame] = {}
        self._reasonings: dict[int, Frame] = {}
        self._arguments: dict[tuple[int, int], Frame] = {}

    def start(self, index: int) -> bytes:
        """The choice's first chunk, which names the role; with `echo`, the message's beginning."""
        hole = Frame.hole
        self._contents[index] = Frame(self._chunk(index, {"content": hole}))
        self._reasonings[index] = Frame(self._chunk(index, _reasoning(hole)))
        first = event(self._chunk(index, {"role": "assistant", "content": ""}))
        prefix = self._form.prefix
        return first + self._contents[index].fill(prefix) if prefix else first

    def delta(self, new: TextEvent, usage: Usage | None = None) -> bytes:
        """What is new; also the chunk with the finish reason, when it is the choice's last."""
        if usage is not None or not self._plain:
            return self._detailed(new, usage)
        chunk = self._contents[new.index].fill(new.text) if new.text else b""
        if new.reasoning:
            chunk = self._reasonings[new.index].fill(new.reasoning) + chunk
        if new.calls:
            for part in new.calls:
                chunk += self._call(new.index, part)
        if new.finish_reason is None:
            return chunk
        return chunk + event(self._end_of(new))

    def _call(self, index: int, part: CallDelta) -> bytes:
        frame = self._arguments.get((index, part.index))
        if frame is None:
            frame = Frame(self._chunk(index, self._arguments_json(part, Frame.hole)))
            self._arguments[index, part.index] = frame
        pieces = frame.fill(part.arguments) if part.arguments else b""
        if part.name is None:
            return pieces
        return event(self._chunk(index, self._beginning(part))) + pieces

    def _detailed(self, new: TextEvent, usage: Usage | None) -> bytes:
        """What is told beside the text goes with the event's first chunk, the usage with each."""
        told = self._told(new)
        deltas = list(self._deltas(new)) or ([{"content": ""}] if told else [])
        chunks = [self._chunk(new.index, delta, usage) for delta in deltas]
        if chunks:
            chunks[0]["choices"][0].update(told)
            if new.prompt_token_ids:
                chunks[0]["prompt_token_ids"] = new.prompt_token_ids
        if new.finish_reason is not None:
            chunks.append(self._end_of(new, usage))
        return b"".join(map(event, chunks))

    def _told(self, new: TextEvent) -> dict[str, Any]:
        told: dict[str, Any] = {}
        top = self._request.log_probs
        if new.log_probs and top is not None:
            told["logprobs"] = log_probs_json(new.log_probs, top, self._form)
        if new.token_ids:
            told["token_ids"] = new.token_ids
        return told

    def _deltas(self, new: TextEvent) -> Iterator[dict[str, Any]]:
        if new.reasoning:
            yield _reasoning(new.reasoning)
        if new.text:
            yield {"content": new.text}
        for part in new.calls:
            if part.name is not None:
                yield self._beginning(part)
            if part.arguments:
                yield self._arguments_json(part, part.arguments)

    def _beginning(self, part: CallDelta) -> dict[str, Any]:
        """A call's first delta, which names it and has none of its arguments yet."""
        function = {"name": part.name, "arguments": ""}
        if self._form.deprecated_calls:
            return {"function_call": function}
        call = {"index": part.index, "id": part.id, "type": "function", "function": function}
        return {"tool_calls": [call]}

    def _arguments_json(self, part: CallDelta, arguments: str) -> dict[str, Any]:
        function = {"arguments": arguments}
        if self._form.deprecated_calls:
            return {"function_call": function}
        return {"tool_calls": [{"index": part.index, "function": function}]}

    def _end_of(self, new: TextEvent, usage: Usage | None = None) -> dict[str, Any]:
        return self._last(new, {}, finish_reason(new, self._form), usage)


def _reasoning(text: str) -> dict[str, str]:
    """Both names that clients know it by."""
    return {"reasoning": text, "reasoning_content": text}
