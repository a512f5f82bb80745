"""The client of one request: what it sent, and what is sent to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_repo.runtime.text_model.request import Array

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_SMALL_BYTES = 1 << 16


class Client:
    """Made on Triton's thread, all else on one other: a look for a client that meets its final
    response kills tritonserver.

    Under a decoupled policy responses leave at once, but for the last, which leaves with `end`: a
    client that has it all and cancels before the final flag has come makes Triton hold the request
    for ever, or die. Under another policy there is only one. What may not fit the shared memory
    leaves before: it must not take the flag with it.
    """

    def __init__(self, request: Any, *, decoupled: bool) -> None:
        # numpy's own memory, not Triton's, which goes with the request
        self.inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        self.wanted: list[str] = request.requested_output_names()
        self._decoupled = decoupled
        self._sender: Any = request.get_response_sender()
        self._held: Any = None
        self._is_answered = False
        self._gone = False

    def gone(self) -> bool:
        """Whether the client has cancelled or left since the last look."""
        before = self._gone or self._sender is None
        self._gone = before or bool(self._sender.is_cancelled())
        return self._gone and not before

    def send(self, outputs: Mapping[str, Array], *, last: bool) -> None:
        """Send those of `outputs` that the client wants."""
        wanted = {name: outputs[name] for name in self.wanted if name in outputs}
        response = pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in wanted.items()])
        small = sum(map(_size_bytes, wanted.values())) < _SMALL_BYTES
        self._pass(response, together=small and (last or not self._decoupled))

    def fail(self, message: str, code: str) -> None:
        """Send an error; `code` is gRPC's name for it."""
        number = getattr(
            pb_utils.TritonError, _CODES.get(code, code), pb_utils.TritonError.INTERNAL
        )
        error = pb_utils.TritonError(message, number)
        self._pass(pb_utils.InferenceResponse(error=error), together=True)

    def end(self) -> None:
        """Say that no more comes, and let go of the request: a model can't unload before."""
        sender, self._sender = self._sender, None
        if self._held is None:
            sender.send(flags=_FINAL)
        else:
            sender.send(self._held, flags=_FINAL)

    def _pass(self, response: Any, *, together: bool) -> None:
        if self._is_answered:
            return
        self._is_answered = together or not self._decoupled
        if together:
            self._held = response
        else:
            self._sender.send(response)


def _size_bytes(value: Array) -> int:
    return sum(map(len, value.flat)) if value.dtype == object else value.nbytes


_CODES = {"INVALID_ARGUMENT": "INVALID_ARG", "UNIMPLEMENTED": "UNSUPPORTED"}
"""gRPC's name of a code → the Python backend's, where it is another."""
