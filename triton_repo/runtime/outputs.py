"""From the executor's outputs to Triton responses: gathered as they come, sent when asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from triton_repo.executor.request import Output
from triton_repo.executor.sequence import Sequence
from triton_repo.runtime.inputs import Asked

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Part(NamedTuple):
    """Tokens to send in one response; `error` ends a request that failed."""

    token_ids: list[int]
    log_probs: list[float]
    final: bool
    error: str | None


class Stream:
    """The answer to one Triton request. `sequence` is set once the executor has taken it."""

    def __init__(self, request: Any, asked: Asked) -> None:
        self.request_id: str = request.request_id()
        self.sequence: Sequence | None = None
        self._sender: Any = request.get_response_sender()
        self._wanted: list[str] = request.requested_output_names()
        self._asked = asked
        self._sent_tokens = 0
        self._cum_log_prob = 0.0
        with_prompt = not (asked.streaming or asked.exclude_input)
        self._prompt = asked.request.input_ids if with_prompt else []
        self._pending = Part([], [], False, None)
        self._due = False

    def add(self, output: Output) -> bool:
        """Gather an output; True if the stream has just become worth sending."""
        self._pending.token_ids.extend(output.token_ids)
        self._pending.log_probs.extend(output.log_probs)
        if output.finish is not None:
            self._pending = self._pending._replace(final=True, error=output.error)
        was_due, self._due = self._due, self._asked.streaming or self._pending.final
        return self._due and not was_due

    def take(self) -> Part:
        """What has been gathered since the last call."""
        part, self._pending, self._due = self._pending, Part([], [], False, None), False
        return part

    def send(self, part: Part) -> None:
        """Send a part; the last carries Triton's final flag."""
        flags = _FINAL if part.final else 0
        if part.error is not None:
            error = pb_utils.TritonError(part.error, pb_utils.TritonError.INTERNAL)
            self._sender.send(pb_utils.InferenceResponse(error=error), flags=flags)
        else:
            self._sender.send(self._response(part), flags=flags)
        if part.final:
            # Triton can't unload a model while senders of a batch of requests are held.
            self._sender = None

    def cancelled(self) -> bool:
        """Whether the client has gone."""
        return bool(self._sender.is_cancelled())

    def _response(self, part: Part) -> Any:
        self._sent_tokens += len(part.token_ids)
        self._cum_log_prob += sum(part.log_probs)
        tensors = [pb_utils.Tensor(name, _OUTPUTS[name](self, part)) for name in self._wanted]
        return pb_utils.InferenceResponse(tensors)


def refuse(request: Any, message: str) -> None:
    """Answer a request that never reached the executor."""
    error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    request.get_response_sender().send(pb_utils.InferenceResponse(error=error), flags=_FINAL)


def acknowledge(request: Any) -> None:
    """End a request that has no answer, such as one that stops another."""
    request.get_response_sender().send(flags=_FINAL)


def _ids(stream: Stream, part: Part) -> NDArray[np.int32]:
    return np.array([[stream._prompt + part.token_ids]], np.int32)


def _length(stream: Stream, part: Part) -> NDArray[np.int32]:
    return np.array([[len(stream._prompt) + len(part.token_ids)]], np.int32)


def _log_probs(stream: Stream, part: Part) -> NDArray[np.float32]:
    return np.array([[part.log_probs or [0.0] * len(part.token_ids)]], np.float32)


def _constant(value: NDArray[Any]) -> Callable[[Stream, Part], NDArray[Any]]:
    return lambda stream, part: value


_ZERO = {name: np.zeros((1, 1), name) for name in ("int32", "int64", "float32", "uint8")}

_OUTPUTS: dict[str, Callable[[Stream, Part], NDArray[Any]]] = {
    "output_ids": _ids,
    "sequence_length": _length,
    "output_log_probs": _log_probs,
    "cum_log_probs": lambda stream, part: np.array([[stream._cum_log_prob]], np.float32),
    "num_input_tokens": lambda stream, part: np.array(
        [[len(stream._asked.request.input_ids)]], np.int32
    ),
    "num_output_tokens": lambda stream, part: np.array([[stream._sent_tokens]], np.int32),
    "context_logits": _constant(np.zeros((1, 1, 1), np.float32)),
    "generation_logits": _constant(np.zeros((1, 1, 1, 1), np.float32)),
    **dict.fromkeys(
        (
            "batch_index",
            "sequence_index",
            "kv_cache_alloc_new_blocks",
            "kv_cache_reused_blocks",
            "kv_cache_alloc_total_blocks",
            "total_accepted_draft_tokens",
            "total_draft_tokens",
        ),
        _constant(_ZERO["int32"]),
    ),
    **dict.fromkeys(
        ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns"),
        _constant(_ZERO["int64"]),
    ),
    "acceptance_rate": _constant(_ZERO["float32"]),
    "context_phase_params": _constant(_ZERO["uint8"]),
}
"""Every output of the model. What wasn't asked for (and can't be, here) is zero, as upstream."""
