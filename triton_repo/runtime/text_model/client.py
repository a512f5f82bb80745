"""The client of one request: what it sent, and what is sent to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_repo.runtime.text_model.request import Array

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Client:
    """Made on Triton's thread, all else on one other: a look for a client that meets its final
    response kills tritonserver.

    Responses leave at once under a decoupled policy; else the only one leaves with `end`.
    """

    def __init__(self, request: Any, *, decoupled: bool) -> None:
        # numpy's own memory, not Triton's, which goes with the request
        self.inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        self.wanted: list[str] = request.requested_output_names()
        self._decoupled = decoupled
        self._sender: Any = request.get_response_sender()
        self._held: Any = None

    def gone(self) -> bool:
        """Whether the client has cancelled or left."""
        return self._sender is not None and bool(self._sender.is_cancelled())

    def send(self, outputs: Mapping[str, Array]) -> None:
        """Send those of `outputs` that the client wants."""
        wanted = [name for name in self.wanted if name in outputs]
        self._pass(
            pb_utils.InferenceResponse([pb_utils.Tensor(name, outputs[name]) for name in wanted])
        )

    def fail(self, message: str, code: str) -> None:
        """Send an error; `code` is gRPC's name for it."""
        number = getattr(
            pb_utils.TritonError, _CODES.get(code, code), pb_utils.TritonError.INTERNAL
        )
        self._pass(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, number)))

    def end(self) -> None:
        """Say that no more comes, and let go of the request: a model can't unload before."""
        sender, self._sender = self._sender, None
        if self._held is None:
            sender.send(flags=_FINAL)
        else:
            sender.send(self._held, flags=_FINAL)

    def _pass(self, response: Any) -> None:
        if self._decoupled:
            self._sender.send(response)
        else:
            self._held = self._held or response


_CODES = {"INVALID_ARGUMENT": "INVALID_ARG", "UNIMPLEMENTED": "UNSUPPORTED"}
"""gRPC's name of a code → the Python backend's, where it is another."""
