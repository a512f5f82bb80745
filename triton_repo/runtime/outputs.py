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


class Stream:
    """The answers to one Triton request: one for each of its prompts, over one sender."""

    def __init__(self, request: Any, asked: list[Asked], logits_dtype: type) -> None:
        self.request_id: str = request.request_id()
        self._sender: Any = request.get_response_sender()
        wanted = request.requested_output_names()
        batched = len(asked) > 1
        self.answers = [
            Answer(self, one, wanted, logits_dtype, index if batched else None)
            for index, one in enumerate(asked)
        ]
        self._open = len(asked)

    def send(self, response: Any, *, last_of_answer: bool) -> None:
        """Send a response, None for none; the request's last one carries Triton's final flag."""
        flags = 0 if self._open - last_of_answer else _FINAL
        if response is not None:
            self._sender.send(response, flags=flags)
        elif flags:
            self._sender.send(flags=flags)
        self._open -= last_of_answer
        if flags:
            # Triton can't unload a model while senders of a batch of requests are held.
            self._sender = None

    def cancelled(self) -> bool:
        """Whether the client has gone."""
        return self._sender is not None and bool(self._sender.is_cancelled())


class Answer:
    """The answer to one prompt. `handle` is set once the executor has taken it."""

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
        self.generated = 0
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
            self.stream.send(self._response(part), last_of_answer=final and place == len(parts))

    def fail(self, message: str) -> None:
        """End the answer with an error of the executor's."""
        self.stream.send(_error(message, pb_utils.TritonError.INTERNAL), last_of_answer=True)

    def _response(self, part: Part) -> Any:
        if part.error is not None:
            return _error(part.error, pb_utils.TritonError.INTERNAL)
        self.generated += part.generated
        index = part.sequence_index
        part.cum_log_prob = self._cum_log_probs.get(index, 0.0) + sum(part.log_probs)
        self._cum_log_probs[index] = part.cum_log_prob
        values = ((name, make(part)) for name, make in self._makers)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, value) for name, value in values if value is not None]
        )


def refuse(request: Any, message: str) -> None:
    """Answer a request that never reached the executor."""
    error = _error(message, pb_utils.TritonError.INVALID_ARG)
    request.get_response_sender().send(error, flags=_FINAL)


def acknowledge(request: Any) -> None:
    """End a request that has no answer, such as one that stops another."""
    request.get_response_sender().send(flags=_FINAL)


def _error(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
