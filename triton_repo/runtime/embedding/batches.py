"""Requests as texts of token ids, and which texts share a call of the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an engine takes: of a text so many tokens at most, of ids below `vocab_size`; in a call
    so many texts, and tokens with padding."""

    max_seq_len: int
    max_batch_size: int
    max_num_tokens: int
    vocab_size: int

    @staticmethod
    def of(config: Mapping[str, Any]) -> Limits:
        """Those in an engine's `config.json`. Raises KeyError where it lacks one."""
        build, model = config["build_config"], config["pretrained_config"]
        return Limits(
            max_seq_len=int(build["max_seq_len"]),
            max_batch_size=int(build["max_batch_size"]),
            max_num_tokens=int(build["max_num_tokens"]),
            vocab_size=int(model["vocab_size"]),
        )


def texts(input_ids: NDArray[Any], input_lengths: NDArray[Any], limits: Limits) -> list[Ids]:
    """The texts of one request: of [B, T] ids, each row as far as its length in [B, 1] says.

    Raises ValueError, beginning with the tensor's name, for what the engine can't take.
    """
    lengths = input_lengths.reshape(-1)
    if input_ids.ndim != 2 or len(lengths) != len(input_ids):
        raise ValueError(
            f"input_lengths: one length for each of {len(input_ids)} texts, found {len(lengths)}"
        )
    return [_text(row, int(n), limits) for row, n in zip(input_ids, lengths, strict=True)]


def _text(row: NDArray[Any], length: int, limits: Limits) -> Ids:
    if not 0 < length <= len(row):
        raise ValueError(f"input_lengths: 1 to {len(row)} tokens as input_ids has, found {length}")
    if length > limits.max_seq_len:
        raise ValueError(f"input_ids: at most {limits.max_seq_len} tokens, found {length}")
    ids: Ids = row[:length].astype(np.int32, copy=False)
    if int(ids.min()) < 0 or int(ids.max()) >= limits.vocab_size:
        raise ValueError(f"input_ids: ids are from 0 to {limits.vocab_size - 1}")
    return ids


def calls(lengths: Sequence[int], limits: Limits) -> Iterator[list[int]]:
    """Which texts, by their places in `lengths`, go into a call together.

    Texts of about the same length do: the padding is computed too, and counts.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    while order:
        room = min(limits.max_batch_size, limits.max_num_tokens // lengths[order[0]])
        yield order[: max(1, room)]
        order = order[max(1, room) :]


def padded(chosen: Sequence[Ids]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The graph's two inputs for a call: ids int32[B, T], and lengths int32[B]."""
    lengths = np.array([len(ids) for ids in chosen], np.int32)
    rows = np.zeros((len(chosen), int(lengths.max())), np.int32)
    for row, ids in zip(rows, chosen, strict=True):
        row[: len(ids)] = ids
    return rows, lengths
