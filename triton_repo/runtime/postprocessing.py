"""Triton's `postprocessing` model: token ids in, text out.

Copied into every repository as `postprocessing/1/model.py`; see `triton_repo.runtime` for what
travels with it.

It keeps no state: a stream's response is decoded by itself. Its spaces survive that; a character
that two responses share doesn't. State can't reach it: Triton refuses an ensemble whose step takes
a tensor of a decoupled model and one from elsewhere, and request ids are the clients' own. So our
`ensemble` decodes by itself; this model is for clients, and for ensembles in upstream's form.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from text.tokenizer_folder import TokenizerFolder
from triton_repo.runtime.model_arguments import Arguments
from triton_repo.runtime.token_rows import TokenRows, token_rows


class TritonPythonModel:
    """What Triton drives."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer that the model's parameters name."""
        given = Arguments(args)
        self._postprocessor = Postprocessor(
            given.path("tokenizer_dir"),
            skip_special_tokens=given.flag("skip_special_tokens", default=True),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """OUTPUT, STRING [batch, beams], for each request; their texts are decoded together."""
        read = [_read(request) for request in requests]
        texts = iter(self._postprocessor.decode([ids for rows in read for ids in rows.ids]))
        return [_response(rows, list(islice(texts, len(rows.ids)))) for rows in read]


class Postprocessor:
    """The model's work without Triton."""

    def __init__(self, tokenizer_dir: Path, *, skip_special_tokens: bool) -> None:
        self._tokenizer = TokenizerFolder(tokenizer_dir).tokenizer
        self._skip = skip_special_tokens
        self._anchor, self._anchor_text = self._find_anchor()

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids, all in parallel; the space at its start is kept."""
        anchored = [[*self._anchor, *row] for row in rows]
        texts = self._tokenizer.decode_batch(anchored, skip_special_tokens=self._skip)
        return [text[len(self._anchor_text) :] for text in texts]

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


def _read(request: Any) -> TokenRows:
    tokens = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
    lengths = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
    return token_rows(tokens, lengths)


def _response(rows: TokenRows, texts: list[str]) -> Any:
    if not rows.fit:
        message = "SEQUENCE_LENGTH: must have a length for each row of TOKENS_BATCH"
        error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=error)
    encoded = np.array([text.encode() for text in texts], dtype=np.object_)
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", encoded.reshape(rows.shape))])
