"""A rank's share of a quantized linear, and the pieces of its members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from builder.errors import LimitError, ModelError
from builder.mapping import Piece, RankTensor
from builder.pieces import segments
from builder.quantized_shapes import is_linear
from builder.safetensors_file import ALL
from builder.safetensors_writer import Segment
from builder.source.model import Tensor
from builder.source.quantized_linear import QuantizedLinear

Pieces = Sequence[Piece]
Linears = Sequence[QuantizedLinear]


@dataclass(frozen=True, kw_only=True, eq=False)
class RankLinear:
    """A rank's share of a quantized linear, or of a mixture's experts: `pieces[n]` of `linears[n]`.

    `name` is that of the weight, `shape` its logical one; `experts` are stacked in dimension 0.
    """

    name: str
    shape: tuple[int, ...]
    pieces: Pieces
    linears: Linears

    @property
    def experts(self) -> int:
        """How many are stacked; 1 for a linear of its own."""
        return self.shape[0] if len(self.shape) == 3 else 1

    def groups(self) -> Iterator[tuple[Pieces, Linears]]:
        """The parts that are joined, of each expert."""
        each = len(self.pieces) // self.experts
        for start in range(0, len(self.pieces), each):
            yield self.pieces[start : start + each], self.linears[start : start + each]


def rank_linear(tensor: RankTensor, source: Mapping[str, Tensor]) -> RankLinear | None:
    """The tensor as a quantized linear, None where the source has it plain.

    Raises ModelError for a tensor whose parts are quantized in part, or that mustn't be.
    """
    linears = [source[piece.source] for piece in tensor.pieces]
    quantized = [linear for linear in linears if isinstance(linear, QuantizedLinear)]
    if not quantized:
        return None
    if len(quantized) < len(linears) or any(piece.change for piece in tensor.pieces):
        plain = [linear for linear in linears if not isinstance(linear, QuantizedLinear)]
        raise ModelError(
            f"{tensor.name} joins tensors that TensorRT-LLM has in one format only",
            found=f"{quantized[0].name} quantized, and {len(plain)} that are not",
            do="quantize all of them, or none",
        )
    if not is_linear(tensor.name, tensor.shape):
        raise ModelError(
            f"TensorRT-LLM's engines take {tensor.name} unquantized only",
            found=f"{quantized[0].name} in {quantized[0].quantization.format.value}",
            do="quantize the model again without it",
        )
    pieces = [replace(piece, transposed=False) for piece in tensor.pieces]
    return RankLinear(name=tensor.name, shape=tensor.shape, pieces=pieces, linears=quantized)


def stored(
    linear: RankLinear,
    kind: str,
    member: str,
    *,
    rows: int = 1,
    columns: int = 1,
    of: Callable[[QuantizedLinear], Tensor] | None = None,
    transposed: bool = False,
) -> Iterator[Segment]:
    """The pieces of a member, or of what `of` makes of it, that packs `rows`, `columns` in one.

    A member with 0 `columns` has a number for each row.
    """
    sources: dict[str, Tensor] = {
        each.name: of(each) if of else each.members[member] for each in linear.linears
    }
    packed = (_packed(piece, rows, columns, transposed) for piece in linear.pieces)
    return segments(packed, sources, kind)


def _packed(piece: Piece, rows: int, columns: int, transposed: bool) -> Piece:
    runs = tuple(slice(run.start // rows, run.stop // rows) for run in piece.rows)
    if any(run.start % rows or run.stop % rows for run in piece.rows):
        raise LimitError(f"{piece.source} can't be divided there", found="an odd row")
    if not columns:
        return replace(piece, shape=piece.shape[:1], rows=runs, columns=ALL)
    chosen = piece.columns
    if chosen != ALL:
        chosen = slice(chosen.start // columns, chosen.stop // columns)
    shape = (piece.shape[0] // rows, piece.shape[1] // columns)
    return replace(piece, shape=shape, rows=runs, columns=chosen, transposed=transposed)
