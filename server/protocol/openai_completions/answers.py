"""Completions as bytes, streamed or whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from server.protocol.openai_completions.log_probs import log_probs_json
from server.protocol.openai_shared import Chunks, head_json, prompt_log_probs_json, usage_json
from server.protocol.request import AnswerHead, TextEvent, TextRequest, Usage
from server.protocol.sse import Frame, encode, event

_OBJECT = "text_completion"


class CompletionStream(Chunks):
    """One answer's chunks. Text fills prebuilt frames, unless something is told beside it."""

    kind = _OBJECT
    says = "text"

    def __init__(self, head: AnswerHead, request: TextRequest) -> None:
        super().__init__(head, request)
        self._texts: dict[int, Frame] = {}

    def start(self, index: int) -> bytes:
        """Nothing: a completion has no role to name."""
        self._texts[index] = Frame(self._chunk(index, Frame.hole))
        return b""

    def delta(self, new: TextEvent, usage: Usage | None = None) -> bytes:
        """New text; also the chunk with the finish reason, when it is the choice's last."""
        if usage is not None or not self._plain:
            return self._detailed(new, usage)
        chunk = self._texts[new.index].fill(new.text) if new.text else b""
        if new.finish_reason is None:
            return chunk
        return chunk + event(self._last(new, "", new.finish_reason))

    def _detailed(self, new: TextEvent, usage: Usage | None) -> bytes:
        told = _ids(self._request, new) if new.token_ids or new.prompt_token_ids else {}
        if self._request.log_probs is not None and new.log_probs:
            told["logprobs"] = _log_probs(self._request, new)
        chunks = []
        if told or new.text:
            chunks.append(self._chunk(new.index, new.text, usage))
            chunks[0]["choices"][0].update(told)
        if new.finish_reason is not None:
            chunks.append(self._last(new, "", new.finish_reason, usage))
        return b"".join(map(event, chunks))


def render(
    head: AnswerHead, request: TextRequest, choices: Iterable[TextEvent], usage: Usage
) -> bytes:
    """The whole answer; each choice is one event with all its text."""
    rendered = [_choice(request, choice) for choice in choices]
    whole = {"choices": rendered, "usage": usage_json(usage)}
    return encode({**head_json(head, _OBJECT), **whole})


def _choice(request: TextRequest, choice: TextEvent) -> dict[str, Any]:
    rendered = {
        "index": choice.index,
        "text": choice.text,
        "logprobs": None,
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stopped_by,
    }
    if request.log_probs is not None:
        rendered["logprobs"] = _log_probs(request, choice)
    if request.prompt_log_probs is not None:
        prompt = prompt_log_probs_json(choice.prompt_log_probs, request.form)
        rendered["prompt_logprobs"] = prompt
    return {**rendered, **_ids(request, choice)}


def _log_probs(request: TextRequest, event: TextEvent) -> dict[str, Any]:
    return log_probs_json(event.log_probs, request.log_probs or 0, request.form)


def _ids(request: TextRequest, event: TextEvent) -> dict[str, Any]:
    if not request.return_token_ids:
        return {}
    prompt = {"prompt_token_ids": event.prompt_token_ids} if event.prompt_token_ids else {}
    return {"token_ids": event.token_ids, **prompt}
