"""An encoder's engine with its place in a repository, where it is one model alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from builder import digest
from builder import manifest as manifests
from builder.artifact import Staging
from builder.encoder import Encoder, is_encoder
from builder.errors import LimitError
from builder.limits import LIMITS
from builder.progress import Progress
from triton_repo import runtime
from triton_repo.contract import EMBEDDING
from triton_repo.engine import Engine
from triton_repo.models import embedding
from triton_repo.names import Names
from triton_repo.planned import link_engine, write_model
from triton_repo.settings.options import SETTINGS, RepositoryOptions

HONOURED = (
    "triton_max_batch_size",
    "max_queue_delay_microseconds",
    "max_queue_size",
    "default_timeout_microseconds",
    "timeout_action",
    "allow_timeout_override",
)
"""Settings that an encoder's model has: those of Triton's queue."""


def runs_encoder(engine: Engine) -> bool:
    """Whether it gives embeddings."""
    return is_encoder(engine.architecture)


@dataclass(frozen=True, kw_only=True)
class PlannedEncoder:
    """An engine that gives embeddings. `options` are those of Triton's queue."""

    engine: Engine
    name: str
    names: Names
    options: RepositoryOptions

    def require(self) -> None:
        """Raise LimitError, naming it, for a setting that an encoder has no use for."""
        for name, each in SETTINGS.items():
            value = getattr(self.options, name)
            if value != each.default and name not in HONOURED:
                raise LimitError(
                    f"{name} is for engines that write text, and {self.name} is an encoder",
                    found=f"{name} {value}",
                    do=f"an encoder has {', '.join(HONOURED)}; of several engines, address the"
                    f" other: --set NAME:{name}=…",
                )
        size = self.options.triton_max_batch_size
        if size is not None and size > self.engine.max_batch_size:
            raise LimitError(
                f"triton_max_batch_size is at most the engine's {self.engine.max_batch_size}",
                found=str(size),
                do="build the engine for more, or ask for less",
            )

    def about(self) -> dict[str, Any]:
        """What the manifest says of it."""
        made = Encoder.of(self.engine.pretrained_config)
        return {
            "name": self.name,
            "target": self.engine.target,
            "prefix": self.names.prefix,
            "models": {EMBEDDING: self.names.embedding},
            "tokenizer_dir": self.names.encoder_dir,
            "engine_dir": self.names.encoder_dir,
            **{limit: getattr(self.engine, limit) for limit in LIMITS},
            "world_size": self.engine.world_size,
            "adapters": {},
            "embedding": {
                "dimensions": made.dimensions,
                "normalize": made.normalize,
                "matryoshka_dimensions": made.matryoshka_dimensions,
            },
        }

    def source(self) -> dict[str, Any]:
        """What it is made from."""
        code = {f"{EMBEDDING}/{n}": digest.of(f) for n, f in runtime.files(EMBEDDING).items()}
        return {**manifests.identity(self.engine.path), "runtime": code}

    def settings(self) -> dict[str, Any]:
        """What it was asked to be."""
        asked = {name: getattr(self.options, name) for name in HONOURED}
        return {"name": self.name, "models": (EMBEDDING,), **asked}

    def place(self, staging: Staging, progress: Progress) -> None:
        """Write its model. Raises ArtifactError for an engine whose files are gone."""
        config = embedding.config(self.engine, self.options, self.names)
        write_model(staging, EMBEDDING, config, self.names)
        link_engine(self.engine, self.names.encoder_dir, staging, progress)
