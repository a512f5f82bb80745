"""A source model: its config, its tensors by their Hugging Face names, and the files beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from builder.dtypes import Array
from builder.safetensors_file import ALL
from builder.source.config import ModelConfig
from builder.source.hf_quantization import Quantization


class Tensor(Protocol):
    """A tensor that is read only when asked for."""

    @property
    def dtype(self) -> str:
        """What `blocks` gives: a name of `builder.dtypes`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As Hugging Face has it: linear weights are [out, in]."""

    def rows(self, rows: slice = ALL) -> Array:
        """Some rows of it, seen as a matrix of its last dimension; of a vector, elements."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Computed:
    """A tensor whose rows are computed when asked for; `row_bytes` is what one takes meanwhile."""

    dtype: str
    shape: tuple[int, ...]
    of: Callable[[slice], Array]
    row_bytes: int = 0

    def rows(self, rows: slice = ALL) -> Array:
        return self.of(rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A model that can be converted.

    `files` are the tokenizer's and the generation config, by name; a value gives the bytes when
    called. Of a quantized one, the linear layers' tensors are of `builder.source.quantized_linear`
    and `kv_scales` are its KV cache's, by layer.
    """

    path: Path
    config: ModelConfig
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Callable[[], bytes]]
    quantization: Quantization | None = None
    kv_scales: Mapping[int, Sequence[Tensor]] = field(default_factory=dict)
