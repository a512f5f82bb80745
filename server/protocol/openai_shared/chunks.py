"""What the chunks of a streamed chat and of a streamed completion have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from server.errors import RequestError
from server.protocol.openai_shared.answers import head_json, usage_json
from server.protocol.request import AnswerHead, TextEvent, TextRequest, Usage
from server.protocol.sse import DONE, error_event, event


class Chunks:
    """One answer's chunks; the dialect's own `kind` is OpenAI's `object`, and `says` is what a
    choice calls what is new in it. `plain` ones tell nothing beside it."""

    kind: ClassVar[str]
    says: ClassVar[str]

    def __init__(self, head: AnswerHead, request: TextRequest) -> None:
        self._request, self._form = request, request.form
        self._head = head_json(head, self.kind, request.form)
        self._tail: dict[str, Any] = {"usage": None} if request.include_usage else {}
        self._plain = request.log_probs is None and not request.return_token_ids

    def end(self, usage: Usage) -> bytes:
        """The usage, for clients that asked for it, and the stream's end."""
        if not self._request.include_usage:
            return DONE
        return event({**self._head, "choices": [], "usage": usage_json(usage)}) + DONE

    def fail(self, error: RequestError) -> bytes:
        """The error in the place of what would have come, and the stream's end."""
        return error_event(error)

    def _chunk(self, index: int, said: Any, usage: Usage | None = None) -> dict[str, Any]:
        """A chunk of one choice, with the `usage` so far where it is told with each."""
        choice = {"index": index, self.says: said, "logprobs": None, "finish_reason": None}
        tail = self._tail if usage is None else {"usage": usage_json(usage)}
        return {**self._head, "choices": [choice], **tail}

    def _last(
        self, new: TextEvent, said: Any, reason: str | None, usage: Usage | None = None
    ) -> dict[str, Any]:
        """A choice's last chunk, which says nothing but why it ended."""
        chunk = self._chunk(new.index, said, usage)
        chunk["choices"][0].update(finish_reason=reason, stop_reason=new.stopped_by)
        return chunk
