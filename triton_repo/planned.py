"""An engine with its place in a repository: what the manifest says of it, and its files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from builder import digest
from builder import manifest as manifests
from builder.artifact import Staging
from builder.errors import ArtifactError, LimitError
from builder.limits import LIMITS
from builder.progress import Progress
from builder.targets.llmapi.files import link
from text.errors import UnusableFolderError
from triton_repo import models, runtime, xgrammar_info
from triton_repo.contract import MODELS
from triton_repo.engine import Engine
from triton_repo.llmapi import repository
from triton_repo.llmapi.engine import LlmApiEngine
from triton_repo.models.pbtxt import to_text
from triton_repo.names import Names
from triton_repo.settings import rules
from triton_repo.settings.options import RepositoryOptions

CONFIG = "config.pbtxt"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """An engine; `options` are `asked` and what the engine adds to them.

    `adapters` are LoRA adapters in Hugging Face's form by name. A draft has only its engine's
    model among `models`.
    """

    engine: Engine
    name: str
    names: Names
    asked: RepositoryOptions
    options: RepositoryOptions
    adapters: Mapping[str, Path]
    models: tuple[str, ...] = MODELS

    def about(self) -> dict[str, Any]:
        """What the manifest says of it."""
        called = {model: self.names.of(model) for model in self.models}
        if self.names.draft:
            called["draft"] = self.names.draft
        return {
            "name": self.name,
            "target": self.engine.target,
            "prefix": self.names.prefix,
            "models": called,
            "tokenizer_dir": self.names.engine_dir,
            "engine_dir": self.names.engine_dir,
            **{limit: getattr(self.engine, limit) for limit in LIMITS},
            "world_size": self.engine.world_size,
            "adapters": {name: number for number, name in self._numbered()},
        }

    def source(self) -> dict[str, Any]:
        """What it is made from."""
        adapters = {name: manifests.identity(path) for name, path in self.adapters.items()}
        code = {
            f"{model}/{name}": digest.of(file)
            for model in self.models
            for name, file in runtime.files(model).items()
        }
        return {**manifests.identity(self.engine.path), "adapters": adapters, "runtime": code}

    def settings(self) -> dict[str, Any]:
        """What it was asked to be; the rest of its options follows from the engines."""
        return {"name": self.name, "models": self.models, **asdict(self.asked)}

    def place(self, staging: Staging, progress: Progress) -> None:
        """Write its models. Raises ArtifactError, ModelError and LimitError for what can't be."""
        own = staging.path / self.names.engine_dir
        own.mkdir(parents=True)
        options = self._guided(own)
        for model, build in models.builders().items():
            if model in self.models:
                write_model(staging, model, build(self.engine, options, self.names), self.names)
        if self.adapters:
            self._adapters(own)
        link_engine(self.engine, self.names.engine_dir, staging, progress)

    def _numbered(self) -> list[tuple[int, str]]:
        return list(enumerate(self.adapters, start=1))

    def _adapters(self, own: Path) -> None:
        """Write the adapters; those that are arrays already are of an engine of these ranks."""
        from builder.lora import is_prefetched, read_adapter, write_prefetch

        folder = own / rules.ADAPTERS
        config, modules = self.engine.pretrained_config, self.engine.lora_target_modules
        for number, name in self._numbered():
            adapter = self.adapters[name]
            if is_prefetched(adapter):
                shutil.copytree(adapter, folder / str(number))
            else:
                write_prefetch(folder, {number: read_adapter(adapter)}, config, modules)
            self._require_fit(name, folder / str(number))

    def _require_fit(self, name: str, folder: Path) -> None:
        """Refuse an adapter that the engine has no room for, or upstream's would apply wrongly.

        Raises LimitError.
        """
        from builder.lora import misread_modules, read_arrays
        from builder.targets.tensorrt_llm.flags import LORA_MODULES

        engine, rows = self.engine, read_arrays(folder)[1]
        known = {LORA_MODULES[each] for each in engine.lora_target_modules}
        rank = int(rows[:, 2].max(initial=0))
        if rank > engine.max_lora_rank or not known >= {*rows[:, 0].tolist()}:
            raise LimitError(
                f"the engine doesn't take the adapter {name}",
                found=f"a rank of {rank} and modules {sorted({*rows[:, 0].tolist()})} where it"
                f" takes {engine.max_lora_rank} and {sorted(known)}",
                do="build it with this adapter among its --lora",
            )
        wrong = misread_modules(engine.pretrained_config)
        if engine.target == "tensorrt-llm" and any(LORA_MODULES[w] in rows[:, 0] for w in wrong):
            raise LimitError(
                "TensorRT-LLM misreads adapters of attention's output where its heads aren't as"
                " wide as the hidden state",
                found=f"{wrong[0]} in {name}",
                do="train one without o_proj, or merge it into the model",
            )

    def _guided(self, own: Path) -> RepositoryOptions:
        """The options, once what guided decoding needs of the tokenizer is written."""
        if self.options.xgrammar_tokenizer_info_path != rules.info_path(self.names):
            return self.options
        try:
            text = xgrammar_info.text(self.engine.path, self.engine.vocab_size)
        except UnusableFolderError as error:
            if self.asked.guided_decoding_backend is None:
                return replace(
                    self.options, guided_decoding_backend="none", xgrammar_tokenizer_info_path=None
                )
            raise LimitError("guided decoding isn't possible", found=str(error)) from error
        (own / rules.XGRAMMAR_INFO).write_text(text)
        return self.options


def write_model(staging: Staging, model: str, config: Any, names: Names) -> None:
    """A model's ModelConfig, and in its version's folder what it is made of."""
    folder = staging.path / names.of(model)
    version = folder / str(names.version)
    version.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(to_text(config))
    for name, file in runtime.files(model).items():
        (version / name).parent.mkdir(parents=True, exist_ok=True)
        (version / name).write_bytes(file.read_bytes())
    if not any(version.iterdir()):
        # Triton wants the folder, and tools that copy repositories lose empty ones
        (version / ".keep").touch()


def link_engine(engine: Engine, place: str, staging: Staging, progress: Progress) -> None:
    """The engine's files and manifest, to `place`; their digests are the engine manifest's.

    Raises ArtifactError for files that are gone.
    """
    entries, own = engine.manifest.files, staging.path / place
    done, total = 0, engine.manifest.size_bytes
    for name in (manifests.NAME, *entries):
        if not (engine.path / name).is_file():
            raise ArtifactError(
                f"{engine.path} is not a whole engine",
                found=f"no {name}",
                do="build it with trtbuild build",
            )
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        link(engine.path / name, own / name)
        if entry := entries.get(name):
            staging.record(f"{place}/{name}", entry.digest)
            done += entry.size_bytes
        progress(done, total)


@dataclass(frozen=True, kw_only=True)
class PlannedLlmApi:
    """An engine of the LLM API, whose settings are in its own model.yaml."""

    engine: LlmApiEngine
    name: str
    names: Names

    def about(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return repository.about(self.engine, self.names, self.name)

    def source(self) -> dict[str, Any]:
        """What it is made from."""
        return {**manifests.identity(self.engine.path), "runtime": repository.digests()}

    def settings(self) -> dict[str, Any]:
        """Every setting that changes its bytes."""
        return {"name": self.name}

    def place(self, staging: Staging, progress: Progress) -> None:
        """Write its model. Raises ArtifactError for files that are gone."""
        repository.place(self.engine, self.names, staging, progress=progress)
