"""Triton's `postprocessing` model: token ids in, text out.

Copied into every repository as `postprocessing/1/model.py`, so it stands alone: beside the standard
library it needs numpy, tokenizers and Triton's own module, which NVIDIA's containers have too.

It keeps no state: a stream's response is decoded by itself. Its spaces survive that; a character
that two responses share doesn't (our proxy decodes streams with state and doesn't come here).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

Array = npt.NDArray[Any]


class TritonPythonModel:
    """What Triton drives."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer that the model's parameters name."""
        parameters = json.loads(args["model_config"])["parameters"]
        repository = Path(args["model_repository"]).parent
        skip = _parameter(parameters, "skip_special_tokens", "true").lower()
        self._postprocessor = Postprocessor(
            repository / _parameter(parameters, "tokenizer_dir", ""),
            skip_special_tokens=skip in ("true", "1", "yes"),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """OUTPUT, STRING [batch, beams], for each request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        tokens = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
        lengths = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
        try:
            texts = self._postprocessor.decode(tokens, lengths)
        except ValueError as error:
            failure = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=failure)
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", texts)])


class Postprocessor:
    """The model's work without Triton."""

    def __init__(self, tokenizer_dir: Path, *, skip_special_tokens: bool) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
        self._skip = skip_special_tokens
        self._anchor, self._anchor_text = self._find_anchor()

    def decode(self, tokens: Array, lengths: Array) -> Array:
        """Text of tokens INT32 [batch, beams, length], `lengths` INT32 [batch, beams] of it valid.

        Returns an object array of bytes, [batch, beams]. Raises ValueError for shapes that differ.
        """
        if tokens.ndim != 3 or tokens.shape[:2] != lengths.shape:
            raise ValueError(
                f"SEQUENCE_LENGTH: found shape {list(lengths.shape)} "
                f"for TOKENS_BATCH {list(tokens.shape)}"
            )
        flat = tokens.reshape(-1, tokens.shape[2])
        rows = [
            [*self._anchor, *_valid(row[: max(length, 0)])]
            for row, length in zip(flat, lengths.reshape(-1), strict=True)
        ]
        texts = self._tokenizer.decode_batch(rows, skip_special_tokens=self._skip)
        cut = len(self._anchor_text)
        encoded = [text[cut:].encode() for text in texts]
        return np.array(encoded, dtype=np.object_).reshape(lengths.shape)

    def _find_anchor(self) -> tuple[list[int], str]:
        """A token to decode before the others, and its text, which is cut off again.

        Decoders in the manner of SentencePiece drop the space at the start of what they decode;
        behind a token that isn't a start they leave it.
        """
        for text in ("a", "1", "."):
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids[-1:]
            decoded = self._tokenizer.decode(ids, skip_special_tokens=True)
            if decoded.strip() == text:
                return ids, decoded
        return [], ""


def _valid(row: Array) -> list[int]:
    """The row's ids without the -1 that shorter beams are padded with."""
    ids: list[int] = row[row >= 0].tolist()
    return ids


def _parameter(parameters: dict[str, Any], name: str, default: str) -> str:
    value: str = parameters.get(name, {}).get("string_value", "")
    return default if not value or value.startswith("${") else value
