"""The 4-bit codes of AWQ and GPTQ folders, as TensorRT-LLM's loader takes them.

Both keep codes q in 0..15 with weight = (q - zero) * scale, eight in an int32. The loader takes
signed codes and adds zeros of its own: weight = (q - 8) * scale + (8 - zero) * scale, `zero` being
the last product (TensorRT-LLM 1.2: `quantization/functional.py`, `preprocess_perlayer_weights`).
Its bytes hold two neighbouring output channels, the even one low, for one input.
"""

from __future__ import annotations

import numpy as np

from builder.dtypes import Array

AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where AutoAWQ keeps the output channels of a word: channel i is nibble AWQ_ORDER[i]."""

PLAIN_ORDER = tuple(range(8))

_SIGN = np.uint8(0x88)
"""Turns two codes into signed ones: eight is taken off each, in two's complement."""


def unpack(words: Array, order: tuple[int, ...]) -> Array:
    """Codes uint8 [m, 8n] of words int32 [m, n]; code i of a word is nibble order[i]."""
    shifts = 4 * np.array(order, np.uint32)
    codes = words.view(np.uint32)[:, :, None] >> shifts & np.uint32(15)
    return codes.reshape(len(words), -1).astype(np.uint8)


def pairs_of_awq(words: Array) -> Array:
    """Bytes int8 [4n, in] of AutoAWQ's words int32 [in, n], eight output channels in each.

    By AWQ_ORDER, the even channels are in a word's lower half and the odd ones in its upper.
    """
    halves = np.ascontiguousarray(words.T).view("<u2").reshape(*words.T.shape, 2)
    even, odd = halves[:, :, 0], halves[:, :, 1]
    low = (even & np.uint16(0x0F0F)) | (odd & np.uint16(0x0F0F)) << np.uint16(4)
    high = even >> np.uint16(4) & np.uint16(0x0F0F) | odd & np.uint16(0xF0F0)
    pairs = np.empty((words.shape[1], 2, 2, words.shape[0]), np.uint8)
    for place, half in enumerate((low, high)):
        octets = half.view(np.uint8).reshape(*half.shape, 2)
        pairs[:, :, place] = octets.transpose(0, 2, 1)
    return _signed(pairs.reshape(-1, words.shape[0]))


def pairs_of_gptq(words: Array) -> Array:
    """Bytes int8 [n / 2, in] of GPTQ's words int32 [in / 8, n], eight inputs in each."""
    turned = np.ascontiguousarray(words.T).view("<u4")
    even, odd = turned[0::2], turned[1::2]
    low = (even & np.uint32(0x0F0F0F0F)) | (odd & np.uint32(0x0F0F0F0F)) << np.uint32(4)
    high = even >> np.uint32(4) & np.uint32(0x0F0F0F0F) | odd & np.uint32(0xF0F0F0F0)
    pairs = np.empty((*low.shape, 4, 2), np.uint8)
    for place, half in enumerate((low, high)):
        pairs[..., place] = half.view(np.uint8).reshape(*half.shape, 4)
    return _signed(pairs.reshape(len(low), -1))


def _signed(pairs: Array) -> Array:
    pairs ^= _SIGN
    return pairs.view(np.int8)
