"""Which slice of which tensor lands on which rank of tensor and pipeline parallelism.

TensorRT-LLM 1.2's rules (`docs/source/legacy/architecture/checkpoint.md`, `mapping.py`): rank =
pipeline rank * tensor ranks + tensor rank; the embedding is on the first pipeline rank, the final
norm and the head on the last, and layers are numbered from 0 on each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.errors import LimitError
from builder.families import Expected, Family, Split, Stage
from builder.safetensors_file import ALL

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Piece:
    """Rows and columns of a source tensor, `padding` rows of zeros after them."""

    source: str
    shape: tuple[int, ...]
    rows: slice = field(default_factory=lambda: ALL)
    columns: slice = field(default_factory=lambda: ALL)
    padding: int = 0


@dataclass(frozen=True, kw_only=True)
class RankTensor:
    """A tensor of one rank: its pieces one after the other along dimension 0."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the joined tensor."""
        return (sum(piece.shape[0] for piece in self.pieces), *self.pieces[0].shape[1:])


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model is divided: over `tp` ranks within a layer, over `pp` ranks by layers.

    With `parallel_embedding` the embedding is divided by rows, else every rank has all of it.
    """

    tp: int = 1
    pp: int = 1
    parallel_embedding: bool = False

    @property
    def world_size(self) -> int:
        """How many ranks there are."""
        return self.tp * self.pp

    def check(self, config: Config) -> None:
        """Raise LimitError for a model that can't be divided so."""
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        layers, inner = config["num_hidden_layers"], config["intermediate_size"]
        for what, allowed in (
            (f"{heads} attention heads", heads % self.tp == 0),
            (f"{kv_heads} key-value heads", 0 in (kv_heads % self.tp, self.tp % kv_heads)),
            (f"an intermediate size of {inner}", inner % self.tp == 0),
        ):
            if not allowed:
                raise LimitError(
                    f"the model can't be divided over {self.tp} tensor-parallel ranks",
                    found=what,
                    do="choose a --tp that divides it",
                )
        if layers < self.pp:
            raise LimitError(
                f"the model can't be divided over {self.pp} pipeline ranks",
                found=f"{layers} layers",
                do=f"choose a --pp of at most {layers}",
            )

    def layers(self, pp_rank: int, count: int) -> range:
        """The layers of a pipeline rank; where they don't divide, the first ranks have one more."""
        each, more = divmod(count, self.pp)
        start = pp_rank * each + min(pp_rank, more)
        return range(start, start + each + (pp_rank < more))

    def tensors(self, family: Family, config: Config, rank: int) -> Iterator[RankTensor]:
        """Every tensor of a rank. `config` is a ModelConfig's attributes, or a checkpoint's."""
        pp_rank, tp_rank = divmod(rank, self.tp)
        stages = {Stage.EACH}
        stages |= {Stage.FIRST} if pp_rank == 0 else set()
        stages |= {Stage.LAST} if pp_rank == self.pp - 1 else set()
        layers = self.layers(pp_rank, config["num_hidden_layers"])
        for expected in family.expected(config, layers=layers, stages=stages):
            pieces = (
                self._piece(expected, part, config, tp_rank) for part in range(len(expected.parts))
            )
            yield RankTensor(name=expected.name, pieces=tuple(pieces))

    def _piece(self, expected: Expected, index: int, config: Config, tp_rank: int) -> Piece:
        name, shape = expected.parts[index]
        split = expected.split
        if split is Split.EMBEDDING:
            split = Split.VOCABULARY if self.parallel_embedding else Split.COPY
        if self.tp == 1 or split is Split.COPY:
            return Piece(name, shape)
        if split is Split.COLUMNS:
            each = shape[1] // self.tp
            columns = slice(tp_rank * each, (tp_rank + 1) * each)
            return Piece(name, (shape[0], each), columns=columns)
        if split is Split.VOCABULARY:
            return _padded_rows(name, shape, self.tp, tp_rank)
        each, first = shape[0] // self.tp, tp_rank
        if split is Split.HEADS and index > 0 and config["num_key_value_heads"] < self.tp:
            # fewer heads than ranks: neighbours share one
            each = config["head_size"]
            first = tp_rank * config["num_key_value_heads"] // self.tp
        return Piece(name, (each, *shape[1:]), rows=slice(first * each, (first + 1) * each))


def _padded_rows(name: str, shape: tuple[int, ...], ranks: int, rank: int) -> Piece:
    """Equal parts of the rows; the last ones are filled up with zeros."""
    each = -(-shape[0] // ranks)
    start, stop = (min(shape[0], n * each) for n in (rank, rank + 1))
    padding = each - (stop - start)
    return Piece(name, (each, *shape[1:]), rows=slice(start, stop), padding=padding)
