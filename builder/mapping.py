"""Which slice of which tensor lands on which rank: tensor, pipeline and expert parallelism.

TensorRT-LLM 1.2's rules (`docs/source/legacy/architecture/checkpoint.md`, `mapping.py`): a file's
rank = pipeline rank * tensor ranks + tensor rank; the embedding is on the first pipeline rank, the
final norm and the head on the last, and layers are numbered from 0 on each. Within a layer, tensor
rank = expert-tensor rank * expert ranks + expert rank. Context-parallel ranks share their files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from builder.errors import LimitError
from builder.families import Change, Expected, Family, Group, Split, Stage
from builder.safetensors_file import ALL

Config = Mapping[str, Any]

FLAGS: Mapping[str, str] = {"tp": "--tp", "pp": "--pp", "cp": "--cp", "moe_ep": "--moe-ep"}
"""A layout's counts of ranks as the commands that make a checkpoint call them."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows and columns of a source tensor seen as a matrix; `padding` rows of zeros after them.

    `shape` includes the padding. With `transposed`, rows are the columns of what is stored.
    """

    source: str
    shape: tuple[int, ...]
    rows: tuple[slice, ...]
    columns: slice = field(default_factory=lambda: ALL)
    padding: int = 0
    transposed: bool = False
    change: Change | None = None


@dataclass(frozen=True, kw_only=True)
class RankTensor:
    """A tensor of one rank: its pieces one after the other in C order."""

    name: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    dtype: str | None = None
    """Where it isn't the model's."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model is divided: over `tp` ranks within a layer, over `pp` ranks by layers.

    The `tp` ranks hold a mixture's experts as `moe_ep` groups, each expert of a group divided over
    `tp / moe_ep` ranks. `cp` ranks divide the context and share their weights. With
    `parallel_embedding` the embedding is divided, by rows or, with `embedding_sharding_dim` 1, by
    columns; else every rank has all of it. `gpus_per_node` is TensorRT-LLM's default where ranks
    are on several machines; it divides nothing.
    """

    tp: int = 1
    pp: int = 1
    cp: int = 1
    moe_ep: int = 1
    parallel_embedding: bool = False
    embedding_sharding_dim: int = 0
    gpus_per_node: int = 8

    @staticmethod
    def of_config(config: Config) -> Layout:
        """How a checkpoint's config says that it is divided."""
        mapping = config.get("mapping") or {}
        return Layout(
            tp=int(mapping.get("tp_size", 1)),
            pp=int(mapping.get("pp_size", 1)),
            cp=int(mapping.get("cp_size", 1)),
            moe_ep=max(1, int(mapping.get("moe_ep_size", 1))),
            parallel_embedding=bool(config.get("use_parallel_embedding", False)),
            embedding_sharding_dim=int(config.get("embedding_sharding_dim", 0)),
            gpus_per_node=int(mapping.get("gpus_per_node", 8)),
        )

    @property
    def world_size(self) -> int:
        """How many ranks there are."""
        return self.tp * self.pp * self.cp

    @property
    def files(self) -> int:
        """How many ranks have weights of their own."""
        return self.tp * self.pp

    @property
    def moe_tp(self) -> int:
        """Over how many ranks one expert is divided."""
        return self.tp // self.moe_ep

    def mapping(self) -> dict[str, int]:
        """The `mapping` object of a checkpoint's config."""
        mapping = {"world_size": self.world_size, "tp_size": self.tp, "pp_size": self.pp}
        if self.cp > 1:
            mapping["cp_size"] = self.cp
        if self.gpus_per_node != Layout.gpus_per_node:
            mapping["gpus_per_node"] = self.gpus_per_node
        if self.moe_ep > 1:
            mapping |= {"moe_tp_size": self.moe_tp, "moe_ep_size": self.moe_ep}
        return mapping

    def of(self, family: Family) -> Layout:
        """This layout as the family's class in TensorRT-LLM takes it."""
        forced = family.always_parallel_embedding and self.tp > 1
        return replace(self, parallel_embedding=True) if forced else self

    def check(self, family: Family, config: Config, *, names: Mapping[str, str] = FLAGS) -> None:
        """Raise LimitError, with the caller's `names`, for a model that can't be divided so."""
        tp, pp, cp, moe_ep = (names[each] for each in FLAGS)
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        layers, experts = config["num_hidden_layers"], (config.get("moe") or {}).get("num_experts")
        tensor = f"can't be divided over {self.tp} tensor-parallel ranks"
        for allowed, what, found, do in (
            (
                heads % self.tp == 0,
                tensor,
                f"{heads} attention heads",
                f"choose a {tp} that divides them",
            ),
            (
                0 in (kv_heads % self.tp, self.tp % kv_heads),
                tensor,
                f"{kv_heads} key-value heads",
                f"choose a {tp} that divides them, or that they divide",
            ),
            (
                layers >= self.pp,
                f"can't be divided over {self.pp} pipeline ranks",
                f"{layers} layers",
                f"choose a {pp} of at most {layers}",
            ),
            (
                self.pp == 1 or family.pipeline,
                "can't be divided over pipeline ranks by TensorRT-LLM",
                f"{pp} {self.pp}",
                f"divide it with {tp}",
            ),
            (
                self.cp == 1 or family.context,
                "can't be divided over context-parallel ranks by TensorRT-LLM",
                f"{cp} {self.cp}",
                f"leave {cp} out",
            ),
            (
                heads % (self.tp * self.cp) == 0,
                f"can't be divided over {self.cp} context-parallel times {self.tp} tensor ranks",
                f"{heads} attention heads",
                f"choose a {cp} and {tp} whose product divides them",
            ),
            (
                self.tp % self.moe_ep == 0,
                f"can't be divided over {self.moe_ep} expert-parallel ranks",
                f"{self.tp} tensor-parallel ranks",
                f"choose a {moe_ep} that divides {tp}",
            ),
            (
                self.moe_ep == 1 or (experts and experts % self.moe_ep == 0),
                f"can't be divided over {self.moe_ep} expert-parallel ranks",
                f"{experts} experts" if experts else "a model without experts",
                f"choose a {moe_ep} that divides them" if experts else f"leave {moe_ep} out",
            ),
        ):
            if not allowed:
                raise LimitError(f"the model {what}", found=found, do=do)

    def layers(self, pp_rank: int, count: int) -> range:
        """The layers of a pipeline rank; where they don't divide, the first ranks have one more."""
        each, more = divmod(count, self.pp)
        start = pp_rank * each + min(pp_rank, more)
        return range(start, start + each + (pp_rank < more))

    def experts(self, tp_rank: int, config: Config) -> range | None:
        """The experts of a tensor rank, None for a model without."""
        count = (config.get("moe") or {}).get("num_experts") or 0
        if not count:
            return None
        each = count // self.moe_ep
        first = tp_rank % self.moe_ep * each
        return range(first, first + each)

    def tensors(self, family: Family, config: Config, rank: int) -> Iterator[RankTensor]:
        """Every tensor of a file's rank. `config` is the checkpoint's.

        Raises LimitError for a tensor that can't be divided so.
        """
        pp_rank, tp_rank = divmod(rank, self.tp)
        stages = {Stage.EACH}
        stages |= {Stage.FIRST} if pp_rank == 0 else set()
        stages |= {Stage.LAST} if pp_rank == self.pp - 1 else set()
        for expected in family.expected(
            config,
            layers=self.layers(pp_rank, config["num_hidden_layers"]),
            stages=stages,
            experts=self.experts(tp_rank, config),
        ):
            yield self._tensor(expected, config, tp_rank)

    def _tensor(self, expected: Expected, config: Config, tp_rank: int) -> RankTensor:
        pieces = [
            self._piece(expected, index, group, config, tp_rank)
            for groups in expected.parts
            for index, group in enumerate(groups)
        ]
        each = pieces[: len(expected.parts[0])]
        shape = (sum(piece.shape[0] for piece in each), *each[0].shape[1:])
        if expected.experts:
            shape = (len(expected.parts), *shape)
        return RankTensor(
            name=expected.name, shape=shape, pieces=tuple(pieces), dtype=expected.dtype
        )

    def _piece(
        self, expected: Expected, index: int, group: Group, config: Config, tp_rank: int
    ) -> Piece:
        split, ranks, rank = expected.split, self.tp, tp_rank
        if split is Split.EMBEDDING:
            by_row = Split.COLUMNS if self.embedding_sharding_dim else Split.VOCABULARY
            split = by_row if self.parallel_embedding else Split.COPY
        if expected.experts:
            ranks, rank = self.moe_tp, tp_rank // self.moe_ep
        start, stop, padding, columns = 0, group.shape[0], 0, group.columns
        if ranks == 1 or split is Split.COPY:
            pass
        elif split is Split.COLUMNS:
            each = _share(expected.name, group.shape[1], ranks)
            first = (columns.start or 0) + rank * each
            columns = slice(first, first + each)
        elif split is Split.FIRST_RANK:
            stop, padding = (stop, 0) if rank == 0 else (0, stop)
        elif split is Split.VOCABULARY:
            each = -(-stop // ranks)
            start, stop = (min(stop, n * each) for n in (rank, rank + 1))
            padding = each - (stop - start)
        elif _by_kv_head(split, index) and config["num_key_value_heads"] < ranks:
            # fewer heads than ranks: neighbours share one
            each = stop // config["num_key_value_heads"]
            start = rank * config["num_key_value_heads"] // ranks * each
            stop = start + each
        else:
            each = _share(expected.name, stop, ranks)
            start, stop = rank * each, (rank + 1) * each
        return _cut(group, start, stop, padding, columns)


def _by_kv_head(split: Split, part: int) -> bool:
    return split is Split.KV_HEADS or (split is Split.HEADS and part > 0)


def _share(name: str, length: int, ranks: int) -> int:
    if length % ranks:
        raise LimitError(
            f"the tensor {name} can't be divided over {ranks} ranks",
            found=f"{length} rows or columns",
            do="choose a --tp that divides them",
        )
    return length // ranks


def _cut(group: Group, start: int, stop: int, padding: int, columns: slice) -> Piece:
    """The rows from `start` to `stop` of a group's, as slices of the source's."""
    rows = []
    at = start
    while at < stop:
        number, inside = divmod(at, group.length)
        taken = min(group.length - inside, stop - at)
        begin = group.start + number * group.every + inside
        rows.append(slice(begin, begin + taken))
        at += taken
    width = group.shape[1:]
    if columns != ALL:
        width = (columns.stop - columns.start,)
    return Piece(
        source=group.source,
        shape=(stop - start + padding, *width),
        rows=tuple(rows),
        columns=columns,
        padding=padding,
        transposed=group.transposed,
        change=group.change,
    )
