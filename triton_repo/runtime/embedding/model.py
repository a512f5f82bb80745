"""What Triton loads as `embedding`: requests that came together are computed together.

Copied into every repository with an encoder as `embedding/1/model.py`; see `triton_repo.runtime`
for what travels with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from triton_repo.runtime.embedding.batches import Ids, texts
from triton_repo.runtime.model_arguments import Arguments


class TritonPythonModel:
    """One encoder."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine named by the model's `gpt_model_path` parameter."""
        folder = Arguments(args).path("gpt_model_path")
        try:
            from triton_repo.runtime.embedding.encoder import Encoder

            self._encoder = Encoder(folder)
        except ImportError as error:
            raise pb_utils.TritonModelException(
                f"embedding: this Python has no OpenVINO ({error}); pip install openvino"
            ) from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise pb_utils.TritonModelException(
                f"embedding: {folder} can't be loaded: {error!r}; build the engine again"
            ) from error

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request; one that can't be honoured gets its own error."""
        asked = [self._texts(request) for request in requests]
        found = iter(self._encoder.embed([ids for given in asked for ids in _whole(given)]))
        return [
            _refusal(given)
            if isinstance(given, ValueError)
            else _response([next(found) for _ in given])
            for given in asked
        ]

    def _texts(self, request: Any) -> list[Ids] | ValueError:
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            return texts(given["input_ids"], given["input_lengths"], self._encoder.limits)
        except ValueError as error:
            return error


def _whole(given: list[Ids] | ValueError) -> list[Ids]:
    return [] if isinstance(given, ValueError) else given


def _response(rows: list[Any]) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor("embedding", np.stack(rows))])


def _refusal(error: ValueError) -> Any:
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
    )
