"""What a family table is made of: a model family is data, and this is its grammar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any


class Split(Enum):
    """How a tensor is divided over the ranks of tensor parallelism."""

    COPY = "every rank has all of it"
    ROWS = "dimension 0 in equal parts"
    COLUMNS = "dimension 1 in equal parts"
    HEADS = "dimension 0 of q, k and v each, by heads; then joined again"
    VOCABULARY = "dimension 0 in equal parts, padded with zero rows"
    EMBEDDING = "as VOCABULARY with a parallel embedding, else COPY"


class Stage(Enum):
    """Which ranks of pipeline parallelism have a tensor."""

    FIRST = "the first"
    EACH = "those that have its layer"
    LAST = "the last"


EVERY_STAGE = frozenset(Stage)


DIMENSIONS = {
    "V": "vocab_size",
    "D": "hidden_size",
    "I": "intermediate_size",
    "d": "head_size",
    "H": "num_attention_heads",
    "K": "num_key_value_heads",
}
"""Letters of a shape; "Hd" is the product of H and d."""


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A value that is the same in every model of the family."""

    value: Any


@dataclass(frozen=True)
class Part:
    """A source tensor by its Hugging Face name, with its shape in letters: `("Hd", "D")`."""

    name: str
    shape: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tensor of the checkpoint: its parts, joined along dimension 0.

    `{i}` in names is the layer. `when` is a config attribute and the value that it must have for
    the tensor to exist.
    """

    name: str
    parts: tuple[Part, ...]
    split: Split
    stage: Stage = Stage.EACH
    when: tuple[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A row with its numbers filled in: names, layer index and shapes (of the parts too)."""

    name: str
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    split: Split

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the joined tensor."""
        shapes = [shape for _, shape in self.parts]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family.

    `config` maps a field of TensorRT-LLM's checkpoint config to an attribute of ModelConfig or to
    a constant. `unused` are patterns of source tensors that are left out on purpose;
    `unused_when_tied` those that are when the embeddings are tied.
    """

    architectures: tuple[str, ...]
    rows: tuple[Row, ...]
    config: Mapping[str, str | Constant]
    unused: tuple[str, ...] = ()
    unused_when_tied: tuple[str, ...] = ("lm_head.weight",)

    def expected(
        self,
        config: Mapping[str, Any],
        *,
        layers: range | None = None,
        stages: AbstractSet[Stage] = EVERY_STAGE,
    ) -> Iterator[Expected]:
        """Every tensor of a checkpoint with this config, in the order of the layers.

        `config` holds the attributes of ModelConfig, or is a checkpoint's config: the names are
        the same. `layers` and `stages` choose those of a pipeline rank, by default all; the
        checkpoint's names count layers from the rank's first.
        """
        rows = [row for row in self.rows if _holds(row, config)]
        for row in rows:
            if row.stage is not Stage.EACH and row.stage in stages:
                yield _fill(row, config)
        chosen = range(config["num_hidden_layers"]) if layers is None else layers
        for local, layer in enumerate(chosen):
            for row in rows:
                if row.stage is Stage.EACH:
                    yield _fill(row, config, layer, local)

    def is_unused(self, name: str, *, tied: bool) -> bool:
        """Whether a source tensor of this name is left out on purpose."""
        patterns = self.unused + (self.unused_when_tied if tied else ())
        return any(fnmatchcase(name, pattern) for pattern in patterns)


def _holds(row: Row, config: Mapping[str, Any]) -> bool:
    return row.when is None or config.get(row.when[0], False) == row.when[1]


def _fill(row: Row, config: Mapping[str, Any], layer: int = 0, local: int = 0) -> Expected:
    return Expected(
        name=row.name.replace("{i}", str(local)),
        parts=tuple(
            (part.name.replace("{i}", str(layer)), tuple(_size(dim, config) for dim in part.shape))
            for part in row.parts
        ),
        split=row.split,
    )


def _size(letters: str, config: Mapping[str, Any]) -> int:
    size = 1
    for letter in letters:
        size *= config[DIMENSIONS[letter]]
    return size
