"""What a family table is made of: a model family is data, and this is its grammar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from builder.families.fields import Field, Refused, Unfit, holds, whole_number
from builder.families.shapes import size


class Split(Enum):
    """How a tensor is divided over the ranks of tensor parallelism.

    Each part is divided for itself and the rank's shares are joined again.
    """

    COPY = "every rank has all of it"
    ROWS = "dimension 0 in equal parts"
    COLUMNS = "dimension 1 in equal parts"
    HEADS = "dimension 0 of q, k and v each, by heads"
    KV_HEADS = "dimension 0 by key-value heads, which neighbours share where they are fewer"
    VOCABULARY = "dimension 0 in equal parts, padded with zero rows"
    FIRST_RANK = "the first rank has all of it, the others zeros: what is summed over the ranks"
    EMBEDDING = "as VOCABULARY or COLUMNS with a parallel embedding, else COPY"


class Stage(Enum):
    """Which ranks of pipeline parallelism have a tensor."""

    FIRST = "the first"
    EACH = "those that have its layer"
    LAST = "the last"


EVERY_STAGE = frozenset(Stage)


class Change(Enum):
    """Arithmetic on the way, in float32."""

    PLUS_ONE = "one is added: norms that are stored as their distance from one"
    UNIT_ROWS = "each row is divided by its length"


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A value that is the same in every model of the family."""

    value: Any


@dataclass(frozen=True, kw_only=True)
class Present:
    """The value of an attribute; the field is left out where that is None."""

    attribute: str


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows of a matrix, in letters (see shapes.py): groups of `length`, `every` rows apart.

    `start` is where the first group begins; in a tensor that holds all experts, it counts from
    `expert` rows after the last expert's.
    """

    length: str
    start: str = "0"
    every: str = "0"
    groups: str = "1"
    expert: str = "0"


@dataclass(frozen=True)
class Part:
    """A source tensor by its Hugging Face name, with its stored shape in letters: `("Hd", "D")`.

    It is seen as a matrix, the last dimension being its columns, then `transposed` if so, then
    cut to `rows`, then to `columns` (of which only one group is allowed).
    """

    name: str
    shape: tuple[str, ...]
    rows: Rows | None = None
    columns: Rows | None = None
    transposed: bool = False
    change: Change | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tensor of the checkpoint: its parts, joined along dimension 0.

    `{i}` in names is the layer, `{e}` in parts the expert. With `experts` the parts are taken for
    each expert and stacked along a new first dimension. `when` maps fields of the checkpoint's
    config to what they must be for the tensor to exist; `from_layer` and `before_layer` are fields
    that bound the layers that have it. `dtype` is the tensor's where it isn't the model's.
    """

    name: str
    parts: tuple[Part, ...]
    split: Split
    stage: Stage = Stage.EACH
    when: Mapping[str, Any] = field(default_factory=dict)
    experts: bool = False
    from_layer: str | None = None
    before_layer: str | None = None
    dtype: str | None = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """A part's groups of rows with their numbers filled in; `shape` is that of the cut matrix."""

    source: str
    shape: tuple[int, ...]
    start: int
    every: int
    length: int
    columns: slice
    transposed: bool
    change: Change | None


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A row with its numbers filled in.

    `parts` are those of the tensor, or of each expert; `sources` are the stored tensors that they
    come from, with their shapes.
    """

    name: str
    parts: tuple[tuple[Group, ...], ...]
    sources: Mapping[str, tuple[int, ...]]
    split: Split
    experts: bool
    dtype: str | None


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family.

    `fields` are read from config.json in addition to the common ones, or in their place;
    `derived` are formulas of other attributes; `refused` and `unfit` can't be carried over.
    `config` maps a field of TensorRT-LLM's checkpoint config to an attribute, a constant, or an
    object of such. `unused` are patterns of source tensors that are left out on purpose;
    `unused_when_tied` those that are when the embeddings are tied. `prefixes` are beginnings of
    source names that some publishers write and others don't; the table has names without them.
    `dimensions` are letters of the family's own. TensorRT-LLM's class divides its layers over
    `pipeline` ranks, and a prompt over `context` ranks, or can't, and may divide the embedding
    whenever there are tensor ranks. An `encoder` gives embeddings and writes no text.
    """

    architectures: tuple[str, ...]
    rows: tuple[Row, ...]
    config: Mapping[str, Any]
    fields: tuple[Field, ...] = ()
    derived: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    unfit: tuple[Unfit, ...] = ()
    unused: tuple[str, ...] = ()
    unused_when_tied: tuple[str, ...] = ("lm_head.weight",)
    prefixes: tuple[str, ...] = ()
    dimensions: Mapping[str, str] = field(default_factory=dict)
    pipeline: bool = True
    context: bool = False
    always_parallel_embedding: bool = False
    encoder: bool = False

    @property
    def attributes(self) -> frozenset[str]:
        """The attributes of a model that its checkpoint carries."""
        return frozenset(_attributes(self.config))

    def expected(
        self,
        config: Mapping[str, Any],
        *,
        layers: range | None = None,
        stages: AbstractSet[Stage] = EVERY_STAGE,
        experts: range | None = None,
    ) -> Iterator[Expected]:
        """Every tensor of a checkpoint with this config, in the order of the layers.

        `config` is the checkpoint's. `layers` and `stages` choose those of a pipeline rank,
        `experts` those of an expert-parallel rank, by default all; the checkpoint's names count
        layers from the rank's first.
        """
        rows = [row for row in self.rows if holds(row.when, config)]
        for row in rows:
            if row.stage is not Stage.EACH and row.stage in stages:
                yield self._fill(row, config, experts=experts)
        chosen = range(config["num_hidden_layers"]) if layers is None else layers
        for local, layer in enumerate(chosen):
            for row in rows:
                if row.stage is Stage.EACH and _has(row, layer, config):
                    yield self._fill(row, config, layer, local, experts)

    def is_unused(self, name: str, *, tied: bool) -> bool:
        """Whether a source tensor of this name is left out on purpose."""
        patterns = self.unused + (self.unused_when_tied if tied else ())
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    def plain_name(self, name: str) -> str:
        """A source tensor's name as the table has it: without a publisher's prefix."""
        return next((name[len(p) :] for p in self.prefixes if name.startswith(p)), name)

    def _fill(
        self,
        row: Row,
        config: Mapping[str, Any],
        layer: int = 0,
        local: int = 0,
        experts: range | None = None,
    ) -> Expected:
        chosen = range(1)
        if row.experts:
            chosen = range(size("E", config, self.dimensions)) if experts is None else experts
        parts: list[tuple[Group, ...]] = []
        sources: dict[str, tuple[int, ...]] = {}
        for expert in chosen:
            groups = []
            for part in row.parts:
                name = part.name.replace("{i}", str(layer)).replace("{e}", str(expert))
                stored = tuple(size(letters, config, self.dimensions) for letters in part.shape)
                sources[name] = stored
                groups.append(self._group(part, name, stored, expert, config))
            parts.append(tuple(groups))
        return Expected(
            name=row.name.replace("{i}", str(local)),
            parts=tuple(parts),
            sources=sources,
            split=row.split,
            experts=row.experts,
            dtype=row.dtype,
        )

    def _group(
        self,
        part: Part,
        name: str,
        stored: tuple[int, ...],
        expert: int,
        config: Mapping[str, Any],
    ) -> Group:
        matrix = _matrix(stored, transposed=part.transposed)
        start, every, length, count = self._numbers(part.rows, matrix[0], expert, config)
        shape, columns = (count * length, *matrix[1:]), slice(None)
        if part.columns is not None:
            first, _, width, _ = self._numbers(part.columns, matrix[1], expert, config)
            shape, columns = (shape[0], width), slice(first, first + width)
        return Group(
            source=name,
            shape=shape,
            start=start,
            every=every,
            length=length,
            columns=columns,
            transposed=part.transposed,
            change=part.change,
        )

    def _numbers(
        self, rows: Rows | None, all_rows: int, expert: int, config: Mapping[str, Any]
    ) -> tuple[int, int, int, int]:
        if rows is None:
            return 0, 0, all_rows, 1
        start, every, length, count, apart = (
            size(letters, config, self.dimensions)
            for letters in (rows.start, rows.every, rows.length, rows.groups, rows.expert)
        )
        return start + expert * apart, every, length, count


def _attributes(config: Mapping[str, Any]) -> Iterator[str]:
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _attributes(value)
        elif isinstance(value, Present):
            yield value.attribute
        elif isinstance(value, str):
            yield value


def _matrix(stored: tuple[int, ...], *, transposed: bool) -> tuple[int, ...]:
    """The shape of a stored tensor seen as a matrix; vectors stay vectors."""
    if len(stored) < 2:
        return stored
    rows = 1
    for length in stored[:-1]:
        rows *= length
    return (stored[-1], rows) if transposed else (rows, stored[-1])


def _has(row: Row, layer: int, config: Mapping[str, Any]) -> bool:
    first = whole_number(config, row.from_layer) if row.from_layer else 0
    if row.before_layer:
        return layer < whole_number(config, row.before_layer)
    return first <= layer
