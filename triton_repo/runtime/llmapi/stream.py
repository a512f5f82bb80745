"""The answer to one request: gathered as it comes, sent when asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_repo.runtime.llmapi.asked import Asked
from triton_repo.runtime.llmapi.outputs import OUTPUTS, Part
from triton_repo.runtime.llmapi.row import Rows

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Stream:
    """What the event loop gathers and the sender sends. `task` is what generates."""

    def __init__(self, request: Any, asked: Asked, wanted: Sequence[str]) -> None:
        self.request_id: str = request.request_id()
        self.task: asyncio.Task[None] | None = None
        self.ended = False
        self._asked = asked
        self._wanted = [name for name in wanted if name not in asked.left_out]
        self._sender: Any = request.get_response_sender()
        self._lock = threading.Lock()
        self._rows = Rows(asked)
        self._input_tokens = 0
        self._context_logits: Any = None
        self._error: BaseException | None = None
        self._due = False

    def add(self, step: Any) -> bool:
        """Gather what a step has brought; True if the stream has just become worth sending."""
        with self._lock:
            self._input_tokens = len(step.prompt_token_ids)
            self._context_logits = step.context_logits
            if step.finished or not self._asked.beams:
                for index, output in enumerate(step.outputs):
                    self._rows.gather(index, output)
            self.ended = bool(step.finished) or self._rows.ended
            return self._become_due(bool(self._rows) and self._asked.streaming)

    def end(self, error: BaseException | None) -> bool:
        """No step comes any more, for `error` if there is one; True as of `add`."""
        with self._lock:
            if self.ended and error is None:
                return False
            self.ended, self._error = True, error
            return self._become_due(False)

    def send(self) -> None:
        """Send what has been gathered; the last response carries Triton's final flag."""
        with self._lock:
            rows, self._due = self._rows.take(), False
            final, error = self.ended, self._error
        if self._sender is None:
            return
        groups = [list(rows.items())] if self._asked.beams else [[item] for item in rows.items()]
        parts = [self._part(group) for group in groups if group]
        for part in parts:
            last = final and error is None and part is parts[-1]
            self._sender.send(self._response(part), flags=FINAL if last else 0)
        if error is not None:
            send_error(self._sender, error)
        elif final and not parts:
            self._sender.send(flags=FINAL)
        if final:
            # Triton can't unload a model while senders are held
            self._sender = None

    def give_up(self, error: Exception) -> None:
        """End with an error, for a response that couldn't be sent.

        Raises if the request stays open, so that its client would wait for ever.
        """
        sender, self._sender = self._sender, None
        try:
            send_error(sender, error)
        except Exception as again:
            # What fails on Triton's side, such as a client's own output buffer, it tells the client
            if "shared memory pool" in str(error):
                raise
            pb_utils.Logger.log_error(f"a response can't be sent: {error}; nor an error: {again}")

    def cancelled(self) -> bool:
        """Whether the client has gone."""
        sender = self._sender
        return sender is not None and bool(sender.is_cancelled())

    def _become_due(self, due: bool) -> bool:
        was_due, self._due = self._due, self._due or due or self.ended
        return self._due and not was_due

    def _part(self, group: Sequence[tuple[int, Any]]) -> Part:
        return Part(
            asked=self._asked,
            index=group[0][0],
            rows=[row for _, row in group],
            input_tokens=self._input_tokens,
            context_logits=self._context_logits,
        )

    def _response(self, part: Part) -> Any:
        made = ((name, OUTPUTS[name](part)) for name in self._wanted)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in made if array is not None]
        )


def send_error(sender: Any, error: BaseException) -> None:
    """End a request with an error: the request's own fault, or not."""
    # by its name: where TensorRT-LLM keeps its RequestError differs from version to version
    own = isinstance(error, (ValueError, TypeError)) or type(error).__name__ == "RequestError"
    code = pb_utils.TritonError.INVALID_ARG if own else pb_utils.TritonError.INTERNAL
    answer = pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))
    sender.send(answer, flags=FINAL)
