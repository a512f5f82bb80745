"""From the executor's outputs to Triton responses: gathered as they come, sent when asked.

As TensorRT-LLM's backend does: one response for each sequence, or for each piece of it in a
stream; all beams of a beam search in one.
"""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from triton_repo.executor.executor import Handle
from triton_repo.executor.request import Output
from triton_repo.runtime.inputs import Asked
from triton_repo.runtime.outputs_tensors import Part, makers

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_SMALL_BYTES = 1 << 16
"""A larger response goes without the final flag, which follows alone: a sender is closed by the
flag even where the response doesn't fit the shared memory, and could tell no error then."""


class UnfinishedError(Exception):
    """A request can't be ended any more: its client would wait for ever."""


class Stream:
    """The answers to one Triton request: one for each of its prompts, over one sender."""

    def __init__(
        self, request: Any, asked: list[Asked], logits_dtype: type, *, decoupled: bool
    ) -> None:
        self.request_id: str = request.request_id()
        self._sender: Any = request.get_response_sender()
        self._decoupled = decoupled
        wanted = request.requested_output_names()
        batched = len(asked) > 1
        self.answers = [
            Answer(self, one, wanted, logits_dtype, index if batched else None)
            for index, one in enumerate(asked)
        ]
        self._open = len(asked)

    def send(self, response: Any, *, size_bytes: int = 0, last_of_answer: bool) -> None:
        """Send a response, None for none; Triton's final flag comes with the last, or after it."""
        last = last_of_answer and self._open == 1
        together = last and size_bytes < _SMALL_BYTES
        if response is not None and not together:
            self._sender.send(response, flags=0)
        if last:
            self._finish(*([response] if response is not None and together else []))
        self._open -= last_of_answer

    def fail(self, error: Any) -> None:
        """End an answer with an error, for a response that couldn't be sent.

        Raises what Triton does, which takes none for a model that isn't decoupled: its client is
        told by Triton that there is no response.
        """
        last = self._open == 1
        self._open -= 1
        if self._sender is None:
            return
        try:
            self._sender.send(error, flags=0)
        finally:
            if last:
                self._finish()

    def _finish(self, *response: Any) -> None:
        """Send the final flag. Raises UnfinishedError if the request stays open."""
        # Triton can't unload a model while senders of a batch of requests are held.
        sender, self._sender = self._sender, None
        try:
            sender.send(*response, flags=_FINAL)
        except Exception as error:
            # What fails on Triton's side, such as a client's own output buffer, it tells the client
            if not response or "shared memory pool" in str(error):
                raise UnfinishedError(str(error)) from error
            raise

    def cancelled(self) -> bool:
        """Whether the client has gone."""
        return self._sender is not None and bool(self._sender.is_cancelled())


class Answer:
    """The answer to one prompt. `handle` is set while the executor has it; `closed` is the end.

    `code` is that of an error which ends it.
    """

    def __init__(
        self,
        stream: Stream,
        asked: Asked,
        wanted: list[str],
        logits_dtype: type,
        batch_index: int | None,
    ) -> None:
        self.stream = stream
        self.asked = asked
        self.handle: Handle | None = None
        self.cancelled = False
        self.closed = False
        self.generated = 0
        self.code: Any = pb_utils.TritonError.INTERNAL
        self._pending: dict[int, Part] = {}
        self._cum_log_probs: dict[int, float] = {}
        self._final = False
        self._due = False
        found = makers(asked, logits_dtype, batch_index)
        self._makers = [(name, found[name]) for name in wanted if name in found]

    def add(self, output: Output) -> bool:
        """Gather an output; True if the answer has just become worth sending."""
        index = output.sequence_index
        part = self._pending.setdefault(index, Part(index))
        part.add(output)
        self._final = output.final
        ready = self.asked.streaming or output.final or output.finish is not None
        was_due, self._due = self._due, self._due or ready
        return self._due and not was_due

    def take(self) -> tuple[list[Part], bool]:
        """What is to be sent by now, and whether that is all."""
        if self._final or self.asked.streaming:
            parts, self._pending = list(self._pending.values()), {}
        else:
            parts = [part for part in self._pending.values() if part.finished]
            for part in parts:
                del self._pending[part.sequence_index]
        self._due = False
        return parts, self._final

    def send(self, parts: list[Part], *, final: bool) -> None:
        """Send parts, the answer's last ones where `final`."""
        if final and not parts:
            self.stream.send(None, last_of_answer=True)
        for place, part in enumerate(parts, 1):
            response, size_bytes = self._response(part)
            last = final and place == len(parts)
            self.stream.send(response, size_bytes=size_bytes, last_of_answer=last)

    def fail(self, message: str) -> None:
        """End the answer with an error, for a response that couldn't be sent."""
        self.stream.fail(_error(message, pb_utils.TritonError.INTERNAL))

    def _response(self, part: Part) -> tuple[Any, int]:
        """A response, and how many bytes its tensors have."""
        if part.error is not None:
            return _error(part.error, self.code), 0
        self.generated += part.generated
        index = part.sequence_index
        part.cum_log_prob = self._cum_log_probs.get(index, 0.0) + sum(part.log_probs)
        self._cum_log_probs[index] = part.cum_log_prob
        made = [(name, make(part)) for name, make in self._makers]
        values = [(name, value) for name, value in made if value is not None]
        tensors = [pb_utils.Tensor(name, value) for name, value in values]
        return pb_utils.InferenceResponse(tensors), sum(value.nbytes for _, value in values)


def refuse(request: Any, message: str) -> None:
    """Answer a request that never reached the executor."""
    error = _error(message, pb_utils.TritonError.INVALID_ARG)
    request.get_response_sender().send(error, flags=_FINAL)


def acknowledge(request: Any, *, decoupled: bool) -> None:
    """End a request that has no answer, such as one that stops another.

    Only a decoupled model may end one without a response.
    """
    response = [] if decoupled else [pb_utils.InferenceResponse([])]
    request.get_response_sender().send(*response, flags=_FINAL)


def _error(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
