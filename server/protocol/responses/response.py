"""The response object: an answer, the ends of a stream, and what is told when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import time
from typing import Any, Final, Literal

from server.errors import RequestError
from server.protocol.openai_errors import error_message, shape
from server.protocol.request import AnswerHead, Usage
from server.protocol.responses.items import Item

_CODES: Final[Mapping[int, str]] = {400: "invalid_prompt", 429: "rate_limit_exceeded"}

State = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]


class ResponseObject:
    """One response: what never changes of it, which is the head and what was asked for."""

    def __init__(
        self, head: AnswerHead, asked: Mapping[str, Any], *, clock: Callable[[], float] = time
    ) -> None:
        self.id = head.id
        self._clock = clock
        self._constant = {
            "id": head.id,
            "object": "response",
            "created_at": head.created,
            "model": head.model,
            **asked,
        }

    def at(
        self,
        status: State,
        output: Sequence[Item] = (),
        *,
        usage: Usage | None = None,
        error: RequestError | None = None,
    ) -> dict[str, Any]:
        """The response as it is now."""
        is_cut = status == "incomplete"
        return {
            **self._constant,
            "status": status,
            "completed_at": int(self._clock()) if status == "completed" else None,
            "error": None if error is None else error_json(error),
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": list(output),
            "usage": None if usage is None else usage_json(usage),
        }


def usage_json(usage: Usage) -> dict[str, Any]:
    """`usage`. What was written to the cache is not counted: nothing is charged for it."""
    cached = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0}
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": cached,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def error_json(error: RequestError) -> dict[str, Any]:
    """A failed response's `error`; OpenAI's specification has a list of its own for `code`."""
    code = _CODES.get(shape(error).status, "server_error")
    return {"code": code, "message": error_message(error)}
