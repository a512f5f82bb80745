"""What a checkpoint's config says of an encoder's embeddings, and what is for decoders only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.errors import ArtifactError, LimitError
from builder.families import is_encoder
from builder.families.bert import EMBEDDING

__all__ = ["POOLINGS", "Encoder", "is_encoder", "refuse_encoder"]

POOLINGS = ("mean", "cls", "max")


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How an embedding is made of a text's hidden states.

    It has `dimensions` numbers; `pooling` is one of POOLINGS; `normalize` makes its length 1.
    `max_seq_len` is the model's own limit in tokens, where it is below its positions', which begin
    at `first_position`. It may be cut to `matryoshka_dimensions`: None for never, () for any.
    """

    dimensions: int
    pooling: str
    normalize: bool
    max_seq_len: int | None
    first_position: int
    matryoshka_dimensions: tuple[int, ...] | None

    @staticmethod
    def of(config: Mapping[str, Any]) -> Encoder:
        """What the config of an encoder's checkpoint says. Raises ArtifactError for nonsense.

        A checkpoint of upstream's converter says nothing of embeddings: see EMBEDDING.
        """
        said = {**EMBEDDING, **(config.get("embedding") or {})}
        pooling, sizes = said["pooling"], said["matryoshka_dimensions"]
        if pooling not in POOLINGS:
            raise ArtifactError(
                "the checkpoint's config: embedding.pooling is not one that is known",
                found=repr(pooling),
                do=f"known are {', '.join(POOLINGS)}",
            )
        pad = int(config.get("pad_token_id") or 0)
        return Encoder(
            dimensions=int(config["hidden_size"]),
            pooling=pooling,
            normalize=bool(said["normalize"]),
            max_seq_len=said["max_seq_len"],
            # transformers' RoBERTa numbers positions from behind its pad id
            first_position=pad + 1 if config.get("is_roberta") else 0,
            matryoshka_dimensions=None if sizes is None else tuple(map(int, sizes)),
        )


def refuse_encoder(architecture: str, what: str) -> None:
    """Raise LimitError, saying `what` is for decoders, where the architecture is an encoder's."""
    if is_encoder(architecture):
        raise LimitError(
            f"{what} is for models that write text",
            found=f"{architecture}, an encoder",
            do="build it with --target openvino, which serves its embeddings",
        )
