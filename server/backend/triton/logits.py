"""Log probabilities out of an engine's raw logits. Imports numpy on first use: few ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from server.backend.base import PromptLogProb, TopLogProbs
from server.backend.triton.messages import Tensor
from server.errors import InternalError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS_AT_ONCE = 64

Row = tuple[float, TopLogProbs]
"""The chosen token's log probability, and the likeliest tokens' there."""


def of_tokens(
    message: bytes, tensor: Tensor, ids: Sequence[int], *, top: int, vocab_size: int | None
) -> list[Row]:
    """One row per id. `tensor` is [..., rows, vocab], raw logits; padding of the vocabulary beyond
    `vocab_size` counts for nothing. Raises InternalError when there are too few rows."""
    rows = _rows(message, tensor, vocab_size)
    if len(rows) < len(ids):
        raise InternalError(
            "Triton gave too few logits", found=f"{len(rows)} rows for {len(ids)} tokens"
        )
    return [
        row
        for start in range(0, len(ids), _ROWS_AT_ONCE)
        for row in _log_probs(rows, ids, slice(start, min(start + _ROWS_AT_ONCE, len(ids))), top)
    ]


def of_prompt(
    message: bytes, tensor: Tensor, ids: Sequence[int], *, top: int, vocab_size: int | None
) -> list[PromptLogProb]:
    """One for each prompt token but the first, by the logits after the token before it."""
    found = of_tokens(message, tensor, ids[1:], top=top, vocab_size=vocab_size)
    return [PromptLogProb(log_prob=log_prob, top=likely) for log_prob, likely in found]


def of_beams(
    message: bytes, tensor: Tensor, beams: Sequence[Sequence[int]], *, top: int, vocab: int | None
) -> list[list[Row]]:
    """One list per beam. `tensor` is [1, beams, rows, vocab], shorter beams padded."""
    start, end = tensor.span
    size = (end - start) // max(1, len(beams))
    starts = [start + number * size for number in range(len(beams))]
    parts = [replace(tensor, span=(at, at + size)) for at in starts]
    return [
        of_tokens(message, part, ids, top=top, vocab_size=vocab)
        for part, ids in zip(parts, beams, strict=True)
    ]


def _rows(message: bytes, tensor: Tensor, vocab_size: int | None) -> NDArray[Any]:
    import numpy as np

    types: dict[str, Any] = {"FP32": "<f4", "FP16": "<f2", "BF16": "<u2"}
    start, end = tensor.span
    width = tensor.shape[-1] if tensor.shape else 0
    dtype = types.get(tensor.datatype)
    if dtype is None or width < 1 or (end - start) % (width * np.dtype(dtype).itemsize):
        raise InternalError(
            "Triton gave logits of an unknown form",
            found=f"{tensor.datatype} {list(tensor.shape)}, {end - start} bytes",
        )
    flat = np.frombuffer(memoryview(message)[start:end], dtype)
    return flat.reshape(-1, width)[:, :vocab_size]


def _log_probs(rows: NDArray[Any], ids: Sequence[int], part: slice, top: int) -> list[Row]:
    import numpy as np

    logits = _float32(rows[part])
    chosen = np.asarray(ids[part])
    if chosen.size and (chosen.min() < 0 or chosen.max() >= logits.shape[1]):
        raise InternalError("Triton gave a token that its logits lack", found=str(chosen.max()))
    highest = logits.max(axis=1, keepdims=True)
    shifted = logits - highest
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    own = log_probs[np.arange(len(chosen)), chosen].tolist()
    return [(value, _likeliest(row, top)) for value, row in zip(own, log_probs, strict=True)]


def _likeliest(row: NDArray[np.float32], top: int) -> TopLogProbs:
    """The likeliest first; of equals, the lower id."""
    import numpy as np

    count = min(top, len(row))
    if not count:
        return ()
    ids = np.flatnonzero(row >= np.partition(row, -count)[-count])
    ids = ids[np.argsort(-row[ids], kind="stable")][:count]
    return tuple(zip(ids.tolist(), row[ids].tolist(), strict=True))


def _float32(rows: NDArray[Any]) -> NDArray[np.float32]:
    import numpy as np

    if rows.dtype == np.uint16:  # bfloat16: the upper half of a float32
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float32)
