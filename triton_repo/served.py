"""What a repository serves, as its manifest says: all that a server or a launcher needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import manifest as manifests
from builder.errors import ArtifactError
from builder.limits import LIMITS

KIND = "repository"


@dataclass(frozen=True, kw_only=True)
class ServedEmbedding:
    """What an encoder gives: so many `dimensions`, of length 1 where it is to `normalize`.

    It may be cut to `matryoshka_dimensions`: None for never, () for any.
    """

    dimensions: int
    normalize: bool
    matryoshka_dimensions: tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True)
class ServedEngine:
    """One engine of a repository; limits in tokens and requests.

    `models` maps upstream's name of each model to its name here, and "draft" to that of an engine
    that drafts; an encoder's only one is "embedding". `adapters` maps a LoRA adapter's name to the
    id that requests give.
    """

    name: str
    target: str
    prefix: str
    models: Mapping[str, str]
    tokenizer_dir: Path
    engine_dir: Path
    max_batch_size: int
    max_seq_len: int
    max_input_len: int
    max_num_tokens: int
    max_beam_width: int
    world_size: int
    adapters: Mapping[str, int]
    embedding: ServedEmbedding | None = None

    @property
    def model(self) -> str:
        """The model that runs the engine, by its name here."""
        return self.models["embedding" if self.embedding else "tensorrt_llm"]


@dataclass(frozen=True, kw_only=True)
class ServedRepository:
    """A repository and its engines; what is asked of it is the first engine's."""

    path: Path
    engines: tuple[ServedEngine, ...]

    @property
    def first(self) -> ServedEngine:
        """The engine that is meant where none is named."""
        return self.engines[0]

    @property
    def name(self) -> str:
        """The served model's name."""
        return self.first.name

    @property
    def target(self) -> str:
        """What runs it."""
        return self.first.target

    @property
    def tokenizer_dir(self) -> Path:
        """Where its tokenizer is."""
        return self.first.tokenizer_dir

    @property
    def engine_dir(self) -> Path:
        """Where the engine is."""
        return self.first.engine_dir

    @property
    def max_batch_size(self) -> int:
        """Requests in flight at once."""
        return self.first.max_batch_size

    @property
    def max_seq_len(self) -> int:
        """Tokens of prompt and answer."""
        return self.first.max_seq_len

    @property
    def max_input_len(self) -> int:
        """Tokens of a prompt."""
        return self.first.max_input_len

    @property
    def max_num_tokens(self) -> int:
        """Tokens of a step."""
        return self.first.max_num_tokens

    @property
    def max_beam_width(self) -> int:
        """Beams of a request."""
        return self.first.max_beam_width

    @property
    def world_size(self) -> int:
        """Ranks of the engine."""
        return self.first.world_size


def describe(repository: Path) -> ServedRepository:
    """What the repository in `repository` serves. Raises ArtifactError where it isn't ours."""
    about = manifests.read(repository, KIND).about
    path = repository.resolve()
    try:
        engines = tuple(_engine(path, entry) for entry in about["engines"])
        if not engines:
            raise ValueError("engines: none")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{repository / manifests.NAME} doesn't say what the repository serves",
            found=f"about.{error}",
            do="write it again with trtbuild repo",
        ) from error
    return ServedRepository(path=path, engines=engines)


def _engine(repository: Path, entry: Mapping[str, Any]) -> ServedEngine:
    return ServedEngine(
        name=str(entry["name"]),
        target=str(entry["target"]),
        prefix=str(entry["prefix"]),
        models={str(key): str(value) for key, value in entry["models"].items()},
        tokenizer_dir=repository / str(entry["tokenizer_dir"]),
        engine_dir=repository / str(entry["engine_dir"]),
        world_size=int(entry["world_size"]),
        adapters={str(key): int(value) for key, value in entry["adapters"].items()},
        **{limit: int(entry[limit]) for limit in LIMITS},
        embedding=_embedding(entry.get("embedding")),
    )


def _embedding(entry: Mapping[str, Any] | None) -> ServedEmbedding | None:
    if entry is None:
        return None
    sizes = entry["matryoshka_dimensions"]
    return ServedEmbedding(
        dimensions=int(entry["dimensions"]),
        normalize=bool(entry["normalize"]),
        matryoshka_dimensions=None if sizes is None else tuple(map(int, sizes)),
    )
