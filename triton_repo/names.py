"""What the models of a repository are called: upstream's names, and a prefix where several engines
share one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Names:
    """One engine's models. `draft` is the model of the engine that drafts for it, where there is
    one; `version` the folder of each model that Triton loads; `suffix` tells a draft's engine from
    the one it drafts for."""

    prefix: str = ""
    suffix: str = ""
    draft: str | None = None
    version: int = 1

    @property
    def preprocessing(self) -> str:
        """Text in, token ids out."""
        return f"{self.prefix}preprocessing"

    @property
    def tensorrt_llm(self) -> str:
        """The engine."""
        return f"{self.prefix}tensorrt_llm{self.suffix}"

    @property
    def postprocessing(self) -> str:
        """Token ids in, text out."""
        return f"{self.prefix}postprocessing"

    @property
    def ensemble(self) -> str:
        """The three as one."""
        return f"{self.prefix}ensemble"

    @property
    def tensorrt_llm_bls(self) -> str:
        """The three as one, with what an ensemble can't do."""
        return f"{self.prefix}tensorrt_llm_bls"

    @property
    def embedding(self) -> str:
        """An encoder's engine: token ids in, an embedding out."""
        return f"{self.prefix}embedding"

    @property
    def encoder_dir(self) -> str:
        """Where an encoder's engine and tokenizer lie, as `engine_dir`."""
        return f"{self.embedding}/{self.version}"

    @property
    def engine_dir(self) -> str:
        """Where engine and tokenizer lie, from the repository's root: Triton runs there."""
        return f"{self.tensorrt_llm}/{self.version}"

    def of(self, model: str) -> str:
        """The name here of upstream's `model`."""
        name: str = getattr(self, model)
        return name
