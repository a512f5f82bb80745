"""LoRA adapters that are loaded at the start: whether the engine reads them as they are meant."""

from __future__ import annotations

from collections.abc import Iterator

from builder.errors import ArtifactError
from builder.lora import CONFIG_FILE, misread_modules, read_arrays
from builder.targets.tensorrt_llm.flags import LORA_MODULES
from triton_repo.lint.finding import Finding, error
from triton_repo.lint.repository import Repository


def misread(repository: Repository) -> Iterator[Finding]:
    """Adapters that can't be read, and those of which TensorRT-LLM would take other numbers."""
    for model in repository.of("tensorrt_llm"):
        engine = repository.engine(model)
        value = model.values.get("lora_prefetch_dir")
        if engine is None or value is None:
            continue
        upstream = engine.target == "tensorrt-llm"
        wrong = misread_modules(engine.pretrained_config) if upstream else ()
        for file in sorted(repository.resolve(value).glob(f"*/{CONFIG_FILE}")):
            where = f"{value}/{file.parent.name}"
            try:
                _, rows = read_arrays(file.parent)
            except ArtifactError as why:
                yield error(where, "", why.found or why.what, "write the adapter again")
                continue
            for name in wrong:
                if LORA_MODULES[name] in rows[:, 0]:
                    do = "leave it out: TensorRT-LLM takes it for a square of the hidden size"
                    yield error(where, "lora_config", f"an adapter of {name}", do)
