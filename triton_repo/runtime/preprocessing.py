"""Triton's `preprocessing` model: text or a conversation in, token ids and word tables out.

Copied into every repository as `preprocessing/1/model.py`; see `triton_repo.runtime` for what
travels with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_repo.runtime.model_arguments import Arguments
from triton_repo.runtime.preprocessing_tensors import Array, Preprocessor

_UNSUPPORTED = ("DECODER_QUERY", "IMAGE_BYTES", "IMAGE_URL", "IMAGE_SIZES", "VIDEO_BYTES")
_TAKEN = (
    "QUERY",
    "MESSAGES",
    "REQUEST_OUTPUT_LEN",
    "BAD_WORDS_DICT",
    "STOP_WORDS_DICT",
    "EMBEDDING_BIAS_WORDS",
    "EMBEDDING_BIAS_WEIGHTS",
    "END_ID",
    "PAD_ID",
    "PROMPT_TABLE_EXTRA_ID",
)


class TritonPythonModel:
    """What Triton drives: many requests in, their prompts tokenized together."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer that the model's parameters name."""
        given = Arguments(args)
        self._preprocessor = Preprocessor(
            given.path("tokenizer_dir"),
            given.path("gpt_model_path") if given.text("gpt_model_path") else None,
            add_special_tokens=given.flag("add_special_tokens", default=True),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request; a request that can't be honoured gets its own error."""
        inputs = [_attempt(_inputs, request) for request in requests]
        prompts = [_attempt(self._preprocessor.prompts, given) for given in inputs]
        encoded = iter(self._preprocessor.encode([p for p in prompts if isinstance(p, list)]))
        ids = [next(encoded) if isinstance(prompt, list) else prompt for prompt in prompts]
        pairs = zip(ids, inputs, strict=True)
        return [_response(_attempt(self._preprocessor.outputs, *pair)) for pair in pairs]


def _inputs(request: Any) -> dict[str, Array]:
    found = {tensor.name(): tensor for tensor in request.inputs()}
    if given := [name for name in _UNSUPPORTED if name in found]:
        raise ValueError(f"{given[0]}: this engine takes one prompt of text and nothing else")
    return {name: found[name].as_numpy() for name in _TAKEN if name in found}


def _response(result: dict[str, Array] | ValueError) -> Any:
    if isinstance(result, ValueError):
        error = pb_utils.TritonError(str(result), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=error)
    return pb_utils.InferenceResponse([pb_utils.Tensor(n, array) for n, array in result.items()])


def _attempt(function: Callable[..., Any], *args: Any) -> Any:
    """What `function` returns, or a ValueError: its own, or one that stands for what it needs."""
    if failed := [arg for arg in args if isinstance(arg, ValueError)]:
        return failed[0]
    try:
        return function(*args)
    except ValueError as error:
        return error
